//! Sends a request over a connection and streams what comes back.
//!
//! A request is sent again only where that is safe: when nothing of it was written, or when a connection that had
//! served before was closed before the response began, and the request has no body and an idempotent method.

mod body;
pub(crate) mod headers;
mod upgrade;

use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::Either;
use http::{Method, Request, Response};
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use crate::connect::{Lease, Sender};
use crate::pick::Turn;
use crate::pool::Load;

pub use body::{Body, Upload};
pub(crate) use body::{Busy, Release};
pub(crate) use upgrade::Tunnel;

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection closed before anything was written: here is the request.
    Unsent(Box<Request<Upload>>),
    /// The connection closed before the response began.
    Closed,
    /// The workload answered with something that is not HTTP, or broke off.
    Bad,
    /// The workload did not begin to answer in time.
    TimedOut,
}

/// A response whose body is still to come.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) load: Load,
    /// To be kept when the body has ended.
    pub(crate) sender: Option<hyper::client::conn::http1::SendRequest<Upload>>,
}

/// Sends the request. The turn ends when the response begins or after its pause.
///
/// Not an `async fn`: the request goes to the connection before the future exists, so the future does not carry it.
pub(crate) fn send(
    lease: Lease,
    request: Request<Upload>,
    turn: Option<Turn>,
    limit: Option<Duration>,
) -> impl Future<Output = Result<Answer, Failure>> + Send {
    let progress = request.body().progress();
    let Lease { load, sender, .. } = lease;
    let (sender, sent) = match sender {
        Sender::H1(mut sender) => {
            let sent = sender.try_send_request(request);
            (Some(sender), Either::Left(sent))
        }
        Sender::H2(mut sender) => (None, Either::Right(sender.try_send_request(request))),
    };
    async move {
        let sent = pin!(sent);
        finish(await_head(sent, turn, limit, progress).await).map(|response| Answer {
            response,
            load,
            sender,
        })
    }
}

type Sent = Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<Upload>>>;

async fn await_head(
    mut sent: Pin<&mut impl Future<Output = Sent>>,
    turn: Option<Turn>,
    limit: Option<Duration>,
    progress: Option<body::Progress>,
) -> Option<Sent> {
    let passed = match turn {
        None => None,
        Some(turn) => match timeout(turn.pause(), &mut sent).await {
            Err(_) => Some(turn.pass_on()),
            Ok(answer) => {
                if answer.is_ok() {
                    turn.answered();
                }
                return Some(answer);
            }
        },
    };
    let answer = within(limit, sent, progress).await;
    if let (Some(passed), Some(Ok(_))) = (passed, &answer) {
        passed.answered();
    }
    answer
}

/// The answer, unless the limit passes without a sign of the client's sending more.
async fn within(
    limit: Option<Duration>,
    mut sent: Pin<&mut impl Future<Output = Sent>>,
    progress: Option<body::Progress>,
) -> Option<Sent> {
    let Some(limit) = limit else {
        return Some(sent.await);
    };
    let seen = || progress.as_ref().map(|progress| progress.load(Ordering::Relaxed));
    let mut before = seen();
    loop {
        if let Ok(sent) = timeout(limit, &mut sent).await {
            return Some(sent);
        }
        let now = seen();
        if now == before {
            return None;
        }
        before = now;
    }
}

fn finish(sent: Option<Sent>) -> Result<Response<Incoming>, Failure> {
    match sent {
        None => Err(Failure::TimedOut),
        Some(Ok(response)) => Ok(response),
        Some(Err(mut error)) => {
            if let Some(request) = error.take_message() {
                return Err(Failure::Unsent(Box::new(request)));
            }
            let error = error.into_error();
            tracing::debug!(%error, "a workload did not answer");
            Err(if closed(&error) {
                Failure::Closed
            } else {
                Failure::Bad
            })
        }
    }
}

/// Whether the connection ended before the response began.
fn closed(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    let io = || error.source()?.downcast_ref::<std::io::Error>();
    error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || io().is_some_and(|io| {
            matches!(
                io.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected
            )
        })
}

/// A copy of a request that may be sent twice; None if it may not.
pub(crate) fn replay(request: &Request<Upload>) -> Option<Request<Upload>> {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    if !idempotent || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
