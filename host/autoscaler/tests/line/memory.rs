//! Targets whose source remembers for them: what is read, written and told to it, without a Sleeper, and with one where their workload may
//! sleep.

mod sleep;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_autoscaler::triggers::{Rule, Subject};
use dormouse_autoscaler::{Report, Source, SourceError};
use dormouse_kubernetes::ClusterError;
use dormouse_model::{MemoryPolicy, ObjectRef, Owner, OwnerKind, Policy, Query, Shards, Target, TargetKey};
use dormouse_scaling::Sample;
use dormouse_sleepers::SleeperKey;
use dormouse_sleepers::lifecycle::SleeperState;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::fakes::{Answer, lock};
use crate::harness::*;

const WEB: &str = "shop/web";
const SECOND: Duration = Duration::from_secs(1);

/// Remembers when it was last told of a write, as a status does.
struct MemHpas {
    last_scale: Mutex<Option<Timestamp>>,
    problem: Mutex<Option<String>>,
    /// What has to be idle for it to sleep.
    rules: Mutex<Vec<Rule>>,
    is_gone: AtomicBool,
    reports: Mutex<Vec<Report>>,
    changes: watch::Sender<u64>,
}

fn usage() -> Query {
    Query::PrometheusPods {
        namespace: "shop".into(),
        server: "main".into(),
        query: "memory".into(),
    }
}

fn owner(name: &str) -> Owner {
    Owner {
        kind: OwnerKind::MemHpa,
        name: name.to_owned(),
        uid: None,
    }
}

#[async_trait]
impl Source for MemHpas {
    fn owner(&self) -> Owner {
        owner("")
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn targets(&self) -> Result<Vec<Arc<Target>>, SourceError> {
        let key = TargetKey {
            owner: owner("by-memory"),
            namespace: "shop".into(),
            name: "by-memory".into(),
        };
        let object = ObjectRef {
            api_version: "xinhuang.com/v1".into(),
            kind: "MemHpa".into(),
            name: "by-memory".into(),
        };
        let policy = Policy::Memory(Arc::new(MemoryPolicy {
            min_replicas: 1,
            max_replicas: 5,
            target_utilization: 50,
            usage: Ok(Arc::new(usage())),
            last_scale: *lock(&self.last_scale),
        }));
        if self.is_gone.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        let (workload, services) = (deployment("web"), ["web".to_owned()]);
        let subject = Subject {
            key: &key,
            object: &workload,
            workloads: std::slice::from_ref(&workload),
            services: &services,
            metrics_resource: None,
        };
        let rules = lock(&self.rules).clone();
        let triggers: Vec<_> = rules.iter().map(|rule| subject.trigger(rule)).collect();
        let target = Target {
            problem: lock(&self.problem).clone(),
            has_sleeper: !triggers.is_empty(),
            wake_on: services.into_iter().filter(|_| !triggers.is_empty()).collect(),
            triggers,
            ..Target::only_scaled(key.clone(), object, workload.clone(), policy, SECOND * 30)
        };
        Ok(vec![Arc::new(target)])
    }

    fn tells_of_numbers(&self) -> bool {
        true
    }

    async fn report(&self, reports: Vec<(TargetKey, Report)>) {
        for (_, report) in reports {
            let written = report.scaled.as_ref().and_then(|scaled| scaled.written);
            if written.is_some() {
                *lock(&self.last_scale) = written;
            }
            lock(&self.reports).push(report);
        }
    }
}

/// A line that scales `web` by the memory of its pods.
struct ByMemory {
    world: World,
    source: Arc<MemHpas>,
}

impl ByMemory {
    fn new(replicas: i32) -> Self {
        let world = World::new();
        world.cluster.set_replicas(WEB, replicas);
        let source = MemHpas {
            last_scale: Mutex::default(),
            problem: Mutex::default(),
            rules: Mutex::default(),
            is_gone: AtomicBool::new(false),
            reports: Mutex::default(),
            changes: watch::Sender::new(0),
        };
        Self {
            world,
            source: Arc::new(source),
        }
    }

    /// What the one pod, which may use 100Mi, uses in mebibytes.
    fn uses(&self, mebibytes: u64) {
        let bytes = mebibytes << 20;
        self.world.api.reads(&usage(), Some(Sample::Value(bytes.into())));
    }

    /// One that may sleep when nobody has asked for anything for a quarter of an hour.
    fn that_may_sleep(replicas: i32) -> Self {
        let line = Self::new(replicas);
        *lock(&line.source.rules) = vec![custom("requests", 15, "0")];
        line.requests("0");
        line
    }

    fn requests(&self, count: &'static str) {
        let values = Answer::Values(vec![("web", count)]);
        self.world
            .api
            .says("apps/Deployment/shop/requests_per_15m", values);
    }

    fn key(&self) -> SleeperKey {
        SleeperKey::new(owner("by-memory"), "shop", "by-memory")
    }

    fn state(&self) -> SleeperState {
        self.world.cluster.state(&self.key())
    }

    /// The protocol, and what it does to the workload.
    fn carry_through(&self, replicas: i32) {
        self.world.cluster.carry_through();
        self.world.cluster.set_replicas(WEB, replicas);
        self.world.cluster.moved.send_modify(|count| *count += 1);
    }

    fn edit(&self, edit: impl FnOnce(&MemHpas)) {
        edit(&self.source);
        self.source.changes.send_modify(|count| *count += 1);
    }

    fn run(&self) {
        self.world
            .run_sources(vec![Arc::clone(&self.source) as Arc<dyn Source>]);
    }

    fn replicas(&self) -> i32 {
        self.world.cluster.replicas(WEB)
    }

