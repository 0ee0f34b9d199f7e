//! A client's socket, shared between its connection and whoever needs to know whether the client has left.

mod parting;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::Idleness;
pub(crate) use parting::{Parting, own_status};

/// How much of what nobody wants is read at a time.
const DISCARD: usize = 16 << 10;

/// A handle on the socket, only good to look at it. It uses the descriptor and the registration that are there.
#[derive(Clone, Debug)]
pub(crate) struct Peek(pub(super) Arc<TcpStream>);

impl Peek {
    /// For how long the client may acknowledge nothing, or have no room, before the kernel gives it up: it may have vanished while
    /// it is written to, when keep-alive is silent. None: what is spoken may pause for as long as it likes.
    pub(crate) fn give_up_after(&self, limit: Option<Duration>) {
        if let Err(error) = SockRef::from(&*self.0).set_tcp_user_timeout(limit) {
            tracing::debug!(%error, "socket options");
        }
    }

    /// Writes all of it.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Nothing more is written.
    pub(crate) fn shut(&self) {
        // Whoever has gone need not be told.
        let _ = SockRef::from(&*self.0).shutdown(std::net::Shutdown::Write);
    }

    /// Reads what the client still sends; 0: it has ended.
    pub(crate) async fn discard(&self) -> io::Result<usize> {
        loop {
            self.0.readable().await?;
            // Not across a wait: each connection would be as much larger.
            match self.0.try_read(&mut [0; DISCARD]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

/// A client's socket with the bytes that were read from it to tell the protocol.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    begun: Bytes,
    idleness: Arc<Idleness>,
    /// Of HTTP/1.
    parting: Option<Arc<Parting>>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, begun: Bytes, idleness: Arc<Idleness>) -> (Self, Peek) {
        let stream = Arc::new(stream);
        idleness.received(&begun);
        (
            Self {
                stream: Arc::clone(&stream),
                begun,
                idleness,
                parting: None,
            },
            Peek(stream),
        )
    }

    /// For HTTP/1: keeps what its end is like.
    pub(crate) fn parting(&mut self) -> Arc<Parting> {
        Arc::clone(self.parting.get_or_insert_default())
    }

    /// What was kept back, if it turned out not to be the end. Whatever cannot be written now stays kept back.
    fn release(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(parting) = &self.parting else {
            return Poll::Ready(Ok(()));
        };
        let mut bytes = parting.take();
        while !bytes.is_empty() {
            match self.write(cx, |stream| stream.try_write(&bytes)) {
                Poll::Pending => {
                    parting.keep_back(bytes);
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(count)) => drop(bytes.drain(..count)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Which of these buffers turns into an answer of the library, between two requests, and where.
    fn own_answer(&self, bufs: &[io::IoSlice<'_>]) -> Option<(&Arc<Parting>, usize, usize)> {
        let parting = self.parting.as_ref()?;
        let last = bufs.iter().rposition(|buf| !buf.is_empty())?;
        self.idleness.resting()?;
        Some((parting, last, Parting::own_answer(&bufs[last])?))
    }

    /// Reads, and tells the clocks what came.
    fn read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = loop {
            if let Err(error) = ready!(self.stream.poll_read_ready(cx)) {
                break Err(error);
            }
            let room = buf.remaining();
            let mut got = None;
            let tried = self.stream.try_io(Interest::READABLE, || {
                let count = self.stream.try_read_buf(buf)?;
                got = Some(count);
                // Less than there was room for: nothing is left, so the next read need not ask the kernel first.
                if count > 0 && count < room {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match tried {
                _ if got.is_some() => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => break done,
            }
        };
        let got = &buf.filled()[before..];
        self.idleness.received(got);
        if let (Ok(()), true, Some(parting)) = (&result, got.is_empty(), &self.parting) {
            parting.client_ended();
        }
        Poll::Ready(result)
    }

    /// Writes, and tells the clocks whether the client takes what is written.
    fn write(
        &self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => {
                    self.idleness.blocked();
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            match attempt(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    self.idleness.took();
                    return Poll::Ready(done);
                }
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Who reads on has not ended.
        if let Poll::Ready(Err(error)) = self.release(cx) {
            return Poll::Ready(Err(error));
        }
        if !self.begun.is_empty() {
            let count = self.begun.len().min(buf.remaining());
            buf.put_slice(&self.begun[..count]);
            self.begun.advance(count);
            if self.begun.is_empty() {
                self.begun = Bytes::new();
            }
            // With what has arrived behind it: hyper would double its buffer to read a head in two parts. Whatever else
            // becomes of this, the next read will see it too.
            if buf.remaining() > 0 {
                let _ = self.read(cx, buf);
            }
            return Poll::Ready(Ok(()));
        }
        self.read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.release(cx))?;
        let Some((parting, last, begin)) = self.own_answer(bufs) else {
            return self.write(cx, |stream| stream.try_write_vectored(bufs));
        };
        if last == 0 && begin == 0 {
            parting.keep_back(bufs[last].to_vec());
            return Poll::Ready(Ok(bufs[last].len()));
        }
        // What stands before it first; the rest comes again.
        let mut before = bufs[..last].to_vec();
        before.push(io::IoSlice::new(&bufs[last][..begin]));
        self.write(cx, |stream| stream.try_write_vectored(&before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP socket has nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(parting) = &self.parting {
            parting.shut();
            // The last word is said by whoever sees the end.
            if parting.keeps_back() {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Ready(SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}
