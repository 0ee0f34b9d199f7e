//! Connections that are not HTTP: held, woken for, and copied byte for byte.
//!
//! ```text
//!   first bytes, or silence (accept::opening) -> count as demand -> hold as a request is held -> connect to a pod
//!     -> write what was read already -> copy both ways -> the ends of both sides, a failure, or a limit
//! ```
//!
//! One connection of a client is one connection to a pod, so nothing that the bytes say can reach another one. What cannot be
//! said in the protocol, because it is not known, is said by TCP: a connection that comes to nothing is reset.

mod hold;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;

use crate::RouteTarget;
use crate::client::{ConnectionPermit, ListenerKind};
use crate::copy::{Activity, copy};
use crate::demand_counters::Stage;
use crate::pick::Turn;
use crate::pool::Load;
use crate::rescue::Rescue;
use crate::serve::Inner;

/// A client of a DLX port that does not speak HTTP.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) peer: IpAddr,
    pub(crate) listener: ListenerKind,
    pub(crate) place: Arc<ConnectionPermit>,
}

/// Serves a connection as plain TCP until it ends. `begun` was read from it before; whatever it is, nothing of it may have been
/// answered or forwarded yet.
pub(crate) async fn serve(inner: Arc<Inner>, client: Client, begun: BytesMut, target: Arc<RouteTarget>) {
    let mut counted = target.state.enter(Stage::Held, &inner.metrics);
    let passed = match hold::connect(&inner, &client, begun.len(), &target).await {
        Ok(passed) => passed,
        Err(rescue) => {
            refuse(&inner, &client, &target, &rescue);
            // The socket goes before its place and its demand do.
            drop(client.stream);
            return;
        }
    };
    let Client {
        mut stream,
        peer: _,
        listener,
        place,
    } = client;
    let hold::Passed {
        mut workload,
        load,
        turn,
    } = passed;
    let activity = counted.open(target.counts_for(&inner.config.tcp));
    inner.metrics.tcp_connections.inc();
    tracing::debug!(target: "dormouse_dlx::access", ?listener, "a TCP connection is open");
    let ended = {
        let begun = begun.freeze();
        let patience = inner.config.tcp.timeouts();
        let copying = copy(&mut stream, &mut workload, begun, &activity, patience);
        tokio::select! {
            (ended, ()) = async { tokio::join!(copying, give_up_turn(turn, &load, &activity)) } => Some(ended),
            () = inner.closed() => None,
        }
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(broken)) => {
            tracing::debug!(target: "dormouse_dlx::access", ?listener, %broken, "a TCP connection broke off");
            inner.metrics.tcp_broken.inc();
            // What broke on one side breaks on the other.
            reset(&stream);
            reset(workload.socket());
        }
        None => reset(&stream),
    }
    // Demand and places outlive the sockets, so that whoever sees none of them finds none.
    drop((stream, workload));
    drop((load, counted, place));
}

/// Ends the turn when the workload says something, or after the turn's pause.
async fn give_up_turn(turn: Option<Turn>, load: &Load, activity: &Activity) {
    let Some(turn) = turn else { return };
    match tokio::time::timeout(turn.pause(), activity.answered()).await {
        Ok(()) => {
            load.0.answered();
            turn.answered();
        }
        Err(_) => {
            // A protocol may be one in which nobody answers: then nothing more is heard of this turn.
            let _ = turn.pass_on();
        }
    }
}

/// The end of a connection that could not be served: counted, told to operators, and seen by the client at once.
fn refuse(inner: &Inner, client: &Client, target: &RouteTarget, rescue: &Rescue) {
    inner.metrics.rescued(rescue);
    let (namespace, sleeper, service) = (&target.key.namespace, &target.key.sleeper, &target.key.service);
    let reason = rescue.reason();
    if matches!(rescue, Rescue::ClientLeft) {
        tracing::debug!(namespace, sleeper, service, reason, "a TCP client left");
    } else if let Some(others) = target.state.failures_logged.allow() {
        tracing::warn!(
            namespace,
            sleeper,
            service,
            port = target.key.port,
            reason,
            others,
            error = %rescue,
            "a TCP connection was reset"
        );
    }
    reset(&client.stream);
}

/// Its end will be a reset, whatever is unread or unsent.
fn reset(stream: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "socket options");
    }
}
