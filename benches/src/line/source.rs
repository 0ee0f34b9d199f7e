//! The plugin that declares the targets, and how late they are decided.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_autoscaler::{PluginSource, Report, ResourceScaler, Source, SourceError, jitter};
use dormouse_model::{Owner, Routing, Target, TargetKey};
use dormouse_plugin::types::{Resource, ResourceHandle, ScaleOutcome, Settings};
use tokio::sync::watch;
use tokio::time::Instant;

use super::population::Population;

/// The name of the plugin.
pub const NAME: &str = "bench";

/// Declares a population. It makes its answer anew each time, as a plugin does.
#[derive(Clone, Copy, Debug)]
pub struct Declares(pub Population);

#[async_trait]
impl ResourceScaler for Declares {
    fn owner(&self) -> Owner {
        Owner::plugin(NAME)
    }

    async fn settings(&self) -> Result<Settings, SourceError> {
        Ok(Settings::default())
    }

    async fn resources(&self) -> Result<Vec<Resource>, SourceError> {
        Ok(self.0.resources())
    }

    async fn route(&self, _resource: &Resource) -> Result<Routing, SourceError> {
        Ok(Routing::First)
    }

    async fn set_scale(
        &self,
        resources: &[ResourceHandle],
        _replicas: u32,
        _reason: &str,
    ) -> Result<Vec<ScaleOutcome>, SourceError> {
        Ok(vec![ScaleOutcome::Done; resources.len()])
    }
}

/// When targets were decided.
#[derive(Debug)]
pub struct Decisions(Mutex<Noted>);

#[derive(Debug)]
struct Noted {
    /// Of each target: when its last decision was reported, and the time from one to the next.
    targets: Vec<(Option<Instant>, Duration)>,
    /// Targets that were reported once.
    first: usize,
    /// Seconds from the moment that a target was due until its report came.
    late: Vec<f64>,
}

impl Decisions {
    pub fn new(targets: u32) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Noted {
            targets: vec![(None, Duration::ZERO); targets as usize],
            first: 0,
            late: Vec::new(),
        })))
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many targets were decided at least once.
    pub fn targets(&self) -> usize {
        self.noted().first
    }

    /// How late decisions were since this was last asked, in seconds.
    pub fn take(&self) -> Vec<f64> {
        std::mem::take(&mut self.noted().late)
    }

    fn declared(&self, target: &Target) {
        let noted = &mut *self.noted();
        let number = Population::number(&target.key.name);
        if let Some((_, between)) = number.and_then(|number| noted.targets.get_mut(number)) {
            *between = target.every.saturating_sub(jitter(target));
        }
    }

    fn decided(&self, key: &TargetKey, now: Instant) {
        let noted = &mut *self.noted();
        let number = Population::number(&key.name);
        let Some((last, between)) = number.and_then(|number| noted.targets.get_mut(number)) else {
            return;
        };
        match last.replace(now) {
            Some(last) => {
                let late = now.saturating_duration_since(last + *between);
                noted.late.push(late.as_secs_f64());
            }
            None => noted.first += 1,
        }
    }
}

/// The plugin as a source. What it says is decided at one pace, whether a metric scales it or not.
pub struct Paced {
    pub plugin: Arc<PluginSource>,
    pub every: Duration,
    pub decisions: Arc<Decisions>,
}

#[async_trait]
impl Source for Paced {
    fn owner(&self) -> Owner {
        self.plugin.owner()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.plugin.changes()
    }

    async fn targets(&self) -> Result<Vec<Arc<Target>>, SourceError> {
        let targets = self.plugin.targets().await?;
        let paced = targets.into_iter().map(|target| {
            let target = Target {
                every: self.every,
                ..Arc::unwrap_or_clone(target)
            };
            self.decisions.declared(&target);
            Arc::new(target)
        });
        Ok(paced.collect())
    }

    async fn report(&self, reports: Vec<(TargetKey, Report)>) {
        let now = Instant::now();
        for (key, _) in &reports {
            self.decisions.decided(key, now);
        }
        self.plugin.report(reports).await;
    }

    async fn set_scale(
        &self,
        targets: &[TargetKey],
        replicas: u32,
        reason: &str,
    ) -> Result<Vec<ScaleOutcome>, SourceError> {
        self.plugin.set_scale(targets, replicas, reason).await
    }
}
