//! What is known of a client while it is connected: its place, its socket, what it is doing, and how it is told to end.

mod connections;
mod idleness;
pub(crate) mod leave;
mod permits;
mod socket;
mod stall;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::net::TcpStream;

pub(crate) use connections::{Connections, Signal};
pub(crate) use idleness::{IdleTimeouts, Idleness, Verdict};
pub(crate) use permits::{Addresses, AtAddress, ConnectionPermit, ConnectionPermits, Full};
pub(crate) use socket::{Parting, Peek, Socket, own_status};
pub(crate) use stall::{Stall, Streams};

/// Where a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ListenerKind {
    /// The main listener.
    Main,
    /// A DLX port.
    Port(u16),
}

/// Socket options of both sides: small messages go at once, and a peer that vanished without a word is noticed.
pub(crate) fn tune(stream: &TcpStream) {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    let tuned = stream
        .set_nodelay(true)
        .and_then(|()| socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = tuned {
        tracing::debug!(%error, "socket options");
    }
}

/// What every request of a connection shares.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) listener: ListenerKind,
    /// The peer's address as `X-Forwarded-For` writes it.
    pub(crate) address: HeaderValue,
    /// Whether its word on where a request came from counts.
    pub(crate) trusted: bool,
    pub(crate) peer: IpAddr,
    pub(crate) idleness: Arc<Idleness>,
    pub(crate) signal: Arc<Signal>,
    /// Of HTTP/1, where a connection may change its protocol, and the end of what a client sends need not be its own end.
    pub(crate) http1: Option<Peek>,
    /// Of HTTP/2: what runs its streams.
    pub(crate) streams: Option<Streams>,
    /// An upgraded connection takes its place along.
    pub(crate) place: Arc<ConnectionPermit>,
}

impl Client {
    /// For the request that has just come, if it came on one stream of many.
    pub(crate) fn stall(&self) -> Option<Arc<Stall>> {
        self.streams.as_ref().map(Streams::begin)
    }
}
