//! Sends a request over a connection and streams what comes back.
//!
//! Whether a request that got no answer is sent again is decided in `retry`.

pub(crate) mod authority;
mod body;
mod framing;
pub(crate) mod headers;
pub(crate) mod max_forwards;
mod upgrade;
pub(crate) mod upgrades;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::Either;
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use crate::connect::{Lease, RequestSender};
use crate::pick::Turn;
use crate::pool::{Http1, Load};
use crate::upload::{Fault, Progress, Upload};

pub use body::Body;
pub(crate) use body::{Busy, Release};
pub(crate) use upgrade::Tunnel;

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum ForwardError {
    /// The connection closed before anything was written: here is the request.
    Unsent(Box<Request<Upload>>),
    /// HTTP/2: the workload says that it has not looked at the request.
    Refused,
    /// The connection closed before a byte of an answer came.
    Closed,
    /// The workload answered with something that is not HTTP, or broke off.
    Bad,
    /// The workload did not begin to answer in time.
    TimedOut,
    /// The body of the request did not come to its end.
    Client(Fault),
}

/// What became of a request, and the turn of one that got no answer.
pub(crate) type Outcome = Result<Answer, (ForwardError, Option<Turn>)>;

/// A response whose body is still to come.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) load: Load,
    /// To be kept when the body has ended.
    pub(crate) sender: Option<Http1>,
}

/// Sends the request. The turn ends when the response begins or after its pause.
///
/// Not an `async fn`: the request goes to the connection before the future exists, so the future does not carry it.
pub(crate) fn send(
    lease: Lease,
    request: Request<Upload>,
    turn: Option<Turn>,
    limit: Option<Duration>,
) -> impl Future<Output = Outcome> + Send {
    let progress = request.body().progress();
    let Lease { load, sender, .. } = lease;
    let (sender, heard, sent) = match sender {
        RequestSender::H1(mut http1) => {
            let heard = http1.ask();
            let sent = http1.sender.try_send_request(request);
            (Some(http1), Some(heard), Either::Left(sent))
        }
        RequestSender::H2(mut sender) => (None, None, Either::Right(sender.try_send_request(request))),
    };
    async move {
        let mut sent = pin!(sent);
        let (answer, turn) = await_head(&mut sent, turn, limit, progress.as_deref()).await;
        match finish(answer, progress.as_deref(), heard.as_deref()) {
            Ok(response) => {
                load.0.answered();
                if let Some(progress) = &progress {
                    progress.answered();
                }
                Ok(Answer {
                    response,
                    load,
                    sender,
                })
            }
            Err(failure) => Err((failure, turn)),
        }
    }
}

type Sent = Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<Upload>>>;

async fn await_head(
    sent: &mut (impl Future<Output = Sent> + Unpin),
    turn: Option<Turn>,
    limit: Option<Duration>,
    progress: Option<&Progress>,
) -> (Option<Sent>, Option<Turn>) {
    let passed = match turn {
        None => None,
        Some(turn) => match timeout(turn.pause(), &mut *sent).await {
            Err(_) => Some(turn.pass_on()),
            Ok(Ok(response)) => {
                turn.answered();
                return (Some(Ok(response)), None);
            }
            Ok(Err(error)) => return (Some(Err(error)), Some(turn)),
        },
    };
    let answer = within(limit, sent, progress).await;
    let turn = match (passed, &answer) {
        (None, _) => None,
        (Some(passed), Some(Ok(_))) => {
            passed.answered();
            None
        }
        (Some(passed), _) => passed.back(),
    };
    (answer, turn)
}

/// The answer, unless the limit passes without a sign of the client's sending more.
async fn within(
    limit: Option<Duration>,
    sent: &mut (impl Future<Output = Sent> + Unpin),
    progress: Option<&Progress>,
) -> Option<Sent> {
    let Some(limit) = limit else {
        return Some(sent.await);
    };
    let seen = || progress.map(Progress::frames);
    let mut before = seen();
    loop {
        if let Ok(sent) = timeout(limit, &mut *sent).await {
            return Some(sent);
        }
        let now = seen();
        if now == before {
            return None;
        }
        before = now;
    }
}

fn finish(
    sent: Option<Sent>,
    progress: Option<&Progress>,
    heard: Option<&AtomicBool>,
) -> Result<Response<Incoming>, ForwardError> {
    let mut error = match sent {
        None => return Err(ForwardError::TimedOut),
        Some(Ok(response)) => return Ok(response),
        Some(Err(error)) => error,
    };
    if let Some(request) = error.take_message() {
        return Err(ForwardError::Unsent(Box::new(request)));
    }
    // hyper gives a connection up whose request breaks off, and then it is closed without an answer, too.
    if let Some(fault) = progress.and_then(Progress::fault) {
        return Err(ForwardError::Client(fault));
    }
    let error = error.into_error();
    tracing::debug!(%error, "a workload did not answer");
    let silent = !heard.is_some_and(|heard| heard.load(Ordering::Acquire));
    Err(if refused(&error) {
        ForwardError::Refused
    } else if silent && closed(&error) {
        ForwardError::Closed
    } else {
        ForwardError::Bad
    })
}

/// Whether an HTTP/2 server says that it has not looked at the request (RFC 9113 8.7). A `GOAWAY` that tells of an error also
/// ends streams that were looked at.
fn refused(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    let h2 = error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>());
    h2.is_some_and(|h2| {
        h2.is_remote()
            && ((h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM))
                || (h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR)))
    })
}

/// Whether the connection ended before the response began.
fn closed(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    let io = || error.source()?.downcast_ref::<std::io::Error>();
    let h2 = || error.source()?.downcast_ref::<h2::Error>();
    h2().is_some_and(h2::Error::is_io)
        || error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || io().is_some_and(|io| {
            matches!(
                io.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected
            )
        })
}

/// A copy of a request without body. None: the body cannot be had again.
pub(crate) fn copy(request: &Request<Upload>) -> Option<Request<Upload>> {
    if !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}
