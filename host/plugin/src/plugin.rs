//! A loaded plugin and the path of a call through it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::Instrument as _;
use wasmtime::Store;
use wasmtime::component::Instance;

use crate::bindings::dormouse::plugin::types::PluginError as WitError;
use crate::bindings::exports::dormouse::plugin::{scaler, trigger};
use crate::convert::{self, Garbage};
use crate::load::{Exports, NotExported, Template};
use crate::metrics::PluginMetrics;
use crate::state::CallState;
use crate::types::{
    Description, Observation, PathBackend, Question, Recommendation, Resource, ResourceHandle, ResourceId,
    ScaleOutcome, ServiceTarget, Settings, TriggerTarget,
};
use crate::{Breaker, BreakerState, GuestError, HostEngine, Limits, PluginError};

/// Resources that are left out of which a log line tells.
const TOLD: usize = 10;

/// A function that plugins export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `scaler.settings`.
    Settings,
    /// `scaler.resources`.
    Resources,
    /// `scaler.set-scale`.
    SetScale,
    /// `scaler.service`.
    Service,
    /// `ingress-targets.targets`.
    IngressTargets,
    /// `about.describe`.
    Describe,
    /// `evaluator.evaluate`.
    Evaluate,
    /// `trigger.check`.
    Check,
    /// `trigger.observe`.
    Observe,
}

impl Call {
    pub(crate) const COUNT: usize = 9;

    pub(crate) const ALL: [Call; Call::COUNT] = [
        Call::Settings,
        Call::Resources,
        Call::SetScale,
        Call::Service,
        Call::IngressTargets,
        Call::Describe,
        Call::Evaluate,
        Call::Check,
        Call::Observe,
    ];

    /// As it is written in WIT.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Call::Settings => "settings",
            Call::Resources => "resources",
            Call::SetScale => "set-scale",
            Call::Service => "service",
            Call::IngressTargets => "targets",
            Call::Describe => "describe",
            Call::Evaluate => "evaluate",
            Call::Check => "check",
            Call::Observe => "observe",
        }
    }
}

/// A loaded plugin: one generation of one file. Calls may run at the same time, each in an instance of its own.
pub struct Plugin {
    digest: String,
    generation: u64,
    template: Template,
    /// Over all plugins.
    host_places: Arc<Semaphore>,
    /// Of this plugin.
    places: Arc<Semaphore>,
    admission_wait: Duration,
    /// One for each function: a `resources` that always traps must not keep `set-scale` from waking anybody.
    breakers: [Breaker; Call::COUNT],
    /// Of each function, what its last call failed with, if it did.
    failures: [Mutex<Option<Failure>>; Call::COUNT],
    /// What was last said of resources that were left out.
    dropped: Mutex<Vec<String>>,
    /// What it said when it was loaded.
    defaults: OnceLock<Settings>,
}

/// A function whose last call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How many calls in a row have failed.
    pub times: u64,
    /// Since when.
    pub since: jiff::Timestamp,
    /// What the last one failed with.
    pub error: PluginError,
}

/// A place among the calls of the plugin, and one among those of the host.
struct Place {
    _plugin: OwnedSemaphorePermit,
    _host: OwnedSemaphorePermit,
}

impl Plugin {
    pub(crate) fn new(engine: &HostEngine, template: Template, digest: String, generation: u64) -> Plugin {
        let config = engine.config();
        Plugin {
            digest,
            generation,
            host_places: Arc::clone(engine.admission()),
            places: Arc::new(Semaphore::new(template.shared().limits.concurrent_calls)),
            admission_wait: config.admission_wait,
            breakers: std::array::from_fn(|_| Breaker::new(config.breaker)),
            failures: std::array::from_fn(|_| Mutex::default()),
            dropped: Mutex::default(),
            defaults: OnceLock::new(),
            template,
        }
    }

