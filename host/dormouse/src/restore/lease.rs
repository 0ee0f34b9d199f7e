//! Takes the autoscaler's Lease away from whoever holds it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::core::ObjectMeta;
use tokio::time::Instant;

use super::{REQUEST, TICK};
use crate::config::Namespaced;
use crate::output::tell;

/// How long the Lease stays taken once everything is restored: far longer than Helm needs to delete the autoscaler.
const KEEP: Duration = Duration::from_secs(300);

/// The Lease, held by us.
pub(super) struct Seized {
    leases: Api<Lease>,
    name: String,
    identity: String,
    /// As it was before we took it.
    pub(super) before: Option<Lease>,
}

impl Seized {
    /// Takes the Lease, held or not, for longer than all of this may last. Whoever held it sees another holder at its next
    /// attempt to renew and steps down; a renewal that is under way loses by its resourceVersion.
    pub(super) async fn take(
        client: Client,
        lease: &Namespaced,
        identity: &str,
        lasts: Duration,
        deadline: Instant,
    ) -> Result<Self> {
        let mut seized = Self {
            leases: Api::namespaced(client, &lease.namespace),
            name: lease.name.clone(),
            identity: format!("restore-{identity}"),
            before: None,
        };
        let begun = Instant::now();
        // Half of the time is for restoring without it.
        let until = begun + deadline.duration_since(begun) / 2;
        loop {
            let error = match seized.write(&seized.identity, lasts + KEEP).await {
                Ok(before) => {
                    seized.before = before;
                    return Ok(seized);
                }
                Err(error) => error,
            };
            // What is not allowed now is not allowed later either.
            let hopeless =
                matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 403);
            if hopeless || Instant::now() + TICK >= until {
                return Err(error);
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Whether somebody held it, and has to notice first.
    pub(super) fn had_leader(&self) -> bool {
        let spec = self.before.as_ref().and_then(|lease| lease.spec.as_ref());
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
        holder.is_some_and(|holder| !holder.is_empty() && holder != self.identity)
    }

    /// Leaves it taken, but not for ever.
    pub(super) async fn keep(self) {
        if let Err(error) = self.write(&self.identity, KEEP).await {
            tell!("the Lease stays taken for longer than needed: {error:#}");
        }
    }

    /// Lets the autoscaler go on as before.
    pub(super) async fn give_back(self) {
        if let Err(error) = self.write("", Duration::from_secs(1)).await {
            tell!(
                "the Lease {} could not be given back, which stops the autoscaler for a while: {error:#}",
                self.name
            );
        }
    }

    /// Writes the holder, and tells how the Lease was before.
    async fn write(&self, holder: &str, lasts: Duration) -> Result<Option<Lease>> {
        let spec = |transitions: i32| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(i32::try_from(lasts.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(MicroTime(Timestamp::now())),
            renew_time: Some(MicroTime(Timestamp::now())),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let params = PostParams::default();
        let Some(found) = asked(self.leases.get_opt(&self.name)).await? else {
            let metadata = ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            };
            let lease = Lease {
                metadata,
                spec: Some(spec(0)),
            };
            asked(self.leases.create(&params, &lease)).await?;
            return Ok(None);
        };
        let transitions = found.spec.as_ref().and_then(|spec| spec.lease_transitions);
        let lease = Lease {
            spec: Some(spec(transitions.unwrap_or(0) + 1)),
            ..found.clone()
        };
        asked(self.leases.replace(&self.name, &params, &lease)).await?;
        Ok(Some(found))
    }
}

async fn asked<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(answer) => answer.context("the Lease"),
        Err(_) => bail!("the API server did not answer within {REQUEST:?}"),
    }
}
