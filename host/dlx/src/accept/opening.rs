//! What a client speaks, told from its first bytes and from what the Service says of the port.
//!
//! HTTP/2 is told by its preface and HTTP/1 by a complete request line; everything else is some other protocol over TCP,
//! whose bytes are passed on as they are. Nothing is lost when this is mistaken for HTTP: a request line that is one is HTTP
//! for a workload as well. Nothing breaks when HTTP is taken for TCP: the workload gets the same bytes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::Uri;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::client::ListenerKind;
use crate::forward::headers::PROBE_PATH;
use crate::route;
use crate::serve::Inner;
use crate::{AppProtocol, RouteTarget};

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How much is read to find the end of a request line. A longer line that begins as one is HTTP.
const LONGEST_LINE: usize = 8 << 10;
/// Longest method that counts as one. The longest that is registered has 17 letters.
const LONGEST_METHOD: usize = 24;
/// At a port that is known not to be HTTP, and while its pods serve: how long a client may be silent before it is connected.
/// Only as long as Dormouse's own probes, which speak at once, need to be told from clients that never speak first.
const SILENCE_AT_TCP: Duration = Duration::from_millis(20);

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looks {
    /// A prefix of something that may still become HTTP.
    Unclear,
    Http1,
    Http2,
    /// A request line that our HTTP library cannot hold. The workload may well know what to do with it.
    OddHttp1,
    /// Dormouse's own question.
    Probe,
    /// Neither.
    Other,
}

/// How a connection goes on.
#[derive(Debug)]
pub(crate) enum Opening {
    /// The client said nothing and left, or was too slow.
    Nothing,
    /// HTTP, with the bytes that were read.
    Http { begun: Bytes, h2: bool },
    /// Any other protocol, with the bytes that were read.
    Tcp {
        begun: BytesMut,
        target: Arc<RouteTarget>,
    },
}

/// Reads until it is clear what the client speaks.
pub(crate) async fn read(inner: &Inner, stream: &mut TcpStream, listener: ListenerKind) -> Opening {
    let target = match listener {
        ListenerKind::Main => None,
        ListenerKind::Port(port) => route::by_port(&inner.routes.load(), port)
            .ok()
            .map(|routed| routed.target),
    };
    let limit = Instant::now() + inner.config.header_timeout;
    let mut begun = BytesMut::new();
    let looked = match &target {
        None => read_http(stream, &mut begun, limit).await,
        Some(target) => {
            let hint = target.protocol;
            let silence = match hint {
                AppProtocol::Http1 | AppProtocol::H2c => None,
                AppProtocol::Tcp if target.view().open() => {
                    Some(SILENCE_AT_TCP.min(inner.config.tcp.silence))
                }
                AppProtocol::Tcp | AppProtocol::Unknown => Some(inner.config.tcp.silence),
            };
            let until = silence.map_or(limit, |silence| limit.min(Instant::now() + silence));
            match timeout_at(until, read_any(stream, &mut begun, hint)).await {
                Ok(looked) => looked,
                // It has said nothing, or no whole line: it waits for the other side, or speaks another language.
                Err(_) if silence.is_some() => Ok(Looks::Other),
                Err(_) => return Opening::Nothing,
            }
        }
    };
    match (looked, target) {
        (Err(_) | Ok(Looks::Unclear), _) => Opening::Nothing,
        (Ok(Looks::OddHttp1 | Looks::Other), Some(target)) => Opening::Tcp { begun, target },
        (Ok(looks), _) => Opening::Http {
            h2: looks == Looks::Http2,
            begun: begun.freeze(),
        },
    }
}

