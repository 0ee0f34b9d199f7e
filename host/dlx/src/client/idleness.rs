//! What a connection is doing, and how long it may go on with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::Instant;

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
    /// Milliseconds since `born` at which the last byte was read.
    last: AtomicU64,
    /// Bytes that were read.
    read: AtomicU64,
    /// Bytes of the body that the request under way announced, if it is the first of its connection.
    owed: AtomicU64,
    /// Milliseconds since `born` since when the client takes nothing of what is written; 0: it does.
    blocked: AtomicU64,
    /// Whether what was read last was an empty line: the end of a head, and of a chunked body.
    line_ended: AtomicBool,
    /// Whether the request under way has a body that may end with anything.
    any_end: AtomicBool,
    /// Milliseconds since `born` at which the client closed its sending side only; 0: it did not.
    half_closed: AtomicU64,
    /// Milliseconds since `born` at which such a client last took something.
    took: AtomicU64,
    waker: AtomicWaker,
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
    /// The client does not read: drop it.
    Stalled,
    /// The client has closed its sending side, and nothing was written since: drop it.
    HalfClosed,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdleTimeouts {
    /// For a head.
    pub(crate) head: Duration,
    /// Without a request.
    pub(crate) idle: Duration,
    /// Without taking anything of what is written.
    pub(crate) send: Duration,
    /// After it has closed its sending side, without anything that could be written.
    pub(crate) half_closed: Duration,
}

