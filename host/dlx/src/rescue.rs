//! The one place where an error becomes a response. Nothing of the inside leaks: no addresses, no chains of causes.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use thiserror::Error;

/// Response header that names the reason of a response that the DLX itself gave.
pub const REASON: HeaderName = HeaderName::from_static("dormouse-reason");
/// Longest text that is passed on to a client as a cause, in characters.
const LONGEST_CAUSE: usize = 300;

/// Why a request could not be forwarded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Rescue {
    /// The request itself is wrong; the text says how.
    #[error("{0}")]
    Malformed(&'static str),
    /// The head is larger than a head may be, or has more fields.
    #[error("the request's head is larger than is taken here")]
    HeadTooLarge,
    /// The request target is longer than one may be.
    #[error("the request target is longer than is taken here")]
    UriTooLong,
    /// The method is one that a proxy must not pass on.
    #[error("TRACE is not served here")]
    MethodRefused,
    /// Nobody owns that host, path, port or name.
    #[error("nothing here answers for this request")]
    NoRoute,
    /// A path of an Ingress that may be a pattern covers this request, and its controller is not known.
    #[error("it is not known whether a path of an Ingress that covers this request is a regular expression")]
    UnclearPath,
    /// The queue of this resource is full.
    #[error("too many requests wait for this workload")]
    QueueFull,
    /// The queue of the whole DLX is full.
    #[error("too many requests wait")]
    Overloaded,
    /// This DLX is shutting down.
    #[error("this proxy is shutting down; try again")]
    Draining,
    /// The workload could not be woken; the text is the cause, for people.
    #[error("the workload could not be woken: {0}")]
    WakeFailed(String),
    /// The workload is no longer looked after.
    #[error("the workload is no longer managed here; try again")]
    Gone,
    /// No endpoint accepted a connection within the readiness timeout.
    #[error("the workload was not ready within {} s", .0.as_secs_f64())]
    NotReady(Duration),
    /// The workload accepted the request and did not begin to answer in time.
    #[error("the workload did not answer in time")]
    NoAnswer,
    /// The workload closed the connection or answered with something that is not HTTP.
    #[error("the workload answered badly")]
    BadAnswer,
    /// The request came back to this DLX.
    #[error("the request came back to the proxy that forwarded it")]
    Loop,
    /// The client has gone; nobody reads this response.
    #[error("the client has gone")]
    ClientLeft,
    /// The client has closed its sending side, and was held for as long as such clients are.
    #[error("the workload was not ready within {} s, as long as a client is held that has closed its sending side", .0.as_secs_f64())]
    HalfClosed(Duration),
    /// The client did not send the body that it had announced.
    #[error("the request did not arrive in time")]
    SlowBody,
    /// Nobody owns it yet: plugins that may are still being loaded.
    #[error("nothing here answers for this request yet, as plugins are still being loaded; try again")]
    Starting,
}

/// The reasons, as metric labels and in the `dormouse-reason` header.
pub(crate) const REASONS: [&str; 19] = [
    "malformed",
    "no-route",
    "queue-full",
    "overloaded",
    "draining",
    "wake-failed",
    "gone",
    "not-ready",
    "no-answer",
    "bad-answer",
    "loop",
    "client-left",
    "method-refused",
    "unclear-path",
    "half-closed",
    "slow-body",
    "head-too-large",
    "uri-too-long",
    "starting",
];

impl Rescue {
    pub(crate) fn index(&self) -> usize {
        match self {
            Self::Malformed(_) => 0,
            Self::NoRoute => 1,
            Self::QueueFull => 2,
            Self::Overloaded => 3,
            Self::Draining => 4,
            Self::WakeFailed(_) => 5,
            Self::Gone => 6,
            Self::NotReady(_) => 7,
            Self::NoAnswer => 8,
            Self::BadAnswer => 9,
            Self::Loop => 10,
            Self::ClientLeft => 11,
            Self::MethodRefused => 12,
            Self::UnclearPath => 13,
            Self::HalfClosed(_) => 14,
            Self::SlowBody => 15,
            Self::HeadTooLarge => 16,
            Self::UriTooLong => 17,
            Self::Starting => 18,
        }
    }