    /// The file stem.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.template.shared().name
    }

    /// SHA-256 of the file, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Enough of the digest for people.
    #[must_use]
    pub fn short_digest(&self) -> &str {
        self.digest.get(..12).unwrap_or(&self.digest)
    }

    /// Rises each time that a file of this name is loaded anew.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What each of its calls may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.template.shared().limits
    }

    /// What the breaker of a function is doing.
    #[must_use]
    pub fn breaker(&self, call: Call) -> BreakerState {
        self.breakers[call as usize].state()
    }

    /// Functions that it imports and this host does not have: a call of one fails.
    #[must_use]
    pub fn stubs(&self) -> &[String] {
        self.template.stubs()
    }

    /// Each function whose last call failed. Not called any more because of that counts as failing.
    #[must_use]
    pub fn failing(&self) -> Vec<(Call, Failure)> {
        Call::ALL
            .into_iter()
            .filter_map(|call| Some((call, self.failure(call).clone()?)))
            .collect()
    }

    fn failure(&self, call: Call) -> std::sync::MutexGuard<'_, Option<Failure>> {
        self.failures[call as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What its settings were when it was loaded; the host's defaults where it did not say.
    #[must_use]
    pub fn defaults(&self) -> Settings {
        self.defaults.get().cloned().unwrap_or_default()
    }

    /// Asks for its settings for the first time.
    pub(crate) async fn introduce(&self) -> Result<(), PluginError> {
        if !self.is_scaler() {
            return Ok(());
        }
        match self.settings().await {
            Ok(settings) => {
                let _ = self.defaults.set(settings);
                Ok(())
            }
            // It says itself that it cannot work like this.
            Err(error @ PluginError::Guest(crate::GuestError::InvalidConfiguration(_))) => Err(error),
            // Asked again with the rounds.
            Err(_) => Ok(()),
        }
    }

    /// True when it exports `scaler`: it has resources. Others are only asked about those of somebody else.
    #[must_use]
    pub fn is_scaler(&self) -> bool {
        self.template.exports().scaler.is_some()
    }

    /// True when it exports `ingress-targets`.
    #[must_use]
    pub fn has_ingress_targets(&self) -> bool {
        self.template.exports().ingress.is_some()
    }

    /// What it says that it is. None: it does not export `about`.
    ///
    /// # Errors
    ///
    /// As every call of a plugin.
    pub async fn describe(&self) -> Result<Option<Description>, PluginError> {
        if self.template.exports().about.is_none() {
            return Ok(None);
        }
        self.call(
            Call::Describe,
            |exports, store, instance| {
                Box::pin(async move {
                    let about = exports.about.as_ref().ok_or(NotExported("about"))?;
                    let guest = about.load(&mut *store, &instance)?;
                    guest.call_describe(store).await.map(Ok)
                })
            },
            |said| convert::description(said).map(Some),
        )
        .await
    }

    /// How many replicas resources need. One answer for each question, in their order.
    ///
    /// # Errors
    ///
    /// As every call of a plugin. Then nothing is known about any of them.
    pub async fn evaluate(
        &self,
        questions: Vec<Question>,
    ) -> Result<Vec<Result<Recommendation, GuestError>>, PluginError> {
        let asked = questions.len();
        let questions: Vec<_> = questions.into_iter().map(Into::into).collect();
        self.call(
            Call::Evaluate,
            move |exports, store, instance| {
                Box::pin(async move {
                    let evaluator = exports.evaluator.as_ref().ok_or(NotExported("evaluator"))?;
                    let guest = evaluator.load(&mut *store, &instance)?;
                    guest.call_evaluate(store, &questions).await
                })
            },
            |list| convert::recommendations(list, asked),
        )
        .await
    }

    /// Whether the parameters of a target of its trigger are right.
    ///
    /// # Errors
    ///
    /// As every call of a plugin; [`PluginError::Guest`] says what is wrong with the parameters.
    pub async fn check(&self, target: TriggerTarget) -> Result<(), PluginError> {
        let target = target.into();
        self.call(
            Call::Check,
            move |exports, store, instance| {
                Box::pin(async move {
                    let guest = trigger(exports)?.load(&mut *store, &instance)?;
                    guest.call_check(store, &target).await
                })
            },
            Ok,
        )
        .await
    }

    /// Whether there is work for resources. One answer for each target, in their order.
    ///
    /// # Errors
    ///
    /// As every call of a plugin. Then nothing is known about any of them.
    pub async fn observe(
        &self,
        targets: Vec<TriggerTarget>,
    ) -> Result<Vec<Result<Observation, GuestError>>, PluginError> {
        let asked = targets.len();
        let targets: Vec<_> = targets.into_iter().map(Into::into).collect();
        self.call(
            Call::Observe,
            move |exports, store, instance| {
                Box::pin(async move {
                    let guest = trigger(exports)?.load(&mut *store, &instance)?;
                    guest.call_observe(store, &targets).await
                })
            },
            |list| convert::observations(list, asked),
        )
        .await
    }

    /// The defaults that suit its platform.
    ///
    /// # Errors
    ///
    /// As every call of a plugin: see [`PluginError`].
    pub async fn settings(&self) -> Result<Settings, PluginError> {
        self.call(
            Call::Settings,
            |exports, store, instance| {
                Box::pin(async move {
                    let guest = scaler(exports)?.load(&mut *store, &instance)?;
                    guest.call_settings(store).await
                })
            },
            convert::settings,
        )
        .await
    }

    /// Every resource that it looks after.
    ///
    /// # Errors
    ///
    /// As every call of a plugin. Then nothing is known about its resources, and everything stays as it is.
    pub async fn resources(&self) -> Result<Vec<Resource>, PluginError> {
        let limit = self.limits().resources;
        let listed = self.call(
            Call::Resources,
            |exports, store, instance| {
                Box::pin(async move {
                    let guest = scaler(exports)?.load(&mut *store, &instance)?;
                    guest.call_resources(store).await
                })
            },
            |list| Ok(convert::resources(list, limit)),
        );
        let convert::Listed {
            resources,
            dropped,
            left_out,
        } = listed.await?;
        self.metrics().dropped(left_out);
        let mut before = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        if *before != dropped {
            for why in dropped.iter().take(TOLD) {
                tracing::warn!(plugin = self.name(), "left out: {why}");
            }
            if dropped.len() > TOLD {
                tracing::warn!(plugin = self.name(), "{} more are left out", dropped.len() - TOLD);
            }
            *before = dropped;
        }
        Ok(resources)
    }

    /// Scales resources: 0 puts them to sleep, more wakes them. One outcome for each, in their order.
    ///
    /// # Errors
    ///
    /// As every call of a plugin.
    pub async fn set_scale(
        &self,
        resources: &[ResourceHandle],
        replicas: u32,
        reason: &str,
    ) -> Result<Vec<ScaleOutcome>, PluginError> {
        let asked = resources.len();
        let handles: Vec<_> = resources.iter().cloned().map(Into::into).collect();
        let reason = reason.to_owned();
        self.call(
            Call::SetScale,
            move |exports, store, instance| {
                Box::pin(async move {
                    let guest = scaler(exports)?.load(&mut *store, &instance)?;
                    guest.call_set_scale(store, &handles, replicas, &reason).await
                })
            },
            |list| convert::outcomes(list, asked),
        )
        .await
    }

    /// Where requests for a resource go.
    ///
    /// # Errors
    ///
    /// As every call of a plugin.
    pub async fn service(&self, resource: &ResourceHandle) -> Result<ServiceTarget, PluginError> {
        let handle = resource.clone().into();
        self.call(
            Call::Service,
            move |exports, store, instance| {
                Box::pin(async move {
                    let guest = scaler(exports)?.load(&mut *store, &instance)?;
                    guest.call_service(store, &handle).await
                })
            },
            convert::service_target,
        )
        .await
    }

    /// Which resources a path routes to: one or two, or an empty list when none of this plugin's. `None` when the plugin
    /// leaves the question to the host.
    ///
    /// # Errors
    ///
    /// As every call of a plugin.
    pub async fn ingress_targets(
        &self,
        backend: &PathBackend,
    ) -> Result<Option<Vec<ResourceId>>, PluginError> {
        if !self.has_ingress_targets() {
            return Ok(None);
        }
        let backend = backend.clone().into();
        self.call(
            Call::IngressTargets,
            move |exports, store, instance| {
                Box::pin(async move {
                    let Some(ingress) = &exports.ingress else {
                        return Ok(Ok(Vec::new()));
                    };
                    let guest = ingress.load(&mut *store, &instance)?;
                    guest.call_targets(store, &backend).await
                })
            },
            |list| convert::targets(list).map(Some),
        )
        .await
    }

    fn metrics(&self) -> &PluginMetrics {
        &self.template.shared().metrics
    }

    /// The path of every call, with its metrics.
    async fn call<W: Send, R>(
        &self,
        call: Call,
        body: impl for<'a> FnOnce(
            &'a Exports,
            &'a mut Store<CallState>,
            Instance,
        ) -> BoxFuture<'a, wasmtime::Result<Result<W, WitError>>>
        + Send,
        convert: impl FnOnce(W) -> Result<R, Garbage> + Send,
    ) -> Result<R, PluginError> {
        let metrics = self.metrics();
        metrics.called(call);
        let span = tracing::info_span!(
            "plugin",
            plugin = self.name(),
            generation = self.generation,
            digest = self.short_digest(),
            call = call.as_str(),
        );
        let path = async {
            let result = self.guarded(call, body, convert).await;
            match &result {
                Ok(_) => *self.failure(call) = None,
                // Nothing happened that was not said when it began; under load there would be very many of these.
                Err(error @ (PluginError::CircuitOpen { .. } | PluginError::Overloaded { .. })) => {
                    metrics.failed(call, error.code());
                    tracing::debug!(code = error.code(), "{error}");
                }
                Err(error) => {
                    metrics.failed(call, error.code());
                    tracing::warn!(code = error.code(), "the plugin failed: {error}");
                    let mut failure = self.failure(call);
                    let before = failure.take();
                    *failure = Some(Failure {
                        times: before.as_ref().map_or(1, |before| before.times.saturating_add(1)),
                        since: before.map_or_else(jiff::Timestamp::now, |before| before.since),
                        error: error.clone(),
                    });
                }
            }
            result
        };
        path.instrument(span).await
    }

    /// Admission, breaker, run, conversion.
    async fn guarded<W: Send, R>(
        &self,
        call: Call,
        body: impl for<'a> FnOnce(
            &'a Exports,
            &'a mut Store<CallState>,
            Instance,
        ) -> BoxFuture<'a, wasmtime::Result<Result<W, WitError>>>
        + Send,
        convert: impl FnOnce(W) -> Result<R, Garbage> + Send,
    ) -> Result<R, PluginError> {
        let _place = self.place().await?;
        let breaker = &self.breakers[call as usize];
        let permit = breaker
            .admit(Instant::now())
            .map_err(|retry_after| PluginError::CircuitOpen { retry_after })?;

        let began = Instant::now();
        let instance = self.metrics().instance();
        let ran = self.template.run(body).await;
        drop(instance);
        let result = match ran.outcome {
            Ok(Ok(answer)) => convert(answer).map_err(PluginError::from),
            Ok(Err(error)) => Err(PluginError::Guest(convert::guest_error(error))),
            Err(error) => Err(error),
        };
        self.metrics()
            .took(call, began.elapsed().as_secs_f64(), ran.cpu.as_secs_f64());

        match &result {
            Err(error) if error.is_misbehaviour() => permit.failed(Instant::now(), rand::random()),
            // A fault of the host proves nothing about the plugin.
            Err(PluginError::Internal { .. }) => drop(permit),
            _ => permit.succeeded(),
        }
        self.metrics().breaker(call, breaker.state());
        result
    }

    /// Waits for a place, first among the plugin's own calls: a plugin that is slow fills its own queue only.
    async fn place(&self) -> Result<Place, PluginError> {
        let overloaded = || PluginError::Overloaded {
            waited: self.admission_wait,
        };
        if let (Ok(plugin), Ok(host)) = (
            Arc::clone(&self.places).try_acquire_owned(),
            Arc::clone(&self.host_places).try_acquire_owned(),
        ) {
            return Ok(Place {
                _plugin: plugin,
                _host: host,
            });
        }
        let places = async {
            let plugin = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let host = Arc::clone(&self.host_places).acquire_owned().await.ok()?;
            Some(Place {
                _plugin: plugin,
                _host: host,
            })
        };
        match tokio::time::timeout(self.admission_wait, places).await {
            Ok(place) => place.ok_or_else(overloaded),
            Err(_) => Err(overloaded()),
        }
    }
}

fn scaler(exports: &Exports) -> Result<&scaler::GuestIndices, NotExported> {
    exports.scaler.as_ref().ok_or(NotExported("scaler"))
}

fn trigger(exports: &Exports) -> Result<&trigger::GuestIndices, NotExported> {
    exports.trigger.as_ref().ok_or(NotExported("trigger"))
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name())
            .field("generation", &self.generation)
            .field("digest", &self.short_digest())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_its_place() {
        for (index, call) in Call::ALL.into_iter().enumerate() {
            assert_eq!(call as usize, index);
        }
    }
}
