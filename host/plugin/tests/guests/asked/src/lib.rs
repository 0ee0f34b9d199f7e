//! An evaluator and a trigger, and no scaler: it has no resources, and is asked about those of somebody else.

use dormouse_sdk::evaluator::{Evaluator, Question, Recommendation};
use dormouse_sdk::prelude::*;
use dormouse_sdk::trigger::{Observation, Trigger, TriggerTarget};
use serde::Deserialize;

#[derive(Default)]
struct Asked;

impl Describe for Asked {
    fn describe(&self) -> About {
        About::new("Asked")
            .required_key("season", "summer or winter")
            .key_or("greeting", "what it says first", "hello")
            .wants_kubernetes("v1", "ConfigMap", &["list"], "to read calendars")
            .wants_events("to say what is wrong with one")
    }
}

impl Evaluator for Asked {
    fn evaluate(&self, question: &Question) -> Result<Recommendation> {
        match question.parameters.as_str() {
            "fail" => Err(Error::transient("the moon is full")),
            "panic" => panic!("as asked"),
            _ => Ok(Recommendation::new(question.replicas + 1, format!("{question:?}")).ask_again(minutes(2))),
        }
    }
}

/// What owners of resources write.
#[derive(Deserialize)]
struct Hours {
    from: i8,
    to: i8,
}

fn hours(target: &TriggerTarget) -> Result<Hours> {
    serde_json::from_str(&target.parameters)
        .map_err(|error| Error::configuration(format!("parameters: {error}; write {{\"from\": 8, \"to\": 18}}")))
}

impl Trigger for Asked {
    fn check(&self, target: &TriggerTarget) -> Result<()> {
        hours(target).map(drop)
    }

    fn observe(&self, targets: &[TriggerTarget]) -> Result<Vec<Result<Observation>>> {
        let now = time::civil(time::now(), None).map_err(|error| Error::Other(error.to_string()))?;
        let caller = context::caller();
        if context::time_left() > hours_long() {
            return Err(Error::Other("so much time has no call".into()));
        }
        let answers = targets.iter().map(|target| {
            let Hours { from, to } = hours(target)?;
            let told = format!("{caller}: {:02} o'clock in {}", now.hour(), time::zone());
            Ok(if (from..to).contains(&now.hour()) {
                Observation::active(told)
            } else {
                Observation::idle(told)
            })
        });
        Ok(answers.collect())
    }
}

fn hours_long() -> Duration {
    dormouse_sdk::duration::hours(1)
}

dormouse_sdk::register_evaluator!(Asked);
dormouse_sdk::register_trigger!(Asked);
dormouse_sdk::register_about!(Asked);
