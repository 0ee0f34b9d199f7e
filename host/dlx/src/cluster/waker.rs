//! Wakes: by the protocol, or through the plugin whose platform scales the resource.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dormouse_kubernetes::Objects;
use dormouse_model::{FieldPath, Phase};
use dormouse_plugin::types::{FieldCondition, ResourceHandle, ResourceId, ScaleOutcome};
use dormouse_plugin::{GuestError, PluginError, PluginSet};
use dormouse_sleepers::lifecycle::DesiredState;
use dormouse_sleepers::{
    Caches, Cluster, ConditionUpdate, DesiredStateError, DesiredStateWriter, SleeperKey, StatusRecorder,
    Wake, api,
};

use crate::{RouteTarget, WakeError, Waker};

/// How long the news of an accepted wake may take to come back through the API server, before pods that are still listed are
/// used all the same.
const VIEW_LAG: Duration = Duration::from_secs(2);
/// First pause between looks at a field; grows up to `LONGEST_LOOK`.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

pub(super) struct ClusterWaker {
    caches: Arc<Caches>,
    desired: DesiredStateWriter,
    status: StatusRecorder,
    objects: Objects,
    plugins: Arc<PluginSet>,
}

impl ClusterWaker {
    pub(super) fn new(cluster: &Cluster, plugins: Arc<PluginSet>) -> Self {
        Self {
            caches: Arc::clone(cluster.caches()),
            desired: cluster.desired().clone(),
            status: cluster.status().clone(),
            objects: cluster.objects().clone(),
            plugins,
        }
    }

    async fn ask(&self, target: &RouteTarget, reason: &str) -> Result<ScaleOutcome, WakeError> {
        match target.wake {
            Wake::Lifecycle => self.request(target, reason).await,
            Wake::Owner => self.ask_owner(target, reason).await,
        }
    }

    /// Only the owner knows how; whoever waits has a deadline.
    async fn ask_owner(&self, target: &RouteTarget, reason: &str) -> Result<ScaleOutcome, WakeError> {
        let failed = |text: String| WakeError::Failed(text);
        let Some(name) = target.owner.as_plugin() else {
            return Err(failed(format!("{} cannot wake anything", target.owner)));
        };
        self.arrived(name).await;
        let plugin = self
            .plugins
            .get(name)
            .ok_or_else(|| failed(format!("plugin {name} is not there")))?;
        let sleeper = self.caches.sleeper(&sleeper_key(target));
        let handle = ResourceHandle {
            id: ResourceId::new(&target.key.namespace, &target.resource),
            cookie: sleeper.and_then(|sleeper| sleeper.spec.cookie.clone()),
        };
        let outcomes = plugin.set_scale(&[handle], 1, reason).await;
        let outcomes = outcomes.map_err(|error| wake_error(name, &error))?;
        outcomes
            .into_iter()
            .next()
            .ok_or_else(|| failed("the plugin said nothing".to_owned()))
    }

    /// What the Sleeper names, Dormouse restores itself, whatever becomes of the owner.
    async fn request(&self, target: &RouteTarget, reason: &str) -> Result<ScaleOutcome, WakeError> {
        match self.desired.request_wake(&sleeper_key(target), reason).await {
            Ok(_) => Ok(ScaleOutcome::Accepted),
            Err(error @ DesiredStateError::Cluster(_)) => Err(WakeError::Transient(error.to_string())),
            Err(error) => Err(WakeError::Failed(error.to_string())),
        }
    }

    /// Waits until the plugin is ready, or it is known that it will not be.
    async fn arrived(&self, plugin: &str) {
        let mut changes = self.plugins.changes();
        while self.plugins.may_come(plugin) && changes.changed().await.is_ok() {}
    }

    async fn carry_through(&self, target: &RouteTarget, outcome: ScaleOutcome) -> Result<(), WakeError> {
        match outcome {
            ScaleOutcome::Done | ScaleOutcome::Accepted => {}
            ScaleOutcome::Watch(condition) => self.watch(target, &condition).await?,
            ScaleOutcome::Failed(error) => return Err(wake_error(&target.owner.name, &error.into())),
            ScaleOutcome::Other(text) => {
                let owner = &target.owner;
                return Err(WakeError::Failed(format!(
                    "{owner} says what this version does not know: {text}"
                )));
            }
        }
        if target.wake == Wake::Owner {
            // Nobody else would say so before the autoscaler looks the next time.
            let key = sleeper_key(target);
            if let Err(error) = self
                .status
                .mirror_phase(&key, Phase::Awake, "woken by a request")
                .await
            {
                tracing::warn!(sleeper = target.key.sleeper, %error, "the phase could not be recorded");
            }
        }
        self.wait_for_view(target).await;
        self.is_begun(target)
    }

    /// A request that was accepted and shows nowhere is no wake: whoever waits is told, and it is asked again while requests are held.
    fn is_begun(&self, target: &RouteTarget) -> Result<(), WakeError> {
        let sleeper = self
            .caches
            .sleepers
            .get(&target.key.namespace, &target.key.sleeper);
        let Some(state) = sleeper.and_then(|sleeper| Some(sleeper.status.as_ref()?.state.clone())) else {
            return Ok(());
        };
        if state.desired == DesiredState::Awake || !state.phase.is_away() || target.wake == Wake::Owner {
            return Ok(());
        }
        Err(WakeError::Transient(format!(
            "the wake was accepted, but its Sleeper still says {:?}: {}",
            state.phase, state.reason
        )))
    }

