//! What is said of the way of a request: `X-Forwarded-*`, `Forwarded` (RFC 7239) and `Via`.
//!
//! A workload that is awake sees what its Ingress says and nothing of ours. So by default nothing is added to what a trusted proxy
//! has said: with one entry more, whoever looks at the last entry (rate limits, lists of addresses) would see the Ingress while the
//! DLX is in the path, and the client otherwise.

use std::net::IpAddr;
use std::str::FromStr;

use http::Version;
use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue, VIA};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What becomes of fields that tell where a request came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeaders {
    /// What a trusted proxy says stays as it came. For everybody else as `Append`. Who said nothing gets an `X-Forwarded-For`
    /// with its address, which is all that the DLX hides.
    #[default]
    Preserve,
    /// The peer's address is appended to `X-Forwarded-For`, and to `Forwarded` where it is used; protocol and host are
    /// told where nobody did.
    Append,
    /// What a trusted proxy says stays as it came; everybody else's words are removed and told anew.
    Replace,
    /// Nothing is added, removed or changed.
    Off,
}

impl FromStr for ForwardedHeaders {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "preserve" => Ok(Self::Preserve),
            "append" => Ok(Self::Append),
            "replace" => Ok(Self::Replace),
            "off" => Ok(Self::Off),
            other => Err(format!(
                "`{other}` is no policy for forwarded headers; one of preserve, append, replace, off"
            )),
        }
    }
}

/// Networks of proxies whose words are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// These networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether the peer is one of them.
    pub fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }
}

/// Loopback, link-local and private addresses: what pods and nodes have. A peer in the cluster could say the same to the pod
/// itself when it is awake, so believing it changes nothing.
impl Default for TrustedProxies {
    fn default() -> Self {
        const PRIVATE: [&str; 9] = [
            "127.0.0.0/8",
            "::1/128",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "fe80::/10",
            "fc00::/7",
        ];
        Self(
            PRIVATE
                .iter()
                .filter_map(|network| network.parse().ok())
                .collect(),
        )
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    /// Networks or addresses, separated by commas. Empty: nobody is trusted.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = |text: &str| {
            let network = text.parse::<IpNet>();
            network
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| format!("`{text}` is neither a network such as 10.0.0.0/8 nor an address"))
        };
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// What the DLX says of the way of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// `X-Forwarded-*` and `Forwarded`.
    pub headers: ForwardedHeaders,
    /// Whose words are believed.
    pub trusted: TrustedProxies,
    /// Whether `Via` is added. RFC 9110 7.6.3 asks a gateway to; some servers do not compress when they see it.
    pub via: bool,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self {
            headers: ForwardedHeaders::default(),
            trusted: TrustedProxies::default(),
            via: true,
        }
    }
}

/// Who sent a request, and how.
pub(crate) struct Peer<'a> {
    /// Its address as `X-Forwarded-For` writes it.
    pub(crate) address: &'a HeaderValue,
    pub(crate) trusted: bool,
    pub(crate) version: Version,
    /// The host that it asked for.
    pub(crate) host: Option<&'a HeaderValue>,
}

impl Forwarding {
    /// Tells the workload of the request's way.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, peer: &Peer<'_>) {
        match (self.headers, peer.trusted) {
            (ForwardedHeaders::Off, _) => {}
            (ForwardedHeaders::Preserve | ForwardedHeaders::Replace, true) => keep(headers, peer),
            (ForwardedHeaders::Preserve, false) | (ForwardedHeaders::Append, _) => append(headers, peer),
            (ForwardedHeaders::Replace, false) => {
                remove(headers);
                append(headers, peer);
            }
        }
        if self.via {
            // A name of our own, not that of the pod: it goes to whoever the workload calls.
            headers.append(
                VIA,
                HeaderValue::from_static(match peer.version {
                    Version::HTTP_09 | Version::HTTP_10 => "1.0 dormouse",
                    Version::HTTP_2 => "2 dormouse",
                    Version::HTTP_3 => "3 dormouse",
                    _ => "1.1 dormouse",
                }),
            );
        }
    }
}

/// Whether a field tells where a request came from.
fn tells_of_the_way(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-forwarded-") || *name == FORWARDED || *name == REAL_IP
}

fn keep(headers: &mut HeaderMap, peer: &Peer<'_>) {
    if !headers.keys().any(tells_of_the_way) {
        headers.insert(FORWARDED_FOR, peer.address.clone());
    }
}

fn remove(headers: &mut HeaderMap) {
    let known: Vec<HeaderName> = headers
        .keys()
        .filter(|name| tells_of_the_way(name))
        .cloned()
        .collect();
    for name in known {
        headers.remove(name);
    }
}

fn append(headers: &mut HeaderMap, peer: &Peer<'_>) {
    add(headers, &FORWARDED_FOR, peer.address.as_bytes());
    if headers.contains_key(FORWARDED) {
        add(headers, &FORWARDED, element(peer).as_bytes());
    }
    headers
        .entry(FORWARDED_PROTO)
        .or_insert_with(|| HeaderValue::from_static("http"));
    if let Some(host) = peer.host {
        headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
    }
}

/// Adds an element to a list, which is one field afterwards.
fn add(headers: &mut HeaderMap, name: &HeaderName, element: &[u8]) {
    let mut all: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    all.push(element);
    if let Ok(value) = HeaderValue::from_bytes(&all.join(&b", "[..])) {
        headers.insert(name, value);
    }
}

