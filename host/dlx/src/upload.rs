//! The body of a request on its way to a workload. A frame is taken from the client when the workload asks for it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use thiserror::Error;
use tokio::time::{Instant, Sleep};

use crate::Metrics;
use crate::observe::End;

/// What is known of an upload while it is under way.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    frames: AtomicU32,
    fault: AtomicU8,
    answered: AtomicBool,
}

/// Why the body of a request did not come to its end. Nothing of it is the workload's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is no HTTP, or ends too early.
    Malformed = 1,
    /// The client broke the connection or took the request back.
    Gone = 2,
    /// The client sent nothing for too long.
    Slow = 3,
}

impl Progress {
    /// Rises with every frame.
    pub(crate) fn frames(&self) -> u32 {
        self.frames.load(Ordering::Relaxed)
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        match self.fault.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Fault::Malformed),
            3 => Some(Fault::Slow),
            _ => Some(Fault::Gone),
        }
    }

    /// The response has begun.
    pub(crate) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }
}

impl Fault {
    fn of(error: &hyper::Error) -> Self {
        use std::error::Error as _;
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut};
        let source = error.source();
        let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
        let h2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
        let broken = io.is_some_and(|io| {
            matches!(
                io.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut
            )
        });
        let taken_back = h2.is_some_and(|h2| h2.is_remote() || h2.is_io());
        if broken || taken_back || error.is_canceled() || error.is_closed() {
            Self::Gone
        } else {
            Self::Malformed
        }
    }
}

/// How the body of a request broke off.
#[derive(Debug, Error)]
pub enum UploadError {
    /// The client broke off, or what it sent is no HTTP.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// The client sent nothing for too long.
    #[error("the client sent nothing for too long")]
    Slow,
}

/// How long a client may send nothing of a body that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UploadPatience {
    pub(crate) limit: Duration,
    /// Only until the response has begun: both sides of an HTTP/2 stream may then speak when they like.
    pub(crate) until_answered: bool,
}

/// The body of a request on its way to a workload.
#[derive(Debug, Default)]
pub struct Upload(Option<Box<Streaming>>);

#[derive(Debug)]
struct Streaming {
    incoming: Incoming,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    patience: Option<UploadPatience>,
    /// Since when the client is waited for, if it is.
    waiting: Option<Instant>,
    /// Made when the client is waited for the first time, so that a body that is there costs no timer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Streaming {
    /// Whether the client has been waited for too long.
    fn too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(UploadPatience {
            limit,
            until_answered,
        }) = self.patience
        else {
            return false;
        };
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + limit)));
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let exempt = until_answered && self.progress.answered.load(Ordering::Relaxed);
            if !exempt && now >= since + limit {
                return true;
            }
            let next = if exempt { now + limit } else { since + limit };
            timer.as_mut().reset(next);
        }
        false
    }
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, metrics: &Arc<Metrics>, patience: Option<UploadPatience>) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        Self(Some(Box::new(Streaming {
            incoming,
            metrics: Arc::clone(metrics),
            progress: Arc::default(),
            patience,
            waiting: None,
            timer: None,
        })))
    }

    pub(crate) fn empty() -> Self {
        Self(None)
    }

    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        self.0.as_ref().map(|streaming| Arc::clone(&streaming.progress))
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Some(streaming) = self.0.as_deref_mut() else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(&mut streaming.incoming).poll_frame(cx) else {
            if streaming.too_slow(cx) {
                let fault = Fault::Slow as u8;
                streaming.progress.fault.store(fault, Ordering::Release);
                streaming.metrics.ended(End::Body);
                return Poll::Ready(Some(Err(UploadError::Slow)));
            }
            return Poll::Pending;
        };
        streaming.waiting = None;
        match &frame {
            Some(Ok(frame)) => {
                streaming.progress.frames.fetch_add(1, Ordering::Relaxed);
                if let Some(data) = frame.data_ref() {
                    streaming.metrics.bytes_in.inc_by(data.len() as u64);
                }
            }
            Some(Err(error)) => {
                let fault = Fault::of(error) as u8;
                streaming.progress.fault.store(fault, Ordering::Release);
            }
            None => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(UploadError::Client)))
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|streaming| streaming.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(
            || SizeHint::with_exact(0),
            |streaming| streaming.incoming.size_hint(),
        )
    }
}