    /// Waits until the wake shows in the target's own view: until then the view may list pods of a workload that has been
    /// scaled to zero in the meantime.
    async fn wait_for_view(&self, target: &RouteTarget) {
        let mut views = target.endpoints.clone();
        let before = views.borrow().epoch;
        let shown = views.wait_for(|view| !view.asleep || view.epoch > before);
        if tokio::time::timeout(VIEW_LAG, shown).await.is_err() {
            tracing::debug!(sleeper = target.key.sleeper, "no news of the wake yet");
        }
    }

    /// Looks at the field until it is as desired. The caller's deadline ends it.
    async fn watch(&self, target: &RouteTarget, condition: &FieldCondition) -> Result<(), WakeError> {
        let object = &condition.object;
        let key = object.in_namespace(&target.key.namespace);
        let mut pause = FIRST_LOOK;
        loop {
            match self
                .objects
                .get(&key, std::slice::from_ref(&condition.path))
                .await
            {
                Ok(seen) => match FieldPath(&condition.path).text(&seen) {
                    Some(value) if condition.ready_values.contains(&value) => return Ok(()),
                    Some(value) if condition.failed_values.contains(&value) => {
                        let (kind, name, path) = (&object.kind, &object.name, &condition.path);
                        return Err(WakeError::Failed(format!(
                            "{path} of {kind} {name} became {value}"
                        )));
                    }
                    _ => {}
                },
                Err(error) => tracing::debug!(%error, name = key.name, "a watched object could not be read"),
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
            pause = (pause * 3 / 2).min(LONGEST_LOOK);
        }
    }

    /// Puts the cause on the Sleeper, where people look. Nobody waits for that.
    fn record(&self, target: &RouteTarget, error: &WakeError) {
        let (caches, status) = (Arc::clone(&self.caches), self.status.clone());
        let (key, message) = (sleeper_key(target), error.to_string());
        // Whoever reads of a failure gives up on the wake.
        let is_final = !matches!(error, WakeError::Transient(_));
        let name = target.key.sleeper.clone();
        tokio::spawn(async move {
            let Some(sleeper) = caches.sleeper(&key) else {
                return;
            };
            let state = sleeper.status.clone().unwrap_or_default().state;
            let recorded = if is_final && state.phase == Phase::Waking {
                status.record_wake_failure(&key, state.epoch, &message).await
            } else {
                let update = ConditionUpdate::bad(api::condition::WAKEABLE, "WakeFailed", &message);
                status.record(&key, &update.into()).await
            };
            if let Err(error) = recorded {
                tracing::warn!(sleeper = name, %error, "a failed wake could not be recorded");
            }
        });
    }
}

#[async_trait]
impl Waker for ClusterWaker {
    async fn wake(&self, target: &RouteTarget, reason: &str) -> Result<(), WakeError> {
        let answer = self.ask(target, reason).await;
        let (namespace, service) = (&target.key.namespace, &target.key.service);
        tracing::debug!(target: "dormouse_dlx::wake", namespace, service, step = "wake accepted");
        let woken = match answer {
            Ok(outcome) => self.carry_through(target, outcome).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &woken {
            self.record(target, error);
        }
        woken
    }
}

fn sleeper_key(target: &RouteTarget) -> SleeperKey {
    SleeperKey::new(target.owner.clone(), &target.key.namespace, &target.resource)
}

/// The failure of a wake that a plugin's answer is.
fn wake_error(plugin: &str, error: &PluginError) -> WakeError {
    let cause = public_message(plugin, error);
    if is_transient(error) {
        WakeError::Transient(cause)
    } else {
        WakeError::Failed(cause)
    }
}

/// Whether it may succeed in a moment.
fn is_transient(error: &PluginError) -> bool {
    matches!(
        error,
        PluginError::Guest(GuestError::Transient(_))
            | PluginError::Overloaded { .. }
            | PluginError::HostMemory { .. }
            | PluginError::WallTimeout { .. }
    )
}

/// What clients may know: the plugin's own words, but of faults of plugin or host only that there was one.
fn public_message(plugin: &str, error: &PluginError) -> String {
    match error {
        PluginError::Guest(error) => error.to_string(),
        PluginError::Overloaded { .. } | PluginError::CircuitOpen { .. } => {
            format!("plugin {plugin}: {error}")
        }
        other => format!("plugin {plugin} failed ({})", other.code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_stays() {
        let passing = [
            PluginError::Guest(GuestError::Transient("no answer".into())),
            PluginError::Overloaded {
                waited: Duration::from_secs(1),
            },
            PluginError::WallTimeout {
                limit: Duration::from_secs(10),
            },
        ];
        assert!(passing.iter().all(is_transient));
        let staying = [
            PluginError::Guest(GuestError::Other("quota exceeded".into())),
            PluginError::CircuitOpen {
                retry_after: Duration::from_secs(1),
            },
            PluginError::Panicked {
                message: String::new(),
            },
        ];
        assert!(!staying.iter().any(is_transient));
    }

    #[test]
    fn faults_of_a_plugin_are_not_told_in_detail() {
        let error = PluginError::Panicked {
            message: "password=hunter2".into(),
        };
        assert_eq!(public_message("p", &error), "plugin p failed (panicked)");
    }
}
