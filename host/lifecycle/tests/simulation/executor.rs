//! Somebody who observes, decides and carries out, at any speed, and may die at any moment.

use std::collections::VecDeque;

use dormouse_lifecycle::{DesiredState, DivertedPort, Next, Observation, Step, next};
use dormouse_model::Phase;
use jiff::{SignedDuration, Timestamp};

use crate::cluster::{Cluster, Slice, timings};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Carries out everything.
    Leader,
    /// Carries out wakes only.
    Waker,
}

#[derive(Clone, Debug)]
pub struct Executor {
    pub role: Role,
    /// Which Sleeper it works on.
    pub of: usize,
    /// Objects that were read; the Sleeper is read later.
    pub objects: Option<Cluster>,
    /// Since when it has seen that no DLX answers.
    unanswered_since: Option<Timestamp>,
    plan: Option<Plan>,
}

#[derive(Clone, Debug)]
struct Plan {
    /// Versions of what was read.
    objects: Cluster,
    sleeper_version: u64,
    uid: u64,
    seen: Observation,
    steps: VecDeque<Step>,
}

/// What an attempt to carry out a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is nothing to do.
    Idle,
    /// Somebody else was faster.
    Conflict,
    Done,
    /// It must never have succeeded.
    Violation(String),
}

impl Executor {
    pub fn new(role: Role) -> Self {
        Self {
            role,
            of: 0,
            objects: None,
            unanswered_since: None,
            plan: None,
        }
    }

    pub fn of(role: Role, of: usize) -> Self {
        Self {
            of,
            ..Self::new(role)
        }
    }

    /// What was decided is not carried out any more.
    pub fn requests_fail(&mut self) {
        self.plan = None;
    }

    pub fn crash(&mut self) {
        *self = Self::of(self.role, self.of);
    }

    pub fn read_objects(&mut self, cluster: &Cluster) {
        let mut seen = cluster.clone();
        seen.focus(self.of);
        self.objects = Some(seen);
    }

    /// Reads the Sleeper last, and decides.
    pub fn read_sleeper(&mut self, cluster: &Cluster) {
        self.plan = None;
        let Some(objects) = self.objects.take() else {
            return;
        };
        let mut cluster = cluster.clone();
        cluster.focus(self.of);
        let (Some(sleeper), Some(mut seen)) = (&cluster.sleeper, cluster.observe(&objects)) else {
            return;
        };
        let unanswered = seen.unanswered().is_some();
        self.unanswered_since = unanswered.then(|| self.unanswered_since.unwrap_or(seen.now));
        seen.unanswered_since = self.unanswered_since;
        if self.role == Role::Waker && (seen.state.desired != DesiredState::Awake || seen.deleting) {
            return;
        }
        if let Next::Act(steps) = next(&seen, &timings()) {
            let (sleeper_version, uid) = (sleeper.version, sleeper.uid);
            self.plan = Some(Plan {
                uid,
                objects,
                sleeper_version,
                seen,
                steps: steps.into(),
            });
        }
    }

    pub fn observe(&mut self, cluster: &Cluster) {
        self.read_objects(cluster);
        self.read_sleeper(cluster);
    }

    /// Carries out one step of the plan; a conflict ends the plan.
    pub fn step(&mut self, cluster: &mut Cluster) -> Outcome {
        let Some(plan) = &mut self.plan else {
            return Outcome::Idle;
        };
        let limit = SignedDuration::try_from(timings().decision_limit).unwrap_or(SignedDuration::MAX);
        if cluster.now.duration_since(plan.seen.now) > limit {
            self.plan = None;
            return Outcome::Conflict;
        }
        let Some(step) = plan.steps.pop_front() else {
            self.plan = None;
            return Outcome::Idle;
        };
        cluster.focus(self.of);
        let outcome = carry_out(plan, &step, cluster);
        if outcome == Outcome::Conflict {
            self.plan = None;
        }
        outcome
    }
}