/// Where only HTTP is spoken: whether it is HTTP/2.
async fn read_http(stream: &mut TcpStream, begun: &mut BytesMut, limit: Instant) -> io::Result<Looks> {
    loop {
        if more(stream, begun, PREFACE.len(), limit).await? == 0 && begun.is_empty() {
            return Ok(Looks::Unclear);
        }
        if begun.starts_with(PREFACE) {
            return Ok(Looks::Http2);
        }
        if begun.len() >= PREFACE.len() || !PREFACE.starts_with(begun) {
            return Ok(Looks::Http1);
        }
    }
}

/// Where anything may be spoken. Unclear: the client said nothing and left.
async fn read_any(stream: &mut TcpStream, begun: &mut BytesMut, hint: AppProtocol) -> io::Result<Looks> {
    loop {
        let read = stream
            .read_buf(&mut begun.limit(LONGEST_LINE - begun.len()))
            .await?;
        let looks = looks(begun);
        match (looks, hint) {
            (Looks::Unclear, _) if read > 0 => {}
            (Looks::Unclear, _) if begun.is_empty() => return Ok(Looks::Unclear),
            // Half a line of HTTP is no request.
            (Looks::Unclear, AppProtocol::Http1 | AppProtocol::H2c) => return Ok(Looks::Unclear),
            // It ends in the middle: whatever it is, the workload knows better.
            (Looks::Unclear, _) => return Ok(Looks::Other),
            (Looks::Probe, _) => return Ok(Looks::Probe),
            (_, AppProtocol::Tcp) => return Ok(Looks::Other),
            (looks, _) => return Ok(looks),
        }
    }
}

async fn more(
    stream: &mut TcpStream,
    begun: &mut BytesMut,
    most: usize,
    limit: Instant,
) -> io::Result<usize> {
    let room = most - begun.len();
    timeout_at(limit, stream.read_buf(&mut begun.limit(room)))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// What these bytes, the first of a connection, look like.
pub(crate) fn looks(bytes: &[u8]) -> Looks {
    if bytes.starts_with(PREFACE) {
        return Looks::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return Looks::Unclear;
    }
    // Some clients end a body with an empty line too many; servers skip it before the next request.
    let skipped = bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let line = &bytes[skipped..];
    if skipped > 4 {
        return Looks::Other;
    }
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return unfinished(line);
    };
    let asked = line
        .strip_prefix(b"GET ")
        .and_then(|line| line.strip_prefix(PROBE_PATH.as_bytes()));
    if asked.is_some_and(|rest| rest.starts_with(b" ")) {
        return Looks::Probe;
    }
    let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
    finished(line)
}

/// A line whose end has not been seen.
fn unfinished(line: &[u8]) -> Looks {
    let method = line.iter().take_while(|byte| is_token(**byte)).count();
    if method > LONGEST_METHOD {
        return Looks::Other;
    }
    match line.get(method) {
        None => Looks::Unclear,
        Some(b' ') if method > 0 => match &line[method + 1..] {
            [] => Looks::Unclear,
            rest if rest.contains(&0) => Looks::Other,
            // No inline command of another protocol is that long.
            _ if line.len() >= LONGEST_LINE - 4 => Looks::Http1,
            _ => Looks::Unclear,
        },
        Some(_) => Looks::Other,
    }
}

/// `METHOD SP target SP HTTP/1.x`.
fn finished(line: &[u8]) -> Looks {
    let mut parts = line.splitn(2, |byte| *byte == b' ');
    let (Some(method), Some(rest)) = (parts.next(), parts.next()) else {
        return Looks::Other;
    };
    if method.is_empty() || method.len() > LONGEST_METHOD || !method.iter().copied().all(is_token) {
        return Looks::Other;
    }
    let Some(space) = rest.iter().rposition(|byte| *byte == b' ') else {
        return Looks::Other;
    };
    let (target, version) = (&rest[..space], &rest[space + 1..]);
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9'] = version else {
        return Looks::Other;
    };
    if target.is_empty() {
        return Looks::Other;
    }
    // The same tests that the HTTP library makes.
    if matches!(version, b"HTTP/1.0" | b"HTTP/1.1") && Uri::try_from(target).is_ok() {
        Looks::Http1
    } else {
        Looks::OddHttp1
    }
}

