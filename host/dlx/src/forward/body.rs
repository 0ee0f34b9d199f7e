//! Bodies on their way through. Nothing is collected: a frame is taken from one side when the other side asks for it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;

use crate::Metrics;
use crate::accept::Idleness;
use crate::demand::Counted;
use crate::pool::Load;

/// Rises with every frame of a body.
pub(crate) type Progress = Arc<AtomicU32>;

/// The body of a request on its way to a workload.
#[derive(Debug, Default)]
pub struct Upload(Option<Streaming>);

#[derive(Debug)]
struct Streaming {
    incoming: Incoming,
    metrics: Arc<Metrics>,
    progress: Progress,
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, metrics: &Arc<Metrics>) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        Self(Some(Streaming {
            incoming,
            metrics: Arc::clone(metrics),
            progress: Progress::default(),
        }))
    }

    pub(crate) fn empty() -> Self {
        Self(None)
    }

    pub(crate) fn progress(&self) -> Option<Progress> {
        self.0.as_ref().map(|streaming| Arc::clone(&streaming.progress))
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(streaming) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(&mut streaming.incoming).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            streaming.progress.fetch_add(1, Ordering::Relaxed);
            if let Some(data) = frame.data_ref() {
                streaming.metrics.bytes_in.inc_by(data.len() as u64);
            }
        }
        Poll::Ready(frame)
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

/// What is given back when a response has ended, one way or another.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) load: Load,
    pub(crate) sender: Option<http1::SendRequest<Upload>>,
    pub(crate) counted: Counted,
}

impl Release {
    /// The response was read to its end, so its connection can serve another request.
    fn complete(self) {
        let Self {
            load,
            sender,
            counted,
        } = self;
        if let Some(sender) = sender {
            load.0.keep(sender);
        }
        drop(counted);
    }
}

/// A client connection that has a request.
#[derive(Debug)]
pub(crate) struct Busy(pub(crate) Arc<Idleness>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// The body of a response on its way to a client.
#[derive(Debug)]
pub struct Body {
    kind: Kind,
    _busy: Option<Busy>,
}

#[derive(Debug)]
enum Kind {
    Text(Option<Bytes>),
    Streaming {
        incoming: Incoming,
        release: Option<Release>,
        metrics: Arc<Metrics>,
    },
}

impl Body {
    pub(crate) fn text(text: Bytes, busy: Busy) -> Self {
        Self {
            kind: Kind::Text((!text.is_empty()).then_some(text)),
            _busy: Some(busy),
        }
    }

    pub(crate) fn streaming(
        incoming: Incoming,
        release: Release,
        metrics: &Arc<Metrics>,
        busy: Busy,
    ) -> Self {
        let mut release = Some(release);
        if incoming.is_end_stream()
            && let Some(release) = release.take()
        {
            release.complete();
        }
        Self {
            kind: Kind::Streaming {
                incoming,
                release,
                metrics: Arc::clone(metrics),
            },
            _busy: Some(busy),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.kind {
            Kind::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Streaming {
                incoming,
                release,
                metrics,
            } => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                let ended = match &frame {
                    None => true,
                    Some(Ok(frame)) => {
                        if let Some(data) = frame.data_ref() {
                            metrics.bytes_out.inc_by(data.len() as u64);
                        }
                        incoming.is_end_stream()
                    }
                    Some(Err(_)) => false,
                };
                if ended && let Some(release) = release.take() {
                    release.complete();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Text(text) => text.is_none(),
            Kind::Streaming { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Streaming { incoming, .. } => incoming.size_hint(),
        }
    }
}
