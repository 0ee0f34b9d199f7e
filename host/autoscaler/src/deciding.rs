//! What is being decided, across rounds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dormouse_sleepers::SleeperKey;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use crate::act::Decided;
use crate::autoscaler::Clock;
use crate::decide::choose;
use crate::readings::Readings;
use crate::target::Target;

/// Decisions that are acted on together.
const TOGETHER: usize = 256;

/// Decisions that wait for their readings. One that waits for long holds up no other: it is left out of the rounds meanwhile.
#[derive(Default)]
pub(crate) struct Deciding {
    decisions: FuturesUnordered<BoxFuture<'static, Decided>>,
    waiting: BTreeSet<SleeperKey>,
    /// What was up in the last round: nothing is decided about anything else.
    up: BTreeSet<SleeperKey>,
}

impl Deciding {
    /// Those about which nothing is being decided yet.
    pub fn free(&mut self, targets: Vec<Target>) -> Vec<Target> {
        let up: Vec<_> = targets.into_iter().filter(Target::is_up).collect();
        self.up = up.iter().map(|target| target.key.clone()).collect();
        up.into_iter()
            .filter(|target| !self.waiting.contains(&target.key))
            .collect()
    }

    /// Decides about a target as soon as its own readings are there.
    pub fn begin(&mut self, target: Target, readings: Arc<Readings>, clock: Clock, settle: Duration) {
        self.waiting.insert(target.key.clone());
        let decision = async move {
            let inputs = readings.inputs(&target, clock.now()).await;
            let (decision, action) = choose(&target, &inputs, clock.now(), settle);
            tracing::debug!(resource = %target.key, ?action, "{decision}");
            Decided {
                target,
                inputs,
                decision,
                action,
            }
        };
        self.decisions.push(decision.boxed());
    }

    /// Some decisions that are there, to be acted on together. Waits as long as there is none. May be dropped.
    pub async fn some(&mut self) -> Vec<Decided> {
        let mut together = Vec::new();
        while together.len() < TOGETHER {
            let next = if together.is_empty() {
                self.decisions.next().await
            } else {
                self.decisions.next().now_or_never().flatten()
            };
            let Some(decided) = next else { break };
            self.waiting.remove(&decided.target.key);
            if self.up.contains(&decided.target.key) {
                together.push(decided);
            }
        }
        if together.is_empty() {
            std::future::pending::<()>().await;
        }
        together
    }
}
