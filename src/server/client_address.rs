//! The client's address: the peer's, or the one that a trusted proxy names. Also the networks that limits count by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The peers whose `X-Forwarded-For` is believed, and no others (RFC 9700 §4.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrustedProxies(Vec<Range>);

/// The addresses whose first `bits` bits are those of `base`. IPv4 addresses are mapped to IPv6 (`::ffff:0:0/96`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    base: u128,
    bits: u32,
}

impl Default for TrustedProxies {
    /// Loopback only: a proxy on the same machine. In a private network any machine may be a client.
    fn default() -> TrustedProxies {
        TrustedProxies::parse("127.0.0.0/8, ::1").expect("these are ranges, and a test reads them")
    }
}

impl TrustedProxies {
    /// Parses a comma-separated list of addresses and ranges, or `none`. The error is the first invalid entry.
    pub(crate) fn parse(text: &str) -> Result<TrustedProxies, String> {
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(TrustedProxies(Vec::new()));
        }
        let entries = text
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        entries
            .map(|entry| Range::parse(entry).ok_or_else(|| entry.to_owned()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The client's address: the peer's, or, if the peer is trusted, the right-most untrusted address in `forwarded_for` (all
    /// `X-Forwarded-For` headers, in order). Each proxy appends its peer's address, so everything to the left of the first
    /// untrusted address may be forged. The search ends at an entry that is no address.
    pub(crate) fn client<'a>(
        &self,
        peer: IpAddr,
        forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
    ) -> IpAddr {
        // `::ffff:1.2.3.4`, as a dual-stack socket reports it, becomes 1.2.3.4.
        let mut client = peer.to_canonical();
        for entry in forwarded_for.flat_map(|header| header.split(',')).rev() {
            if !self.is_trusted(client) {
                break;
            }
            match address(entry.trim()) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }

    pub(crate) fn is_trusted(&self, address: IpAddr) -> bool {
        let address = as_u128(address);
        self.0.iter().any(|range| range.contains(address))
    }
}

impl Range {
    fn parse(text: &str) -> Option<Range> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let (width, offset) = if address.is_ipv4() {
            (32, 96)
        } else {
            (128, 0)
        };
        let bits = bits.unwrap_or(width);
        (bits <= width).then(|| Range {
            base: as_u128(address),
            bits: bits + offset,
        })
    }

    fn contains(self, address: u128) -> bool {
        // A shift by 128 bits would overflow.
        self.bits == 0 || (address ^ self.base) >> (128 - self.bits) == 0
    }
}

/// Parses an entry of `X-Forwarded-For`: an address, with or without a port, IPv6 with or without brackets.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(entry);
    let address = bare
        .parse::<IpAddr>()
        .ok()
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address| address.to_canonical())
}

fn as_u128(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The client that limits count by: an IPv4 address, or an IPv6 /64, in which a client can choose its address.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// The network of an address, which usually has one owner: an IPv4 /24, an IPv6 /48.
pub(crate) fn wide_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() >> 8 << 8).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 80 << 80).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[&str]) -> String {
        TrustedProxies::default()
            .client(peer.parse().unwrap(), headers.iter().copied())
            .to_string()
    }

    #[test]
    fn untrusted_peer_cannot_forward() {
        assert_eq!(client("203.0.113.7", &["198.51.100.1"]), "203.0.113.7");
        assert_eq!(
            client("::ffff:203.0.113.7", &["198.51.100.1"]),
            "203.0.113.7"
        );
        // Nor can a peer in a private network.
        assert_eq!(client("10.1.1.1", &["198.51.100.1"]), "10.1.1.1");
        assert_eq!(client("fc00::7", &["198.51.100.1"]), "fc00::7");
    }

    #[test]
    fn trusted_proxy_names_the_last_untrusted_address() {
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        // Forged by the client, then appended to by the proxy.
        assert_eq!(
            client("127.0.0.1", &["6.6.6.6, 198.51.100.1"]),
            "198.51.100.1"
        );
        // Two trusted proxies in a row, in one header or two.
        assert_eq!(
            client("127.0.0.1", &["6.6.6.6, 198.51.100.1, 127.0.0.2"]),
            "198.51.100.1"
        );
        assert_eq!(
            client("::1", &["6.6.6.6, 198.51.100.1", "127.0.0.2"]),
            "198.51.100.1"
        );
        // All are trusted: the left-most.
        assert_eq!(client("127.0.0.1", &["127.0.0.5"]), "127.0.0.5");
    }

    #[test]
    fn forwarded_addresses_have_many_spellings() {
        assert_eq!(client("127.0.0.1", &["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(client("::1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("::1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client("::1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(
            client("127.0.0.1", &["::ffff:198.51.100.1"]),
            "198.51.100.1"
        );
    }

    #[test]
    fn malformed_entry_ends_the_search() {
        for garbage in [
            "",
            "unknown",
            "_hidden",
            "198.51.100.1.2",
            "198.51.100.1:99999",
            ",,",
            "[::1",
            "\u{fffd}",
        ] {
            assert_eq!(client("127.0.0.1", &[garbage]), "127.0.0.1", "{garbage:?}");
        }
        assert_eq!(client("127.0.0.1", &["198.51.100.1, garbage"]), "127.0.0.1");
    }

    #[test]
    fn trusted_proxies_reject_invalid_ranges() {
        assert!(TrustedProxies::parse("10.0.0.0/33").is_err());
        assert!(TrustedProxies::parse("proxy.example").is_err());
        let all = TrustedProxies::parse("0.0.0.0/0, ::/0").unwrap();
        assert!(
            all.is_trusted("203.0.113.7".parse().unwrap())
                && all.is_trusted("2001:db8::1".parse().unwrap())
        );
        let none = TrustedProxies::parse("none").unwrap();
        assert_eq!(
            none.client("127.0.0.1".parse().unwrap(), ["1.1.1.1"].into_iter())
                .to_string(),
            "127.0.0.1"
        );
    }

    #[test]
    fn wide_network_is_a_24_or_a_48() {
        for (address, network) in [
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
            ("::ffff:192.0.2.77", "192.0.2.0"),
            ("192.0.2.77", "192.0.2.0"),
        ] {
            assert_eq!(wide_network(address.parse().unwrap()).to_string(), network);
        }
    }

    #[test]
    fn network_of_ipv6_is_a_64() {
        assert_eq!(
            network("2001:db8:1:2:3:4:5:6".parse().unwrap()).to_string(),
            "2001:db8:1:2::"
        );
        assert_eq!(
            network("::ffff:1.2.3.4".parse().unwrap()).to_string(),
            "1.2.3.4"
        );
    }
}
