//! Reads X.509 certificates of any version and with any kind of key: their dates, keys and channel binding. webpki gives no
//! access to these, and rejects version 1.

use ring::digest;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::{DigitallySignedStruct, SignatureScheme};

/// The parts of an X.509 certificate (RFC 5280 §4.1). Parsing verifies nothing.
pub(crate) struct X509Certificate<'a> {
    der: &'a [u8],
    /// Seconds since 1970.
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    /// The whole SubjectPublicKeyInfo.
    pub(crate) key_info: &'a [u8],
    /// The key's algorithm identifier, without its tag and length.
    key_algorithm: &'a [u8],
    key: &'a [u8],
    /// The algorithm identifier of the certificate's signature, without its tag and length.
    signature_algorithm: &'a [u8],
}

impl<'a> X509Certificate<'a> {
    /// `None`: `der` is not a certificate.
    pub(crate) fn parse(der: &'a [u8]) -> Option<X509Certificate<'a>> {
        let mut outer = contents(&mut { der }, SEQUENCE)?;
        let mut body = contents(&mut outer, SEQUENCE)?;
        let signature_algorithm = contents(&mut outer, SEQUENCE)?;
        if body.first() == Some(&VERSION) {
            contents(&mut body, VERSION)?;
        }
        contents(&mut body, INTEGER)?; // The serial number.
        contents(&mut body, SEQUENCE)?; // The signature's algorithm, repeated.
        contents(&mut body, SEQUENCE)?; // The issuer.
        let mut validity = contents(&mut body, SEQUENCE)?;
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        contents(&mut body, SEQUENCE)?; // The subject.
        let mut key_info = element(&mut body)?.whole;
        let whole_key_info = key_info;
        let mut key_info = contents(&mut key_info, SEQUENCE)?;
        let key_algorithm = contents(&mut key_info, SEQUENCE)?;
        // The first byte is the number of unused bits: 0 for keys.
        let key = contents(&mut key_info, BIT_STRING)?.strip_prefix(&[0])?;
        Some(X509Certificate {
            der,
            not_before,
            not_after,
            key_info: whole_key_info,
            key_algorithm,
            key,
            signature_algorithm,
        })
    }

    /// Its hash for the channel binding `tls-server-end-point` (RFC 5929 §4.1), by the hash function of its signature, or by
    /// SHA-256 if that is MD5 or SHA-1. `None`: the signature has no hash function, or an unknown one.
    pub(crate) fn channel_binding(&self) -> Option<Vec<u8>> {
        let mut algorithm = self.signature_algorithm;
        let hash = match contents(&mut algorithm, OID)? {
            MD5_WITH_RSA | SHA1_WITH_RSA | ECDSA_WITH_SHA1 => &digest::SHA256,
            SHA256_WITH_RSA | ECDSA_WITH_SHA256 => &digest::SHA256,
            SHA384_WITH_RSA | ECDSA_WITH_SHA384 => &digest::SHA384,
            SHA512_WITH_RSA | ECDSA_WITH_SHA512 => &digest::SHA512,
            RSA_PSS => pss_hash(algorithm)?,
            _ => return None,
        };
        Some(digest::digest(hash, self.der).as_ref().to_vec())
    }

    /// Whether this certificate's key made the signature of `message`. The error, to be put after "has", says what is not
    /// supported.
    pub(crate) fn verify(
        &self,
        algorithms: &WebPkiSupportedAlgorithms,
        message: &[u8],
        signed: &DigitallySignedStruct,
    ) -> Result<bool, String> {
        // These are the same signatures, by a key that is restricted to PSS (RFC 8446 §4.2.3).
        let scheme = match signed.scheme {
            RSA_PSS_PSS_SHA256 => SignatureScheme::RSA_PSS_SHA256,
            RSA_PSS_PSS_SHA384 => SignatureScheme::RSA_PSS_SHA384,
            RSA_PSS_PSS_SHA512 => SignatureScheme::RSA_PSS_SHA512,
            other => other,
        };
        if let Some(bits) = self.rsa_bits()
            && !RSA_BITS.contains(&bits)
        {
            return Err(format!(
                "an RSA key of {bits} bits, and only {} to {} are supported",
                RSA_BITS.start(),
                RSA_BITS.end()
            ));
        }
        let known = algorithms
            .mapping
            .iter()
            .find(|(known, _)| *known == scheme);
        let is_rsa = matches!(oid(self.key_algorithm), Some(RSA | RSA_PSS));
        let mut fitting = known
            .map_or(&[][..], |(_, known)| known)
            .iter()
            .filter(|known| {
                let wanted = known.public_key_alg_id();
                wanted.as_ref() == self.key_algorithm || is_rsa && oid(&wanted) == Some(RSA)
            });
        match fitting.next() {
            None => Err(format!("{}, which is not supported", self.key_kind())),
            Some(algorithm) => {
                let verified = algorithm.verify_signature(self.key, message, signed.signature());
                Ok(verified.is_ok())
            }
        }
    }

    fn key_kind(&self) -> &'static str {
        let mut algorithm = self.key_algorithm;
        match (contents(&mut algorithm, OID), oid(algorithm)) {
            (Some(EC), Some(P521)) => "a key on the curve P-521",
            (Some(EC), _) => "a key on an uncommon curve",
            _ => "a key of an uncommon kind",
        }
    }

    /// The size of its key; `None` unless that is an RSA key.
    fn rsa_bits(&self) -> Option<usize> {
        if !matches!(oid(self.key_algorithm)?, RSA | RSA_PSS) {
            return None;
        }
        let modulus = contents(&mut contents(&mut { self.key }, SEQUENCE)?, INTEGER)?;
        let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
        let first = modulus.get(zeros)?;
        Some((modulus.len() - zeros) * 8 - first.leading_zeros() as usize)
    }
}

