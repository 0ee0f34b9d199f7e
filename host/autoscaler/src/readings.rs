//! Readings: where the numbers come from that rules compare.
//!
//! What several rules ask is asked once in a round: a custom metric for all objects of its kind in a namespace, a query with
//! the same text, and so on. Calls run at once, each with its own deadline, up to a bound for each source, so that a
//! source that hangs fills its own places only. A target waits for its own readings and for nothing else; the next round
//! comes all the same, without it.

mod lanes;
mod observed;
mod question;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use dormouse_kubernetes::MetricValue;
use dormouse_model::{GroupKind, Owner, Phase, Quantity};
use dormouse_plugin::types::{MetricSource, Rule};
use dormouse_scaling::{Input, Reading};
use dormouse_sleepers::DemandEntry;
use jiff::Timestamp;

use crate::metrics::Metrics;
use crate::target::Target;
use crate::{CustomQuestion, Meters, Question, Sleepers};
use lanes::Answer;
pub(crate) use lanes::Lanes;
use question::{Call, describe, label};

type Values = BTreeMap<String, MetricValue>;
type AllDemand = BTreeMap<(String, String), DemandEntry>;

/// How metrics are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Calls to one source of metrics at once.
    pub concurrency: usize,
    /// Deadline of each call.
    pub timeout: Duration,
}

/// Everything that is being read in one round.
pub(crate) struct Readings {
    owner: Owner,
    metrics_resource: Option<GroupKind>,
    custom: HashMap<CustomQuestion, Answer<Values>>,
    others: HashMap<Question, Answer<Reading>>,
    demand: Option<Answer<AllDemand>>,
    metrics: Metrics,
}

impl Readings {
    /// Starts every call that the targets need. They end with this value.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is something else, and there is one caller"
    )]
    pub fn start(
        owner: Owner,
        metrics_resource: Option<GroupKind>,
        targets: &[Target],
        meters: &Arc<dyn Meters>,
        sleepers: &Arc<dyn Sleepers>,
        lanes: &mut Lanes,
        metrics: Metrics,
        now: Timestamp,
    ) -> Self {
        let mut readings = Self {
            owner,
            metrics_resource,
            custom: HashMap::new(),
            others: HashMap::new(),
            demand: None,
            metrics,
        };
        for target in targets {
            for rule in &target.resource.rules {
                if rule.source == MetricSource::ObservedTraffic {
                    if target.state().phase != Phase::Awake && readings.demand.is_none() {
                        let sleepers = Arc::clone(sleepers);
                        let ask = async move { sleepers.demand().await };
                        readings.demand = Some(lanes.start(label(&rule.source), "", ask));
                    }
                    continue;
                }
                // What cannot be asked becomes an error when it is looked at.
                match question::call(target, rule, readings.metrics_resource.as_ref()) {
                    Some(Ok(Call::Custom(call))) if !readings.custom.contains_key(&call) => {
                        let (meters, asked) = (Arc::clone(meters), call.clone());
                        let ask = async move { meters.custom(&asked).await };
                        let answer = lanes.start(label(&rule.source), "", ask);
                        readings.custom.insert(call, answer);
                    }
                    Some(Ok(Call::Other(question))) if !readings.others.contains_key(&question) => {
                        let lane = match &question {
                            Question::Prometheus { server, .. } => server.as_str(),
                            _ => "",
                        };
                        let (meters, asked) = (Arc::clone(meters), question.clone());
                        let ask = async move { Ok(meters.ask(&asked, now).await) };
                        let answer = lanes.start(label(&rule.source), lane, ask);
                        readings.others.insert(question, answer);
                    }
                    _ => {}
                }
            }
        }
        readings
    }

    /// What is read for each rule of a target, once it is there.
    pub async fn inputs(&self, target: &Target, now: Timestamp) -> Vec<Input> {
        let mut inputs = Vec::with_capacity(target.resource.rules.len());
        for rule in &target.resource.rules {
            inputs.push(self.input(target, rule, now).await);
        }
        inputs
    }

    async fn input(&self, target: &Target, rule: &Rule, now: Timestamp) -> Input {
        let (threshold, reading) = match rule.threshold.parse::<Quantity>() {
            Err(error) => (
                Quantity::ZERO,
                Reading::Error(format!("the threshold is wrong: {error}")),
            ),
            Ok(threshold) => {
                let reading = self.reading(target, rule, threshold, now).await;
                (threshold, reading)
            }
        };
        let result = match &reading {
            Reading::Value(_) => "value",
            Reading::NoData(_) => "no-data",
            Reading::Error(_) => "error",
        };
        self.metrics.reading(&self.owner, label(&rule.source), result);
        let rule = dormouse_scaling::Rule {
            metric: describe(&rule.source),
            window: rule.window,
            threshold,
        };
        Input { rule, reading }
    }

    async fn reading(&self, target: &Target, rule: &Rule, threshold: Quantity, now: Timestamp) -> Reading {
        let call = match question::call(target, rule, self.metrics_resource.as_ref()) {
            None => {
                let demand = self.demand.as_ref();
                return observed::reading(demand, target, rule, threshold, now).await;
            }
            Some(Err(error)) => return Reading::Error(error),
            Some(Ok(call)) => call,
        };
        let unasked = || Reading::Error("it was not asked for".to_owned());
        match call {
            Call::Custom(question) => match self.custom.get(&question) {
                Some(answer) => custom(&question, target, &*answer.clone().await),
                None => unasked(),
            },
            Call::Other(question) => match self.others.get(&question) {
                Some(answer) => match &*answer.clone().await {
                    Ok(reading) => reading.clone(),
                    Err(error) => Reading::Error(error.clone()),
                },
                None => unasked(),
            },
        }
    }
}

/// The value of one object among those of all.
fn custom(question: &CustomQuestion, target: &Target, answer: &Result<Values, String>) -> Reading {
    let CustomQuestion { kind, metric, .. } = question;
    // Metrics of the resource's own object go by its name; metrics of another kind by the resource's.
    let object = &target.resource.object;
    let name = if *kind == object.kind {
        &object.name
    } else {
        &target.key.resource
    };
    let values = match answer {
        Err(error) => return Reading::Error(error.clone()),
        Ok(values) => values,
    };
    match values.get(name) {
        None => Reading::NoData(format!("{metric} says nothing about {kind} {name}").into()),
        Some(MetricValue::Ambiguous) => {
            Reading::Error(format!("{metric} has several values for {kind} {name}"))
        }
        Some(MetricValue::Value(text)) => match text.parse() {
            Ok(value) => Reading::Value(value),
            Err(error) => Reading::Error(format!("{metric} has a wrong value: {error}")),
        },
    }
}
