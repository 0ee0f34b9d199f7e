//! The least that could do the same job: a timer and a decision for each target, with what it decides on in its hand.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use dormouse_model::{MetricSpec, Policy, Query, Target, TargetState};
use dormouse_readings::{Measurements, Meter, MetricSamples};
use dormouse_scaling::hpa::{ObservedScale, Settings};
use dormouse_scaling::{Input, Rule, ScaleSeen, ScalingHistory, Seen, Standing, recommend};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::population::REPLICAS;

/// A target with everything that the line would read for it.
pub struct Ready {
    target: Arc<Target>,
    inputs: Vec<Input>,
    metrics: Vec<MetricSpec>,
    measured: Measurements,
}

impl Ready {
    /// Reads everything once. What sleeps is not read for.
    pub async fn read(target: Arc<Target>, meter: &dyn Meter) -> anyhow::Result<Self> {
        let mut ready = Self {
            inputs: Vec::new(),
            metrics: Vec::new(),
            measured: Measurements::default(),
            target,
        };
        if ready.target.state != TargetState::Awake {
            return Ok(ready);
        }
        let (age, now) = (ready.target.every / 2, Timestamp::now());
        for trigger in &ready.target.triggers {
            let query = trigger.query.clone().map_err(anyhow::Error::msg)?;
            for sample in meter.read(&[query], age, now).await {
                ready.inputs.push(Input {
                    rule: Rule {
                        metric: trigger.name.clone(),
                        window: trigger.window,
                        threshold: trigger.threshold,
                    },
                    sample,
                    observed: false,
                    changes_at: None,
                });
            }
        }
        if let Policy::Metrics(policy) = &ready.target.policy {
            let key = &ready.target.key;
            let selector = format!("app={}", key.name).parse()?;
            let queries = policy.metrics.iter().map(|metric| metric.query.clone());
            let queries: Vec<Arc<Query>> = queries.collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
            ready.metrics = policy.metrics.iter().map(|metric| metric.spec.clone()).collect();
            ready.measured = meter.measure(&key.namespace, &selector, &queries, age, now).await;
        }
        Ok(ready)
    }

    fn decide(&self, settings: &Settings, now: Timestamp) {
        let samples = self.measured.samples.iter();
        let readings: Vec<_> = samples.map(MetricSamples::as_reading).collect();
        let history = ScalingHistory::default();
        let replicas = i32::try_from(REPLICAS).unwrap_or(1);
        let scale = (!self.metrics.is_empty()).then_some(ScaleSeen {
            scale: ObservedScale {
                spec_replicas: replicas,
                status_replicas: replicas,
                has_selector: true,
            },
            pods: &self.measured.pods,
            metrics: &self.metrics,
            readings: &readings,
            history: &history,
            last_scale: None,
            settings,
        });
        let seen = Seen {
            inputs: &self.inputs,
            standing: Standing::Awake,
            since: None,
            wakes: &[],
            observe_not_before: None,
            settle: Duration::ZERO,
            scale,
            now,
        };
        black_box(recommend(black_box(&self.target), &seen));
    }
}

/// Wakes up once for each target, spread over an interval as the line spreads them, and decides.
pub async fn tick(targets: &[Ready], interval: Duration) {
    let (settings, begun) = (Settings::default(), Instant::now());
    let apart = interval / u32::try_from(targets.len()).unwrap_or(u32::MAX).max(1);
    let mut due = begun;
    for ready in targets {
        due += apart;
        sleep_until(due).await;
        if ready.target.state == TargetState::Awake {
            ready.decide(&settings, Timestamp::now());
        }
    }
}