/// An element of `Forwarded`. Addresses of IPv6 and hosts with a port are quoted; a valid host holds nothing to escape.
fn element(peer: &Peer<'_>) -> String {
    let address = peer.address.to_str().unwrap_or("unknown");
    let mut text = if address.contains(':') {
        format!("for=\"[{address}]\";proto=http")
    } else {
        format!("for={address};proto=http")
    };
    if let Some(host) = peer.host.and_then(|host| host.to_str().ok())
        && !host.is_empty()
    {
        text.push_str(&format!(";host=\"{host}\""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers_for(
        policy: ForwardedHeaders,
        trusted: bool,
        fields: &[(&'static str, &'static str)],
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let forwarding = Forwarding {
            headers: policy,
            via: false,
            ..Forwarding::default()
        };
        let peer = Peer {
            address: &HeaderValue::from_static("10.0.0.9"),
            trusted,
            version: Version::HTTP_11,
            host: Some(&HeaderValue::from_static("h:1")),
        };
        forwarding.tell(&mut headers, &peer);
        headers
    }

    fn get<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn f19_what_a_trusted_proxy_says_arrives_as_it_said_it() {
        use ForwardedHeaders::{Off, Preserve, Replace};
        let fields = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
        ];
        for policy in [Preserve, Replace, Off] {
            let headers = headers_for(policy, true, &fields);
            assert_eq!(
                headers.len(),
                fields.len(),
                "{policy:?}: nothing is added: {headers:?}"
            );
            let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
            assert_eq!(lines, ["1.1.1.1", "2.2.2.2"], "nor joined");
        }
    }

    #[test]
    fn f19_who_said_nothing_is_told_of() {
        use ForwardedHeaders::{Append, Off, Preserve, Replace};
        for policy in [Preserve, Replace] {
            let headers = headers_for(policy, true, &[]);
            assert_eq!(get(&headers, "x-forwarded-for"), Some("10.0.0.9"));
            assert_eq!(headers.len(), 1, "{policy:?}");
        }
        let headers = headers_for(Append, true, &[]);
        assert_eq!(get(&headers, "x-forwarded-for"), Some("10.0.0.9"));
        assert_eq!(get(&headers, "x-forwarded-proto"), Some("http"));
        assert_eq!(get(&headers, "x-forwarded-host"), Some("h:1"));
        assert!(headers_for(Off, false, &[]).is_empty());
    }

    #[test]
    fn f19_words_of_others_are_appended_to_or_replaced() {
        use ForwardedHeaders::{Append, Preserve, Replace};
        let fields = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
        ];
        for (policy, trusted) in [(Preserve, false), (Append, false), (Append, true)] {
            let headers = headers_for(policy, trusted, &fields);
            assert_eq!(get(&headers, "x-forwarded-for"), Some("1.1.1.1, 10.0.0.9"));
            assert_eq!(get(&headers, "x-forwarded-proto"), Some("https"));
            let forwarded = "for=1.1.1.1, for=10.0.0.9;proto=http;host=\"h:1\"";
            assert_eq!(get(&headers, "forwarded"), Some(forwarded));
        }
        let headers = headers_for(Replace, false, &fields);
        assert_eq!(get(&headers, "x-forwarded-for"), Some("10.0.0.9"));
        assert_eq!(get(&headers, "x-forwarded-proto"), Some("http"));
        for gone in ["x-forwarded-port", "forwarded", "x-real-ip"] {
            assert_eq!(get(&headers, gone), None);
        }
    }

    #[test]
    fn f19_addresses_of_ipv6_are_quoted() {
        let peer = Peer {
            address: &HeaderValue::from_static("fd00::1"),
            trusted: true,
            version: Version::HTTP_11,
            host: None,
        };
        assert_eq!(element(&peer), "for=\"[fd00::1]\";proto=http");
    }

    #[test]
    fn f19_networks_are_read_and_told_apart() {
        let private = TrustedProxies::default();
        assert_eq!(private.0.len(), 9, "each of them is one");
        for (peer, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("172.32.0.1", false),
            ("8.8.8.8", false),
            ("fd12::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(private.contains(peer.parse().unwrap()), trusted, "{peer}");
        }
        let few: TrustedProxies = "192.0.2.0/24, 198.51.100.7".parse().unwrap();
        assert!(few.contains("192.0.2.9".parse().unwrap()) && few.contains("198.51.100.7".parse().unwrap()));
        assert!(!few.contains("198.51.100.8".parse().unwrap()));
        assert!(
            !"".parse::<TrustedProxies>()
                .unwrap()
                .contains("127.0.0.1".parse().unwrap())
        );
        assert!("10.0.0.0/33".parse::<TrustedProxies>().is_err());
        assert!("ingress".parse::<TrustedProxies>().is_err());
    }

    #[test]
    fn via_names_the_protocol_that_was_received() {
        for (version, via) in [
            (Version::HTTP_10, "1.0 dormouse"),
            (Version::HTTP_11, "1.1 dormouse"),
            (Version::HTTP_2, "2 dormouse"),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(VIA, HeaderValue::from_static("1.1 edge"));
            let peer = Peer {
                address: &HeaderValue::from_static("10.0.0.9"),
                trusted: true,
                version,
                host: None,
            };
            Forwarding::default().tell(&mut headers, &peer);
            let all: Vec<_> = headers.get_all(VIA).iter().collect();
            assert_eq!(all, ["1.1 edge", via]);
        }
    }
}
