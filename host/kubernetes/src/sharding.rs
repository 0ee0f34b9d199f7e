//! Several leaders: namespaces are dealt out to shards, and each shard has a Lease of its own.
//!
//! Replicas say that they live in an annotation of the main Lease, each with a number that it raises. A replica whose number has
//! stood still for [`LeadershipConfig::renew_deadline`] is gone, judged by how long *we* have seen it so; clocks need not agree. Of those
//! that live, in the order of their names, the first takes the first shard, the second the second, and so on, round and
//! round. That only says who tries for which Lease: who holds one is decided by the Lease alone, so two replicas that do not agree on who
//! lives never hold the same shard.
//!
//! Whoever holds the main Lease itself leads alone, and no shard is held meanwhile: a process that knows one shard only,
//! or the uninstaller.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use dormouse_model::Shards;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::leadership::may_take;
use crate::{ClusterError, Leadership, LeadershipConfig, Metrics, Outages, limited, optional};

/// On the main Lease: the replicas that live, as JSON, each with its number.
const REPLICAS: &str = "dormouse.dev/replicas";
/// Attempts to write one's number in a row.
const ATTEMPTS: u32 = 4;
/// Replicas that are remembered, against an annotation that somebody made up.
const MOST_REPLICAS: usize = 100;

/// A taking part in the election of one leader for each shard, until its shutdown token is cancelled.
pub struct Sharding {
    held: watch::Receiver<Shards>,
    tasks: Vec<JoinHandle<()>>,
    elections: Vec<Leadership>,
}

impl Sharding {
    /// Takes part. With one shard this is an election for the main Lease; with more, for the Leases `<name>-0`, `<name>-1` and so on.
    pub fn start(
        client: &kube::Client,
        config: &LeadershipConfig,
        count: u32,
        metrics: Metrics,
        outages: &Outages,
        shutdown: &CancellationToken,
    ) -> Self {
        if count <= 1 {
            let election =
                Leadership::start(client.clone(), config.clone(), outages.clone(), shutdown.clone());
            return Self::of(1, vec![election], Vec::new(), metrics);
        }
        let (mut wanted, mut elections) = (Vec::new(), Vec::new());
        for shard in 0..count {
            let (sender, receiver) = watch::channel(false);
            let config = LeadershipConfig {
                name: format!("{}-{shard}", config.name),
                ..config.clone()
            };
            wanted.push(sender);
            elections.push(Leadership::start_if(
                client.clone(),
                config,
                outages.clone(),
                receiver,
                shutdown.clone(),
            ));
        }
        let registry = Registry {
            leases: Api::namespaced(client.clone(), &config.namespace),
            config: config.clone(),
            wanted,
            known: HashMap::new(),
            holder: None,
            number: 0,
        };
        let task = tokio::spawn(registry.run(shutdown.clone()));
        Self::of(count, elections, vec![task], metrics)
    }

    fn of(count: u32, elections: Vec<Leadership>, mut tasks: Vec<JoinHandle<()>>, metrics: Metrics) -> Self {
        let (told, held) = watch::channel(Shards::none());
        let watched: Vec<_> = elections.iter().map(Leadership::watch).collect();
        tasks.push(tokio::spawn(tell(count, watched, told, metrics)));
        Self {
            held,
            tasks,
            elections,
        }
    }

    /// The shards that this process holds, as they change.
    pub fn watch(&self) -> watch::Receiver<Shards> {
        self.held.clone()
    }

    /// Waits until the Leases are given back after shutdown.
    pub async fn finished(self) {
        join_all(self.elections.into_iter().map(Leadership::finished)).await;
        for task in self.tasks {
            // A panic of the task is reported by the runtime.
            let _ = task.await;
        }
    }
}

