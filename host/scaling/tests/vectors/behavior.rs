//! Bounds, policies, windows and history.

use std::time::Duration;

use dormouse_model::Behavior;
use dormouse_scaling::hpa::{
    DefaultedRules, History, Normalized, ReplicaChange, TimedRecommendation, Tolerances, limit_rate,
    normalize, with_defaults,
};
use dormouse_scaling::{Bounds, Limit};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::compare::assert_all_read;
use crate::pods::{at, now};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    min: i32,
    max: i32,
    current: i32,
    /// What the metrics propose. In a sequence each step says it.
    #[serde(default)]
    desired: i32,
    #[serde(default)]
    downscale_window_s: u64,
    behavior: Option<Value>,
    #[serde(default)]
    global_tolerance: f64,
    #[serde(default)]
    recommendations: Vec<RecommendationInput>,
    #[serde(default)]
    scale_up_events: Vec<EventInput>,
    #[serde(default)]
    scale_down_events: Vec<EventInput>,
    #[serde(default)]
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecommendationInput {
    t_ms: i64,
    replicas: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventInput {
    t_ms: i64,
    change: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    advance_ms: i64,
    set_current: Option<i32>,
    desired: i32,
}

/// A controller's history.
pub fn history(
    recommendations: &[RecommendationInput],
    scale_ups: &[EventInput],
    scale_downs: &[EventInput],
) -> History {
    let changes = |events: &[EventInput]| {
        let changes = events.iter().map(|event| ReplicaChange {
            at: at(now(), event.t_ms),
            change: event.change,
            outdated: false,
        });
        changes.collect()
    };
    let recommendations = recommendations.iter().map(|earlier| TimedRecommendation {
        at: at(now(), earlier.t_ms),
        replicas: earlier.replicas,
    });
    History {
        recommendations: recommendations.collect(),
        scale_ups: changes(scale_ups),
        scale_downs: changes(scale_downs),
    }
}

/// What is remembered, as `recommendations_after` and so on.
pub fn remembered(history: &History, now: Timestamp) -> Map<String, Value> {
    let milliseconds = |moment: Timestamp| moment.as_millisecond() - now.as_millisecond();
    let changes = |changes: &[ReplicaChange]| -> Value {
        let written = changes
            .iter()
            .map(|change| json!({ "t_ms": milliseconds(change.at), "change": change.change }));
        written.collect()
    };
    let recommendations: Value = history
        .recommendations
        .iter()
        .map(|earlier| json!({ "t_ms": milliseconds(earlier.at), "replicas": earlier.replicas }))
        .collect();
    let mut remembered = Map::new();
    remembered.insert("recommendations_after".into(), recommendations);
    remembered.insert("scale_up_events_after".into(), changes(&history.scale_ups));
    remembered.insert("scale_down_events_after".into(), changes(&history.scale_downs));
    remembered
}

/// A declared behavior. Every key of it must be known.
pub fn behavior(declared: &Value) -> Behavior {
    let behavior: Behavior = serde_json::from_value(declared.clone()).unwrap();
    assert_all_read(declared, &serde_json::to_value(&behavior).unwrap());
    behavior
}

fn reason(limit: Option<Limit>) -> &'static str {
    limit.map_or("DesiredWithinRange", |limit| limit.kind.as_str())
}

fn conditions(normalized: &Normalized) -> (String, String) {
    let able = normalized
        .window
        .map_or("ReadyForNewScale", |window| window.kind.as_str());
    let limited = match normalized.limit {
        Some(_) => "True",
        None => "False",
    };
    (
        format!("True/{able}"),
        format!("{limited}/{}", reason(normalized.limit)),
    )
}

fn parse(input: &Value) -> Input {
    serde_json::from_value(input.clone()).unwrap_or_else(|error| panic!("{error}: {input}"))
}

impl Input {
    fn history(&self) -> History {
        history(
            &self.recommendations,
            &self.scale_up_events,
            &self.scale_down_events,
        )
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            min: self.min,
            max: self.max,
        }
    }

    fn downscale_window(&self) -> Duration {
        Duration::from_secs(self.downscale_window_s)
    }

    fn declared(&self) -> Option<Behavior> {
        self.behavior.as_ref().map(behavior)
    }

    /// `effective_behavior`: absent where nothing is declared or no default changes it.
    fn effective_behavior(&self, rules: Option<&DefaultedRules>) -> Option<Value> {
        let effective = serde_json::to_value(Behavior::from(rules?.clone())).unwrap();
        (Some(&effective) != self.behavior.as_ref()).then_some(effective)
    }
}

pub fn run(function: &str, input: &Value) -> Value {
    let input = parse(input);
    assert!(input.steps.is_empty(), "only a sequence has steps");
    let declared = input.declared();
    let rules = declared.as_ref().map(with_defaults);
    let mut history = input.history();
    let mut output = match function {
        "rules" | "rate" => {
            let (current, desired) = (input.current, input.desired);
            assert_eq!(function == "rate", rules.is_some());
            let (replicas, limit) =
                limit_rate(rules.as_ref(), &history, input.bounds(), current, desired, now());
            json!({ "replicas": replicas, "reason": reason(limit) })
        }
        "normalize" | "normalize_behavior" => {
            assert_eq!(function == "normalize_behavior", rules.is_some());
            let normalized = normalize(
                rules.as_ref(),
                &mut history,
                input.bounds(),
                input.current,
                input.desired,
                input.downscale_window(),
                now(),
            );
            let (able_to_scale, scaling_limited) = conditions(&normalized);
            json!({
                "stabilized": normalized.stabilized,
                "replicas": normalized.replicas,
                "able_to_scale": able_to_scale,
                "scaling_limited": scaling_limited,
                "recommendations_after": remembered(&history, now())["recommendations_after"],
            })
        }
        "store_event" => {
            if let Some(rules) = &rules {
                rules.record(&mut history, input.current, input.desired, now());
            }
            let mut remembered = remembered(&history, now());
            remembered.remove("recommendations_after");
            Value::Object(remembered)
        }
        "tolerances" => {
            let tolerances = Tolerances::of(declared.as_ref(), input.global_tolerance);
            json!({ "tol_down": tolerances.scale_down, "tol_up": tolerances.scale_up })
        }
        other => panic!("{other} is no function of behavior"),
    };
    if let Some(effective) = input.effective_behavior(rules.as_ref()) {
        output["effective_behavior"] = effective;
    }
    output
}

pub fn run_sequence(input: &Value) -> Value {
    let input = parse(input);
    let rules = input.declared().as_ref().map(with_defaults);
    let mut history = input.history();
    let (mut now, mut current) = (now(), input.current);
    let mut steps = Vec::new();
    for step in &input.steps {
        now = at(now, step.advance_ms);
        current = step.set_current.unwrap_or(current);
        history.begin(current, now);
        let normalized = normalize(
            rules.as_ref(),
            &mut history,
            input.bounds(),
            current,
            step.desired,
            input.downscale_window(),
            now,
        );
        let (able_to_scale, scaling_limited) = conditions(&normalized);
        steps.push(json!({
            "current": current,
            "stabilized": normalized.stabilized,
            "replicas": normalized.replicas,
            "able_to_scale": able_to_scale,
            "scaling_limited": scaling_limited,
        }));
        if let Some(rules) = &rules
            && normalized.replicas != current
        {
            rules.record(&mut history, current, normalized.replicas, now);
        }
        current = normalized.replicas;
    }
    let mut output = json!({ "steps": steps });
    if let Some(effective) = input.effective_behavior(rules.as_ref()) {
        output["effective_behavior"] = effective;
    }
    output
}
