//! Which protocols a client and a workload may change to.
//!
//! HTTP in any version is none that a proxy may pass on: the tunnel would carry requests that nobody routes or counts.

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Method, Version};

use super::headers::tokens;

/// What the client wants to change to, HTTP left out. None: nothing, or nothing that it may.
pub(crate) fn asked(request: &Parts) -> Option<HeaderValue> {
    if request.version != Version::HTTP_11 || request.method == Method::CONNECT {
        return None;
    }
    if !tokens(&request.headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let wanted: Vec<&str> = tokens(&request.headers, &UPGRADE)
        .filter(|name| may_pass(name))
        .collect();
    if wanted.is_empty() {
        return None;
    }
    HeaderValue::from_str(&wanted.join(", ")).ok()
}

/// Whether a workload that switches protocols switches to what was asked for. One that does not say to what means the only one.
pub(crate) fn granted(asked: &HeaderValue, answer: &HeaderMap) -> bool {
    let Ok(asked) = asked.to_str() else { return false };
    let known = |name: &str| asked.split(',').any(|one| one.trim().eq_ignore_ascii_case(name));
    let mut named = false;
    tokens(answer, &UPGRADE)
        .filter(|name| !name.is_empty())
        .all(|name| {
            named = true;
            known(name)
        })
        && (named || !asked.contains(','))
}

fn may_pass(protocol: &str) -> bool {
    let name = protocol
        .split('/')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let is_http = name == "http"
        || name == "h2"
        || name == "h2c"
        || name.starts_with("h2-")
        || name.starts_with("h2c-");
    !name.is_empty() && !is_http && protocol.bytes().all(|byte| byte == b'/' || is_token(byte))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn ask(upgrade: &[&'static str], connection: &'static str) -> Option<String> {
        let mut request = Request::get("/").header("connection", connection);
        for line in upgrade {
            request = request.header("upgrade", *line);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        asked(&parts).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn f12_http_is_taken_out_of_every_list() {
        for none in [
            &["h2c"][..],
            &[",h2c"],
            &[" H2C , "],
            &["h2c", "H2"],
            &["HTTP/2.0"],
            &["h2c-14,\th2-16"],
            &[""],
            &["web socket"],
        ] {
            assert_eq!(ask(none, "upgrade"), None, "{none:?}");
        }
        for some in [
            &["websocket, h2c"][..],
            &["h2c,websocket"],
            &["websocket", "h2c"],
            &[", websocket ,H2C,"],
        ] {
            assert_eq!(
                ask(some, "Upgrade, HTTP2-Settings").as_deref(),
                Some("websocket"),
                "{some:?}"
            );
        }
        assert_eq!(ask(&["a/1", "b"], "upgrade").as_deref(), Some("a/1, b"));
    }

    #[test]
    fn f12_a_protocol_that_connection_does_not_name_is_not_asked_for() {
        assert_eq!(ask(&["websocket"], "keep-alive"), None);
        assert_eq!(
            ask(&["websocket"], "keep-alive, UPGRADE").as_deref(),
            Some("websocket")
        );
    }

    #[test]
    fn f12_a_workload_switches_to_what_was_asked_for_only() {
        let switch = |asked: &'static str, answer: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(answer) = answer {
                headers.insert(UPGRADE, HeaderValue::from_static(answer));
            }
            granted(&HeaderValue::from_static(asked), &headers)
        };
        assert!(switch("websocket", Some("WebSocket")));
        assert!(switch("websocket", None), "some servers do not say it again");
        assert!(switch("a, b/2", Some("b/2")));
        assert!(!switch("websocket", Some("h2c")));
        assert!(!switch("websocket", Some("websocket, h2c")));
        assert!(!switch("a, b", None), "to which?");
    }
}
