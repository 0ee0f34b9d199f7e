//! Header fields on their way through: what belongs to one connection is removed, what tells of the way is added.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Uri, Version};

use crate::connect::Wire;
use crate::rescue::Rescue;
use crate::{AppProtocol, Target};

/// Marks a request with the DLX that forwarded it and the Sleeper that it was for.
pub const HOP: HeaderName = HeaderName::from_static("dormouse-hop");
/// Asks a DLX port whether it stands in for the Sleeper with this uid.
pub const PROBE: HeaderName = HeaderName::from_static("dormouse-probe");
/// Answers a probe: uid of the Sleeper that the port stands in for.
pub const SLEEPER: HeaderName = HeaderName::from_static("dormouse-sleeper");
/// Path of the probe.
pub const PROBE_PATH: &str = "/.well-known/dormouse/probe";
/// A request that passed this many DLX is refused, whoever they were.
const MOST_HOPS: usize = 8;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Refuses what a proxy must not pass on.
pub(crate) fn check(request: &Parts) -> Result<(), Rescue> {
    if request.method == Method::CONNECT {
        return Err(Rescue::Malformed("CONNECT is not served here"));
    }
    let mut hosts = request.headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Rescue::Malformed("more than one Host"));
    }
    if first.is_none() && request.uri.authority().is_none() && request.version != Version::HTTP_10 {
        return Err(Rescue::Malformed("no Host"));
    }
    Ok(())
}

/// Whether the client speaks gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | [b'+' | b';' | b' ', ..]))
}

/// What to speak with the workload.
pub(crate) fn wire(request: &Parts, target: &Target, grpc: bool) -> Wire {
    let inbound_h2 = request.version == Version::HTTP_2;
    if inbound_h2 && (grpc || target.protocol == AppProtocol::H2c) {
        Wire::H2
    } else {
        Wire::H1
    }
}

