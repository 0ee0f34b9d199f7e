//! Holds a connection until a pod accepts it, as requests are held, and notices when its client leaves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures::FutureExt;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::Target;
use crate::connect::open_tcp;
use crate::gate::Dialled;
use crate::pick::{Turn, pick};
use crate::pool::Load;
use crate::rescue::Rescue;
use crate::serve::Inner;

/// Bytes that are read from a client while it is held, so that its end is seen behind them. Counted in the queue's limit.
const READ_AHEAD: usize = 4 << 10;
/// How often a client is looked at that has ended its own direction, or sent more than is read ahead.
const LOOK: Duration = Duration::from_secs(1);

/// A connection to a pod.
pub(super) struct Passed {
    pub(super) workload: TcpStream,
    pub(super) load: Load,
    pub(super) turn: Option<Turn>,
}

/// A connection to a pod as soon as there is one, and what the client has said until then.
pub(super) async fn connect(
    inner: &Inner,
    client: &mut TcpStream,
    mut begun: BytesMut,
    target: &Arc<Target>,
) -> Result<(Passed, BytesMut), Rescue> {
    if let Some(passed) = at_once(inner, target).await {
        return Ok((passed, begun));
    }
    if inner.is_draining() && !target.view().open() {
        return Err(Rescue::Draining);
    }
    let most = begun.len() + READ_AHEAD;
    let _place = inner.admission().admit(&target.state, most)?;
    let gate = inner.gate();
    let passed = tokio::select! {
        biased;
        passed = gate.pass_with(target, dial) => passed,
        left = leaves(client, &mut begun, most) => Err(left),
    };
    let (dialled, turn) = passed?;
    let (workload, load) = dialled;
    let passed = Passed {
        workload,
        load,
        turn: Some(turn),
    };
    Ok((passed, begun))
}

/// Without waiting: it is awake, and a pod accepts at the first attempt.
async fn at_once(inner: &Inner, target: &Arc<Target>) -> Option<Passed> {
    let view = target.view();
    if !view.open() {
        return None;
    }
    let endpoints = target.endpoints_of(&view, &inner.config.limits);
    let endpoint = pick(&endpoints, None)?;
    match dial(Arc::clone(endpoint), inner.config.connect_timeout).await {
        Ok((workload, load)) => {
            inner.metrics.connects.inc();
            Some(Passed {
                workload,
                load,
                turn: None,
            })
        }
        Err((error, endpoint)) => {
            tracing::debug!(%error, address = %endpoint.address, "connecting failed");
            inner.metrics.connect_retries.inc();
            None
        }
    }
}

/// Connects to a pod.
fn dial(
    endpoint: Arc<crate::pool::Endpoint>,
    timeout: Duration,
) -> futures::future::BoxFuture<'static, Dialled<(TcpStream, Load)>> {
    async move {
        // Counted while dialling, so that a burst spreads over the endpoints.
        let load = endpoint.begin();
        match open_tcp(&endpoint, timeout).await {
            Ok(stream) => Ok((stream, load)),
            Err(error) => Err((error, endpoint)),
        }
    }
    .boxed()
}

/// Returns when the client has gone. Meanwhile what it sends is read, up to `most` bytes in all.
///
/// A client that has ended its own direction may still wait for an answer, if it has said anything. Whether it does is found out
/// by the kernel: it asks in short intervals, and one that has closed altogether answers with a reset before long.
async fn leaves(client: &mut TcpStream, begun: &mut BytesMut, most: usize) -> Rescue {
    let mut ended = false;
    loop {
        if ended || begun.len() >= most {
            tokio::time::sleep(LOOK).await;
            match client.take_error() {
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return Rescue::ClientLeft,
            }
            continue;
        }
        let room = most - begun.len();
        match client.read_buf(&mut (&mut *begun).limit(room)).await {
            Ok(0) if begun.is_empty() => return Rescue::ClientLeft,
            Ok(0) => {
                ended = true;
                let asked = ask_often(client);
                if let Err(error) = asked {
                    tracing::debug!(%error, "socket options");
                }
            }
            Ok(_) => {}
            Err(_) => return Rescue::ClientLeft,
        }
    }
}

fn ask_often(client: &TcpStream) -> io::Result<()> {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(5));
    socket2::SockRef::from(client).set_tcp_keepalive(&keepalive)
}
