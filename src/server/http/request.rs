//! A request as the handlers see it, and the parameters of queries and forms.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use percent_encoding::percent_decode;

/// The headers that handlers read. The reader drops all others.
pub(crate) const HEADERS: [&str; 10] = [
    "accept",
    "content-type",
    "cookie",
    "host",
    "origin",
    "sec-fetch-dest",
    "sec-fetch-site",
    "sec-purpose",
    "user-agent",
    "x-forwarded-for",
];

/// A request's id in the log, which error pages show when no login was found. A server counts up from a random number, so that
/// ids of two instances, or of two runs, rarely coincide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RequestId(pub u32);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// One whole request. Header names are lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub id: RequestId,
    /// `GET`, `POST`, …
    pub method: String,
    /// The path as it was sent, without the query.
    pub path: String,
    /// The query as it was sent, without `?`.
    pub query: String,
    /// The headers that handlers read: `HEADERS`.
    pub headers: Vec<(&'static str, String)>,
    /// The body, within the front's limit.
    pub body: Vec<u8>,
    /// The client's address: the peer's, or the one that a trusted proxy names.
    pub client: IpAddr,
}

/// Parameters that could not be parsed, with the error's description for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub &'static str);

impl Request {
    /// A request to `target` from a client on this machine.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn new(method: &str, target: &str) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Request {
            id: RequestId(0),
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            client: std::net::Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// The first header of this lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// All headers of this lower-case name, in order.
    pub(crate) fn headers(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(header, _)| *header == name)
            .map(|(_, value)| value.as_str())
    }

    /// All cookies of this name (RFC 6265 §5.4).
    pub(crate) fn cookies(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.headers("cookie").flat_map(|value| value.split(';'));
        pairs
            .filter_map(|pair| pair.trim_ascii().split_once('='))
            .filter(move |(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    pub(crate) fn accepts_html(&self) -> bool {
        self.header("accept")
            .is_some_and(|accept| accept.contains("text/html"))
    }

    /// Whether a person opens this address, rather than a page that loads it (an image, a script's request, a prefetch).
    /// Fetch Metadata §2.1 says so; browsers without it always send `Accept`.
    pub(crate) fn is_navigation(&self) -> bool {
        if self
            .header("sec-purpose")
            .is_some_and(|purpose| purpose.starts_with("prefetch"))
        {
            return false;
        }
        match (self.header("sec-fetch-dest"), self.header("accept")) {
            (Some(destination), _) => destination == "document",
            (None, Some(_)) => self.accepts_html(),
            (None, None) => true,
        }
    }

    /// Whether the body is JSON, by its media type; for other types, whether it begins with `{`.
    pub(crate) fn is_json(&self) -> bool {
        let content_type = self.header("content-type").unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default();
        match media_type.trim().to_ascii_lowercase().as_str() {
            "application/json" => true,
            "application/x-www-form-urlencoded" => false,
            _ => self.body.trim_ascii_start().first() == Some(&b'{'),
        }
    }
}

/// The decoded parameters of a query or a form (WHATWG URL §5.1, but invalid UTF-8 is an error).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn parse(text: &[u8]) -> Result<Params, Malformed> {
        let pairs = text
            .split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty());
        let params = pairs.map(|pair| {
            let split = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = split.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
            Ok((decode(name)?, decode(value)?))
        });
        params.collect::<Result<_, _>>().map(Params)
    }

    /// The value of `name`. An empty one counts as absent, and a repeated one is an error (RFC 6749 §3.1).
    pub(crate) fn single(&self, name: &str) -> Result<Option<&str>, Malformed> {
        let mut values = self
            .0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        let value = values.next();
        if values.next().is_some() {
            return Err(Malformed("A parameter is repeated."));
        }
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// The value of `name`; `None` also if it is empty or repeated.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.single(name).ok().flatten()
    }

    pub(crate) fn has_repeated(&self) -> bool {
        // A set, since a body can hold thousands of names: comparing all pairs would be a cheap denial of service.
        let mut names = HashSet::new();
        !self.0.iter().all(|(name, _)| names.insert(name))
    }
}

fn decode(text: &[u8]) -> Result<String, Malformed> {
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    let decoded = percent_decode(&spaced)
        .decode_utf8()
        .map_err(|_| Malformed("A parameter is not UTF-8."))?;
    if decoded.contains('\0') {
        return Err(Malformed("A parameter holds a NUL byte."));
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_strictly() {
        let params = Params::parse("a=1&b=%C3%A4+%2B&c&=x&&d=".as_bytes()).unwrap();
        assert_eq!(params.single("a"), Ok(Some("1")));
        assert_eq!(params.single("b"), Ok(Some("ä +")));
        assert_eq!(
            (params.single("c"), params.single("d"), params.single("e")),
            (Ok(None), Ok(None), Ok(None))
        );
        for bad in ["a=%FF", "a=%00", "%FF=a", "a=\u{0}"] {
            assert!(Params::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Params::parse(b"a=\xff").is_err());
    }

    #[test]
    fn repeated_parameters_are_found() {
        let params = Params::parse(b"a=1&b=2&a=1").unwrap();
        assert!(params.has_repeated() && params.single("a").is_err());
        assert!(!Params::parse(b"a=1&b=1").unwrap().has_repeated());
    }

    #[test]
    fn cookies_are_found_among_others() {
        let mut request = Request::new("GET", "/");
        for cookies in ["xa=1; a=2;b = 3", "c=4=5; a=6"] {
            request.headers.push(("cookie", cookies.to_owned()));
        }
        let cookies = |name| request.cookies(name).collect::<Vec<_>>();
        assert_eq!(cookies("a"), ["2", "6"]);
        assert_eq!(cookies("c"), ["4=5"]);
        assert!(cookies("d").is_empty());
    }
}