/// Tells which shards are held, whenever an election says something new. Ends with the elections.
async fn tell(
    count: u32,
    mut elections: Vec<watch::Receiver<bool>>,
    told: watch::Sender<Shards>,
    metrics: Metrics,
) {
    loop {
        let held: Vec<u32> = (0..)
            .zip(elections.iter_mut())
            .filter_map(|(shard, leads)| leads.borrow_and_update().then_some(shard))
            .collect();
        metrics.holds(held.len(), count);
        let held = if held.is_empty() {
            Shards::none()
        } else {
            Shards::of(count, held)
        };
        told.send_if_modified(|known| {
            let changed = *known != held;
            if changed {
                tracing::info!(held = ?held.held(), count, "shards changed");
                *known = held;
            }
            changed
        });
        let mut changes: FuturesUnordered<_> = elections.iter_mut().map(|leads| leads.changed()).collect();
        if matches!(changes.next().await, None | Some(Err(_))) {
            break;
        }
    }
    metrics.holds(0, count);
    told.send_replace(Shards::none());
}

/// Who lives, and so which Leases this process tries for.
struct Registry {
    leases: Api<Lease>,
    config: LeadershipConfig,
    /// By shard.
    wanted: Vec<watch::Sender<bool>>,
    /// The numbers of others, and since when they have been so.
    known: HashMap<String, (u64, Instant)>,
    /// Who holds the main Lease, and since when it has been so.
    holder: Option<(LeaseSpec, Instant)>,
    /// Our own.
    number: u64,
}

impl Registry {
    async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let attempt = tokio::select! {
                () = shutdown.cancelled() => break,
                attempt = self.attempt() => attempt,
            };
            match attempt {
                Ok(living) => self.want(&living),
                // Leases that are held are kept as long as they can be renewed.
                Err(error) => tracing::warn!(%error, lease = self.config.name, "sharding: trying again"),
            }
            let pause = self.config.retry.mul_f64(rand::random_range(0.8..1.2));
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        if let Err(error) = self.leave().await {
            tracing::warn!(%error, lease = self.config.name, "others learn by waiting that this process has ended");
        }
    }

    fn want(&self, living: &[String]) {
        for (shard, wanted) in self.wanted.iter().enumerate() {
            let ours = assigned(living, shard) == Some(&self.config.identity);
            wanted.send_if_modified(|before| std::mem::replace(before, ours) != ours);
        }
    }

    /// Says that we live, and tells who else does. Nobody, as long as somebody leads alone.
    async fn attempt(&mut self) -> Result<Vec<String>, ClusterError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.write().await {
                // Another replica was faster.
                Err(ClusterError::Conflict { .. } | ClusterError::Exists { .. }) if attempts < ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(rand::random_range(5..100))).await;
                }
                other => return other,
            }
        }
    }

    async fn write(&mut self) -> Result<Vec<String>, ClusterError> {
        let name = self.config.name.clone();
        let (patience, what) = (self.config.renew_deadline, || format!("Lease {name}"));
        let found = optional(limited(patience, what, self.leases.get(&name)).await)?;
        let now = Instant::now();
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let led_alone = self.is_led_alone(&lease, now);
        let mut numbers = numbers(&lease);
        let living = self.living(&numbers, now);
        self.number = self.number.wrapping_add(1);
        numbers.retain(|replica, _| living.contains(replica));
        numbers.insert(self.config.identity.clone(), self.number);
        note(&mut lease, &numbers);
        let params = PostParams::default();
        if lease.resource_version().is_none() {
            limited(patience, what, self.leases.create(&params, &lease)).await?;
        } else {
            limited(patience, what, self.leases.replace(&name, &params, &lease)).await?;
        }
        Ok(if led_alone { Vec::new() } else { living })
    }

    fn is_led_alone(&mut self, lease: &Lease, now: Instant) -> bool {
        let current = lease.spec.clone().unwrap_or_default();
        if self.holder.as_ref().is_none_or(|(known, _)| *known != current) {
            self.holder = Some((current.clone(), now));
        }
        let since = self.holder.as_ref().map_or(now, |(_, since)| *since);
        !may_take(&current, &self.config, now.duration_since(since))
    }

    /// Names of the replicas that live, this one included, in order.
    fn living(&mut self, numbers: &BTreeMap<String, u64>, now: Instant) -> Vec<String> {
        self.known.retain(|replica, _| numbers.contains_key(replica));
        let mut living = vec![self.config.identity.clone()];
        for (replica, number) in numbers
            .iter()
            .filter(|(replica, _)| **replica != self.config.identity)
        {
            let known = self.known.entry(replica.clone()).or_insert((*number, now));
            if known.0 != *number {
                *known = (*number, now);
            }
            if now.duration_since(known.1) < self.config.renew_deadline {
                living.push(replica.clone());
            }
        }
        living.sort();
        living
    }

    /// Takes us out, so that others need not wait.
    async fn leave(&self) -> Result<(), ClusterError> {
        let name = &self.config.name;
        let (patience, what) = (Duration::from_secs(2), || format!("Lease {name}"));
        let mut lease = limited(patience, what, self.leases.get(name)).await?;
        let mut numbers = numbers(&lease);
        if numbers.remove(&self.config.identity).is_some() {
            note(&mut lease, &numbers);
            let params = PostParams::default();
            limited(patience, what, self.leases.replace(name, &params, &lease)).await?;
        }
        Ok(())
    }
}