/// The protocol that the client wants to change to. `h2c` is not one that a proxy may pass on: the tunnel would carry requests
/// that nobody routes or counts.
pub(crate) fn upgrade(request: &Parts) -> Option<HeaderValue> {
    if request.version != Version::HTTP_11 {
        return None;
    }
    let wanted = request.headers.get(UPGRADE)?;
    let asked = tokens(&request.headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let h2c = wanted.as_bytes().to_ascii_lowercase().starts_with(b"h2");
    (asked && !h2c).then(|| wanted.clone())
}

/// Whether this request came back: it carries the mark that this DLX puts on requests for this Sleeper.
pub(crate) fn looped(headers: &HeaderMap, mark: &HeaderValue) -> bool {
    let mut hops = 0;
    headers.get_all(HOP).iter().any(|hop| {
        hops += 1;
        hop == mark || hops >= MOST_HOPS
    })
}

/// Turns a client's request head into one for the workload.
pub(crate) fn rewrite_request(
    request: &mut Parts,
    path: Option<PathAndQuery>,
    wire: Wire,
    has_unsized_body: bool,
    upgrade: Option<HeaderValue>,
    client: &HeaderValue,
    mark: HeaderValue,
) -> Result<(), Rescue> {
    let host = match request.uri.authority() {
        Some(authority) => {
            // The request line wins over the field, and the workload gets to see one of them only.
            let host = HeaderValue::from_str(authority.as_str())
                .map_err(|_| Rescue::Malformed("the host is no host"))?;
            request.headers.insert(HOST, host.clone());
            Some(host)
        }
        None => request.headers.get(HOST).cloned(),
    };
    remove_hop_by_hop(&mut request.headers);
    request.headers.remove(PROXY_AUTHORIZATION);
    request.headers.remove(HTTP2_SETTINGS);
    // Answered here, when the body is first asked for.
    request.headers.remove(EXPECT);
    add_forwarded(&mut request.headers, client, host.as_ref());
    request.headers.append(HOP, mark);
    let path = path.or_else(|| request.uri.path_and_query().cloned());
    match wire {
        Wire::H1 => {
            request.version = Version::HTTP_11;
            join_cookies(&mut request.headers);
            if request.uri.authority().is_some() || request.uri.path_and_query() != path.as_ref() {
                request.uri = path.map_or_else(Uri::default, Uri::from);
            }
            if let Some(protocol) = upgrade {
                request
                    .headers
                    .insert(CONNECTION, HeaderValue::from_static("upgrade"));
                request.headers.insert(UPGRADE, protocol);
            }
            // hyper takes a GET of unknown length for one without body.
            if has_unsized_body && !request.headers.contains_key(CONTENT_LENGTH) {
                request
                    .headers
                    .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
        Wire::H2 => {
            request.version = Version::HTTP_2;
            request.headers.remove(HOST);
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = host.and_then(|host| http::uri::Authority::from_maybe_shared(host).ok());
            parts.path_and_query = path.or_else(|| Some(PathAndQuery::from_static("/")));
            request.uri = Uri::from_parts(parts).map_err(|_| Rescue::Malformed("the host is no host"))?;
        }
    }
    Ok(())
}

/// Removes what concerns the connection to the workload only. `switched` keeps what a protocol change needs.
pub(crate) fn rewrite_response(headers: &mut HeaderMap, switched: bool) {
    let protocol = if switched {
        headers.get(UPGRADE).cloned()
    } else {
        None
    };
    remove_hop_by_hop(headers);
    headers.remove(PROXY_AUTHENTICATE);
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Removes the fields that belong to one connection, and those that `Connection` names. `Trailer` stays: hyper needs it
/// to send trailers on, and so does `TE: trailers`.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            .filter(|name| !is_end_to_end(name))
            .collect();
        headers.remove(CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(UPGRADE);
    if headers.contains_key(TE) {
        let trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Fields that a client must not get removed by naming them in `Connection`: the framing, the target, and what others
/// have said of the client. `TE` is dealt with by itself.
fn is_end_to_end(name: &HeaderName) -> bool {
    *name == HOST
        || *name == CONTENT_LENGTH
        || *name == TE
        || name.as_str().starts_with("x-forwarded-")
        || name.as_str() == "forwarded"
}

/// The client's address is appended to what others said; protocol and host are those that the first proxy saw.
fn add_forwarded(headers: &mut HeaderMap, client: &HeaderValue, host: Option<&HeaderValue>) {
    if headers.contains_key(FORWARDED_FOR) {
        let mut all: Vec<u8> = Vec::with_capacity(64);
        for value in headers.get_all(FORWARDED_FOR) {
            all.extend_from_slice(value.as_bytes());
            all.extend_from_slice(b", ");
        }
        all.extend_from_slice(client.as_bytes());
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(all)) {
            headers.insert(FORWARDED_FOR, value);
        }
    } else {
        headers.insert(FORWARDED_FOR, client.clone());
    }
    headers
        .entry(FORWARDED_PROTO)
        .or_insert_with(|| HeaderValue::from_static("http"));
    if let Some(host) = host {
        headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
    }
}

/// HTTP/2 clients may split cookies over several fields; HTTP/1 knows one.
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let joined: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&joined.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// The comma-separated tokens of a field.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// The address of a client as `X-Forwarded-For` writes it. A v4 client on a v6 socket is a v4 client.
pub(crate) fn client_address(address: IpAddr) -> HeaderValue {
    HeaderValue::from_str(&address.to_canonical().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn rewritten(request: http::request::Builder, wire: Wire) -> Parts {
        let mut parts = parts(request);
        let upgrade = upgrade(&parts);
        let (client, mark) = (
            HeaderValue::from_static("10.0.0.9"),
            HeaderValue::from_static("me/ns/s"),
        );
        rewrite_request(&mut parts, None, wire, false, upgrade, &client, mark).unwrap();
        parts
    }

    #[test]
    fn what_belongs_to_one_connection_stays_behind() {
        let request = Request::get("/")
            .header("host", "h")
            .header("connection", "keep-alive, X-Private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("te", "gzip, trailers")
            .header("proxy-authorization", "secret")
            .header("expect", "100-continue")
            .header("upgrade", "h2c")
            .header("trailer", "x-sum");
        let headers = rewritten(request, Wire::H1).headers;
        for gone in [
            "connection",
            "x-private",
            "keep-alive",
            "proxy-authorization",
            "expect",
            "upgrade",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["trailer"], "x-sum");
    }

    #[test]
    fn a_client_cannot_have_removed_what_others_said_of_it() {
        let request = Request::get("/")
            .header("host", "h")
            .header("connection", "x-forwarded-for, content-length, host")
            .header("content-length", "0")
            .header("x-forwarded-for", "1.1.1.1");
        let headers = rewritten(request, Wire::H1).headers;
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 10.0.0.9");
        assert_eq!(headers["host"], "h");
        assert_eq!(headers["content-length"], "0");
    }

    #[test]
    fn the_way_is_told() {
        let headers = rewritten(Request::get("/").header("host", "h:1"), Wire::H1).headers;
        assert_eq!(headers["x-forwarded-for"], "10.0.0.9");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "h:1");
        assert_eq!(headers["dormouse-hop"], "me/ns/s");
        let behind = Request::get("/")
            .header("host", "h")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "public");
        let headers = rewritten(behind, Wire::H1).headers;
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "public");
    }

    #[test]
    fn the_request_line_wins_over_the_host_field() {
        let request = rewritten(Request::get("http://line/p?q").header("host", "field"), Wire::H1);
        assert_eq!(request.headers["host"], "line");
        assert_eq!(request.uri, "/p?q");
    }

    #[test]
    fn http2_goes_out_with_scheme_and_authority() {
        let request = rewritten(Request::get("/p").header("host", "h"), Wire::H2);
        assert_eq!(request.uri, "http://h/p");
        assert!(!request.headers.contains_key("host"));
    }

    #[test]
    fn split_cookies_become_one() {
        let request = Request::get("/")
            .header("host", "h")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        assert_eq!(rewritten(request, Wire::H1).headers["cookie"], "a=1; b=2");
    }

    #[test]
    fn a_websocket_may_pass_and_h2c_may_not() {
        let ask = |protocol: &'static str, connection: &'static str| {
            upgrade(&parts(
                Request::get("/")
                    .header("upgrade", protocol)
                    .header("connection", connection),
            ))
        };
        assert_eq!(ask("websocket", "keep-alive, Upgrade").unwrap(), "websocket");
        assert_eq!(ask("websocket", "keep-alive"), None);
        assert_eq!(ask("h2c", "upgrade"), None);
        assert_eq!(ask("H2C, websocket", "upgrade"), None);
    }

    #[test]
    fn a_request_that_comes_back_is_known() {
        let mut headers = HeaderMap::new();
        let mark = HeaderValue::from_static("me/ns/s");
        headers.append(HOP, HeaderValue::from_static("me/ns/other"));
        assert!(
            !looped(&headers, &mark),
            "a workload may call another one with our mark on it"
        );
        headers.append(HOP, mark.clone());
        assert!(looped(&headers, &mark));
        let mut many = HeaderMap::new();
        (0..8).for_each(|_| {
            many.append(HOP, HeaderValue::from_static("you/ns/s"));
        });
        assert!(looped(&many, &mark));
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        assert!(check(&parts(Request::get("/").header("host", "a").header("host", "b"))).is_err());
        assert!(check(&parts(Request::get("/"))).is_err());
        assert!(check(&parts(Request::get("/").version(Version::HTTP_10))).is_ok());
        assert!(
            check(&parts(
                Request::builder()
                    .method("CONNECT")
                    .uri("h:1")
                    .header("host", "h")
            ))
            .is_err()
        );
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let grpc = |kind: &'static str| {
            is_grpc(&HeaderMap::from_iter([(
                CONTENT_TYPE,
                HeaderValue::from_static(kind),
            )]))
        };
        assert!(grpc("application/grpc") && grpc("application/grpc+proto") && grpc("application/grpc;x"));
        assert!(!grpc("application/grpc-web") && !grpc("application/json"));
    }
}
