//! Requests to reconcile a Sleeper soon, from the parts of this process that write Sleepers to its controllers.

use tokio::sync::broadcast;

/// How many requests a controller may lag behind before it reconciles every Sleeper.
const BACKLOG: usize = 4096;

/// A Sleeper to reconcile soon.
#[derive(Clone, Debug)]
pub(crate) struct Requeue {
    /// Namespace and object name.
    pub(crate) name: (String, String),
    /// This process changed it, and reconciles it without leaving it to others first.
    pub(crate) moved: bool,
}

/// Where the controllers of this process receive requests. Clones send to the same receivers.
#[derive(Clone)]
pub(crate) struct Requeues(broadcast::Sender<Requeue>);

impl Default for Requeues {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }
}

impl Requeues {
    /// Every request from now on. A receiver that lags must reconcile every Sleeper.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Requeue> {
        self.0.subscribe()
    }

    /// This process changed the Sleeper: its controllers reconcile it at once.
    pub(crate) fn moved(&self, namespace: &str, name: &str) {
        self.send(namespace, name, true);
    }

    /// The controllers reconcile the Sleeper soon, even in a pause after an error.
    pub(crate) fn requeue(&self, namespace: &str, name: &str) {
        self.send(namespace, name, false);
    }

    fn send(&self, namespace: &str, name: &str, moved: bool) {
        let name = (namespace.to_owned(), name.to_owned());
        // Fails without a receiver: a process without a controller needs no request.
        let _ = self.0.send(Requeue { name, moved });
    }
}
