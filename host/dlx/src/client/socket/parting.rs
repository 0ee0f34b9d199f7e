//! What the socket sees of the end of its HTTP/1 connection.
//!
//! A head that cannot be read is answered by the HTTP library itself, in a form that is always the same. Those bytes are kept back
//! until it is known why the connection ended.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;

use crate::lock;

/// No answer of the library is longer.
const LONGEST: usize = 256;

/// What the socket saw of its end.
#[derive(Debug, Default)]
pub(crate) struct Parting {
    /// Empty: nothing.
    kept_back: Mutex<Vec<u8>>,
    shut: AtomicBool,
    client_ended: AtomicBool,
}

impl Parting {
    /// Where what is about to be written turns into what looks like the library's own answer.
    pub(crate) fn own_answer(last: &[u8]) -> Option<usize> {
        if !last.ends_with(b"\r\n\r\n") {
            return None;
        }
        let from = last.len().saturating_sub(LONGEST);
        let begin = from + last[from..].windows(7).rposition(|window| window == b"HTTP/1.")?;
        own_status(&last[begin..]).map(|_| begin)
    }

    /// Keeps these bytes back, instead of what was taken before.
    pub(super) fn keep_back(&self, bytes: Vec<u8>) {
        *lock(&self.kept_back) = bytes;
    }

    /// What was kept back, for whoever writes it. Empty: nothing.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *lock(&self.kept_back))
    }

    pub(super) fn keeps_back(&self) -> bool {
        !lock(&self.kept_back).is_empty()
    }

    /// Nothing more is to be written.
    pub(super) fn shut(&self) {
        self.shut.store(true, Ordering::Release);
    }

    /// The client sends nothing more.
    pub(super) fn client_ended(&self) {
        self.client_ended.store(true, Ordering::Release);
    }

    /// Whether nothing more is to be written.
    pub(crate) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    /// Whether the client sends nothing more.
    pub(crate) fn has_client_ended(&self) -> bool {
        self.client_ended.load(Ordering::Acquire)
    }
}

/// The status of an answer that the library gives by itself: it has no body, no field but these, and closes the connection.
pub(crate) fn own_status(answer: &[u8]) -> Option<StatusCode> {
    let text = std::str::from_utf8(answer).ok()?.strip_suffix("\r\n\r\n")?;
    let (line, fields) = text.split_once("\r\n")?;
    let status = line.get("HTTP/1.1 ".len()..)?.split(' ').next()?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    let own = matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    let bare = fields.split("\r\n").all(|field| {
        let (name, value) = field.split_once(": ").unwrap_or_default();
        match name {
            "date" => true,
            "connection" => value == "close",
            "content-length" => value == "0",
            _ => false,
        }
    });
    (own && bare).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Fri, 27 Nov 2026 05:00:00 GMT\r\n\r\n";

    #[test]
    fn only_what_the_library_says_by_itself_is_kept_back() {
        assert_eq!(Parting::own_answer(OWN), Some(0));
        let behind = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".as_slice(), OWN].concat();
        assert_eq!(Parting::own_answer(&behind), Some(behind.len() - OWN.len()));
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nx: y\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "\r\n\r\n",
            "HTTP/1.\r\n\r\n",
            "ok",
            "",
        ] {
            assert_eq!(Parting::own_answer(other.as_bytes()), None, "{other:?}");
        }
    }
}
