//! How many replicas a resource is to have.

use dormouse_model::{Behavior, MetricTarget, Quantity};

use super::{Garbage, source, window};
use crate::bindings::dormouse::plugin::types as wit;
use crate::host::clip;
use crate::types::{Goal, Scaling};

/// Goals of one resource.
const GOALS: usize = 16;
/// Bytes of a behavior.
const BEHAVIOR: usize = 8 << 10;

pub(super) fn scaling(scaling: wit::Scaling) -> Result<Scaling, Garbage> {
    let replicas = |count: u32| i32::try_from(count).ok().filter(|count| *count > 0);
    let (min, max) = (scaling.min_replicas, scaling.max_replicas);
    let (Some(min_replicas), Some(max_replicas)) = (replicas(min), replicas(max)) else {
        return Err(Garbage(format!(
            "{min} to {max} replicas: both must be at least 1"
        )));
    };
    if max_replicas < min_replicas {
        return Err(Garbage(format!(
            "at most {max} replicas are fewer than at least {min}"
        )));
    }
    if scaling.goals.is_empty() || scaling.goals.len() > GOALS {
        return Err(Garbage(format!(
            "{} goals, at least 1 and at most {GOALS} are allowed",
            scaling.goals.len()
        )));
    }
    let goals: Result<_, _> = scaling.goals.into_iter().map(goal).collect();
    Ok(Scaling {
        min_replicas,
        max_replicas,
        goals: goals?,
        behavior: scaling.behavior.map(|text| behavior(&text)).transpose()?,
    })
}

fn goal(goal: wit::Goal) -> Result<Goal, Garbage> {
    Ok(Goal {
        source: source::source(goal.source)?,
        window: goal.window.map(window).transpose()?,
        target: match goal.target {
            wit::GoalTarget::Value(text) => MetricTarget::Value(above_zero(text)?),
            wit::GoalTarget::Average(text) => MetricTarget::AverageValue(above_zero(text)?),
            wit::GoalTarget::Utilization(percent) => {
                let whole = i32::try_from(percent).ok().filter(|percent| *percent > 0);
                let whole = whole.ok_or_else(|| Garbage(format!("a utilization of {percent} %")))?;
                MetricTarget::Utilization(whole)
            }
        },
    })
}

fn above_zero(text: String) -> Result<Quantity, Garbage> {
    match text.parse::<Quantity>() {
        Ok(quantity) if quantity > Quantity::ZERO => Ok(quantity),
        Ok(_) => Err(Garbage(format!(
            "the target {:?} is not above zero",
            clip(text, 64)
        ))),
        Err(error) => Err(Garbage(format!("the target {:?}: {error}", clip(text, 64)))),
    }
}

fn behavior(text: &str) -> Result<Behavior, Garbage> {
    if text.len() > BEHAVIOR {
        return Err(Garbage(format!("a behavior of more than {BEHAVIOR} bytes")));
    }
    let behavior: Behavior =
        serde_json::from_str(text).map_err(|error| Garbage(format!("the behavior: {error}")))?;
    behavior
        .check()
        .map_err(|error| Garbage(format!("the behavior: {error}")))?;
    Ok(behavior)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> wit::Scaling {
        wit::Scaling {
            min_replicas: 2,
            max_replicas: 10,
            goals: vec![wit::Goal {
                source: wit::MetricSource::Resource("cpu".into()),
                window: None,
                target: wit::GoalTarget::Utilization(50),
                extra: Vec::new(),
            }],
            behavior: Some(r#"{"scaleDown": {"stabilizationWindowSeconds": 60}}"#.into()),
            extra: Vec::new(),
        }
    }

    #[test]
    fn what_is_right_passes() {
        let scaling = super::scaling(good()).unwrap();
        assert_eq!((scaling.min_replicas, scaling.max_replicas), (2, 10));
        assert_eq!(scaling.goals[0].target, MetricTarget::Utilization(50));
        let down = scaling.behavior.and_then(|behavior| behavior.scale_down);
        assert_eq!(
            down.and_then(|rules| rules.stabilization_window_seconds),
            Some(60)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Spoil = fn(&mut wit::Scaling);
        let spoils: [(Spoil, &str); 12] = [
            (|scaling| scaling.min_replicas = 0, "at least 1"),
            (|scaling| scaling.max_replicas = u32::MAX, "at least 1"),
            (|scaling| scaling.max_replicas = 1, "at most 1 replicas are fewer"),
            (|scaling| scaling.goals.clear(), "0 goals"),
            (
                |scaling| scaling.goals = vec![scaling.goals[0].clone(); 17],
                "17 goals",
            ),
            (
                |scaling| scaling.goals[0].target = wit::GoalTarget::Utilization(0),
                "a utilization of 0 %",
            ),
            (
                |scaling| scaling.goals[0].target = wit::GoalTarget::Average("0".into()),
                "not above zero",
            ),
            (
                |scaling| scaling.goals[0].target = wit::GoalTarget::Value("much".into()),
                "\"much\"",
            ),
            (|scaling| scaling.goals[0].window = Some(0), "a window of"),
            (
                |scaling| scaling.goals[0].source = wit::MetricSource::Resource("c p u".into()),
                "resource to measure",
            ),
            (|scaling| scaling.behavior = Some("{".into()), "the behavior"),
            (
                |scaling| {
                    scaling.behavior = Some(
                        r#"{"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 15}]}}"#
                            .into(),
                    );
                },
                "a value must be above 0",
            ),
        ];
        for (spoil, says) in spoils {
            let mut scaling = good();
            spoil(&mut scaling);
            let Err(Garbage(why)) = super::scaling(scaling) else {
                panic!("{says} passes");
            };
            assert!(why.contains(says), "{why:?} does not say {says:?}");
        }
    }
}
