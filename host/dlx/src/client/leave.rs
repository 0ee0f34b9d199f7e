//! Notices that a client has left, whatever it sent before and whether or not anybody reads it.
//!
//! The registration that the socket has anyway hears of the end without taking a byte: no second descriptor, and no wake-up for
//! data. What it cannot hear is which end it was: a client that shuts down its sending side because it has said all that it
//! has to say (`nc -N`, socat) looks like one that called `close`. So the moment decides:
//!
//! ```text
//!   reset, error                               -> gone
//!   end, and the body cannot be complete       -> gone
//!   end, soon after the last byte              -> half-closed: it may still be waiting for its answer
//!   end, later                                 -> gone: it was tired of waiting
//! ```
//!
//! A half-closed client may be gone as well, so it is held for a bounded time and is the first to give up its place.

use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::Idleness;
use super::socket::Peek;

/// How soon after its last byte a client's end is taken for the end of its sending only: a program that half-closes does so
/// right after its request, a person who gives up takes longer.
pub(crate) const SOON: Duration = Duration::from_millis(500);

/// Waits for the end of what a client sends, and says how much of it nobody has read yet. None: it was a reset or an error.
pub(crate) async fn ended(stream: &TcpStream) -> Option<u64> {
    // Priority data is not asked for when the socket is registered, so only its end and errors come.
    match stream.ready(Interest::PRIORITY | Interest::ERROR).await {
        Ok(ready) if !ready.is_error() => Some(rustix::io::ioctl_fionread(stream).unwrap_or(0)),
        _ => None,
    }
}

/// Returns when the client has gone. That it has closed its sending side only is written down in `idleness`.
pub(crate) async fn gone(socket: Peek, idleness: &Idleness) {
    let Some(unread) = ended(&socket.0).await else {
        return;
    };
    if idleness.ended(unread, SOON) {
        return;
    }
    let _ = socket.0.ready(Interest::ERROR).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Socket;
    use futures::FutureExt;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, Socket, Peek, Arc<Idleness>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let idleness = Idleness::new();
        let (socket, peek) = Socket::new(server, bytes::Bytes::new(), Arc::clone(&idleness));
        (client, socket, peek, idleness)
    }

    #[tokio::test]
    async fn f03_data_is_not_an_end_and_an_end_behind_unread_data_is_seen() {
        let (mut client, mut socket, peek, idleness) = pair().await;
        idleness.work(0);
        let mut gone = std::pin::pin!(gone(peek, &idleness));
        client.write_all(b"unread").await.unwrap();
        tokio::task::yield_now().await;
        assert!(gone.as_mut().now_or_never().is_none());
        drop(client);
        tokio::select! {
            () = &mut gone => panic!("what is unread may be the end of a request"),
            () = idleness.half_closed() => {}
        }
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"unread", "nothing was taken");
    }

    #[tokio::test]
    async fn f03_a_reset_is_seen_behind_unread_data() {
        let (mut client, _socket, peek, idleness) = pair().await;
        idleness.work(0);
        client.write_all(b"unread").await.unwrap();
        socket2::SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(client);
        gone(peek, &idleness).await;
        assert!(idleness.half_closed().now_or_never().is_none());
    }

    #[tokio::test]
    async fn f03_a_reset_is_seen_after_a_half_close() {
        let (mut client, _socket, peek, idleness) = pair().await;
        idleness.work(0);
        let mut gone = std::pin::pin!(gone(peek, &idleness));
        client.write_all(b"unread").await.unwrap();
        client.shutdown().await.unwrap();
        tokio::select! {
            () = &mut gone => panic!("it may be waiting"),
            () = idleness.half_closed() => {}
        }
        socket2::SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(client);
        gone.await;
    }

    #[tokio::test]
    async fn f03_an_end_before_the_body_is_complete_is_no_half_close() {
        let (mut client, _socket, peek, idleness) = pair().await;
        idleness.work(1000);
        client.write_all(b"unread").await.unwrap();
        drop(client);
        gone(peek, &idleness).await;
    }
}