fn carry_out(plan: &Plan, step: &Step, cluster: &mut Cluster) -> Outcome {
    let phase = cluster.sleeper.as_ref().map(|sleeper| sleeper.state.phase);
    let version = cluster.version();
    match step {
        Step::SetState(state) => {
            let Some(sleeper) = &mut cluster.sleeper else {
                return Outcome::Conflict;
            };
            if sleeper.version != plan.sleeper_version {
                return Outcome::Conflict;
            }
            if state.epoch < sleeper.state.epoch {
                return Outcome::Violation("the epoch fell".into());
            }
            sleeper.state = (**state).clone();
            sleeper.version = version;
        }
        Step::AllocatePorts(wanted) => {
            let Some(sleeper) = &mut cluster.sleeper else {
                return Outcome::Conflict;
            };
            if sleeper.version != plan.sleeper_version {
                return Outcome::Conflict;
            }
            for (service, name, port) in wanted {
                let dlx_port = 20_000 + u16::try_from(sleeper.state.ports.len()).unwrap_or(0);
                let (service, name, port) = (service.clone(), name.clone(), *port);
                sleeper.state.ports.push(DivertedPort {
                    service,
                    name,
                    port,
                    dlx_port,
                });
            }
            sleeper.version = version;
            cluster.forget_ports();
        }
        Step::WriteSlice(name) => {
            let index = position(cluster, name);
            let then = &plan.objects.services[index];
            let now = &mut cluster.services[index];
            if then.slice.as_ref().map(|slice| slice.version) != now.slice.as_ref().map(|slice| slice.version)
            {
                return Outcome::Conflict;
            }
            let named = plan.seen.services.iter().find(|service| service.name == *name);
            let content = plan.seen.wanted_slice(named.expect("a Service that it names"));
            if content.addresses.is_empty() || content.ports.is_empty() {
                return Outcome::Violation(format!("an empty slice was written for {name}"));
            }
            let owner = (cluster.focus, plan.uid);
            now.slice = Some(Slice {
                content,
                owner,
                version,
            });
        }
        Step::DeleteSlice(name) => {
            let index = position(cluster, name);
            let then = plan.objects.services[index]
                .slice
                .as_ref()
                .map(|slice| slice.version);
            let now = &mut cluster.services[index];
            if now.slice.is_none() || then != now.slice.as_ref().map(|slice| slice.version) {
                return Outcome::Conflict;
            }
            now.slice = None;
            // While waking or diverting it may: then it is not yet, or no longer, the only one behind the Service.
            if matches!(phase, Some(Phase::Observing | Phase::Draining | Phase::Asleep)) {
                return Outcome::Violation(format!("the DLX left {name} in phase {phase:?}"));
            }
        }
        Step::ParkSelector(name) => {
            let index = position(cluster, name);
            let now = &mut cluster.services[index];
            if now.version != plan.objects.services[index].version {
                return Outcome::Conflict;
            }
            now.parked = true;
            now.parked_by = cluster.focus;
            now.version = version;
            if matches!(phase, None | Some(Phase::Awake | Phase::Ready)) {
                return Outcome::Violation(format!("{name} was parked in phase {phase:?}"));
            }
        }
        Step::RestoreSelector(name) => {
            let index = position(cluster, name);
            let now = &mut cluster.services[index];
            if now.version != plan.objects.services[index].version {
                return Outcome::Conflict;
            }
            now.parked = false;
            now.fences.insert(plan.uid, plan.seen.state.epoch);
            now.version = version;
            if cluster.leads_to_leaving_pods(index, &plan.objects) {
                return Outcome::Violation(format!("{name} leads to pods that a sleep takes away"));
            }
        }
        Step::FenceService(name, epoch) => {
            let index = position(cluster, name);
            let now = &mut cluster.services[index];
            if now.version != plan.objects.services[index].version {
                return Outcome::Conflict;
            }
            now.fences.insert(plan.uid, *epoch);
            now.version = version;
        }
        Step::Scale(object, replicas) => {
            let index = workload(cluster, &object.name);
            let now = &mut cluster.workloads[index];
            if now.version != plan.objects.workloads[index].version {
                return Outcome::Conflict;
            }
            now.replicas = *replicas;
            now.version = version;
            if *replicas == 0 {
                let mut recorded = plan.seen.state.replicas.iter();
                let recorded = recorded.find(|recorded| recorded.workload == *object);
                now.noted = Some((
                    cluster.focus,
                    plan.uid,
                    recorded.map_or(1, |recorded| recorded.replicas),
                ));
            }
            if *replicas == 0 && !matches!(phase, Some(Phase::Asleep | Phase::Waking)) {
                return Outcome::Violation(format!("{} was scaled to zero in phase {phase:?}", object.name));
            }
        }
        Step::Fence(object, epoch) => {
            let index = workload(cluster, &object.name);
            let now = &mut cluster.workloads[index];
            if now.version != plan.objects.workloads[index].version {
                return Outcome::Conflict;
            }
            now.fences.insert(plan.uid, *epoch);
            now.noted = None;
            now.version = version;
        }
        Step::RemoveFinalizer => {
            if cluster
                .sleeper
                .as_ref()
                .is_none_or(|sleeper| sleeper.version != plan.sleeper_version)
            {
                return Outcome::Conflict;
            }
            cluster.sleeper = None;
        }
    }
    Outcome::Done
}

fn position(cluster: &Cluster, service: &str) -> usize {
    cluster
        .services
        .iter()
        .position(|candidate| candidate.name == service)
        .expect("a known Service")
}

fn workload(cluster: &Cluster, name: &str) -> usize {
    cluster
        .workloads
        .iter()
        .position(|candidate| candidate.object.name == name)
        .expect("a known workload")
}
