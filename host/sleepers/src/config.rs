//! Settings of a [`crate::Cluster`].

use std::collections::BTreeMap;
use std::time::Duration;

use dormouse_kubernetes::Scope;
use dormouse_lifecycle::{PortRange, Timings, Zero};

use crate::SleepGrant;

/// Settings of a [`crate::Cluster`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Which namespaces are looked after.
    pub scope: Scope,
    /// Namespace and name of the Service whose ready endpoints are the DLX. None: there is no DLX.
    pub dlx_service: Option<(String, String)>,
    /// Ports that the DLX may listen on for diverted Services.
    pub ports: PortRange,
    /// Times of the sleep and wake protocol.
    pub timings: Timings,
    /// How long a wake may take before it counts as failed, for Sleepers that do not say.
    pub readiness_timeout: Duration,
    /// What zero replicas that somebody else set mean, for workloads that do not say ([`crate::api::AT_ZERO`]).
    pub at_zero: Zero,
    /// Field manager of all writes, and the component that Events name. At most 128 characters.
    pub field_manager: String,
    /// Deadline of each single request to the API server.
    pub request_timeout: Duration,
    /// How long [`crate::Cluster::connect`] waits for the first lists.
    pub sync_timeout: Duration,
    /// Whether Ingresses are watched. Only the DLX needs them; without, no RBAC rule for them is needed.
    pub ingresses: bool,
    /// How long one DLX may take to answer a probe or a question for demand.
    pub dlx_timeout: Duration,
    /// How long a new pod may take to accept a connection before it is tried again.
    pub connect_timeout: Duration,
    /// What each plugin may put to sleep, by its name. A plugin that is not there may put nothing to sleep. None: whatever is
    /// desired, for tools without plugins.
    pub sleep_grants: Option<BTreeMap<String, Vec<SleepGrant>>>,
    /// Namespace and name of the pod that this process runs in, so that it knows what belongs to it. None: it runs in none.
    pub own_pod: Option<(String, String)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            scope: Scope::All,
            dlx_service: None,
            ports: PortRange::default(),
            timings: Timings::default(),
            readiness_timeout: Duration::from_secs(60),
            at_zero: Zero::StandIn,
            field_manager: "dormouse".to_owned(),
            // Five seconds is far above what a healthy API server needs, and short enough for a retry within a wake.
            request_timeout: Duration::from_secs(5),
            sync_timeout: Duration::from_secs(30),
            ingresses: true,
            dlx_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_millis(500),
            sleep_grants: None,
            own_pod: None,
        }
    }
}
