//! Listening sockets: the main one, and one for each DLX port of the current routes.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backoff;
use crate::client::{Full, ListenerKind};
use crate::observe::End;
use crate::serve::Inner;

/// Connections that wait in the kernel. The kernel has a limit of its own (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// Pause after `accept` failed, for example because there is no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// First pause before a port that could not be bound is tried again.
const FIRST_REBIND: Duration = Duration::from_millis(200);
/// Longest such pause.
const LONGEST_REBIND: Duration = Duration::from_secs(5);

/// A listening socket.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A restarted DLX must not wait for the connections of its predecessor to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until told to stop. Who comes in needs a place; while somebody waits for one, who comes behind waits in the kernel.
pub(crate) async fn accept(
    inner: Arc<Inner>,
    socket: TcpListener,
    listener: ListenerKind,
    stop: CancellationToken,
) {
    let share = inner.places.share();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(unsaid) = inner.accept_failures_logged.allow() {
                    tracing::warn!(%error, ?listener, unsaid, "accepting a connection failed");
                }
                inner.connections.relieve(|_| true);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = tokio::select! {
            place = inner.places.take(listener, &share, peer.ip(), &inner.connections) => place,
            () = stop.cancelled() => return,
        };
        match place {
            Ok(place) => {
                inner.tasks.spawn(super::serve(
                    Arc::clone(&inner),
                    stream,
                    peer.ip(),
                    listener,
                    place,
                ));
            }
            Err(full) => {
                inner.metrics.ended(match full {
                    Full::Address => End::PerAddress,
                    Full::All => End::NoPlace,
                });
                // With a reset: the client hears at once, and nothing of it stays here.
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

/// Keeps one listener open for each DLX port of the current routes, until told to stop.
pub(crate) async fn keep_ports(inner: Arc<Inner>, stop: CancellationToken) {
    let mut changes = inner.routes.changes();
    let mut open: HashMap<u16, CancellationToken> = HashMap::new();
    let mut listeners = JoinSet::new();
    loop {
        changes.borrow_and_update();
        let wanted: HashSet<u16> = inner.routes.load().ports().collect();
        open.retain(|port, stop| {
            let keep = wanted.contains(port);
            if !keep {
                stop.cancel();
                inner
                    .connections
                    .drain(|listener| listener == ListenerKind::Port(*port));
            }
            keep
        });
        for port in wanted {
            open.entry(port).or_insert_with(|| {
                let stop = stop.child_token();
                listeners.spawn(keep_port(Arc::clone(&inner), port, stop.clone()));
                stop
            });
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { stop.cancelled().await },
            _ended = listeners.join_next(), if !listeners.is_empty() => {}
            () = stop.cancelled() => {}
        }
        if stop.is_cancelled() {
            while listeners.join_next().await.is_some() {}
            return;
        }
    }
}

/// One DLX port. One that cannot be bound does not answer probes, so nothing is diverted to it until it can.
async fn keep_port(inner: Arc<Inner>, port: u16, stop: CancellationToken) {
    let address = SocketAddr::new(inner.config.bind_address, port);
    let mut failures = 0;
    let mut failed = None;
    let listener = loop {
        match bind(address) {
            Ok(listener) => break listener,
            Err(error) => {
                tracing::error!(%address, %error, "a DLX port cannot be opened; trying again");
                failed.get_or_insert_with(|| Shown::new(&inner.metrics.ports_failed));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff::pause(failures, FIRST_REBIND, LONGEST_REBIND)) => failures += 1,
            () = stop.cancelled() => return,
        }
    };
    drop(failed);
    let _open = Shown::new(&inner.metrics.ports_open);
    tracing::debug!(%address, "a DLX port is open");
    accept(Arc::clone(&inner), listener, ListenerKind::Port(port), stop).await;
    tracing::debug!(%address, "a DLX port is closed");
}

/// Counts in a gauge while it lives.
pub(crate) struct Shown(prometheus_client::metrics::gauge::Gauge);

impl Shown {
    pub(crate) fn new(gauge: &prometheus_client::metrics::gauge::Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.dec();
    }
}