/// Letters of a method.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[(&[u8], Looks)] = &[
        (b"GET / HTTP/1.1\r\n", Looks::Http1),
        (b"GET / HTTP/1.0\n", Looks::Http1),
        (b"\r\nGET / HTTP/1.1\r\n", Looks::Http1),
        (b"PROPFIND /dav HTTP/1.1\r\nHost: a\r\n", Looks::Http1),
        (b"GET http://a/b HTTP/1.1\r\n", Looks::Http1),
        (b"CONNECT a:443 HTTP/1.1\r\n", Looks::Http1),
        (b"OPTIONS * HTTP/1.1\r\n", Looks::Http1),
        (b"GET /s?q=<b> HTTP/1.1\r\n", Looks::OddHttp1),
        (b"GET /\xc3\xa9 HTTP/1.1\r\n", Looks::Http1),
        (b"GET /\xe9 HTTP/1.1\r\n", Looks::OddHttp1),
        (b"GET /a b HTTP/1.1\r\n", Looks::OddHttp1),
        (b"GET / HTTP/1.2\r\n", Looks::OddHttp1),
        (PREFACE, Looks::Http2),
        (b"GET /.well-known/dormouse/probe HTTP/1.1\r\n", Looks::Probe),
        // Redis: its own framing, and inline commands.
        (b"*1\r\n$4\r\nPING\r\n", Looks::Other),
        (b"PING\r\n", Looks::Other),
        (b"GET key\r\n", Looks::Other),
        (b"SET key HTTP/1\r\n", Looks::Other),
        // HTTP/0.9, and versions that are none.
        (b"GET /\r\n", Looks::Other),
        (b"GET / HTTP/2.0\r\n", Looks::Other),
        (b"GET  HTTP/1.1\r\n", Looks::Other),
        // TLS, SSH, PostgreSQL's SSL request, MQTT, SMTP, PROXY protocol 1 and 2, AMQP, memcached, IRC, FTP.
        (b"\x16\x03\x01\x02\x00\x01", Looks::Other),
        (b"SSH-2.0-OpenSSH_10\r\n", Looks::Other),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Looks::Other),
        (b"\x10\x0f\x00\x04MQTT", Looks::Other),
        (b"EHLO me.example\r\n", Looks::Other),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", Looks::Other),
        (b"\r\n\r\n\x00\r\nQUIT\n", Looks::Other),
        (b"AMQP\x00\x00\x09\x01", Looks::Other),
        (b"version\r\n", Looks::Other),
        (b"NICK a\r\n", Looks::Other),
        (b"USER anonymous\r\n", Looks::Other),
        (b"\n\n\n\n\n\n", Looks::Other),
    ];

    #[test]
    fn first_bytes_tell_the_protocol_also_when_they_come_one_at_a_time() {
        for (bytes, expected) in TABLE {
            assert_eq!(looks(bytes), *expected, "{}", bytes.escape_ascii());
            // What is clear early stays so; what is HTTP is never clear before its line has ended.
            let first = (1..=bytes.len())
                .map(|end| looks(&bytes[..end]))
                .find(|looks| *looks != Looks::Unclear);
            assert_eq!(first, Some(*expected), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_begins_like_http_is_not_clear() {
        for begun in [
            &b""[..],
            b"P",
            b"PRI * HT",
            b"GET",
            b"GET ",
            b"GET /a HTTP/1.1",
            b"\r\n",
        ] {
            assert_eq!(looks(begun), Looks::Unclear, "{}", begun.escape_ascii());
        }
        let mut long = b"GET /".to_vec();
        long.resize(LONGEST_LINE, b'a');
        assert_eq!(looks(&long), Looks::Http1);
        assert_eq!(looks(&[b'A'; LONGEST_METHOD + 1]), Looks::Other);
    }
}
