//! Leader election by Lease, after client-go's `leaderelection`.
//!
//! Whether another holder's lease has expired is judged by how long *we* have seen it unchanged, not by its timestamps, so
//! clocks need not agree. A leader that could not renew for [`LeadershipConfig::renew_deadline`] steps down on its own, before
//! anybody else may take over.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{ClusterError, Outages, limited, optional};

/// Settings of the election. `lease > renew_deadline > retry`.
#[derive(Clone, Debug)]
pub struct LeadershipConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are: unique for each process, such as the pod's name and uid.
    pub identity: String,
    /// How long a lease is good without being renewed.
    pub lease: Duration,
    /// How long a leader tries to renew before it steps down.
    pub renew_deadline: Duration,
    /// Pause between attempts, jittered by a fifth.
    pub retry: Duration,
}

impl LeadershipConfig {
    /// Times like client-go's 15 s, 10 s and 2 s, a little shorter, so that what one held who is gone is taken over within 15 s: the lease is
    /// seen renewed, and taken when it is over.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease: Duration::from_secs(12),
            renew_deadline: Duration::from_secs(8),
            retry: Duration::from_secs(2),
        }
    }
}

/// A taking part in an election, from [`Leadership::start`] until its shutdown token is cancelled.
pub struct Leadership {
    leads: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
    /// Kept open for those who always take part.
    _always: Option<watch::Sender<bool>>,
}

impl Leadership {
    /// Takes part. On `shutdown`, a lease that is held is given back, so that the next leader need not wait.
    pub fn start(
        client: kube::Client,
        config: LeadershipConfig,
        outages: Outages,
        shutdown: CancellationToken,
    ) -> Self {
        let (always, wanted) = watch::channel(true);
        let mut election = Self::start_if(client, config, outages, wanted, shutdown);
        election._always = Some(always);
        election
    }

    /// Takes part as long as `wanted` is true, and gives the lease back when it is not any more.
    pub(crate) fn start_if(
        client: kube::Client,
        config: LeadershipConfig,
        outages: Outages,
        wanted: watch::Receiver<bool>,
        shutdown: CancellationToken,
    ) -> Self {
        let (told, leads) = watch::channel(false);
        let candidate = Candidate {
            leases: Api::namespaced(client, &config.namespace),
            config,
            told,
            wanted,
            outages,
            seen: None,
            renewed: None,
        };
        Self {
            leads,
            task: tokio::spawn(candidate.run(shutdown)),
            _always: None,
        }
    }

    /// Whether this process leads, as it changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    /// Whether this process leads now.
    pub fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    /// Waits until the lease is given back after shutdown.
    pub async fn finished(self) {
        // A panic of the task is reported by the runtime.
        let _ = self.task.await;
    }
}

struct Candidate {
    leases: Api<Lease>,
    config: LeadershipConfig,
    told: watch::Sender<bool>,
    wanted: watch::Receiver<bool>,
    outages: Outages,
    /// The lease as last seen, and since when it has been so.
    seen: Option<(LeaseSpec, Instant)>,
    /// When we last renewed.
    renewed: Option<Instant>,
}

