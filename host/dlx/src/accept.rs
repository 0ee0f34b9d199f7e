//! Client connections: how many, which protocol, how long they may dawdle, and how they end.

mod connection;
mod leave;
mod listeners;
mod opening;
mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

pub(crate) use connection::{Client, Connections, Place, serve};
pub(crate) use leave::left;
pub(crate) use listeners::{accept, bind, keep_ports};
pub(crate) use socket::Socket;

/// Where a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Door {
    /// The main listener.
    Main,
    /// A DLX port.
    Port(u16),
}

/// Socket options of both sides: small messages go at once, and a peer that vanished without a word is noticed.
pub(crate) fn tune(stream: &TcpStream) {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    let tuned = stream
        .set_nodelay(true)
        .and_then(|()| socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = tuned {
        tracing::debug!(%error, "socket options");
    }
}

/// What a connection is doing, as far as its timeouts are concerned. Written by the request path with plain atomics; read
/// by the connection's single timer, so that a request costs no timer of its own.
#[derive(Debug)]
pub(crate) struct Idleness {
    born: Instant,
    /// Requests under way.
    busy: AtomicU32,
    /// Milliseconds since `born` at which the connection last came to rest.
    resting: AtomicU64,
    /// Milliseconds since `born` at which the first byte of a head arrived; 0: none yet.
    head: AtomicU64,
}

/// What the timer found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look again then.
    Until(Instant),
    /// It has been idle for long: close it gracefully.
    Idle,
    /// A head takes too long: drop it.
    Dawdling,
}

impl Idleness {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            busy: AtomicU32::new(0),
            resting: AtomicU64::new(0),
            head: AtomicU64::new(0),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A request has arrived.
    pub(crate) fn work(&self) {
        self.head.store(0, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// A request has ended.
    pub(crate) fn rest(&self) {
        self.resting.store(self.now(), Ordering::Relaxed);
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes have arrived.
    pub(crate) fn received(&self) {
        if self.busy.load(Ordering::Relaxed) == 0 && self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(self.now().max(1), Ordering::Relaxed);
        }
    }

    /// `first`: nothing was served yet, so the whole wait counts as waiting for a head.
    pub(crate) fn judge(&self, head: Duration, idle: Duration, heads: bool) -> Verdict {
        if self.busy.load(Ordering::Relaxed) > 0 {
            return Verdict::Until(Instant::now() + head);
        }
        let at = |millis: u64| self.born + Duration::from_millis(millis);
        let began = self.head.load(Ordering::Relaxed);
        if heads && began > 0 {
            let until = at(began) + head;
            return if Instant::now() >= until {
                Verdict::Dawdling
            } else {
                Verdict::Until(until)
            };
        }
        let until = at(self.resting.load(Ordering::Relaxed)) + idle;
        if Instant::now() >= until {
            Verdict::Idle
        } else {
            Verdict::Until(until.min(Instant::now() + head))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(90);

    #[tokio::test(start_paused = true)]
    async fn a_head_that_takes_too_long_is_dropped() {
        let idleness = Idleness::new();
        tokio::time::advance(Duration::from_secs(5)).await;
        idleness.received();
        tokio::time::advance(Duration::from_secs(9)).await;
        idleness.received();
        assert!(matches!(idleness.judge(HEAD, IDLE, true), Verdict::Until(_)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(
            idleness.judge(HEAD, IDLE, true),
            Verdict::Dawdling,
            "more bytes do not begin the time anew"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_may_take_as_long_as_it_likes() {
        let idleness = Idleness::new();
        idleness.received();
        idleness.work();
        tokio::time::advance(Duration::from_secs(1000)).await;
        assert!(matches!(idleness.judge(HEAD, IDLE, true), Verdict::Until(_)));
        idleness.rest();
        tokio::time::advance(Duration::from_secs(89)).await;
        assert!(matches!(idleness.judge(HEAD, IDLE, true), Verdict::Until(_)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(idleness.judge(HEAD, IDLE, true), Verdict::Idle);
    }
}