    /// A word for the reason.
    pub fn reason(&self) -> &'static str {
        REASONS[self.index()]
    }

    /// The status that clients see.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute | Self::UnclearPath => StatusCode::NOT_FOUND,
            Self::QueueFull => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded
            | Self::Draining
            | Self::WakeFailed(_)
            | Self::Gone
            | Self::ClientLeft
            | Self::Starting => StatusCode::SERVICE_UNAVAILABLE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::NotReady(_) | Self::NoAnswer | Self::HalfClosed(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }

    /// Seconds after which another attempt makes sense.
    pub fn retry_after(&self) -> Option<u16> {
        match self {
            Self::QueueFull | Self::Overloaded | Self::Draining | Self::Gone | Self::Starting => Some(1),
            Self::WakeFailed(_) => Some(2),
            _ => None,
        }
    }

    /// The code that a gRPC client sees.
    fn grpc(&self) -> u8 {
        match self {
            Self::Malformed(_) | Self::Loop => 13,
            Self::NoRoute | Self::UnclearPath | Self::MethodRefused => 12,
            Self::QueueFull | Self::HeadTooLarge | Self::UriTooLong => 8,
            Self::NotReady(_) | Self::NoAnswer | Self::HalfClosed(_) | Self::SlowBody => 4,
            _ => 14,
        }
    }

    /// The response. A gRPC client gets a trailers-only answer: an HTTP status alone would reach its caller as a guess.
    pub(crate) fn response(&self, grpc: bool) -> Response<Bytes> {
        let text = printable(&self.to_string());
        let mut response = Response::new(Bytes::new());
        let status = self.status();
        let headers = response.headers_mut();
        headers.insert(REASON, HeaderValue::from_static(self.reason()));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(u16::from(self.grpc())));
            if let Ok(message) = HeaderValue::from_str(&percent_encoded(&text)) {
                headers.insert("grpc-message", message);
            }
            return response;
        }
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        *response.status_mut() = status;
        *response.body_mut() = Bytes::from(format!("{text}\n"));
        response
    }
}

/// One line, of bounded length, without control characters.
fn printable(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(LONGEST_CAUSE)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(LONGEST_CAUSE).is_some() {
        line.push('…');
    }
    line
}

/// As gRPC encodes `grpc-message`: printable ASCII stays, everything else and `%` is escaped.
fn percent_encoded(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if matches!(byte, b' '..=b'~') && byte != b'%' {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_the_design() {
        let table = [
            (Rescue::Malformed("x"), 400, false),
            (Rescue::NoRoute, 404, false),
            (Rescue::QueueFull, 429, true),
            (Rescue::Overloaded, 503, true),
            (Rescue::Draining, 503, true),
            (Rescue::WakeFailed("x".into()), 503, true),
            (Rescue::NotReady(Duration::from_secs(1)), 504, false),
            (Rescue::BadAnswer, 502, false),
            (Rescue::Loop, 508, false),
        ];
        for (rescue, status, retry) in table {
            let response = rescue.response(false);
            assert_eq!(response.status().as_u16(), status, "{rescue:?}");
            assert_eq!(response.headers().contains_key(RETRY_AFTER), retry, "{rescue:?}");
            assert_eq!(response.headers()[REASON], rescue.reason());
        }
    }

    #[test]
    fn a_cause_is_one_short_line() {
        let cause = format!("line one\r\nx: injected {}", "é".repeat(1000));
        let response = Rescue::WakeFailed(cause).response(false);
        let body = String::from_utf8(response.into_body().to_vec()).unwrap();
        assert_eq!(body.lines().count(), 1);
        assert!(body.starts_with("the workload could not be woken: line one  x: injected"));
        assert!(body.chars().count() < 310, "{}", body.chars().count());
    }

    #[test]
    fn a_grpc_client_gets_a_grpc_status() {
        let response = Rescue::WakeFailed("50% é".into()).response(true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(
            response.headers()["grpc-message"],
            "the workload could not be woken: 50%25 %C3%A9"
        );
    }
}