/// Who tries for a shard.
fn assigned(living: &[String], shard: usize) -> Option<&String> {
    living.get(shard.checked_rem(living.len())?)
}

/// The numbers of all replicas. What cannot be read is none.
fn numbers(lease: &Lease) -> BTreeMap<String, u64> {
    let text = lease.annotations().get(REPLICAS);
    let numbers: BTreeMap<String, u64> = text
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    numbers.into_iter().take(MOST_REPLICAS).collect()
}

fn note(lease: &mut Lease, numbers: &BTreeMap<String, u64>) {
    let text = serde_json::to_string(numbers).unwrap_or_default();
    lease.annotations_mut().insert(REPLICAS.to_owned(), text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_replica_has_its_part_of_the_shards() {
        let two = names(&["a", "b"]);
        let of = |living: &[String], who: &str| {
            (0..4)
                .filter(|shard| assigned(living, *shard).is_some_and(|name| name == who))
                .count()
        };
        assert_eq!((of(&two, "a"), of(&two, "b")), (2, 2));
        assert_eq!(of(&names(&["b"]), "b"), 4, "who is left alone has all of them");
        let many = names(&["a", "b", "c", "d", "e"]);
        assert_eq!(of(&many, "e"), 0, "there are more replicas than shards");
        assert_eq!(assigned(&[], 0), None);
    }

    fn registry(identity: &str) -> Registry {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("there is no API server"))
        });
        Registry {
            leases: Api::namespaced(kube::Client::new(service, "default"), "default"),
            config: LeadershipConfig::new("default", "dormouse", identity),
            wanted: Vec::new(),
            known: HashMap::new(),
            holder: None,
            number: 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_lives_as_long_as_its_number_changes() {
        let mut registry = registry("b");
        let mut numbers: BTreeMap<String, u64> = [("a".to_owned(), 7), ("b".to_owned(), 1)].into();
        assert_eq!(registry.living(&numbers, Instant::now()), ["a", "b"]);
        tokio::time::advance(Duration::from_secs(9)).await;
        numbers.insert("a".to_owned(), 8);
        assert_eq!(registry.living(&numbers, Instant::now()), ["a", "b"]);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(registry.living(&numbers, Instant::now()), ["b"], "it stood still");
        numbers.remove("a");
        assert_eq!(registry.living(&numbers, Instant::now()), ["b"]);
        assert!(registry.known.is_empty(), "who left is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_holds_a_shard_while_somebody_leads_alone() {
        let mut registry = registry("b");
        let mut lease = Lease::default();
        assert!(
            !registry.is_led_alone(&lease, Instant::now()),
            "nobody ever held it"
        );
        lease.spec = Some(LeaseSpec {
            holder_identity: Some("old".to_owned()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        });
        assert!(registry.is_led_alone(&lease, Instant::now()));
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(
            !registry.is_led_alone(&lease, Instant::now()),
            "it is not renewed any more"
        );
    }

    #[test]
    fn what_somebody_wrote_into_the_annotation_does_no_harm() {
        let mut lease = Lease::default();
        for text in ["", "odd", "[1]", r#"{"a":"b"}"#] {
            lease
                .annotations_mut()
                .insert(REPLICAS.to_owned(), text.to_owned());
            assert!(numbers(&lease).is_empty(), "{text}");
        }
        note(&mut lease, &[("a".to_owned(), 3)].into());
        assert_eq!(numbers(&lease), [("a".to_owned(), 3)].into());
    }
}
