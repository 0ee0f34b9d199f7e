//! Several leaders, each of its own part of the namespaces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dormouse_kubernetes::{LeadershipConfig, Outages, Sharding};
use dormouse_model::Shards;
use http::Method;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::candidate;
use crate::mock::{Mock, failure};

const COUNT: u32 = 4;

struct Replica {
    sharding: Sharding,
    shutdown: CancellationToken,
    held: watch::Receiver<Shards>,
}

impl Replica {
    fn start(mock: &Mock, identity: &str) -> Self {
        Self::with(&mock.client(), identity)
    }

    fn with(client: &kube::Client, identity: &str) -> Self {
        let shutdown = CancellationToken::new();
        let config = LeadershipConfig::new("shop", "dormouse", identity);
        let metrics = dormouse_kubernetes::Metrics::default();
        let sharding = Sharding::start(client, &config, COUNT, metrics, &Outages::default(), &shutdown);
        let held = sharding.watch();
        Self {
            sharding,
            shutdown,
            held,
        }
    }

    fn holds(&self) -> usize {
        self.held.borrow().held().len()
    }

    async fn until_it_holds(&mut self, shards: usize) {
        let wait = self.held.wait_for(|held| held.held().len() == shards);
        tokio::time::timeout(Duration::from_secs(120), wait)
            .await
            .unwrap()
            .unwrap();
    }

    async fn leave(self) {
        self.shutdown.cancel();
        self.sharding.finished().await;
    }
}

/// Nobody ever looks after a namespace that another one looks after too.
fn assert_apart(one: &Replica, two: &Replica) {
    let (one, two) = (one.held.borrow(), two.held.borrow());
    assert!(one.held().is_disjoint(two.held()), "{one:?} and {two:?}");
}

#[tokio::test(start_paused = true)]
async fn replicas_share_the_shards_and_whoever_stays_takes_those_of_one_that_leaves() {
    let mock = Mock::default();
    let mut one = Replica::start(&mock, "one");
    one.until_it_holds(4).await;
    let mut two = Replica::start(&mock, "two");
    two.until_it_holds(2).await;
    one.until_it_holds(2).await;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_apart(&one, &two);
        assert_eq!((one.holds(), two.holds()), (2, 2), "what is shared stays so");
    }
    one.leave().await;
    let left = Instant::now();
    two.until_it_holds(4).await;
    assert!(left.elapsed() < Duration::from_secs(6), "{:?}", left.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_shards_of_a_replica_that_is_gone_are_taken_over_within_fifteen_seconds() {
    // Attempts are jittered.
    for _ in 0..30 {
        let mock = Mock::default();
        let gone = Arc::new(AtomicBool::new(false));
        let mut one = Replica::with(&mock.client_until(Arc::clone(&gone)), "one");
        let mut two = Replica::start(&mock, "two");
        one.until_it_holds(2).await;
        two.until_it_holds(2).await;
        gone.store(true, Ordering::SeqCst);
        let left = Instant::now();
        while two.holds() < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_apart(&one, &two);
            assert!(left.elapsed() < Duration::from_secs(15), "{:?}", left.elapsed());
        }
        assert_eq!(one.holds(), 0, "it stepped down by itself, before");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_knows_one_shard_only_leads_alone() {
    let mock = Mock::default();
    let (old, leave) = candidate(&mock, "old");
    old.watch().wait_for(|leads| *leads).await.unwrap();
    let mut new = Replica::start(&mock, "new");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(new.holds(), 0);
    assert!(old.leads(), "its Lease is left to it");
    leave.cancel();
    old.finished().await;
    new.until_it_holds(4).await;
    let (old, _stay) = candidate(&mock, "old");
    old.watch().wait_for(|leads| *leads).await.unwrap();
    new.until_it_holds(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_conflict_on_the_main_lease_is_no_loss() {
    let mock = Mock::default();
    let turns = Arc::new(AtomicBool::new(false));
    mock.rule(move |method, path, _| {
        let conflict =
            *method == Method::PUT && path.ends_with("/leases/dormouse") && turns.fetch_not(Ordering::SeqCst);
        conflict.then(|| (409, failure(409, "Conflict")))
    });
    let mut one = Replica::start(&mock, "one");
    one.until_it_holds(4).await;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(one.holds(), 4);
    }
}
