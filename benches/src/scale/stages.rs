//! The stages, one after the other.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::Client;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Args;
use super::api::{self, DEPLOYMENT, LEASE, SERVICE, SLICE};
use super::audit::{Audit, Requests, between};
use super::controllers::{self, Controllers, name, namespace};
use super::processes::{ADMIN, OWN, Process, Usage};
use super::report::{Cost, DECLARE, IDLE_ASLEEP, IDLE_AWAKE, LOOK, REPLACE, Report, SLEEP, Stage, WAKE};
use super::sleepers::{Seen, Sleepers};
use super::wakes::{door, request};
use crate::quantile::quantile;

/// Objects that are written at once.
const WRITES: usize = 32;
/// How long workloads are quiet before they sleep: at first for ever, so that they are looked at and stay as they are.
const NEVER: &str = "24h";
/// And those that are to sleep.
pub(super) const SOON: &str = "10s";

/// The addresses that xtask/src/bench/scale.rs gives this machine.
pub(super) const AUTOSCALERS: [(&str, Ipv4Addr); 2] = [
    ("autoscaler", Ipv4Addr::new(10, 99, 0, 10)),
    ("autoscaler-2", Ipv4Addr::new(10, 99, 0, 13)),
];
const DLX: [(&str, Ipv4Addr); 2] = [
    ("dlx-1", Ipv4Addr::new(10, 99, 0, 11)),
    ("dlx-2", Ipv4Addr::new(10, 99, 0, 12)),
];

pub(super) struct Bench<'a> {
    pub(super) args: &'a Args,
    report: &'a Arc<Mutex<Report>>,
    pub(super) client: Client,
    config: PathBuf,
    audit: Audit,
    pub(super) sleepers: Sleepers,
    pub(super) processes: Vec<Process>,
    _controllers: Controllers,
}

/// What had been used when a stage began.
pub(super) struct Begun {
    pub(super) at: Instant,
    usage: BTreeMap<&'static str, Usage>,
    requests: BTreeMap<&'static str, Requests>,
}

/// Runs all stages. What each of them showed is in the report as soon as it is done.
pub async fn run(args: &Args, report: &Arc<Mutex<Report>>) -> anyhow::Result<()> {
    let client = api::client(&args.kubeconfig).await?;
    let begun = Instant::now();
    let controllers = Controllers::play(&client, args.targets, args.namespaces).await?;
    create_own(&client).await?;
    create_targets(args, &client, &controllers).await?;
    println!(
        "{} workloads are up after {:.1} s",
        args.targets,
        begun.elapsed().as_secs_f64()
    );
    let sleepers = Sleepers::follow(&client, args.targets);
    let mut bench = Bench {
        args,
        report,
        config: configuration(args)?,
        audit: Audit::new(args.audit_log.clone()),
        client,
        sleepers,
        processes: Vec::new(),
        _controllers: controllers,
    };
    bench.start_dlx().await?;
    bench.declare().await?;
    bench.look().await?;
    bench.idle(IDLE_AWAKE).await?;
    bench.sleep().await?;
    bench.idle(IDLE_ASLEEP).await?;
    bench.wake().await?;
    bench.replace_dlx().await?;
    if args.shards > 1 {
        bench.lose_autoscaler().await?;
    }
    let warnings = warnings(args);
    println!("\nwarnings and errors in the logs of the processes: {warnings}");
    for process in bench.processes.drain(..) {
        process.end().await?;
    }
    Ok(())
}

