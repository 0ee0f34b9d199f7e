//! One to many: what is read, what is written, and what it loses against.

use std::time::Duration;

use dormouse_kubernetes::ClusterError;
use dormouse_model::{Behavior, MetricTarget, Phase, Query, ScalingRules};
use dormouse_plugin::types::{Goal, MetricSource, Resource, ResourceState, Scaling};
use dormouse_scaling::Sample;
use dormouse_sleepers::lifecycle::DesiredState;
use dormouse_sleepers::{Arrivals, DemandEntry, DesiredStateError, SleeperKey};
use jiff::SignedDuration;

use crate::fakes::{Answer, lock};
use crate::harness::*;

const WEB: &str = "shop/web";
const REQUESTS: &str = "apps/Deployment/shop/requests_per_10m";
const SECOND: Duration = Duration::from_secs(1);

fn backlog() -> Query {
    Query::External {
        namespace: "shop".into(),
        metric: "backlog".into(),
        selector: None,
    }
}

fn goal(source: MetricSource, average: &str) -> Goal {
    Goal {
        source,
        window: None,
        target: MetricTarget::AverageValue(average.parse().expect("a quantity")),
    }
}

fn by_backlog() -> Scaling {
    let source = MetricSource::External {
        name: "backlog".into(),
        selector: None,
    };
    Scaling {
        min_replicas: 2,
        max_replicas: 10,
        goals: vec![goal(source, "10")],
        behavior: None,
    }
}

fn down_window(seconds: i32) -> Behavior {
    Behavior {
        scale_up: None,
        scale_down: Some(ScalingRules {
            stabilization_window_seconds: Some(seconds),
            ..ScalingRules::default()
        }),
    }
}

fn web(scaling: Scaling) -> Resource {
    Resource {
        scaling: Some(scaling),
        ..resource("shop", "web", vec![])
    }
}

/// A line that scales `web`, which has so many replicas.
struct Scaled {
    world: World,
    key: SleeperKey,
    plugin: std::sync::Arc<crate::fakes::Plugin>,
}

impl Scaled {
    fn new(scaling: Scaling, replicas: i32) -> Self {
        let mut world = World::new();
        let plugin = world.plugin("workloads", vec![web(scaling)]);
        world.cluster.set_replicas(WEB, replicas);
        Self {
            key: plugin.key("shop", "web"),
            plugin,
            world,
        }
    }

    fn reads(&self, backlog_is: u64) {
        self.world
            .api
            .reads(&backlog(), Some(Sample::Value(backlog_is.into())));
    }

    fn run(&self) -> tokio::task::JoinHandle<()> {
        self.world.run(&[&self.plugin])
    }

    fn replicas(&self) -> i32 {
        self.world.cluster.replicas(WEB)
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let found = self.world.cluster.condition(&self.key, kind);
        found.map_or_else(Default::default, |(status, reason, _)| (status, reason))
    }

    fn resizes(&self) -> usize {
        self.world.cluster.written("resize")
    }

