//! The traffic that the DLX observed.

use dormouse_model::{Phase, Quantity, window_name};
use dormouse_plugin::types::Rule;
use dormouse_scaling::Reading;
use dormouse_sleepers::DemandEntry;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::AllDemand;
use super::lanes::Answer;
use crate::target::Target;

/// Requests and connections at the DLX since it stepped into the traffic, once that is long enough ago.
pub(super) async fn reading(
    demand: Option<&Answer<AllDemand>>,
    target: &Target,
    rule: &Rule,
    threshold: Quantity,
    now: Timestamp,
) -> Reading {
    if !threshold.is_zero() {
        return Reading::Error("the threshold of observed traffic must be 0".to_owned());
    }
    if target.resource.services.is_empty() {
        return Reading::Error("it has no Service whose traffic could be observed".to_owned());
    }
    let state = target.state();
    let (Phase::Diverting | Phase::Observing | Phase::Draining, Some(answer)) = (state.phase, demand) else {
        return Reading::NoData("not observed yet".into());
    };
    let answer = answer.clone().await;
    let demand = match &*answer {
        Err(error) => return Reading::Error(format!("demand is unknown: {error}")),
        Ok(demand) => demand,
    };
    let namespace = target.sleeper.namespace().unwrap_or_default();
    let entry = demand.get(&(namespace, target.sleeper.name_any()));
    let current = entry.map_or(0, DemandEntry::current);
    if current > 0 {
        return Reading::Value(Quantity::from(current));
    }
    let observed = match (state.phase, state.since) {
        (Phase::Observing, Some(since)) => now.duration_since(since),
        _ => return Reading::NoData("not observed yet".into()),
    };
    let window = SignedDuration::try_from(rule.window).unwrap_or(SignedDuration::MAX);
    let quiet = entry
        .and_then(|entry| entry.idle_millis)
        .map(|millis| SignedDuration::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)));
    // What ended before the DLX stepped in belongs to an earlier time.
    if quiet.is_some_and(|quiet| quiet < window && quiet < observed) {
        return Reading::Value(Quantity::from(1));
    }
    if observed < window {
        return Reading::NoData(format!("observed for less than {}", window_name(rule.window)).into());
    }
    Reading::Value(Quantity::ZERO)
}
