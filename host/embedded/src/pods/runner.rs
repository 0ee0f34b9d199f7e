//! The life of one pod, from being scheduled to being gone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::annotations as an;
use crate::core::Core;
use crate::pods::probe::Probe;
use crate::pods::process::Process;
use crate::pods::server::{Identity, Server};
use crate::pods::status::{self, State, View};
use crate::store::Part;
use crate::store::delete::DeleteOptions;
use crate::value::{
    i64_at, is_deleting, list_at, metadata, name_of, namespace_of, now, object, set, str_at, uid_of,
};

pub(crate) const NODE: &str = "embedded";

pub(crate) struct Runner {
    pub core: Arc<Core>,
    pub pod: watch::Receiver<Arc<Value>>,
    /// The pod is gone from the API without the usual end.
    pub gone: CancellationToken,
    ns: String,
    name: String,
    uid: String,
    ip: IpAddr,
}

/// The containers of a pod while they run.
struct Running {
    server: Server,
    processes: Vec<Process>,
    /// Container ports that a process is expected to open.
    expected: Vec<u16>,
}

enum End {
    Deleted,
    Stopped,
    Exited(i64),
}

impl Runner {
    pub fn new(core: Arc<Core>, pod: watch::Receiver<Arc<Value>>, gone: CancellationToken) -> Self {
        let p = pod.borrow().clone();
        Runner {
            ip: IpAddr::V4(core.store.addresses.pod()),
            core,
            pod,
            gone,
            ns: namespace_of(&p).to_owned(),
            name: name_of(&p).to_owned(),
            uid: uid_of(&p).to_owned(),
        }
    }

    /// The pod as the API has it; what the kubelet was told last may be a little older.
    fn current(&self) -> Arc<Value> {
        let stored = self
            .core
            .store
            .get("pods", &self.ns, &self.name)
            .filter(|p| uid_of(p) == self.uid);
        stored.unwrap_or_else(|| self.pod.borrow().clone())
    }

    fn report(&self, v: &View) {
        status::report(&self.core, &self.ns, &self.name, &self.uid, v);
    }

    /// Until somebody asks for the pod's deletion.
    async fn deleted(&self) {
        let mut rx = self.pod.clone();
        if rx.wait_for(|p| is_deleting(p)).await.is_err() {
            // The kubelet is gone; `gone` or the shutdown says so.
            future::pending::<()>().await;
        }
    }

    /// The cluster or the pod itself is over.
    async fn stopped(&self) {
        tokio::select! {
            () = self.gone.cancelled() => {}
            () = self.core.shutdown.cancelled() => {}
        }
    }