    fn told(&self, reason: &str) -> usize {
        let events = lock(&self.world.cluster.events);
        events.iter().filter(|(_, told)| told == reason).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_backlog_scales_it_within_policies_and_bounds_and_says_why() {
    let scaled = Scaled::new(by_backlog(), 2);
    scaled.reads(500);
    scaled.run();
    pass(SECOND * 8).await;
    assert_eq!(scaled.replicas(), 4, "twice as many, or four, in one step");
    let status = scaled.world.cluster.status(&scaled.key);
    let scaling = status.scaling.unwrap();
    assert_eq!(scaling.desired_replicas, Some(4));
    assert_eq!(
        scaling.decision,
        "scale from 2 to 4: external metric backlog is 250, target 10 per pod, proposes 50; \
         limited from 50 to 4 by the scale-up policies"
    );
    assert!(scaling.last_scale_time.is_some());
    assert_eq!(
        status.last_decision, None,
        "it has no rules, and nobody asks for any"
    );
    minutes(1).await;
    assert_eq!(scaled.replicas(), 10);
    assert_eq!((scaled.resizes(), scaled.told("SuccessfulRescale")), (3, 3));
    assert_eq!(
        scaled.condition("ScalingActive"),
        Default::default(),
        "it never failed"
    );
    let line = "dormouse_autoscaler_resizes_total{owner=\"workloads\",owner_kind=\"Plugin\",plugin=\"workloads\",outcome=\"up\"}";
    assert_eq!(scaled.world.metric(line).as_deref(), Some("3"));
}

#[tokio::test(start_paused = true)]
async fn as_long_as_nothing_changes_nothing_is_written() {
    let scaled = Scaled::new(by_backlog(), 5);
    scaled.reads(50);
    scaled.run();
    minutes(1).await;
    scaled.world.cluster.forget_writes();
    minutes(20).await;
    assert!(lock(&scaled.world.cluster.writes).is_empty());
    assert_eq!(scaled.replicas(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_out_of_bounds_is_corrected_whatever_the_metrics_say() {
    let scaled = Scaled::new(by_backlog(), 1);
    scaled
        .world
        .api
        .reads(&backlog(), Some(Sample::Error("it broke".into())));
    scaled.run();
    pass(SECOND * 8).await;
    assert_eq!(scaled.replicas(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_fails_scales_nothing_and_is_named() {
    let scaled = Scaled::new(by_backlog(), 5);
    scaled
        .world
        .api
        .reads(&backlog(), Some(Sample::Error("it broke".into())));
    scaled.run();
    minutes(5).await;
    assert_eq!((scaled.replicas(), scaled.resizes()), (5, 0));
    assert_eq!(
        scaled.condition("ScalingActive"),
        ("False".into(), "FailedGetExternalMetric".into())
    );
    assert_eq!(scaled.told("FailedGetExternalMetric"), 1);
    scaled.reads(50);
    minutes(1).await;
    assert_eq!(scaled.condition("ScalingActive"), ("True".into(), "Ok".into()));
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_scales_is_left_to_that() {
    let scaled = Scaled::new(by_backlog(), 2);
    scaled.reads(500);
    *lock(&scaled.world.cluster.other_scaler) = Some("HorizontalPodAutoscaler web".into());
    scaled.run();
    minutes(2).await;
    assert_eq!(scaled.resizes(), 0);
    let (status, reason, message) = scaled
        .world
        .cluster
        .condition(&scaled.key, "AbleToScale")
        .unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "OtherScaler"));
    let decided = scaled.world.cluster.status(&scaled.key).scaling;
    assert_eq!(decided.and_then(|scaling| scaling.desired_replicas), None);
    assert!(message.contains("HorizontalPodAutoscaler web"), "{message}");
    *lock(&scaled.world.cluster.other_scaler) = None;
    minutes(1).await;
    assert_eq!(scaled.condition("AbleToScale").0, "True");
    assert!(scaled.replicas() > 2);
}

#[tokio::test(start_paused = true)]
async fn a_scale_that_cannot_be_written_or_read_is_named() {
    let scaled = Scaled::new(by_backlog(), 2);
    scaled.reads(500);
    *lock(&scaled.world.cluster.refuses_resize) = Some(ClusterError::NotFound { what: "gone".into() }.into());
    scaled.run();
    pass(SECOND * 8).await;
    assert_eq!(
        scaled.condition("AbleToScale"),
        ("False".into(), "FailedUpdateScale".into())
    );
    assert_eq!(scaled.replicas(), 2);
    lock(&scaled.world.cluster.scales).clear();
    minutes(1).await;
    assert_eq!(
        scaled.condition("AbleToScale"),
        ("False".into(), "FailedGetScale".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_resize_loses_against_whoever_writes_first_and_is_decided_anew() {
    let scaled = Scaled::new(by_backlog(), 2);
    scaled.reads(500);
    *lock(&scaled.world.cluster.latency) = SECOND;
    scaled.run();
    // Its scale is read at once, and written a second later.
    while scaled.world.cluster.written("declare") == 0 {
        pass(Duration::from_millis(100)).await;
    }
    pass(Duration::from_millis(500)).await;
    scaled.world.cluster.set_replicas(WEB, 0);
    pass(SECOND * 2).await;
    assert_eq!((scaled.replicas(), scaled.resizes()), (0, 1), "the sleep has won");
    assert_eq!(scaled.told("SuccessfulRescale"), 0);
    minutes(2).await;
    assert_eq!(
        (scaled.replicas(), scaled.resizes()),
        (0, 1),
        "zero is left to wakes"
    );
}

#[tokio::test(start_paused = true)]
async fn idle_comes_before_any_number() {
    let scaled = Scaled::new(by_backlog(), 2);
    scaled.reads(500);
    let idle = Resource {
        rules: vec![custom("requests", 10, "0")],
        ..web(by_backlog())
    };
    scaled.plugin.list(vec![idle]);
    scaled
        .world
        .api
        .says(REQUESTS, Answer::Values(vec![("web", "0")]));
    scaled.run();
    minutes(1).await;
    assert_eq!(scaled.plugin.slept(), [WEB]);
    assert_eq!(scaled.resizes(), 0);
}

/// Whoever takes over in the middle of a stabilization window lets it end when it would have ended.
#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_in_a_window_is_continued() {
    let mut ends = Vec::new();
    for dies in [None, Some(60), Some(150)] {
        let scaling = Scaling {
            behavior: Some(down_window(240)),
            ..by_backlog()
        };
        let scaled = Scaled::new(scaling, 8);
        scaled.reads(80);
        let first = scaled.run();
        minutes(6).await;
        scaled.reads(10);
        let mut running = first;
        for second in 1..=600_u64 {
            pass(SECOND).await;
            if dies == Some(second) {
                running.abort();
                running = scaled.run();
            }
            if scaled.replicas() < 8 {
                ends.push(second);
                break;
            }
        }
        running.abort();
        assert!(scaled.replicas() < 8, "it never ended");
    }
    let [lived, early, late] = ends[..] else {
        panic!("{ends:?}")
    };
    assert!((225..=255).contains(&lived), "{ends:?}");
    for continued in [early, late] {
        assert!(
            continued.abs_diff(lived) <= 20,
            "{ends:?}: one interval and the start"
        );
    }
}

/// However long nobody decided: what is only remembered adds nothing.
#[tokio::test(start_paused = true)]
async fn a_leader_that_was_away_for_long_does_not_follow_what_is_long_past() {
    let scaled = Scaled::new(by_backlog(), 2);
    scaled.reads(500);
    let first = scaled.run();
    pass(SECOND * 8).await;
    first.abort();
    assert_eq!(scaled.replicas(), 4, "on its way to 50, of which 10 are allowed");
    scaled.reads(20);
    minutes(60).await;
    scaled.run();
    minutes(4).await;
    assert_eq!(scaled.replicas(), 4, "for a window it keeps what there is");
    minutes(2).await;
    assert_eq!(scaled.replicas(), 2);
}

/// Where the definition of Sleepers does not know the field, this process still knows what it decided.
#[tokio::test(start_paused = true)]
async fn a_status_that_is_not_kept_costs_neither_windows_nor_writes() {
    let scaling = Scaling {
        behavior: Some(down_window(120)),
        ..by_backlog()
    };
    let scaled = Scaled::new(scaling, 8);
    scaled.reads(80);
    scaled.run();
    pass(SECOND * 8).await;
    let mut down_at = None;
    for second in 1..=1200_u64 {
        pass(SECOND).await;
        scaled.world.cluster.edit(&scaled.key, |sleeper| {
            sleeper.status.get_or_insert_default().scaling = None;
        });
        if second == 600 {
            scaled.world.cluster.forget_writes();
            scaled.reads(10);
        }
        if scaled.replicas() < 8 && down_at.is_none() {
            down_at = Some(second - 600);
        }
    }
    let down_at = down_at.expect("it was scaled down");
    assert!((105..=140).contains(&down_at), "after {down_at} s");
    let records = scaled.world.cluster.written("record");
    assert!(records < 12, "{records} writes in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn no_grant_no_replicas() {
    let scaled = Scaled::new(by_backlog(), 2);
    scaled.reads(500);
    let denied = DesiredStateError::Denied("Deployment web belongs to Dormouse".into());
    *lock(&scaled.world.cluster.refuses_resize) = Some(denied);
    scaled.run();
    minutes(10).await;
    assert_eq!(scaled.replicas(), 2);
    assert_eq!(scaled.condition("AbleToScale"), ("False".into(), "Denied".into()));
    assert_eq!(scaled.told("Denied"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_scaled_says_nothing_of_it_any_more() {
    let scaled = Scaled::new(by_backlog(), 2);
    scaled.reads(500);
    *lock(&scaled.world.cluster.other_scaler) = Some("HorizontalPodAutoscaler web".into());
    scaled.run();
    minutes(1).await;
    assert_eq!(scaled.condition("AbleToScale").0, "False");
    let plain = resource("shop", "web", vec![custom("requests", 10, "0")]);
    scaled
        .world
        .api
        .says(REQUESTS, Answer::Values(vec![("web", "1")]));
    scaled.plugin.list(vec![plain]);
    scaled.world.cluster.changes.send_modify(|count| *count += 1);
    minutes(1).await;
    assert_eq!(scaled.world.cluster.status(&scaled.key).scaling, None);
    assert_eq!(scaled.condition("AbleToScale").0, "True");
}

#[tokio::test(start_paused = true)]
async fn of_several_metrics_one_that_fails_is_named_while_the_others_go_on() {
    let given = |value: &str| {
        let name = "jobs".into();
        goal(
            MetricSource::Given {
                name,
                value: value.into(),
            },
            "10",
        )
    };
    let mut scaling = by_backlog();
    scaling.goals.push(given("40"));
    let scaled = Scaled::new(scaling, 2);
    scaled
        .world
        .api
        .reads(&backlog(), Some(Sample::Error("it broke".into())));
    scaled.run();
    minutes(1).await;
    assert_eq!(scaled.replicas(), 4, "by the other");
    let (status, reason, message) = scaled
        .world
        .cluster
        .condition(&scaled.key, "ReadingsAvailable")
        .unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ReadingFailed"));
    assert!(
        message.contains("external metric backlog") && message.contains("it broke"),
        "{message}"
    );
    assert_eq!(scaled.condition("ScalingActive").0, "");
}

#[tokio::test(start_paused = true)]
async fn a_trouble_whose_text_changes_every_time_is_not_told_every_time() {
    let scaled = Scaled::new(by_backlog(), 5);
    scaled.run();
    for attempt in 0..80 {
        let why = format!("attempt {attempt} failed");
        scaled.world.api.reads(&backlog(), Some(Sample::Error(why)));
        pass(SECOND * 15).await;
    }
    let told = scaled.told("FailedGetExternalMetric");
    assert!((2..=5).contains(&told), "{told} events in twenty minutes");
    assert_eq!(scaled.replicas(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_only_scaled_is_left_at_zero_and_not_put_to_sleep() {
    let scaled = Scaled::new(by_backlog(), 2);
    let off = Resource {
        state: ResourceState::Asleep,
        services: vec![],
        ..web(by_backlog())
    };
    scaled.plugin.list(vec![off]);
    scaled.world.cluster.set_replicas(WEB, 0);
    scaled.reads(500);
    scaled.run();
    minutes(2).await;
    assert_eq!(scaled.world.cluster.written("look at zero"), 0);
    assert_eq!(
        scaled.condition("ScalingActive"),
        ("False".into(), "ScalingDisabled".into())
    );
    assert_eq!((scaled.replicas(), scaled.resizes()), (0, 0));
}

/// Connections that were open before the DLX stepped in go past it, so what it has is not all.
#[tokio::test(start_paused = true)]
async fn while_traffic_is_looked_at_the_dlx_decides_no_number() {
    let scaling = Scaling {
        min_replicas: 1,
        goals: vec![goal(MetricSource::DlxConcurrency, "10")],
        behavior: Some(down_window(0)),
        ..by_backlog()
    };
    let scaled = Scaled::new(scaling, 5);
    scaled.run();
    pass(SECOND * 8).await;
    scaled.world.cluster.edit_state(&scaled.key, |state| {
        (state.phase, state.desired) = (Phase::Observing, DesiredState::Observed);
    });
    minutes(5).await;
    assert_eq!((scaled.replicas(), scaled.resizes()), (5, 0));
}

/// A look that is disturbed, or a sleep that is turned round, is no sleep: what was recommended before counts on.
#[tokio::test(start_paused = true)]
async fn a_wake_without_a_sleep_forgets_nothing() {
    let scaled = Scaled::new(by_backlog(), 8);
    scaled.reads(80);
    scaled.run();
    minutes(6).await;
    scaled.reads(10);
    minutes(1).await;
    let now = scaled.world.cluster.now();
    scaled.world.cluster.edit_state(&scaled.key, |state| {
        state.wake_started = Some(now);
        state.wake_completed = Some(now);
    });
    let mut waited = 60;
    while scaled.replicas() == 8 && waited < 600 {
        pass(SECOND).await;
        waited += 1;
    }
    assert!((285..=320).contains(&waited), "scaled down after {waited} s");
}

/// A workload that wakes, with requests in front of it that decide how many replicas it has; its own number is one.
async fn waking_by_its_queue() -> Scaled {
    waking_by(goal(MetricSource::DlxConcurrency, "10"), waiting(75)).await
}

async fn waking_by(goal: Goal, demand: DemandEntry) -> Scaled {
    let scaling = Scaling {
        min_replicas: 1,
        goals: vec![goal],
        ..by_backlog()
    };
    let scaled = Scaled::new(scaling, 1);
    scaled.run();
    pass(SECOND * 8).await;
    assert_eq!(
        (scaled.replicas(), scaled.resizes()),
        (1, 0),
        "while it is awake the DLX sees nothing"
    );
    scaled.world.cluster.edit_state(&scaled.key, |state| {
        (state.phase, state.desired) = (Phase::Asleep, DesiredState::Asleep);
    });
    scaled.world.cluster.set_replicas(WEB, 0);
    scaled.world.cluster.set_demand(&scaled.key, demand);
    minutes(1).await;
    assert_eq!(scaled.resizes(), 0, "asleep");

    let now = scaled.world.cluster.now();
    scaled.world.cluster.edit_state(&scaled.key, |state| {
        (state.phase, state.desired) = (Phase::Waking, DesiredState::Awake);
        state.slept = Some(now - SignedDuration::from_secs(60));
        state.wake_started = Some(now);
    });
    scaled.world.cluster.moved.send_modify(|count| *count += 1);
    pass(SECOND).await;
    assert_eq!(scaled.resizes(), 0, "the wake itself brings the first one");
    scaled.world.cluster.set_replicas(WEB, 1);
    scaled
}

fn waiting(held: u64) -> DemandEntry {
    DemandEntry {
        held,
        ..DemandEntry::default()
    }
}

/// Requests that wait for it bring as many replicas as they need, in one step.
#[tokio::test(start_paused = true)]
async fn a_queue_brings_as_many_replicas_as_it_needs() {
    let scaled = waking_by_its_queue().await;
    pass(SECOND * 2).await;
    assert_eq!((scaled.replicas(), scaled.resizes()), (8, 1));
    let decision = scaled.world.cluster.status(&scaled.key).scaling.unwrap().decision;
    assert_eq!(
        decision,
        "scale from 1 to 8: external metric dlx-concurrency is 75, target 10 per pod, proposes 8"
    );
}

/// So many requests have arrived in each second, the latest first, and all of them wait.
fn arriving(counts: &[u64], millis: u64) -> DemandEntry {
    DemandEntry {
        arrivals: Some(Arrivals {
            counts: counts.to_vec(),
            millis,
        }),
        ..waiting(counts.iter().sum())
    }
}

/// However many of them wait: what decides is how many come in a second.
#[tokio::test(start_paused = true)]
async fn a_rate_brings_as_many_replicas_as_it_needs() {
    let scaled = waking_by(goal(MetricSource::DlxRate, "10"), arriving(&[15, 40, 20], 500)).await;
    pass(SECOND * 2).await;
    assert_eq!((scaled.replicas(), scaled.resizes()), (3, 1), "75 in 2.5 seconds");
    let decision = scaled.world.cluster.status(&scaled.key).scaling.unwrap().decision;
    assert_eq!(
        decision,
        "scale from 1 to 3: external metric dlx-rate is 30, target 10 per pod, proposes 3"
    );
    scaled
        .world
        .cluster
        .set_demand(&scaled.key, arriving(&[50, 55, 15, 40, 20], 0));
    pass(SECOND * 2).await;
    assert_eq!((scaled.replicas(), scaled.resizes()), (5, 2), "180 in 4 seconds");
    scaled
        .world
        .cluster
        .set_demand(&scaled.key, arriving(&[0, 0, 0, 50, 55, 15, 40, 20], 0));
    pass(SECOND * 5).await;
    assert_eq!(
        (scaled.replicas(), scaled.resizes()),
        (5, 2),
        "none go before it is awake"
    );
}

/// A DLX of before counts no arrivals, and none remembers them for so long.
#[tokio::test(start_paused = true)]
async fn a_rate_that_nobody_counts_says_so() {
    let by_rate = goal(MetricSource::DlxRate, "10");
    let too_long = Goal {
        window: Some(SECOND * 120),
        ..by_rate.clone()
    };
    for (goal, demand, says) in [
        (by_rate, waiting(75), "does not count what arrives"),
        (too_long, arriving(&[75], 0), "remembers what arrived for 1m,"),
    ] {
        let scaled = waking_by(goal, demand).await;
        pass(SECOND * 3).await;
        assert_eq!(scaled.resizes(), 0);
        let told = scaled.world.cluster.condition(&scaled.key, "ScalingActive");
        let (status, reason, message) = told.unwrap();
        assert_eq!((&*status, &*reason), ("False", "FailedGetExternalMetric"));
        assert!(message.contains(says), "{message}");
    }
}

/// A queue that nobody can count is no reason to scale, and no secret.
#[tokio::test(start_paused = true)]
async fn a_queue_that_cannot_be_counted_says_so() {
    let scaled = waking_by_its_queue().await;
    let why = "127.0.9.2:9090 does not answer within 1s";
    let answer = |answer| *scaled.world.cluster.demand.answer.lock().unwrap() = Some(answer);
    answer(Err(why.to_owned()));
    pass(SECOND * 3).await;
    assert_eq!(scaled.resizes(), 0);
    let told = scaled.world.cluster.condition(&scaled.key, "ScalingActive");
    let (status, reason, message) = told.unwrap();
    assert_eq!((&*status, &*reason), ("False", "FailedGetExternalMetric"));
    assert!(message.contains(why), "{message}");

    scaled.world.cluster.set_demand(&scaled.key, waiting(75));
    pass(SECOND * 3).await;
    assert_eq!(scaled.replicas(), 8);
    assert_eq!(scaled.condition("ScalingActive").0, "True");
}

/// Requests that one replica of the DLX tells of are there, whatever another one would have told.
#[tokio::test(start_paused = true)]
async fn the_part_of_a_queue_that_is_known_counts() {
    let scaled = waking_by_its_queue().await;
    scaled.world.cluster.set_demand(&scaled.key, waiting(35));
    if let Some(Ok(total)) = &mut *scaled.world.cluster.demand.answer.lock().unwrap() {
        total.unanswered = Some("127.0.9.2:9090 does not answer within 1s".to_owned());
    }
    pass(SECOND * 3).await;
    assert_eq!(scaled.replicas(), 4);
}
