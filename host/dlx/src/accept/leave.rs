//! Notices that a client has left while its request is held with an unread body.
//!
//! Nobody reads from such a connection, so nobody would see its end. A second descriptor with an edge-triggered
//! registration hears of the end without taking a byte: each arrival of data is forgotten, only the end counts. Data that
//! arrives is bounded by the receive window, so the wake-ups are few.

use std::io::ErrorKind;

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::socket::Peek;

/// Returns when the client has closed its connection, or at least its sending side.
pub(crate) async fn left(socket: Peek) {
    let watched = socket
        .descriptor()
        .and_then(|descriptor| TcpStream::from_std(std::net::TcpStream::from(descriptor)));
    let watched = match watched {
        Ok(watched) => watched,
        Err(error) => {
            // No descriptor to spare: the request stays until its deadline.
            tracing::debug!(%error, "cannot watch a client");
            return std::future::pending().await;
        }
    };
    while let Ok(ready) = watched.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        // Forgets that there is data. An end that arrives at this very moment is not forgotten: it is final.
        let _ = watched.try_io(Interest::READABLE, || Err::<(), _>(ErrorKind::WouldBlock.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::{Idleness, Socket};
    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn data_is_not_an_end_and_an_end_behind_unread_data_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let (mut socket, peek) = Socket::new(server, bytes::Bytes::new(), Idleness::new());
        let gone = left(peek);
        let mut gone = std::pin::pin!(gone);
        client.write_all(b"unread").await.unwrap();
        tokio::task::yield_now().await;
        assert!(gone.as_mut().now_or_never().is_none());
        drop(client);
        gone.await;
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"unread", "nothing was taken");
    }
}