impl Bench<'_> {
    pub(super) fn begin(&mut self) -> anyhow::Result<Begun> {
        self.audit.read_on()?;
        let mut usage = BTreeMap::new();
        let mut requests = BTreeMap::new();
        for process in &self.processes {
            usage.insert(process.name, process.usage()?);
            requests.insert(process.name, self.audit.of(process.name));
        }
        Ok(Begun {
            at: Instant::now(),
            usage,
            requests,
        })
    }

    /// Ends a stage, and fails if not all of its targets came through.
    pub(super) fn end(&mut self, begun: &Begun, stage: Stage) -> anyhow::Result<()> {
        let seconds = begun.at.elapsed().as_secs_f64();
        self.audit.read_on()?;
        let mut processes = BTreeMap::new();
        for process in &self.processes {
            let before = begun.usage.get(process.name).copied().unwrap_or_default();
            let (now, asked) = (process.usage()?, self.audit.of(process.name));
            let nothing = Requests::new();
            let cost = Cost {
                // One that was replaced meanwhile began at zero.
                cpu_seconds: now.cpu - if now.cpu < before.cpu { 0.0 } else { before.cpu },
                waited_seconds: (now.waited - before.waited).max(0.0),
                resident_bytes: now.resident,
                peak_bytes: now.peak,
                requests: between(begun.requests.get(process.name).unwrap_or(&nothing), &asked),
            };
            processes.insert(process.name, cost);
        }
        let (name, wanted, done) = (stage.name, stage.wanted, stage.done);
        let mut failures = stage.failures;
        if done < wanted {
            failures.extend(self.sleepers.tally());
        }
        let stage = Stage {
            seconds,
            processes,
            failures,
            ..stage
        };
        self.report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(stage);
        if done < wanted {
            bail!("{name}: {done} of {wanted} after {seconds:.0} s");
        }
        Ok(())
    }

    pub(super) fn process(&self, name: &str) -> anyhow::Result<&Process> {
        let found = self.processes.iter().find(|process| process.name == name);
        found.with_context(|| format!("{name} does not run"))
    }

    fn start(&mut self, (name, address): (&'static str, Ipv4Addr), subcommand: &str) -> anyhow::Result<()> {
        let process = Process::start(self.args, name, subcommand, address, &self.config)?;
        self.processes.push(process);
        Ok(())
    }

    /// Waits until a process wants next to nothing, and answers after how many seconds of its life, or of this stage, that was.
    async fn at_rest(&self, name: &str, since: Instant) -> anyhow::Result<Option<f64>> {
        let quiet = self.process(name)?.quiet(self.args.limit()).await?;
        Ok(quiet.map(|quiet| quiet.duration_since(since).as_secs_f64()))
    }

    /// Both DLX replicas, beside no Sleeper yet. Without one that is ready each Sleeper would ask for it again and again.
    async fn start_dlx(&mut self) -> anyhow::Result<()> {
        for dlx in DLX {
            self.start(dlx, "dlx")?;
            self.process(dlx.0)?.ready(self.args.limit()).await?;
        }
        self.list_dlx(&DLX).await
    }

    /// From the start of the autoscaler until there is a Sleeper for each target.
    async fn declare(&mut self) -> anyhow::Result<()> {
        let begun = self.begin()?;
        for autoscaler in AUTOSCALERS
            .into_iter()
            .take(if self.args.shards > 1 { 2 } else { 1 })
        {
            self.start(autoscaler, "autoscaler")?;
        }
        let (wanted, limit) = (self.args.targets, self.args.limit());
        let done = self.sleepers.wait(wanted, limit, |_| true).await;
        let stage = Stage {
            name: DECLARE,
            wanted,
            done,
            ..Stage::default()
        };
        self.end(&begun, stage)
    }

    /// All traffic is looked at: each target is diverted.
    async fn look(&mut self) -> anyhow::Result<()> {
        let begun = self.begin()?;
        let (wanted, limit) = (self.args.targets, self.args.limit());
        let observed = |seen: &Seen| seen.phase == "Observing";
        let done = self.sleepers.wait(wanted, limit, observed).await;
        let stage = Stage {
            name: LOOK,
            wanted,
            done,
            ..Stage::default()
        };
        self.end(&begun, stage)?;
        self.rest().await
    }

    /// What the processes still do about the last stage is no idle period.
    pub(super) async fn rest(&self) -> anyhow::Result<()> {
        for process in &self.processes {
            process.quiet(Duration::from_secs(60)).await?;
        }
        Ok(())
    }

    /// Nothing happens.
    async fn idle(&mut self, name: &'static str) -> anyhow::Result<()> {
        let begun = self.begin()?;
        let before = self.counters().await?;
        sleep(Duration::from_secs(self.args.idle)).await;
        let after = self.counters().await?;
        let numbers = after
            .into_iter()
            .zip(before)
            .map(|((what, after), (_, before))| (what, after - before));
        let (numbers, done) = (numbers.collect(), self.args.targets);
        self.end(
            &begun,
            Stage {
                name,
                wanted: done,
                done,
                numbers,
                ..Stage::default()
            },
        )
    }

    /// What the autoscaler itself counts.
    async fn counters(&self) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let autoscaler = self.process("autoscaler")?;
        let mut counters = Vec::new();
        for (what, metric) in [
            ("rounds", "dormouse_autoscaler_round_duration_seconds_count"),
            (
                "seconds in rounds",
                "dormouse_autoscaler_round_duration_seconds_sum",
            ),
            ("seconds of CPU in plugins", "dormouse_plugin_cpu_seconds_total"),
            ("observations", "dormouse_observe_duration_seconds_count"),
        ] {
            counters.push((what, autoscaler.metric(metric).await?));
        }
        Ok(counters)
    }

    /// Some are given a short sleep time, one after the other; their traffic has been observed for longer already.
    async fn sleep(&mut self) -> anyhow::Result<()> {
        let begun = self.begin()?;
        let (wanted, limit) = (self.args.to_sleep(), self.args.limit());
        let over = Duration::from_secs(self.args.sleep_over);
        let mut told = Vec::new();
        for target in 0..wanted {
            let due = begun.at + over * target / wanted;
            sleep(due.saturating_duration_since(Instant::now())).await;
            let patch = json!({"metadata": {"annotations": {"dormouse.dev/sleep-after": SOON}}});
            let namespace = namespace(target, self.args.namespaces);
            api::patch(&self.client, DEPLOYMENT, &namespace, &name(target), patch).await?;
            told.push(Instant::now());
        }
        let done = self
            .sleepers
            .wait(wanted, limit, |seen| seen.phase == "Asleep")
            .await;
        let (mut decided, mut slept) = (Vec::new(), Vec::new());
        for (target, told) in (0..).zip(&told) {
            if let Some(seen) = self.sleepers.get(target).filter(|seen| seen.phase == "Asleep") {
                decided.push(seen.desired_since.saturating_duration_since(*told).as_secs_f64());
                slept.push(
                    seen.phase_since
                        .saturating_duration_since(seen.desired_since)
                        .as_secs_f64(),
                );
            }
        }
        let numbers = BTreeMap::from([
            ("decision p50", quantile(&mut decided, 0.5)),
            ("decision p99", quantile(&mut decided, 0.99)),
            ("carried out p50", quantile(&mut slept, 0.5)),
            ("carried out p99", quantile(&mut slept, 0.99)),
        ]);
        self.end(
            &begun,
            Stage {
                name: SLEEP,
                wanted,
                done,
                numbers,
                ..Stage::default()
            },
        )?;
        self.rest().await
    }

    /// Requests arrive for some that sleep, and are held.
    async fn wake(&mut self) -> anyhow::Result<()> {
        let begun = self.begin()?;
        let wanted = self.args.to_wake();
        let addresses = DLX.map(|(_, address)| address);
        let to = (0..wanted)
            .filter_map(|target| door(&addresses, target as usize, self.sleepers.get(target)?.port?))
            .collect();
        let over = Duration::from_secs(self.args.wake_over);
        let (mut took, failures) = request(to, over, self.args.limit()).await;
        let woken = u32::try_from(took.len()).unwrap_or(u32::MAX);
        let asleep = self.args.to_sleep() - wanted;
        let up = |sleepers: &Sleepers| self.args.to_sleep() - sleepers.count(|seen| seen.phase == "Asleep");
        let numbers = BTreeMap::from([
            ("answered", f64::from(woken)),
            ("answer p50", quantile(&mut took, 0.5)),
            ("answer p99", quantile(&mut took, 0.99)),
            (
                "still asleep that should be",
                f64::from(asleep) - f64::from(self.args.to_sleep() - up(&self.sleepers)),
            ),
        ]);
        // A wake is over when the DLX has left.
        let settled = |seen: &Seen| !matches!(seen.phase.as_str(), "Waking" | "Ready");
        let all = self
            .sleepers
            .wait(self.args.targets, self.args.limit(), settled)
            .await;
        let done = woken.min(wanted.saturating_sub(self.args.targets - all));
        self.end(
            &begun,
            Stage {
                name: WAKE,
                wanted,
                done,
                numbers,
                failures,
                ..Stage::default()
            },
        )
    }

    /// One DLX is replaced, as in a rollout: the old one leaves, and a new one opens a port for each target.
    async fn replace_dlx(&mut self) -> anyhow::Result<()> {
        self.rest().await?;
        let begun = self.begin()?;
        let [first, second] = DLX;
        self.list_dlx(&[first]).await?;
        let at = self.processes.iter().position(|process| process.name == second.0);
        let old = self.processes.remove(at.context("the second DLX does not run")?);
        old.end().await?;
        let ended = begun.at.elapsed().as_secs_f64();
        self.start(second, "dlx")?;
        let wanted = self.sleepers.count(|seen| seen.port.is_some());
        let process = self.process(second.0)?;
        let ready = process.ready(self.args.limit()).await?;
        let since = process.begun;
        let (opened, done) = self.open(process, wanted).await?;
        self.list_dlx(&DLX).await?;
        let mut numbers = BTreeMap::from([
            ("old one ended", ended),
            ("ready dlx-2", ready.duration_since(since).as_secs_f64()),
            ("ports open", opened.duration_since(since).as_secs_f64()),
        ]);
        numbers.extend(
            self.at_rest(second.0, since)
                .await?
                .map(|at| ("at rest dlx-2", at)),
        );
        if let Ok(usage) = self.process(second.0)?.usage() {
            numbers.insert("CPU s dlx-2 since its start", usage.cpu);
        }
        for name in ["autoscaler", "dlx-1"] {
            self.at_rest(name, since).await?;
        }
        self.end(
            &begun,
            Stage {
                name: REPLACE,
                wanted,
                done,
                numbers,
                ..Stage::default()
            },
        )
    }

    /// Waits until a DLX has so many ports open.
    async fn open(&self, process: &Process, wanted: u32) -> anyhow::Result<(Instant, u32)> {
        let end = Instant::now() + self.args.limit();
        loop {
            // Asking costs it something, and it may be too busy to answer.
            let open = process.metric("dormouse_dlx_ports_open").await.unwrap_or(0.0);
            if open >= f64::from(wanted) || Instant::now() >= end {
                return Ok((Instant::now(), open as u32));
            }
            process.usage()?;
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Says which DLX replicas are ready.
    async fn list_dlx(&self, ready: &[(&str, Ipv4Addr)]) -> anyhow::Result<()> {
        let endpoints: Vec<Value> = ready
            .iter()
            .map(|(_, address)| {
                json!({
                    "addresses": [address.to_string()],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": "node-1",
                })
            })
            .collect();
        let patch = json!({ "endpoints": endpoints });
        api::patch(&self.client, SLICE, OWN, "dormouse-dlx-own", patch).await?;
        Ok(())
    }
}

/// What the chart would install, beside the processes.
async fn create_own(client: &Client) -> anyhow::Result<()> {
    api::create_namespace(client, OWN).await?;
    let labels = json!({"app.kubernetes.io/name": "dormouse", "app.kubernetes.io/instance": "dormouse", "app.kubernetes.io/component": "dlx"});
    let ports = json!([
        {"name": "http", "port": 8080, "targetPort": 8080},
        {"name": "admin", "port": ADMIN, "targetPort": i32::from(ADMIN)},
    ]);
    let service = json!({"metadata": {"name": "dormouse-dlx"}, "spec": {"selector": labels, "ports": ports}});
    api::create(client, SERVICE, OWN, service).await?;
    let slice = json!({
        "metadata": {"name": "dormouse-dlx-own", "labels": {
            "kubernetes.io/service-name": "dormouse-dlx",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }},
        "addressType": "IPv4",
        "endpoints": [],
        "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": ADMIN}],
    });
    api::create(client, SLICE, OWN, slice).await?;
    api::create(
        client,
        LEASE,
        OWN,
        json!({"metadata": {"name": "dormouse-autoscaler"}}),
    )
    .await?;
    let pods = [
        ("autoscaler", "autoscaler"),
        ("autoscaler-2", "autoscaler"),
        ("dlx-1", "dlx"),
        ("dlx-2", "dlx"),
    ];
    for (name, component) in pods {
        let mut labels = labels.clone();
        labels["app.kubernetes.io/component"] = json!(component);
        let pod = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": "node-1", "containers": [{"name": component, "image": "dormouse:test"}]},
        });
        api::create(client, api::POD, OWN, pod).await?;
    }
    Ok(())
}