    /// Reason of the last condition of this kind that does not hold.
    fn trouble(&self, kind: &str) -> Option<String> {
        let reports = lock(&self.source.reports);
        let conditions = &reports.last()?.update.conditions;
        let found = conditions.iter().find(|condition| condition.kind == kind)?;
        (!found.status).then(|| found.reason.clone())
    }

    fn last_text(&self) -> String {
        let reports = lock(&self.source.reports);
        let scaled = reports.last().and_then(|report| report.scaled.as_ref());
        scaled
            .map(|scaled| scaled.decision.to_string())
            .unwrap_or_default()
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_scaled_and_told_and_no_sleeper_comes_of_it() {
    let line = ByMemory::new(1);
    line.uses(100);
    line.run();
    pass(SECOND * 8).await;
    assert_eq!(line.replicas(), 2);
    assert_eq!(
        line.last_text(),
        "scale from 1 to 2: memory is 100%, target 50% of limits, proposes 2"
    );
    assert_eq!(line.world.cluster.written("declare"), 0, "it has no Sleeper");
    assert_eq!(
        (line.trouble("AbleToScale"), line.trouble("ScalingActive")),
        (None, None)
    );
    let told = lock(&line.world.cluster.events).clone();
    assert_eq!(
        told,
        [("shop/by-memory".to_owned(), "SuccessfulRescale".to_owned())]
    );
}

#[tokio::test(start_paused = true)]
async fn the_interval_after_a_rescale_holds_for_a_new_leader_too() {
    let line = ByMemory::new(1);
    line.uses(100);
    line.run();
    pass(SECOND * 8).await;
    assert_eq!(line.replicas(), 2);
    // Somebody puts it back, and another process leads.
    line.world.cluster.set_replicas(WEB, 1);
    line.world.leads(false);
    pass(SECOND).await;
    line.world.leads(true);
    minutes(1).await;
    assert_eq!(line.replicas(), 1);
    assert!(
        line.last_text()
            .contains("the time that must pass after a rescale"),
        "{}",
        line.last_text()
    );
    minutes(3).await;
    assert_eq!(line.replicas(), 2, "three minutes have passed");
}

#[tokio::test(start_paused = true)]
async fn a_change_right_after_a_rescale_does_not_scale_once_more() {
    let line = ByMemory::new(5);
    line.uses(10);
    line.run();
    pass(SECOND * 8).await;
    assert_eq!(line.replicas(), 1);
    // Its source has not heard of it, and is listed anew.
    *lock(&line.source.last_scale) = None;
    line.uses(100);
    line.source.changes.send_modify(|count| *count += 1);
    pass(SECOND * 8).await;
    assert_eq!(line.replicas(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decided_or_written_says_why_and_changes_nothing() {
    let line = ByMemory::new(2);
    line.world
        .api
        .reads(&usage(), Some(Sample::Error("it is down".into())));
    line.run();
    pass(SECOND * 8).await;
    assert_eq!(line.trouble("ScalingActive").as_deref(), Some("FailedGetMetrics"));
    assert!(line.last_text().contains("it is down"), "{}", line.last_text());

    line.world
        .api
        .reads(&usage(), Some(Sample::NoData("nobody".into())));
    minutes(1).await;
    assert_eq!(line.trouble("ScalingActive").as_deref(), Some("FailedGetMetrics"));

    *lock(&line.world.cluster.other_scaler) = Some("HorizontalPodAutoscaler web".into());
    minutes(1).await;
    assert_eq!(line.trouble("AbleToScale").as_deref(), Some("OtherScaler"));
    *lock(&line.world.cluster.other_scaler) = None;

    line.uses(10);
    let refused = ClusterError::Forbidden {
        what: "scaling".into(),
        message: "no".into(),
    };
    *lock(&line.world.cluster.refuses_resize) = Some(refused.into());
    minutes(1).await;
    assert_eq!(line.trouble("AbleToScale").as_deref(), Some("FailedUpdateScale"));

    *lock(&line.source.problem) = Some("it names nothing".into());
    line.source.changes.send_modify(|count| *count += 1);
    minutes(1).await;
    assert_eq!(line.trouble("AbleToScale").as_deref(), Some("InvalidDescription"));
    assert_eq!(line.replicas(), 2);

    line.world.cluster.set_replicas(WEB, 0);
    *lock(&line.source.problem) = None;
    *lock(&line.world.cluster.refuses_resize) = None;
    line.source.changes.send_modify(|count| *count += 1);
    minutes(1).await;
    assert_eq!(line.replicas(), 0, "somebody has turned it off");
    assert!(
        line.last_text().contains("scaling being disabled"),
        "{}",
        line.last_text()
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_already_is_not_written_over_what_is_still_to_come() {
    // Created with five replicas, of which one is there: that one alone would ask for two.
    let line = ByMemory::new(5);
    *lock(&line.world.cluster.current_replicas) = Some(1);
    line.uses(100);
    line.run();
    minutes(2).await;
    assert_eq!((line.replicas(), line.world.cluster.written("resize")), (5, 0));
    // None is there yet, which is below the minimum.
    *lock(&line.world.cluster.current_replicas) = Some(0);
    minutes(2).await;
    assert_eq!((line.replicas(), line.world.cluster.written("resize")), (5, 0));
    assert_eq!(lock(&line.world.cluster.events).len(), 0);
    // More than wanted are on their way out.
    line.world.cluster.set_replicas(WEB, 1);
    *lock(&line.world.cluster.current_replicas) = Some(9);
    minutes(2).await;
    assert_eq!((line.replicas(), line.world.cluster.written("resize")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_another_shard_holds_is_left_to_it() {
    let line = ByMemory::new(1);
    line.uses(100);
    line.world.shards.send_replace(Shards::none());
    line.run();
    minutes(1).await;
    assert_eq!(line.replicas(), 1);
}