/// Signatures by keys that are restricted to PSS (RFC 8446 §4.2.3). rustls has no names for them.
pub(crate) const RSA_PSS_PSS_SHA256: SignatureScheme = SignatureScheme::Unknown(0x0809);
pub(crate) const RSA_PSS_PSS_SHA384: SignatureScheme = SignatureScheme::Unknown(0x080a);
pub(crate) const RSA_PSS_PSS_SHA512: SignatureScheme = SignatureScheme::Unknown(0x080b);

/// Sizes of RSA keys that ring supports: 2048 to 8192 bits, after it rounds the size up to whole bytes.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_041..=8_192;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`: the version in a certificate, and the hash in the parameters of PSS.
const VERSION: u8 = 0xa0;

// Object identifiers in DER, without tag and length (RFC 8017 appendix C, RFC 5480, RFC 5758).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const MD5_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4];
const SHA1_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5];
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
const SHA256_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
const SHA384_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12];
const SHA512_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0, 35];
const ECDSA_WITH_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1];
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const ECDSA_WITH_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const ECDSA_WITH_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
const SHA512: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3];
const SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 26];

/// The hash function in the parameters of a PSS signature (RFC 4055 §3.1), with SHA-256 in place of SHA-1 (RFC 5929 §4.1).
fn pss_hash(mut parameters: &[u8]) -> Option<&'static digest::Algorithm> {
    let mut parameters = contents(&mut parameters, SEQUENCE)?;
    if parameters.first() != Some(&VERSION) {
        return Some(&digest::SHA256); // The default, which is SHA-1.
    }
    let mut hash = contents(&mut parameters, VERSION)?;
    match oid(contents(&mut hash, SEQUENCE)?)? {
        SHA1 | SHA256 => Some(&digest::SHA256),
        SHA384 => Some(&digest::SHA384),
        SHA512 => Some(&digest::SHA512),
        _ => None,
    }
}

struct Element<'a> {
    tag: u8,
    contents: &'a [u8],
    whole: &'a [u8],
}

/// Takes one DER element off the front.
fn element<'a>(input: &mut &'a [u8]) -> Option<Element<'a>> {
    let start = *input;
    let (&tag, rest) = start.split_first()?;
    let (&short, mut rest) = rest.split_first()?;
    let length = if short < 0x80 {
        usize::from(short)
    } else {
        // At most 3 bytes of length: TLS has no larger certificates.
        let (bytes, after) = rest
            .split_at_checked(usize::from(short & 0x7f))
            .filter(|(b, _)| b.len() <= 3)?;
        rest = after;
        bytes
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte))
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    *input = rest;
    let whole = &start[..start.len() - rest.len()];
    Some(Element {
        tag,
        contents,
        whole,
    })
}

/// Takes one DER element of this tag off the front, and returns its contents.
fn contents<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    element(input)
        .filter(|element| element.tag == tag)
        .map(|element| element.contents)
}

/// The object identifier at the front of an algorithm identifier.
fn oid(mut algorithm: &[u8]) -> Option<&[u8]> {
    contents(&mut algorithm, OID)
}

/// Reads `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5) as seconds since 1970; 0 for earlier times.
fn time(input: &mut &[u8]) -> Option<u64> {
    let Element { tag, contents, .. } = element(input)?;
    let text = std::str::from_utf8(contents).ok()?.strip_suffix('Z')?;
    let (year, rest) = text.split_at_checked(text.len().checked_sub(10)?)?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse::<i64>().ok().filter(|_| is_number(text));
    let year = match (tag, year.len(), number(year)?) {
        (UTC_TIME, 2, year @ ..50) => 2000 + year,
        (UTC_TIME, 2, year) => 1900 + year,
        (GENERALIZED_TIME, 4, year) => year,
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2).and_then(number);
    let (month, day) = (part(0)?, part(2)?);
    // Days of the Gregorian calendar. The years here begin in March, so that the leap day is a year's last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + part(4)? * 3_600 + part(6)? * 60 + part(8)?;
    Some(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_in_seconds_since_1970() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "260301000000Z", Some(1_772_323_200)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "20000229120000Z", Some(951_825_600)),
            (UTC_TIME, "500101000000Z", Some(0)),
            (UTC_TIME, "2603010000Z", None),
            (GENERALIZED_TIME, "99999999999999999920000229120000Z", None),
            (UTC_TIME, "26030100-000Z", None),
            (UTC_TIME, "Z", None),
        ] {
            let mut der = vec![tag, u8::try_from(text.len()).unwrap()];
            der.extend_from_slice(text.as_bytes());
            assert_eq!(time(&mut &der[..]), expected, "{text}");
        }
    }

    #[test]
    fn truncated_certificate_is_none() {
        for der in [
            &[][..],
            &[0x30],
            &[0x30, 0x80],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 2, 0x30, 0],
        ] {
            assert!(X509Certificate::parse(der).is_none());
        }
    }

    /// Parses all public authorities, and some of them with each byte replaced.
    #[test]
    fn real_certificates_parse_and_broken_ones_do_not_panic() {
        let now = rustls::pki_types::UnixTime::now().as_secs();
        let real = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
        for der in real {
            let certificate = X509Certificate::parse(der).unwrap();
            assert!(now >= certificate.not_before && certificate.channel_binding().is_some());
            assert!(certificate.not_before < certificate.not_after);
        }
        for der in real.iter().step_by(16) {
            for at in 0..der.len() {
                for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                    let mut broken = der.to_vec();
                    broken[at] = byte;
                    if let Some(certificate) = X509Certificate::parse(&broken) {
                        certificate.channel_binding();
                        certificate.rsa_bits();
                        certificate.key_kind();
                    }
                }
            }
        }
    }
}
