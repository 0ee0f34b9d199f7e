//! Every Sleeper as a watch shows it, and when it was first seen so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::Client;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::api::SLEEPER;
use super::controllers::number;

/// What is known of one.
#[derive(Clone, Debug)]
pub struct Seen {
    pub phase: String,
    pub desired: String,
    /// What its status says of it.
    pub reason: String,
    /// The port of every DLX that stands in for it.
    pub port: Option<u16>,
    pub phase_since: Instant,
    pub desired_since: Instant,
}

/// All Sleepers, by the number of their target.
#[derive(Clone)]
pub struct Sleepers {
    seen: Arc<Mutex<Vec<Option<Seen>>>>,
    changed: Arc<Notify>,
    _following: Arc<Following>,
}

/// Ends with the last clone.
struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Sleepers {
    /// Follows the Sleepers of so many targets.
    pub fn follow(client: &Client, targets: u32) -> Self {
        let seen: Arc<Mutex<Vec<Option<Seen>>>> = Arc::new(Mutex::new(vec![None; targets as usize]));
        let changed = Arc::new(Notify::new());
        let stream = watch(SLEEPER.all(client), watcher::Config::default()).default_backoff();
        let (known, tell) = (Arc::clone(&seen), Arc::clone(&changed));
        let following = tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                let Ok(Event::Apply(object) | Event::InitApply(object)) = event else {
                    continue;
                };
                let resource = object.data["spec"]["resource"].as_str().unwrap_or_default();
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(slot) = number(resource).and_then(|number| known.get_mut(number as usize)) {
                    note(slot, &object.data["status"], Instant::now());
                    tell.notify_waiters();
                }
            }
        });
        Self {
            seen,
            changed,
            _following: Arc::new(Following(following)),
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Option<Seen>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of them.
    pub fn get(&self, number: u32) -> Option<Seen> {
        self.all().get(number as usize)?.clone()
    }

    /// How many there are of which this is so.
    pub fn count(&self, so: impl Fn(&Seen) -> bool) -> u32 {
        let count = self.all().iter().flatten().filter(|seen| so(seen)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// How many are where, in words.
    pub fn tally(&self) -> Vec<String> {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for seen in self.all().iter().flatten() {
            let state = format!("{}, requested {}: {}", seen.phase, seen.desired, seen.reason);
            *counts.entry(state).or_default() += 1;
        }
        counts
            .into_iter()
            .map(|(state, count)| format!("{count} are {state}"))
            .collect()
    }

    /// Waits until there are so many of which this is so. The answer is how many there are at the end of that.
    pub async fn wait(&self, wanted: u32, limit: Duration, so: impl Fn(&Seen) -> bool) -> u32 {
        let end = Instant::now() + limit;
        loop {
            let changed = self.changed.notified();
            let count = self.count(&so);
            let left = end.saturating_duration_since(Instant::now());
            if count >= wanted || left.is_zero() {
                return count;
            }
            // Counting all of them for each that changes would be most of the bench's own time.
            let _ = tokio::time::timeout(left, changed).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn note(slot: &mut Option<Seen>, status: &Value, now: Instant) {
    let text = |key: &str| status[key].as_str().unwrap_or("Awake").to_owned();
    let (phase, desired) = (text("phase"), text("wish"));
    let port = status["ports"][0]["dlxPort"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok());
    let (phase_since, desired_since) = match slot {
        Some(before) => (
            if before.phase == phase {
                before.phase_since
            } else {
                now
            },
            if before.desired == desired {
                before.desired_since
            } else {
                now
            },
        ),
        None => (now, now),
    };
    *slot = Some(Seen {
        phase,
        desired,
        reason: status["reason"].as_str().unwrap_or_default().to_owned(),
        port,
        phase_since,
        desired_since,
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_phase_is_as_old_as_its_first_sight() {
        let mut slot = None;
        let begun = Instant::now();
        note(&mut slot, &Value::Null, begun);
        let status = json!({"phase": "Awake", "wish": "Observed", "ports": [{"dlxPort": 20001}]});
        note(&mut slot, &status, begun + Duration::from_secs(1));
        let seen = slot.unwrap();
        assert_eq!(
            (seen.phase_since, seen.desired_since),
            (begun, begun + Duration::from_secs(1))
        );
        assert_eq!(seen.port, Some(20001));
    }
}
