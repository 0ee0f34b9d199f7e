//! The data plane as a whole, and its life: it listens, serves and drains.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use dormouse_sleepers::DemandReport;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::accept;
use crate::client::ListenerKind;
use crate::demand_counters::DemandCounters;
use crate::serve::Inner;
use crate::waker::Waker;
use crate::{DlxConfig, Metrics, Preferences, RouteTable};

/// Why the DLX cannot serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The main listener cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// The data plane.
#[derive(Clone)]
pub struct Dlx {
    inner: Arc<Inner>,
}

impl Dlx {
    /// A data plane that routes by `routes` and wakes by `waker`. Targets in the routes must be written in its
    /// [`demand_counters`](Self::demand_counters).
    pub fn new(config: DlxConfig, routes: Arc<RouteTable>, waker: Arc<dyn Waker>, metrics: Metrics) -> Self {
        Self {
            inner: Arc::new(Inner::new(config, routes, waker, metrics)),
        }
    }

    /// From the next request on.
    pub fn prefer(&self, preferences: Preferences) {
        self.inner.prefer(preferences);
    }

    /// Where demand is written down.
    pub fn demand_counters(&self) -> &DemandCounters {
        self.inner.demand_counters()
    }

    /// Who needs what right now.
    pub fn demand(&self) -> DemandReport {
        self.inner.demand_counters().report()
    }

    /// The same of a single Sleeper.
    pub fn demand_of(&self, namespace: &str, sleeper: &str) -> DemandReport {
        self.inner.demand_counters().report_of(namespace, sleeper)
    }

    /// Opens the main listener.
    ///
    /// # Errors
    /// [`ServeError::Listen`]. DLX ports are opened later and are tried again when they cannot be.
    pub fn bind(&self) -> Result<Server, ServeError> {
        let address = self.inner.config.listen_address;
        let listener = accept::bind(address).map_err(|source| ServeError::Listen { address, source })?;
        let local = listener
            .local_addr()
            .map_err(|source| ServeError::Listen { address, source })?;
        Ok(Server {
            inner: Arc::clone(&self.inner),
            listener,
            local,
        })
    }

    /// Serves until `shutdown`, then drains: [`bind`](Self::bind) and [`Server::run`].
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn serve(&self, shutdown: CancellationToken) -> Result<(), ServeError> {
        self.bind()?.run(shutdown).await;
        Ok(())
    }
}

/// A data plane whose main listener is open.
pub struct Server {
    inner: Arc<Inner>,
    listener: TcpListener,
    local: SocketAddr,
}

impl Server {
    /// Address of the main listener.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until `shutdown`, then drains: nothing new is accepted, what is in flight or held goes on until it is done
    /// or the drain limit is over, then held requests are refused with 503, and upgraded connections are closed last.
    ///
    /// Whoever calls this must have stopped being ready before, so that nobody sends new connections.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            inner,
            listener,
            local,
        } = self;
        tracing::info!(address = %local, "the DLX listens");
        let stop = shutdown.child_token();
        tokio::join!(
            accept::accept(Arc::clone(&inner), listener, ListenerKind::Main, stop.clone()),
            accept::keep_ports(Arc::clone(&inner), stop),
        );
        inner.drain().await;
        tracing::info!("the DLX has drained");
    }
}
