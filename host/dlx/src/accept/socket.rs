//! A client's socket, shared between its connection and whoever needs to know whether the client has left.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::accept::Idleness;
use crate::lock;

/// A handle on the socket that outlives nothing: only good to look at it.
#[derive(Clone, Debug)]
pub(crate) struct Peek(Arc<Mutex<TcpStream>>);

impl Peek {
    /// A second descriptor of the same socket.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        lock(&self.0).as_fd().try_clone_to_owned()
    }
}

/// A client's socket with the bytes that were read from it to tell the protocol.
///
/// The lock is taken for a single non-blocking call, and nearly always by the connection alone.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Arc<Mutex<TcpStream>>,
    begun: Bytes,
    idleness: Arc<Idleness>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, begun: Bytes, idleness: Arc<Idleness>) -> (Self, Peek) {
        let stream = Arc::new(Mutex::new(stream));
        (
            Self {
                stream: Arc::clone(&stream),
                begun,
                idleness,
            },
            Peek(stream),
        )
    }

    fn with<T>(&self, run: impl FnOnce(Pin<&mut TcpStream>) -> T) -> T {
        run(Pin::new(&mut *lock(&self.stream)))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.begun.is_empty() {
            let count = self.begun.len().min(buf.remaining());
            buf.put_slice(&self.begun[..count]);
            self.begun.advance(count);
            // With what has arrived behind it: hyper would double its buffer to read a head in two parts. Whatever else
            // becomes of this, the next read will see it too.
            if buf.remaining() > 0 {
                let _ = self.with(|stream| stream.poll_read(cx, buf));
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = self.with(|stream| stream.poll_read(cx, buf));
        if buf.filled().len() > before {
            self.idleness.received();
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP socket has nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}
