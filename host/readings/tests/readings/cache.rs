//! What is asked by many is asked once, and never for longer than somebody accepts its age.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_kubernetes::{ContainerUsage, MetricValue, PodUsage, WorkloadPod};
use dormouse_model::{ObjectRef, Query};
use dormouse_readings::{Answer, Limits, Meter, Metrics, PodView, Readings, Request, Upstream};
use dormouse_scaling::Sample;
use jiff::Timestamp;
use prometheus_client::registry::Registry;

const SECOND: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits {
    concurrency: 4,
    timeout: Duration::from_secs(10),
};

/// Counts what it is asked. Everything but selectors takes a second.
#[derive(Default)]
struct Counting {
    asked: Mutex<Vec<Request>>,
    fails: Mutex<bool>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Counting {
    fn asked(&self, wanted: impl Fn(&Request) -> bool) -> usize {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .filter(|request| wanted(request))
            .count()
    }

    fn all(&self) -> usize {
        self.asked(|_| true)
    }
}

/// A hundred workloads, each with a pod of its own.
fn names() -> impl Iterator<Item = String> {
    (0..100).map(|number| format!("w{number}"))
}

#[async_trait]
impl Upstream for Counting {
    async fn fetch(&self, request: &Request, _now: Timestamp) -> Result<Answer, String> {
        self.asked.lock().unwrap().push(request.clone());
        let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
        if !matches!(request, Request::Selector { .. }) {
            tokio::time::sleep(SECOND).await;
        }
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        if *self.fails.lock().unwrap() {
            return Err("it is down".to_owned());
        }
        Ok(match request {
            Request::Custom { .. } => {
                let values = names().map(|name| (name, MetricValue::Value("7".to_owned())));
                Answer::Custom(values.collect())
            }
            Request::Selector { workload, .. } => {
                Answer::Selector(format!("app={}", workload.name).parse().unwrap())
            }
            Request::Pods { .. } => Answer::Pods(PodView::new(names().map(pod).collect())),
            Request::Usage { .. } => {
                let usage = names().map(|name| (name.clone(), usage(&name)));
                Answer::Usage(usage.collect::<HashMap<_, _>>())
            }
            _ => Answer::Sample(Sample::Value(7_u64.into())),
        })
    }
}

fn pod(name: String) -> WorkloadPod {
    WorkloadPod {
        labels: BTreeMap::from([("app".to_owned(), name.clone())]),
        name,
        phase: "Running".into(),
        ready: true,
        ..WorkloadPod::default()
    }
}

fn usage(name: &str) -> PodUsage {
    PodUsage {
        pod: name.to_owned(),
        measured: Some(Timestamp::MAX),
        window: SECOND * 30,
        containers: vec![ContainerUsage {
            name: "app".to_owned(),
            usage: BTreeMap::from([("cpu".to_owned(), "7".to_owned())]),
        }],
    }
}

fn query(text: &str) -> Arc<Query> {
    Arc::new(Query::Prometheus {
        namespace: "shop".into(),
        server: "main".into(),
        query: text.into(),
    })
}

fn custom(object: String) -> Arc<Query> {
    Arc::new(Query::Custom {
        group: "apps".into(),
        kind: "Deployment".into(),
        namespace: "shop".into(),
        metric: "requests_per_1m".into(),
        selector: None,
        object,
    })
}

fn cpu(name: String) -> Arc<Query> {
    let workload = ObjectRef {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        name,
    };
    Arc::new(Query::Usage {
        namespace: "shop".into(),
        workloads: vec![workload],
        resource: "cpu".into(),
        window: SECOND * 60,
    })
}

fn readings() -> (Arc<Counting>, Arc<Readings>) {
    let upstream = Arc::new(Counting::default());
    let readings = Readings::new(
        Arc::clone(&upstream) as Arc<dyn Upstream>,
        LIMITS,
        Metrics::default(),
    );
    (upstream, Arc::new(readings))
}

async fn read(readings: &Readings, ask: &[Arc<Query>], max_age: Duration) -> Vec<Sample> {
    readings.read(ask, max_age, Timestamp::UNIX_EPOCH).await
}

fn seven() -> Sample {
    Sample::Value(7_u64.into())
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_a_call_is_under_way_shares_it() {
    let (upstream, readings) = readings();
    let asks = (0..50).map(|_| {
        let readings = Arc::clone(&readings);
        tokio::spawn(async move { read(&readings, &[query("up")], Duration::ZERO).await })
    });
    for ask in asks.collect::<Vec<_>>() {
        assert_eq!(ask.await.unwrap(), [seven()]);
    }
    assert_eq!(upstream.all(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_serves_for_as_long_as_its_age_is_accepted() {
    let (upstream, readings) = readings();
    let ask = [query("up")];
    read(&readings, &ask, SECOND * 15).await;
    tokio::time::advance(SECOND * 13).await;
    read(&readings, &ask, SECOND * 15).await;
    assert_eq!(upstream.all(), 1);
    read(&readings, &ask, SECOND * 10).await;
    assert_eq!(upstream.all(), 2, "somebody else wants it fresher");
    tokio::time::advance(SECOND * 20).await;
    read(&readings, &ask, SECOND * 15).await;
    assert_eq!(upstream.all(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_waits_for_any_more_ends_and_is_not_fresh_for_ever() {
    let (upstream, readings) = readings();
    let ask = [query("up")];
    let gave_up = tokio::time::timeout(SECOND / 2, read(&readings, &ask, SECOND)).await;
    assert!(gave_up.is_err());
    tokio::time::sleep(SECOND * 60).await;
    read(&readings, &ask, SECOND).await;
    assert_eq!(upstream.all(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_asked_again_soon_but_not_by_everybody() {
    let (upstream, readings) = readings();
    let ask = [query("up")];
    *upstream.fails.lock().unwrap() = true;
    for _ in 0..10 {
        let samples = read(&readings, &ask, SECOND * 60).await;
        assert_eq!(samples, [Sample::Error("it is down".to_owned())]);
    }
    assert_eq!(upstream.all(), 1);
    *upstream.fails.lock().unwrap() = false;
    tokio::time::advance(SECOND * 6).await;
    assert_eq!(read(&readings, &ask, SECOND * 60).await, [seven()]);
}

#[tokio::test(start_paused = true)]
async fn a_custom_metric_is_one_request_for_all_objects() {
    let (upstream, readings) = readings();
    let ask: Vec<_> = names().chain(["unknown".to_owned()]).map(custom).collect();
    let samples = read(&readings, &ask, SECOND).await;
    assert!(samples[..100].iter().all(|sample| *sample == seven()));
    assert!(matches!(&samples[100], Sample::NoData(why) if why.contains("unknown")));
    assert_eq!(upstream.all(), 1);
}

#[tokio::test(start_paused = true)]
async fn usage_is_one_list_of_pods_and_one_of_usage_for_a_namespace() {
    let (upstream, readings) = readings();
    let ask: Vec<_> = names().map(cpu).collect();
    for _ in 0..3 {
        let samples = read(&readings, &ask, SECOND * 15).await;
        assert!(samples.iter().all(|sample| *sample == seven()));
        tokio::time::advance(SECOND * 30).await;
    }
    let pods = upstream.asked(|request| matches!(request, Request::Pods { .. }));
    let usage = upstream.asked(|request| matches!(request, Request::Usage { .. }));
    let selectors = upstream.asked(|request| matches!(request, Request::Selector { .. }));
    assert_eq!((pods, usage), (3, 3), "once for each time");
    assert_eq!(selectors, 100, "once for each workload in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn calls_to_one_server_are_bounded() {
    let (upstream, readings) = readings();
    let ask: Vec<_> = (0..20).map(|number| query(&format!("x{number}"))).collect();
    read(&readings, &ask, SECOND).await;
    assert_eq!(upstream.most_at_once.load(Ordering::Relaxed), 4);
}

/// A Prometheus server that accepts calls and says nothing.
struct Hanging;

#[async_trait]
impl Upstream for Hanging {
    async fn fetch(&self, request: &Request, _now: Timestamp) -> Result<Answer, String> {
        if let Request::Prometheus { .. } = request {
            std::future::pending::<()>().await;
        }
        let values = names().map(|name| (name, MetricValue::Value("7".to_owned())));
        Ok(Answer::Custom(values.collect()))
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_source_that_hangs_hears_which_one_it_is_and_others_do_not_wait() {
    let readings = Readings::new(Arc::new(Hanging), LIMITS, Metrics::default());
    let ask: Vec<_> = (0..20).map(|number| query(&format!("x{number}"))).collect();
    let other = async {
        let begun = tokio::time::Instant::now();
        let samples = read(&readings, &[custom("w1".to_owned())], SECOND).await;
        (samples, begun.elapsed())
    };
    let (samples, other) = tokio::join!(read(&readings, &ask, SECOND), other);
    assert_eq!(other, ([seven()].to_vec(), Duration::ZERO));
    let waited = "not answered, since 4 other calls to Prometheus server main took longer than 10s";
    let told = |text: &str| {
        samples
            .iter()
            .filter(|sample| **sample == Sample::Error(text.to_owned()))
            .count()
    };
    assert_eq!(told("no answer within 10s") + told(waited), 20, "{samples:?}");
    assert!(told(waited) > 0, "{samples:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_and_counted() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let limits = Limits {
        concurrency: 100_000,
        ..LIMITS
    };
    let readings = Readings::new(Arc::new(Counting::default()), limits, metrics);
    let kept = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("dormouse_readings_cached "));
        line.unwrap().parse::<usize>().unwrap()
    };
    for hundred in 0..600 {
        let ask: Vec<_> = (0..100)
            .map(|number| query(&format!("x{hundred}-{number}")))
            .collect();
        read(&readings, &ask, SECOND).await;
        assert!(kept() <= 50_000);
    }
    assert!(kept() >= 10_000);
    tokio::time::advance(SECOND * 601).await;
    read(&readings, &[query("x")], SECOND).await;
    tokio::time::advance(SECOND * 301).await;
    read(&readings, &[query("y")], SECOND).await;
    assert!(kept() <= 2, "what nobody asks for is forgotten");
}
