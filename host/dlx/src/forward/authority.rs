//! Who a request is for: the request line and the `Host` field (RFC 9112 3.2, RFC 9113 8.3.1).
//!
//! What is refused here is what the RFC says a server must refuse, because proxies and workloads that repair it do not repair it
//! alike: then one routes by another host than the next one serves.

use std::net::Ipv6Addr;

use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Version};

use crate::rescue::Rescue;

/// Refuses what a proxy must not pass on.
pub(crate) fn check(request: &Parts) -> Result<(), Rescue> {
    if request.method == Method::CONNECT {
        return Err(Rescue::Malformed("CONNECT is not served here"));
    }
    let mut hosts = request.headers.get_all(HOST).iter();
    let (field, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Rescue::Malformed("more than one Host"));
    }
    let line = request.uri.authority();
    let unnamed = match request.version {
        Version::HTTP_10 => false,
        Version::HTTP_11 => field.is_none(),
        _ => field.is_none() && line.is_none(),
    };
    if unnamed {
        return Err(Rescue::Malformed("no Host"));
    }
    if let Some(line) = line {
        // `GET name:80` is the form of CONNECT.
        if request.uri.scheme().is_none() && request.version < Version::HTTP_2 {
            return Err(Rescue::Malformed("the request line names a host and no path"));
        }
        valid(line.as_str().as_bytes())?;
    }
    match field {
        // The request line wins over a field that says something else. An empty one is what RFC 9112 asks for where a
        // client knows no authority.
        Some(field) if !field.is_empty() => valid(field.as_bytes()),
        _ => Ok(()),
    }
}

/// The authority that counts: of the request line if it has one, else of the field.
pub(crate) fn of(request: &Parts) -> Option<HeaderValue> {
    match request.uri.authority() {
        Some(line) => HeaderValue::from_str(line.as_str()).ok(),
        None => request.headers.get(HOST).cloned(),
    }
}

fn valid(authority: &[u8]) -> Result<(), Rescue> {
    // RFC 9110 4.2.4: it is there to make a host look like another one, and it is a password in every log behind us.
    if authority.contains(&b'@') {
        return Err(Rescue::Malformed("a host with user information"));
    }
    if is_host_and_port(authority) {
        Ok(())
    } else {
        Err(Rescue::Malformed("the host is no host"))
    }
}

/// `uri-host [ ":" port ]` of RFC 3986, not empty.
fn is_host_and_port(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let (host, rest) = match text.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest),
            None => return false,
        },
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_name(name.as_bytes()), rest)
        }
    };
    host && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

/// An empty port stands for the scheme's own.
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && (text.is_empty() || text.parse::<u16>().is_ok())
}

/// `reg-name` of RFC 3986, not empty.
fn is_name(mut text: &[u8]) -> bool {
    if text.is_empty() {
        return false;
    }
    loop {
        match text {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                text = rest;
            }
            [byte, rest @ ..] if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) => {
                text = rest;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn checked(request: http::request::Builder) -> Result<(), Rescue> {
        check(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn f14_hosts_are_hosts() {
        let good = [
            "a",
            "a.b:80",
            "a:",
            "A_b.example.",
            "127.0.0.1:65535",
            "[::1]",
            "[::1]:8080",
            "%41.b",
            "a-b.c~d",
            "xn--bcher-kva.example",
            "",
        ];
        for host in good {
            assert_eq!(checked(Request::get("/").header("host", host)), Ok(()), "{host}");
        }
        let bad: [&[u8]; 19] = [
            b"a b",
            b"a/b",
            b"raw.lab/../x",
            b"user@a",
            b"user:pw@a:80",
            b"a:b",
            b"a:99999999",
            b"a:65536",
            b"a:80:80",
            b"[::1",
            b"[a]",
            b"[::1]x",
            b"::1",
            b":80",
            b"a%",
            b"a%4",
            b"a?b",
            b"a\\b",
            b"b\xc3\xbccher",
        ];
        for host in bad {
            let refused = checked(Request::get("/").header("host", host));
            assert!(
                matches!(refused, Err(Rescue::Malformed(_))),
                "{}",
                String::from_utf8_lossy(host)
            );
        }
    }

    #[test]
    fn f14_user_information_is_refused_wherever_it_stands() {
        let absolute = Request::get("http://user:pw@a/").header("host", "a");
        assert!(checked(absolute).is_err());
        let h2 = Request::get("http://user@a/").version(Version::HTTP_2);
        assert!(checked(h2).is_err());
    }

    #[test]
    fn f14_only_connect_names_an_authority_alone() {
        assert!(checked(Request::get("a").header("host", "a")).is_err());
        assert!(checked(Request::get("a:80").header("host", "a")).is_err());
        assert!(checked(Request::options("*").header("host", "a")).is_ok());
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        assert!(checked(Request::get("/").header("host", "a").header("host", "b")).is_err());
        assert!(checked(Request::get("/").header("host", "a").header("host", "a")).is_err());
        assert!(checked(Request::get("/")).is_err());
        assert!(
            checked(Request::get("http://a/")).is_err(),
            "HTTP/1.1 needs the field"
        );
        assert!(checked(Request::get("http://a/").header("host", "b")).is_ok());
        assert!(checked(Request::get("http://a/").version(Version::HTTP_2)).is_ok());
        assert!(checked(Request::get("/").version(Version::HTTP_10)).is_ok());
        let connect = Request::builder()
            .method("CONNECT")
            .uri("h:1")
            .header("host", "h");
        assert!(checked(connect).is_err());
    }
}
