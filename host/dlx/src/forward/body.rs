//! The body of a response on its way to a client. A frame is taken from the workload when the client asks for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use crate::Metrics;
use crate::client::{Idleness, Stall};
use crate::demand_counters::Counted;
use crate::pool::{Http1, Load};

/// What is given back when a response has ended, one way or another.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) load: Load,
    pub(crate) sender: Option<Http1>,
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
    /// Of an HTTP/2 stream: whether its client takes what comes.
    stall: Option<Arc<Stall>>,
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
    pub(crate) fn text(text: Bytes, busy: Busy, stall: Option<Arc<Stall>>) -> Self {
        Self {
            kind: Kind::Text((!text.is_empty()).then_some(text)),
            _busy: Some(busy),
            stall,
        }
    }

    pub(crate) fn streaming(
        incoming: Incoming,
        release: Release,
        metrics: &Arc<Metrics>,
        busy: Busy,
        stall: Option<Arc<Stall>>,
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
            stall,
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
        let polled = match &mut self.kind {
            Kind::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Streaming {
                incoming,
                release,
                metrics,
            } => {
                let polled = Pin::new(&mut *incoming).poll_frame(cx);
                let ended = match &polled {
                    Poll::Ready(None) => true,
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Some(data) = frame.data_ref() {
                            metrics.bytes_out.inc_by(data.len() as u64);
                        }
                        incoming.is_end_stream()
                    }
                    Poll::Pending | Poll::Ready(Some(Err(_))) => false,
                };
                if ended && let Some(release) = release.take() {
                    release.complete();
                }
                polled
            }
        };
        if let Some(stall) = &self.stall {
            // What was given is not asked for anew before the client has taken it.
            stall.set(matches!(polled, Poll::Ready(Some(Ok(_)))));
        }
        polled
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
