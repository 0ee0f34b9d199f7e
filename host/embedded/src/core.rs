//! What the parts of one cluster share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::faults::Faults;
use crate::metrics::CustomMetrics;
use crate::options::Options;
use crate::output::Output;
use crate::store::Store;

/// One request that an in-process pod answered.
#[derive(Clone, Debug)]
pub struct PodRequest {
    /// When it arrived, RFC 3339 with fractions.
    pub at: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// HTTP method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// The Host header or authority.
    pub host: String,
}

const POD_LOG: usize = 50_000;

#[derive(Debug)]
pub(crate) struct Core {
    pub store: Arc<Store>,
    pub metrics: CustomMetrics,
    pub faults: Faults,
    pub options: Options,
    pub shutdown: CancellationToken,
    pub tasks: TaskTracker,
    pod_log: Mutex<VecDeque<PodRequest>>,
    pub output: Output,
}

impl Core {
    pub fn new(store: Arc<Store>, options: Options) -> Self {
        let output = Output::new(options.output.clone());
        Core {
            store,
            metrics: CustomMetrics::default(),
            faults: Faults::default(),
            options,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            pod_log: Mutex::new(VecDeque::new()),
            output,
        }
    }

    pub fn record_pod_request(&self, r: PodRequest) {
        let mut log = self.pod_log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() >= POD_LOG {
            log.pop_front();
        }
        log.push_back(r);
    }

    pub fn pod_requests(&self) -> Vec<PodRequest> {
        self.pod_log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}
