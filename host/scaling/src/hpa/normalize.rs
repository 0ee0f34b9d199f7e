//! From what the metrics propose to what is done: windows, then policies and bounds.

use std::time::Duration;

use jiff::Timestamp;

use super::{DefaultedRules, History};
use crate::time::{before, seconds};
use crate::{Bounds, Limit, LimitKind};

/// What is left of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Normalized {
    /// After the stabilization windows.
    pub stabilized: i32,
    /// After the policies and bounds too: what should be done.
    pub replicas: i32,
    /// What a stabilization window changed.
    pub window: Option<Limit>,
    /// What a policy or a bound changed.
    pub limit: Option<Limit>,
}

/// Stabilizes a proposal and limits it. The proposal is recorded.
///
/// `rules` are None for a target without `behavior`. `downscale_window` is that of the cluster, for rules without one.
pub fn normalize(
    rules: Option<&DefaultedRules>,
    history: &mut History,
    bounds: Bounds,
    current: i32,
    desired: i32,
    downscale_window: Duration,
    now: Timestamp,
) -> Normalized {
    let stabilized = match rules {
        None => highest(history, desired, downscale_window, now),
        Some(rules) => stabilize(rules, history, current, desired, downscale_window, now),
    };
    // Without behavior there is no window for scaling up.
    let kind = if rules.is_some() && desired >= current {
        LimitKind::ScaleUpWindow
    } else {
        LimitKind::ScaleDownWindow
    };
    let window = (stabilized != desired).then_some(Limit {
        kind,
        from: desired,
        to: stabilized,
    });
    let (replicas, limit) = limit_rate(rules, history, bounds, current, stabilized, now);
    Normalized {
        stabilized,
        replicas,
        window,
        limit,
    }
}

/// How many replicas policies and bounds allow, and what limits them.
pub fn limit_rate(
    rules: Option<&DefaultedRules>,
    history: &History,
    bounds: Bounds,
    current: i32,
    desired: i32,
    now: Timestamp,
) -> (i32, Option<Limit>) {
    match rules {
        None => bounds.limit(current, desired),
        Some(rules) => rules.limit(history, bounds, current, desired, now),
    }
}

/// The highest recommendation within the window, its beginning included.
fn highest(history: &mut History, desired: i32, window: Duration, now: Timestamp) -> i32 {
    let since = before(now, window);
    let recent = history
        .recommendations
        .iter()
        .filter(|earlier| earlier.at >= since);
    let highest = recent.map(|earlier| earlier.replicas).max();
    history.recommend(desired, now, |earlier| earlier.at < since);
    highest.map_or(desired, |highest| highest.max(desired))
}

/// The current number of replicas, raised as far as every recommendation within the window for scaling up was higher, and lowered
/// as far as every one within the window for scaling down was lower. The beginnings of the windows do not count.
fn stabilize(
    rules: &DefaultedRules,
    history: &mut History,
    current: i32,
    desired: i32,
    downscale_window: Duration,
    now: Timestamp,
) -> i32 {
    let up_window = rules
        .scale_up
        .stabilization_window_seconds
        .map_or(Duration::ZERO, seconds);
    let down_window = rules
        .scale_down
        .stabilization_window_seconds
        .map_or(downscale_window, seconds);
    let (up_since, down_since) = (before(now, up_window), before(now, down_window));
    let recent = |since| {
        let recommendations = history.recommendations.iter();
        recommendations
            .filter(move |earlier| earlier.at > since)
            .map(|earlier| earlier.replicas)
    };
    let lowest = recent(up_since).fold(desired, i32::min);
    let highest = recent(down_since).fold(desired, i32::max);
    history.recommend(desired, now, |earlier| {
        earlier.at < up_since && earlier.at < down_since
    });
    current.max(lowest).min(highest)
}
