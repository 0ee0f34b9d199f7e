//! The end of an HTTP/1 connection.
//!
//! A head that cannot be read is answered by the HTTP library itself, in a form that is always the same. Those bytes are kept back
//! until it is known why the connection ended; then the client gets the status with a reason, and the answer is counted.
//!
//! Whoever closes a connection on which bytes still arrive resets it, and the reset may destroy an answer that the client has not
//! read yet: it was still sending its body when it was answered. So what it still sends is read for a while.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, timeout, timeout_at};

use crate::client::{Client, Parting, Peek, own_status};
use crate::observe::Metrics;
use crate::rescue::Rescue;

/// For how long what a client still sends is read after its last answer, in all and without a byte.
const LINGER: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(1);
/// How long the client may take for the last few bytes.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Says the last word, and reads what the client still sends.
pub(super) async fn part(
    parting: &Parting,
    socket: &Peek,
    client: &Client,
    failed: Option<&hyper::Error>,
    metrics: &Metrics,
) {
    let kept_back = parting.take();
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
    if !parting.is_shut() || parting.has_client_ended() {
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
        listener = ?client.listener,
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