impl Candidate {
    async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let attempt = tokio::select! {
                () = shutdown.cancelled() => break,
                attempt = self.attempt() => attempt,
            };
            match attempt {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, lease = self.config.name, "leader election: trying again")
                }
            }
            self.judge();
            let pause = self.config.retry.mul_f64(rand::random_range(0.8..1.2));
            // Neither stepping down nor taking over waits for the next attempt.
            let next = Instant::now() + pause;
            let until = self.turn().map_or(next, |turn| turn.min(next));
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep_until(until) => self.judge(),
                Ok(()) = self.wanted.changed() => if !*self.wanted.borrow() {
                    self.step_down().await;
                },
            }
        }
        self.step_down().await;
    }

    /// When somebody's time is over, if that is still to come: ours if we lead, otherwise the holder's.
    fn turn(&self) -> Option<Instant> {
        if let Some(renewed) = self.renewed {
            return Some(renewed + self.config.renew_deadline);
        }
        let (lease, since) = self.seen.as_ref()?;
        let free = *since + good_for(lease, &self.config);
        (*self.wanted.borrow() && free > Instant::now()).then_some(free)
    }

    /// Stops to lead, and then gives the lease back.
    async fn step_down(&mut self) {
        self.renewed = None;
        let led = *self.told.borrow();
        self.announce(false);
        if led && let Err(error) = self.release().await {
            tracing::warn!(%error, lease = self.config.name, "the lease could not be given back");
        }
    }

    fn judge(&mut self) {
        let leads = self
            .renewed
            .is_some_and(|renewed| renewed.elapsed() < self.config.renew_deadline);
        if !leads {
            self.renewed = None;
        }
        self.announce(leads);
    }

    fn announce(&self, leads: bool) {
        let changed = self
            .told
            .send_if_modified(|led| std::mem::replace(led, leads) != leads);
        if changed {
            tracing::info!(
                lease = self.config.name,
                identity = self.config.identity,
                leads,
                "leadership changed"
            );
        }
    }

    /// Renews or acquires, if that is ours to do.
    async fn attempt(&mut self) -> Result<(), ClusterError> {
        // What a write achieves counts from when it was begun: the answer may take its time.
        let begun = Instant::now();
        let left = self
            .renewed
            .map(|renewed| (renewed + self.config.renew_deadline).duration_since(begun));
        let patience = left
            .unwrap_or(self.config.renew_deadline)
            .max(Duration::from_millis(1));
        let name = self.config.name.clone();
        let what = || format!("Lease {name}");
        let found = optional(limited(patience, what, self.leases.get(&name)).await)?;
        if found.is_none() && !*self.wanted.borrow() {
            return Ok(());
        }
        let Some(mut lease) = found else {
            let spec = self.spec(None);
            let metadata = ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            };
            let lease = Lease {
                metadata,
                spec: Some(spec),
            };
            return match limited(patience, what, self.leases.create(&PostParams::default(), &lease)).await {
                Ok(_) => {
                    self.renewed = Some(begun);
                    Ok(())
                }
                Err(ClusterError::Exists { .. } | ClusterError::Conflict { .. }) => Ok(()),
                Err(error) => Err(error),
            };
        };
        self.outages.hear_from(&lease);
        let current = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != current) {
            self.seen = Some((current.clone(), begun));
        }
        let unchanged = self
            .seen
            .as_ref()
            .map_or(Duration::ZERO, |(_, since)| since.elapsed());
        if !*self.wanted.borrow() || !may_take(&current, &self.config, unchanged) {
            self.renewed = None;
            return Ok(());
        }
        lease.spec = Some(self.spec(Some(&current)));
        self.outages.note_on(&mut lease);
        match limited(
            patience,
            what,
            self.leases.replace(&name, &PostParams::default(), &lease),
        )
        .await
        {
            Ok(_) => {
                self.renewed = Some(begun);
                Ok(())
            }
            // Somebody was faster: look again at the next attempt.
            Err(ClusterError::Conflict { .. }) => {
                if current.holder_identity.as_deref() != Some(self.config.identity.as_str()) {
                    self.renewed = None;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn spec(&self, current: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours =
            current.is_some_and(|c| c.holder_identity.as_deref() == Some(self.config.identity.as_str()));
        let transitions = current.and_then(|current| current.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(
                i32::try_from(self.config.lease.as_secs().max(1)).unwrap_or(i32::MAX),
            ),
            acquire_time: current
                .filter(|_| ours)
                .and_then(|c| c.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours || current.is_none() {
                transitions
            } else {
                transitions + 1
            }),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> Result<(), ClusterError> {
        let name = &self.config.name;
        let what = || format!("Lease {name}");
        let patience = Duration::from_secs(2).min(self.config.renew_deadline);
        let mut lease = limited(patience, what, self.leases.get(name)).await?;
        let Some(spec) = lease.spec.as_mut() else {
            return Ok(());
        };
        if spec.holder_identity.as_deref() != Some(self.config.identity.as_str()) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        limited(
            patience,
            what,
            self.leases.replace(name, &PostParams::default(), &lease),
        )
        .await
        .map(|_| ())
    }
}

/// Whether the lease is ours, free, or has been left alone for as long as it was good.
pub(crate) fn may_take(current: &LeaseSpec, config: &LeadershipConfig, unchanged: Duration) -> bool {
    unchanged >= good_for(current, config)
}

/// How long the lease keeps us out since it was last renewed.
fn good_for(current: &LeaseSpec, config: &LeadershipConfig) -> Duration {
    match current.holder_identity.as_deref() {
        None | Some("") => Duration::ZERO,
        Some(holder) if holder == config.identity => Duration::ZERO,
        Some(_) => current
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(config.lease, Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(None, 0, true)]
    #[case(Some(""), 0, true)]
    #[case(Some("me"), 0, true)]
    #[case(Some("other"), 14, false)]
    #[case(Some("other"), 15, true)]
    fn a_lease_is_taken_only_when_it_is_free(
        #[case] holder: Option<&str>,
        #[case] unchanged: u64,
        #[case] free: bool,
    ) {
        let current = LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(15),
            // Long ago by its own clock: that must not matter.
            renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        };
        let config = LeadershipConfig::new("a", "b", "me");
        assert_eq!(may_take(&current, &config, Duration::from_secs(unchanged)), free);
    }
}
