//! Holds a connection until a pod accepts it, as requests are held, and notices when its client leaves.
//!
//! Nothing is read from a client that is held: what it says waits in the socket, so that a burst costs the kernel's buffer and
//! nothing here. Its end is seen behind what is unread.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Client;
use crate::admit::AdmissionPermit;
use crate::client::leave;
use crate::connect::{Upstream, open_tcp};
use crate::gate::Dialled;
use crate::observe::End;
use crate::pick::{Turn, pick};
use crate::pool::{Endpoint, Load};
use crate::rescue::Rescue;
use crate::serve::Inner;
use crate::{Metrics, RouteTarget};

/// A connection to a pod.
pub(super) struct Passed {
    pub(super) workload: Upstream,
    pub(super) load: Load,
    pub(super) turn: Option<Turn>,
}

/// A connection to a pod as soon as there is one, for a client that has said `said` bytes.
pub(super) async fn connect(
    inner: &Inner,
    client: &Client,
    said: usize,
    target: &Arc<RouteTarget>,
) -> Result<Passed, Rescue> {
    let failed = match at_once(inner, target).await {
        Ok(passed) => return Ok(passed),
        Err(failed) => failed,
    };
    if inner.is_draining() && !target.view().open() {
        return Err(Rescue::Draining);
    }
    let _of_client = inner.held_by(client.peer)?;
    let mut place = inner.admission().admit(&target.state.queue, said)?;
    let gate = inner.gate();
    let deadline = Instant::now() + gate.patience(target);
    let metrics = Arc::clone(&inner.metrics);
    let dial = move |endpoint, timeout| dial(endpoint, timeout, Arc::clone(&metrics));
    let ((workload, load), turn) = tokio::select! {
        biased;
        passed = gate.pass_with(target, deadline, None, failed, dial) => passed?,
        left = leaves(inner, &client.stream, said, &mut place) => return Err(left),
    };
    Ok(Passed {
        workload,
        load,
        turn: Some(turn),
    })
}

/// Without waiting: it is awake, and a pod accepts at the first attempt. Else the endpoint that did not.
async fn at_once(inner: &Inner, target: &Arc<RouteTarget>) -> Result<Passed, Option<Arc<Endpoint>>> {
    let view = target.view();
    if !view.open() {
        return Err(None);
    }
    let endpoints = target.endpoints_of(&view, &inner.config.limits);
    let endpoint = pick(&endpoints, None).ok_or(None)?;
    let metrics = Arc::clone(&inner.metrics);
    match dial(Arc::clone(endpoint), inner.config.connect_timeout, metrics).await {
        Ok((workload, load)) => Ok(Passed {
            workload,
            load,
            turn: None,
        }),
        Err((error, endpoint)) => {
            tracing::debug!(%error, address = %endpoint.address, "connecting failed");
            inner.metrics.connect_retries.inc();
            Err(Some(endpoint))
        }
    }
}

/// Connects to a pod.
fn dial(
    endpoint: Arc<Endpoint>,
    timeout: Duration,
    metrics: Arc<Metrics>,
) -> BoxFuture<'static, Dialled<(Upstream, Load)>> {
    async move {
        // Counted while dialling, so that a burst spreads over the endpoints.
        let load = endpoint.begin();
        match open_tcp(&endpoint, timeout).await {
            Ok(stream) => {
                metrics.connects.inc();
                Ok((stream, load))
            }
            Err(error) => Err((error, endpoint)),
        }
    }
    .boxed()
}

/// Returns when the client is not waited for any longer.
///
/// A client that has ended its own direction right behind what it said may wait for an answer, or may be gone: it is held for a
/// bounded time and is the first to give up its place. One that has said nothing, or ends later, is gone.
async fn leaves(inner: &Inner, client: &TcpStream, said: usize, place: &mut AdmissionPermit) -> Rescue {
    let since = Instant::now();
    let left = || {
        inner.metrics.ended(End::Left);
        Rescue::ClientLeft
    };
    let Some(unread) = leave::ended(client).await else {
        return left();
    };
    if unread == 0 && (said == 0 || since.elapsed() > leave::SOON) {
        return left();
    }
    tokio::select! {
        _ = client.ready(Interest::ERROR) => left(),
        rescue = inner.held_half_closed(place) => rescue,
    }
}