impl Idleness {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            busy: AtomicU32::new(0),
            resting: AtomicU64::new(0),
            head: AtomicU64::new(0),
            last: AtomicU64::new(0),
            read: AtomicU64::new(0),
            owed: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            line_ended: AtomicBool::new(true),
            any_end: AtomicBool::new(false),
            half_closed: AtomicU64::new(0),
            took: AtomicU64::new(0),
            waker: AtomicWaker::new(),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A request has arrived, whose body has this many bytes; 0: none, or nobody knows.
    pub(crate) fn work(&self, owed: u64) {
        let first = self.resting.load(Ordering::Relaxed) == 0;
        self.owed.store(if first { owed } else { 0 }, Ordering::Relaxed);
        self.any_end.store(owed > 0, Ordering::Relaxed);
        self.head.store(0, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// A request has ended. If a part of another head came behind it, its time runs.
    pub(crate) fn rest(&self) {
        let now = self.now().max(1);
        self.resting.store(now, Ordering::Relaxed);
        if !self.line_ended.load(Ordering::Relaxed) && !self.any_end.load(Ordering::Relaxed) {
            self.head.store(now, Ordering::Relaxed);
        }
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes have arrived.
    pub(crate) fn received(&self, bytes: &[u8]) {
        let Some(end) = bytes.last() else { return };
        let now = self.now().max(1);
        self.last.store(now, Ordering::Relaxed);
        self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        // An empty line that comes in two parts counts as well, so that nobody is hurried without reason.
        let ended =
            *end == b'\n' && (bytes.len() < 3 || bytes.ends_with(b"\n\r\n") || bytes.ends_with(b"\n\n"));
        self.line_ended.store(ended, Ordering::Relaxed);
        if self.busy.load(Ordering::Relaxed) == 0 && self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(now, Ordering::Relaxed);
        }
    }

    /// The client takes nothing of what is written.
    pub(super) fn blocked(&self) {
        if self.blocked.load(Ordering::Relaxed) == 0 {
            self.blocked.store(self.now().max(1), Ordering::Relaxed);
        }
    }

    /// The client has taken some of what is written.
    pub(super) fn took(&self) {
        self.blocked.store(0, Ordering::Relaxed);
        if self.is_half_closed() {
            self.took.store(self.now(), Ordering::Relaxed);
        }
    }

    /// The client's side has ended, with this many bytes that nobody has read yet. Whether the client has gone; if not, it has
    /// closed its sending side and may wait for an answer.
    pub(super) fn ended(&self, unread: u64, soon: Duration) -> bool {
        if self.busy.load(Ordering::Relaxed) > 0 {
            let arrived = self.read.load(Ordering::Relaxed).saturating_add(unread);
            if arrived < self.owed.load(Ordering::Relaxed) {
                return true;
            }
            let since = self.now().saturating_sub(self.last.load(Ordering::Relaxed));
            // When bytes arrived that nobody has read, nobody knows.
            if unread == 0 && Duration::from_millis(since) > soon {
                return true;
            }
        }
        self.half_closed.store(self.now().max(1), Ordering::Release);
        self.waker.wake();
        false
    }

    /// Waits until the client has closed its sending side only. One waits at a time.
    pub(crate) async fn half_closed(&self) {
        std::future::poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.half_closed.load(Ordering::Acquire) > 0 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Whether the client has closed its sending side only.
    pub(crate) fn is_half_closed(&self) -> bool {
        self.half_closed.load(Ordering::Relaxed) > 0
    }

    /// Since when it has had no request, if so.
    pub(crate) fn resting(&self) -> Option<Instant> {
        (self.busy.load(Ordering::Relaxed) == 0)
            .then(|| self.born + Duration::from_millis(self.resting.load(Ordering::Relaxed)))
    }

    /// `heads`: whether a head that has begun has a time of its own.
    pub(crate) fn judge(&self, timeouts: &IdleTimeouts, heads: bool) -> Verdict {
        let IdleTimeouts {
            head,
            idle,
            send,
            half_closed,
        } = *timeouts;
        let at = |millis: u64| self.born + Duration::from_millis(millis);
        let blocked = self.blocked.load(Ordering::Relaxed);
        if blocked > 0 && Instant::now() >= at(blocked) + send {
            return Verdict::Stalled;
        }
        if self.busy.load(Ordering::Relaxed) > 0 {
            let again = Instant::now() + head.min(send);
            let ended = self.half_closed.load(Ordering::Relaxed);
            if ended == 0 {
                return Verdict::Until(again);
            }
            let until = at(ended.max(self.took.load(Ordering::Relaxed))) + half_closed;
            return if Instant::now() >= until {
                Verdict::HalfClosed
            } else {
                Verdict::Until(until.min(again))
            };
        }
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

    const TIMEOUTS: IdleTimeouts = IdleTimeouts {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(90),
        send: Duration::from_secs(60),
        half_closed: Duration::from_secs(8),
    };

    fn judge(idleness: &Idleness) -> Verdict {
        idleness.judge(&TIMEOUTS, true)
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_takes_too_long_is_dropped() {
        let idleness = Idleness::new();
        tokio::time::advance(Duration::from_secs(5)).await;
        idleness.received(b"GET ");
        tokio::time::advance(Duration::from_secs(9)).await;
        idleness.received(b"/");
        assert!(matches!(judge(&idleness), Verdict::Until(_)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(
            judge(&idleness),
            Verdict::Dawdling,
            "more bytes do not begin the time anew"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_may_take_as_long_as_it_likes() {
        let idleness = Idleness::new();
        idleness.received(b"GET / HTTP/1.1\r\n\r\n");
        idleness.work(0);
        tokio::time::advance(Duration::from_secs(1000)).await;
        assert!(matches!(judge(&idleness), Verdict::Until(_)));
        idleness.rest();
        tokio::time::advance(Duration::from_secs(89)).await;
        assert!(matches!(judge(&idleness), Verdict::Until(_)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(judge(&idleness), Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn f05_half_a_head_behind_a_request_has_the_time_of_a_head() {
        let idleness = Idleness::new();
        idleness.received(b"GET / HTTP/1.1\r\n\r\nGET / HT");
        idleness.work(0);
        tokio::time::advance(Duration::from_secs(100)).await;
        idleness.rest();
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(matches!(judge(&idleness), Verdict::Until(_)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(judge(&idleness), Verdict::Dawdling);
    }

    #[tokio::test(start_paused = true)]
    async fn f05_a_client_that_takes_nothing_for_long_is_dropped() {
        let idleness = Idleness::new();
        idleness.received(b"GET / HTTP/1.1\r\n\r\n");
        idleness.work(0);
        for _ in 0..10 {
            idleness.blocked();
            tokio::time::advance(Duration::from_secs(59)).await;
            assert!(matches!(judge(&idleness), Verdict::Until(_)));
            idleness.took();
        }
        idleness.blocked();
        tokio::time::advance(Duration::from_secs(59)).await;
        idleness.blocked();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(judge(&idleness), Verdict::Stalled);
    }

    #[tokio::test(start_paused = true)]
    async fn f10_who_may_be_gone_is_kept_for_as_long_as_there_is_something_to_write() {
        let idleness = Idleness::new();
        idleness.received(b"GET / HTTP/1.1\r\n\r\n");
        idleness.work(0);
        assert!(!idleness.ended(0, Duration::from_millis(500)));
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(7)).await;
            assert!(matches!(judge(&idleness), Verdict::Until(_)));
            idleness.took();
        }
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(judge(&idleness), Verdict::HalfClosed);
    }

    #[tokio::test(start_paused = true)]
    async fn f10_an_end_soon_after_the_request_is_a_half_close_and_a_later_one_is_none() {
        for (wait, gone) in [(100, false), (2000, true)] {
            let idleness = Idleness::new();
            idleness.received(b"GET / HTTP/1.1\r\n\r\n");
            idleness.work(0);
            tokio::time::advance(Duration::from_millis(wait)).await;
            assert_eq!(idleness.ended(0, Duration::from_millis(500)), gone, "{wait} ms");
        }
    }
}