    /// Waits. False: there is nothing to go on with, the pod is done.
    async fn pause(&self, d: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stopped() => false,
            () = self.deleted() => {
                self.finalize();
                false
            }
            () = sleep(d) => true,
        }
    }

    pub async fn run(mut self) {
        if !self.schedule().await {
            return;
        }
        let mut view = View {
            phase: "Pending",
            ip: Some(self.ip.to_string()),
            started: Some(now()),
            ready: false,
            restarts: 0,
            state: State::Waiting {
                reason: "ContainerCreating".into(),
                message: String::new(),
            },
            last: None,
        };
        self.report(&view);
        if let Some(d) = an::duration(&self.current(), an::START_DELAY)
            && !self.pause(d).await
        {
            return;
        }
        let first_wait = self.core.options.restart_backoff;
        let mut wait = first_wait;
        loop {
            let begun = Instant::now();
            let (code, message) = match self.start().await {
                Ok(mut running) => {
                    let end = self.serve(&mut running, &mut view).await;
                    if matches!(end, End::Deleted) {
                        self.terminate(&mut running).await;
                    }
                    running.cut().await;
                    match end {
                        End::Deleted => {
                            view.ready = false;
                            view.state = State::Terminated {
                                code: 0,
                                since: now(),
                                at: now(),
                            };
                            self.report(&view);
                            return self.finalize();
                        }
                        End::Stopped => return,
                        End::Exited(code) => (
                            code,
                            format!("back-off restarting failed container in pod {}", self.name),
                        ),
                    }
                }
                Err(message) => (1, message),
            };
            let since = match &view.state {
                State::Running { since } => since.clone(),
                _ => now(),
            };
            let ended = State::Terminated {
                code,
                since,
                at: now(),
            };
            view.ready = false;
            let policy = str_at(&self.current(), "spec.restartPolicy")
                .unwrap_or("Always")
                .to_owned();
            if policy == "Never" || (policy == "OnFailure" && code == 0) {
                view.phase = if code == 0 { "Succeeded" } else { "Failed" };
                view.state = ended;
                self.report(&view);
                tokio::select! {
                    () = self.stopped() => {}
                    () = self.deleted() => self.finalize(),
                }
                return;
            }
            view.last = Some(ended);
            view.state = State::Waiting {
                reason: "CrashLoopBackOff".into(),
                message,
            };
            self.report(&view);
            if begun.elapsed() > first_wait * 100 {
                wait = first_wait;
            }
            if !self.pause(wait).await {
                return;
            }
            wait = (wait * 2).min(first_wait * 50);
            view.restarts += 1;
        }
    }

    /// Finds a node. False: deleted before there was one.
    async fn schedule(&mut self) -> bool {
        while an::flag(&self.current(), an::UNSCHEDULABLE) {
            status::unschedulable(&self.core, &self.ns, &self.name, &self.uid);
            let mut rx = self.pod.clone();
            rx.borrow_and_update();
            if !an::flag(&self.current(), an::UNSCHEDULABLE) {
                break;
            }
            tokio::select! {
                () = self.stopped() => return false,
                changed = rx.changed() => if changed.is_err() {
                    return false;
                },
            }
            if is_deleting(&self.current()) {
                self.finalize();
                return false;
            }
        }
        self.edit(|p| set(p, "spec.nodeName", json!(NODE)));
        true
    }

    fn edit(&self, f: impl FnOnce(&mut Value)) {
        let done = self
            .core
            .store
            .edit("pods", &self.ns, &self.name, Part::Internal, |pod| {
                if uid_of(pod) == self.uid {
                    f(pod);
                }
            });
        if let Err(e) = done {
            debug!(pod = self.name, error = %e.message, "pod not changed");
        }
    }

    /// Removes the pod from the API: its containers have stopped.
    fn finalize(&self) {
        let Some(rt) = self.core.store.kind("pods") else {
            return;
        };
        let o = DeleteOptions {
            grace: Some(0),
            uid: Some(self.uid.clone()),
            ..DeleteOptions::default()
        };
        let _ = self.core.store.delete(&rt, &self.ns, &self.name, &o);
    }

    async fn start(&mut self) -> Result<Running, String> {
        let pod = self.current();
        let mut running = Running {
            server: Server::default(),
            processes: Vec::new(),
            expected: Vec::new(),
        };
        let mut moved: BTreeMap<u16, u16> = BTreeMap::new();
        for c in list_at(&pod, "spec.containers") {
            let ports: Vec<u16> = list_at(c, "ports")
                .iter()
                .filter(|p| str_at(p, "protocol").unwrap_or("TCP") == "TCP")
                .filter_map(|p| u16::try_from(p.get("containerPort")?.as_u64()?).ok())
                .collect();
            if list_at(c, "command").is_empty() {
                continue;
            }
            let mut extra = BTreeMap::new();
            if self.core.store.addresses.by_port() {
                for p in &ports {
                    // The process is told its port; taken by another in between, it crashes and gets a new one.
                    let free = self
                        .core
                        .store
                        .addresses
                        .listen_pod(self.ip, *p)
                        .await
                        .map_err(|e| e.to_string())?
                        .1;
                    extra.insert(format!("PORT_{p}"), free.to_string());
                    moved.insert(*p, free);
                }
            }
            running
                .expected
                .extend(ports.iter().map(|p| moved.get(p).copied().unwrap_or(*p)));
            running
                .processes
                .push(Process::start(&self.core, &pod, c, &extra)?);
        }
        if an::duration(&pod, an::REFUSE_FOR).is_none() {
            self.open(&pod, &running.server, &mut moved).await?;
        }
        self.announce(&moved);
        Ok(running)
    }

    /// Opens the ports of the containers that have no command.
    async fn open(&self, pod: &Value, server: &Server, moved: &mut BTreeMap<u16, u16>) -> Result<(), String> {
        let who = Arc::new(Identity::new(self.core.clone(), pod));
        for c in list_at(pod, "spec.containers")
            .iter()
            .filter(|c| list_at(c, "command").is_empty())
        {
            for p in list_at(c, "ports") {
                let Some(port) = p
                    .get("containerPort")
                    .and_then(Value::as_u64)
                    .and_then(|n| u16::try_from(n).ok())
                else {
                    continue;
                };
                if str_at(p, "protocol").unwrap_or("TCP") != "TCP" {
                    continue;
                }
                let actual = server
                    .open(&who, self.ip, port)
                    .await
                    .map_err(|e| format!("cannot listen on {}:{port}: {e}", self.ip))?;
                if actual != port {
                    moved.insert(port, actual);
                }
            }
        }
        Ok(())
    }

    /// Where ports tell pods apart, the pod shows the ports that it really has.
    fn announce(&self, moved: &BTreeMap<u16, u16>) {
        if moved.is_empty() {
            return;
        }
        self.edit(|p| {
            for c in p
                .pointer_mut("/spec/containers")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                for port in c
                    .get_mut("ports")
                    .and_then(Value::as_array_mut)
                    .into_iter()
                    .flatten()
                {
                    let n = port
                        .get("containerPort")
                        .and_then(Value::as_u64)
                        .and_then(|n| u16::try_from(n).ok());
                    if let Some(actual) = n.and_then(|n| moved.get(&n)) {
                        port["containerPort"] = json!(actual);
                    }
                }
            }
            let annotations = object(metadata(p).entry("annotations").or_insert_with(|| json!({})));
            for (port, actual) in moved {
                // After a restart the spec names the port of the last run.
                for v in annotations
                    .values_mut()
                    .filter(|v| **v == json!(port.to_string()))
                {
                    *v = json!(actual.to_string());
                }
                annotations.insert(format!("{}{port}", an::ACTUAL_PORT), json!(actual.to_string()));
            }
        });
    }

    async fn serve(&self, running: &mut Running, view: &mut View) -> End {
        view.phase = "Running";
        view.state = State::Running { since: now() };
        view.ready = false;
        let pod = self.current();
        let crash = an::duration(&pod, an::CRASH_AFTER);
        let Running {
            server,
            processes,
            expected,
        } = running;
        let readiness = self.readiness(server, expected, view, &pod);
        let exited = async {
            if processes.is_empty() {
                future::pending::<i64>().await
            } else {
                future::select_all(processes.iter_mut().map(|p| Box::pin(p.ended())))
                    .await
                    .0
            }
        };
        tokio::select! {
            biased;
            () = self.stopped() => End::Stopped,
            () = self.deleted() => End::Deleted,
            code = exited => End::Exited(code),
            () = crash_timer(crash) => End::Exited(1),
            () = readiness => End::Exited(1),
        }
    }

    /// Keeps the Ready condition true to the probes; ends only when the ports cannot be opened.
    async fn readiness(&self, server: &Server, expected: &[u16], view: &mut View, started: &Value) {
        let period = an::duration(started, an::PROBE_PERIOD);
        let mut probes: Vec<Probe> = list_at(started, "spec.containers")
            .iter()
            .filter_map(|c| Probe::of(c, period))
            .collect();
        let mut refusing = an::duration(started, an::REFUSE_FOR).map(|d| Instant::now() + d);
        let mut listening = expected.is_empty();
        let mut rx = self.pod.clone();
        let mut reported = None;
        loop {
            rx.borrow_and_update();
            let pod = self.current();
            if !listening && refusing.is_none() && probes.is_empty() {
                let connects = expected
                    .iter()
                    .map(|p| tokio::net::TcpStream::connect((self.ip, *p)));
                listening = future::join_all(connects).await.iter().all(Result::is_ok);
            }
            let ready = if an::flag(&pod, an::NEVER_READY) {
                false
            } else if refusing.is_some() {
                true
            } else if probes.is_empty() {
                listening
            } else {
                probes.iter().all(|p| p.ready)
            };
            if reported != Some(ready) {
                view.ready = ready;
                self.report(view);
                reported = Some(ready);
            }
            let mut next = refusing.or_else(|| probes.iter().map(|p| p.due).min());
            if !listening && probes.is_empty() && refusing.is_none() {
                // A process opens its port when it likes and tells nobody.
                next = Some(Instant::now() + Duration::from_millis(20));
            }
            tokio::select! {
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                changed = rx.changed() => if changed.is_err() {
                    future::pending::<()>().await;
                },
            }
            if refusing.is_some_and(|t| t <= Instant::now()) {
                refusing = None;
                let mut moved = BTreeMap::new();
                if let Err(e) = self.open(&pod, server, &mut moved).await {
                    debug!(pod = self.name, error = e, "ports not opened");
                    return;
                }
                self.announce(&moved);
            }
            if refusing.is_none() {
                for p in probes.iter_mut().filter(|p| p.due <= Instant::now()) {
                    p.ask(&pod, self.ip).await;
                }
            }
        }
    }

    /// SIGTERM, in effect: stop accepting, finish, go; at the latest when the grace period is over.
    async fn terminate(&self, running: &mut Running) {
        let pod = self.current();
        let grace = i64_at(&pod, "metadata.deletionGracePeriodSeconds").unwrap_or(30);
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let stubborn = an::flag(&pod, an::IGNORE_TERMINATION);
        let orderly = async {
            if stubborn {
                future::pending::<()>().await;
            }
            running.server.drain();
            running.processes.iter().for_each(Process::terminate);
            let ended = future::join_all(running.processes.iter_mut().map(Process::ended));
            future::join(running.server.drained(), ended).await;
        };
        tokio::select! {
            () = self.stopped() => {}
            _ = timeout(grace, orderly) => {}
        }
    }
}

impl Running {
    /// Ends what is left, at once, and waits until it has ended.
    async fn cut(&mut self) {
        self.server.kill();
        for p in &mut self.processes {
            p.kill();
            p.ended().await;
        }
    }
}

async fn crash_timer(after: Option<Duration>) {
    match after {
        Some(d) => sleep(d).await,
        None => future::pending().await,
    }
}