async fn create_targets(args: &Args, client: &Client, controllers: &Controllers) -> anyhow::Result<()> {
    for number in 0..args.namespaces.min(args.targets) {
        api::create_namespace(client, &namespace(number, args.namespaces)).await?;
    }
    let create = |target: u32| async move {
        let namespace = namespace(target, args.namespaces);
        api::create(client, SERVICE, &namespace, controllers::service(target)).await?;
        let deployment = controllers::deployment(target, NEVER);
        api::create(client, DEPLOYMENT, &namespace, deployment).await
    };
    futures::stream::iter((0..args.targets).map(create))
        .buffer_unordered(WRITES)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await?;
    within(args.limit(), || controllers.listed() >= args.targets as usize)
        .await
        .context("the pods of the workloads are not all listed")
}

async fn within(limit: Duration, so: impl Fn() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    while !so() {
        if Instant::now() >= end {
            bail!("not after {} s", limit.as_secs());
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// As the chart writes it from its defaults, with the addresses of the bench.
fn configuration(args: &Args) -> anyhow::Result<PathBuf> {
    let file = args.folder.join("dormouse.yaml");
    let verbs = ["get", "list"];
    let grant = |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind, "verbs": verbs});
    // JSON is YAML.
    let config = json!({
        "common": {
            "namespace": "*",
            "dlxService": format!("{OWN}/dormouse-dlx"),
            "pluginsDir": args.plugins.join("workloads.wasm"),
            "adminAddress": format!(":{ADMIN}"),
            "log": args.log,
            "logFormat": "json",
        },
        "autoscaler": {
            "scaleInterval": format!("{}s", args.interval),
            "leaderLease": format!("{OWN}/dormouse-autoscaler"),
            "shards": args.shards,
        },
        "dlx": {"listenAddress": ":8080", "shutdownDelay": "5s"},
        "plugins": {"workloads": {"grants": {
            "lifecycle": true,
            "events": true,
            "kubernetes": [grant("apps/v1", "Deployment"), grant("apps/v1", "StatefulSet"), grant("v1", "Service")],
        }}},
    });
    std::fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
    Ok(file)
}

/// What the processes complained about, by message, the most frequent first.
fn warnings(args: &Args) -> String {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for name in [AUTOSCALERS[0].0, AUTOSCALERS[1].0, DLX[0].0, DLX[1].0] {
        let text = std::fs::read_to_string(args.folder.join(format!("{name}.log"))).unwrap_or_default();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            let level = line["level"].as_str().unwrap_or_default();
            if matches!(level, "WARN" | "ERROR") {
                let message = line["fields"]["message"].as_str().or(line["message"].as_str());
                let message = format!("{name} {level} {}", message.unwrap_or_default());
                *counts.entry(message).or_default() += 1;
            }
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown: Vec<String> = counts
        .iter()
        .take(10)
        .map(|(message, count)| format!("\n  {count} x {message}"))
        .collect();
    if shown.is_empty() {
        "none".to_owned()
    } else {
        shown.concat()
    }
}
