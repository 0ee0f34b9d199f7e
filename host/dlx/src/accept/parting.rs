//! The end of an HTTP/1 connection.
//!
//! A head that cannot be read is answered by the HTTP library itself, in a form that is always the same. Those bytes are kept back
//! until it is known why the connection ended; then the client gets the status with a reason, and the answer is counted.
//!
//! Whoever closes a connection on which bytes still arrive resets it, and the reset may destroy an answer that the client has not
//! read yet: it was still sending its body when it was answered. So what it still sends is read for a while.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::Client;
use super::socket::Peek;
use crate::lock;
use crate::observe::Metrics;
use crate::rescue::Rescue;

/// For how long what a client still sends is read after its last answer, in all and without a byte.
const LINGER: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(1);
/// How long the client may take for the last few bytes.
const LAST_WORD: Duration = Duration::from_secs(1);
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
    pub(super) fn own_answer(last: &[u8]) -> Option<usize> {
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
    pub(super) fn take(&self) -> Vec<u8> {
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

    /// Says the last word, and reads what the client still sends.
    pub(super) async fn part(
        &self,
        socket: &Peek,
        client: &Client,
        failed: Option<&hyper::Error>,
        metrics: &Metrics,
    ) {
        let kept_back = self.take();
        if !kept_back.is_empty() {
            let unreadable = failed.filter(|error| error.is_parse());
            let answer = match unreadable.and_then(|_| refusal(&kept_back)) {
                Some(rescue) => {
                    tell(client, &rescue, metrics);
                    with_reason(&kept_back, &rescue)
                }
                None => kept_back,
            };
            let sent = timeout(LAST_WORD, socket.write_all(&answer)).await;
            socket.shut();
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
        if !self.shut.load(Ordering::Acquire) || self.client_ended.load(Ordering::Acquire) {
            return;
        }
        let until = Instant::now() + LINGER;
        let reading =
            async { while matches!(timeout(SILENCE, socket.discard()).await, Ok(Ok(count)) if count > 0) {} };
        tokio::select! {
            _ = timeout_at(until, reading) => {}
            () = client.signal.cut() => {}
        }
    }
}

/// The status of an answer that the library gives by itself: it has no body, no field but these, and closes the connection.
fn own_status(answer: &[u8]) -> Option<StatusCode> {
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

/// What the library's answer means in our words.
fn refusal(own: &[u8]) -> Option<Rescue> {
    Some(match own_status(own)? {
        StatusCode::URI_TOO_LONG => Rescue::UriTooLong,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Rescue::HeadTooLarge,
        _ => Rescue::Malformed("the request's head is not valid HTTP/1.1"),
    })
}

/// Counts it, and writes it where other requests are written: anybody may send such heads, as many as they like.
fn tell(client: &Client, rescue: &Rescue, metrics: &Metrics) {
    metrics.rescued(rescue);
    metrics.answered(rescue.status());
    tracing::debug!(
        target: "dormouse_dlx::access",
        client = %client.peer,
        door = ?client.door,
        status = rescue.status().as_u16(),
        reason = rescue.reason(),
    );
}

/// The library's answer with our reason.
fn with_reason(own: &[u8], rescue: &Rescue) -> Vec<u8> {
    let response = rescue.response(false);
    // Everything but what stands at its end, with our fields.
    let mut answer = own[..own.len() - 2].to_vec();
    let text = response.body();
    let empty = b"content-length: 0\r\n";
    if let Some(at) = answer.windows(empty.len()).position(|window| window == empty) {
        answer.splice(
            at..at + empty.len(),
            format!("content-length: {}\r\n", text.len()).into_bytes(),
        );
    }
    for (name, value) in response.headers() {
        answer.extend_from_slice(name.as_str().as_bytes());
        answer.extend_from_slice(b": ");
        answer.extend_from_slice(value.as_bytes());
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(text);
    answer
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

    #[test]
    fn its_answer_gets_a_reason_and_stays_well_formed() {
        let answer = String::from_utf8(with_reason(OWN, &refusal(OWN).unwrap())).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\ndormouse-reason: malformed"), "{head}");
        assert!(
            head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())),
            "{head}"
        );
    }
}
