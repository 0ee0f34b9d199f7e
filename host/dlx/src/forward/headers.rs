//! Header fields on their way through: what belongs to one connection is removed, what tells of the way is added.

use std::net::IpAddr;

use dormouse_sleepers::wire::{PROBE_ANSWER_HEADER, PROBE_HEADER};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{Uri, Version};

use super::authority;
use super::framing::{self, Codings};
use crate::client::ListenerKind;
use crate::connect::Wire;
use crate::forwarded::{Forwarding, Peer};
use crate::hop::Marks;
use crate::rescue::{REASON, Rescue};
use crate::{AppProtocol, RouteTarget};

/// Asks a DLX port whether it stands in for the Sleeper with this uid.
pub const PROBE: HeaderName = HeaderName::from_static(PROBE_HEADER);
/// Answers a probe: uid of the Sleeper that the port stands in for.
pub const SLEEPER: HeaderName = HeaderName::from_static(PROBE_ANSWER_HEADER);
pub use dormouse_sleepers::wire::PROBE_PATH;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Whether the client speaks gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | [b'+' | b';' | b' ', ..]))
}

/// What to speak with the workload. On a DLX port what the client speaks, because awake it speaks to the pods themselves; what
/// comes by the main listener was translated by an Ingress already, as it likes.
pub(crate) fn wire(request: &Parts, listener: ListenerKind, target: &RouteTarget, grpc: bool) -> Wire {
    let meant_for_pods =
        matches!(listener, ListenerKind::Port(_)) || grpc || target.protocol == AppProtocol::H2c;
    if request.version == Version::HTTP_2 && meant_for_pods {
        Wire::H2
    } else {
        Wire::H1
    }
}

/// How a request goes out.
pub(crate) struct Outgoing<'a> {
    /// A path to use instead of the request's own.
    pub(crate) path: Option<PathAndQuery>,
    pub(crate) wire: Wire,
    pub(crate) has_unsized_body: bool,
    /// The protocol that it asks to change to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// The peer's address as `X-Forwarded-For` writes it.
    pub(crate) client: &'a HeaderValue,
    /// Whether the peer's word on where the request came from counts.
    pub(crate) trusted: bool,
    pub(crate) forwarding: &'a Forwarding,
    pub(crate) marks: &'a Marks,
    /// The number of this pass.
    pub(crate) pass: usize,
}

/// Turns a client's request head into one for the workload.
pub(crate) fn rewrite_request(request: &mut Parts, outgoing: Outgoing<'_>) -> Result<(), Rescue> {
    let Outgoing {
        path,
        wire,
        has_unsized_body,
        upgrade,
        client,
        trusted,
        forwarding,
        marks,
        pass,
    } = outgoing;
    let codings = framing::take(&mut request.headers)?;
    let host = authority::of(request);
    if let Some(host) = &host {
        // The request line wins over the field, and the workload gets to see one of them only.
        request.headers.insert(HOST, host.clone());
    }
    remove_hop_by_hop(&mut request.headers);
    request.headers.remove(PROXY_AUTHORIZATION);
    // Answered here, when the body is first asked for.
    request.headers.remove(EXPECT);
    let sender = Peer {
        address: client,
        trusted,
        version: request.version,
        host: host.as_ref(),
    };
    forwarding.tell(&mut request.headers, &sender);
    marks.put(&mut request.headers, pass);
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
                let codings = match codings {
                    Codings::Plain => HeaderValue::from_static("chunked"),
                    Codings::Coded(codings) => codings,
                };
                request.headers.insert(TRANSFER_ENCODING, codings);
            }
        }
        Wire::H2 => {
            if codings != Codings::Plain {
                return Err(Rescue::Malformed(
                    "HTTP/2 has no transfer codings, and this body has one",
                ));
            }
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

/// Removes what concerns the connection to the workload only, and what only the DLX says of its own answers.
///
/// # Errors
/// [`Rescue::BadAnswer`] for a body whose coding this client's version of HTTP has no label for.
pub(crate) fn rewrite_response(headers: &mut HeaderMap, client: Version) -> Result<(), Rescue> {
    let codings = framing::take(headers).map_err(|_| Rescue::BadAnswer)?;
    remove_hop_by_hop(headers);
    headers.remove(PROXY_AUTHENTICATE);
    headers.remove(REASON);
    match codings {
        Codings::Plain => Ok(()),
        Codings::Coded(codings) if client == Version::HTTP_11 => {
            headers.insert(TRANSFER_ENCODING, codings);
            Ok(())
        }
        Codings::Coded(_) => Err(Rescue::BadAnswer),
    }
}

/// The same of a response that changes the protocol, which keeps what says to which.
pub(crate) fn rewrite_switch(headers: &mut HeaderMap) {
    let protocol = headers.get(UPGRADE).cloned();
    remove_hop_by_hop(headers);
    headers.remove(REASON);
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Removes the fields that belong to one connection. `Trailer` stays: hyper needs it to send trailers on, and so does
/// `TE: trailers`.
///
/// Other fields that `Connection` names stay, although RFC 9110 7.6.1 has them removed. nginx and haproxy pass a client's
/// `Connection` on, so that list may be the client's while the fields are the proxy's: a client could have removed what the
/// proxy has said of it, such as its address, its certificate or who it is. A workload that is awake sees such fields, too.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
    if headers.contains_key(TE) {
        let trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
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
pub(super) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
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
        let key = crate::hop::HopKey::default();
        let marks = Marks::new(&key, ["ns", "app", "uid"]);
        let outgoing = Outgoing {
            path: None,
            wire,
            has_unsized_body: false,
            upgrade: super::super::upgrades::asked(&parts),
            client: &HeaderValue::from_static("10.0.0.9"),
            trusted: true,
            forwarding: &Forwarding::default(),
            marks: &marks,
            pass: 0,
        };
        rewrite_request(&mut parts, outgoing).unwrap();
        parts
    }

    #[test]
    fn what_belongs_to_one_connection_stays_behind() {
        let request = Request::get("/")
            .header("host", "h")
            .header("connection", "keep-alive, HTTP2-Settings")
            .header("http2-settings", "AAMAAABkAAQAAP__")
            .header("keep-alive", "timeout=5")
            .header("te", "gzip, trailers")
            .header("proxy-authorization", "secret")
            .header("expect", "100-continue")
            .header("upgrade", "h2c")
            .header("trailer", "x-sum");
        let headers = rewritten(request, Wire::H1).headers;
        for gone in [
            "connection",
            "http2-settings",
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
    fn f13_a_client_cannot_have_removed_what_others_said_of_it() {
        let said = [
            ("content-length", "0"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("x-auth-user", "trusted"),
            ("x-ssl-client-verify", "0"),
            ("authorization", "Bearer t"),
            ("cookie", "a=1"),
            ("x-request-id", "r"),
            ("host", "h"),
        ];
        let mut request = Request::get("/");
        for (name, value) in said {
            request = request
                .header(name, value)
                .header("connection", format!("close, {name}"));
        }
        let headers = rewritten(request, Wire::H1).headers;
        for (name, value) in said {
            assert_eq!(
                headers.get(name).map(HeaderValue::as_bytes),
                Some(value.as_bytes()),
                "{name}"
            );
        }
        assert!(!headers.contains_key("connection"));
    }

    #[test]
    fn the_way_is_told() {
        let headers = rewritten(Request::get("/").header("host", "h:1"), Wire::H1).headers;
        assert_eq!(headers["x-forwarded-for"], "10.0.0.9");
        assert_eq!(headers["via"], "1.1 dormouse");
        assert!(headers.contains_key("dormouse-hop"));
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
