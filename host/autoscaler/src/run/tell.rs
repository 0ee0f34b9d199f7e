//! What is told of a run: to people by events, on the Sleeper, and to the source.

use dormouse_model::{Target, TargetKey};
use dormouse_sleepers::{ConditionUpdate, Sleeper};
use futures::{StreamExt, stream};

use super::Context;
use crate::report::{self, Report, is_news};
use crate::{CONCURRENCY, numbers};

impl Context {
    /// Tells people what does not hold, and the source everything.
    pub(super) async fn say(&self, target: &Target, sleeper: &Sleeper, mut report: Report) {
        let update = &mut report.update;
        if update.scaling.is_none() && update.conditions.iter().any(numbers::is_trouble) {
            update.scaling = Some(numbers::looked_at(sleeper, report.at));
        }
        let told_by_source =
            |known: &ConditionUpdate| self.source.tells_of_numbers() && numbers::is_trouble(known);
        for condition in &report.update.conditions {
            if is_told(condition) && !told_by_source(condition) {
                self.warn(target, sleeper, condition).await;
            }
        }
        let _place = self.writing.acquire().await;
        self.tell_all(vec![(target.key.clone(), report)]).await;
    }

    /// Writes reports on the Sleepers of their targets, and hands them to the source.
    pub(crate) async fn tell_all(&self, reports: Vec<(TargetKey, Report)>) {
        let sleepers = &*self.sleepers;
        stream::iter(&reports)
            .for_each_concurrent(CONCURRENCY, |(key, report)| async move {
                report::write(sleepers, key, report).await;
            })
            .await;
        self.source.report(reports).await;
    }

    /// An event, if a condition is news.
    pub(super) async fn warn(&self, target: &Target, sleeper: &Sleeper, update: &ConditionUpdate) {
        if is_news(sleeper, update, self.clock.now()) {
            let (namespace, object) = (&target.key.namespace, &target.object);
            self.sleepers
                .tell(namespace, object, true, &update.reason, &update.message)
                .await;
        }
    }

    /// Tells one thing that holds, or does not.
    pub(super) async fn report(&self, target: &Target, update: ConditionUpdate) {
        let report = Report::of(update, self.clock.now());
        self.tell_all(vec![(target.key.clone(), report)]).await;
    }
}

/// Whether people hear of a condition by an event, too. That a reading has no data is no event: it may just not be there yet.
fn is_told(condition: &ConditionUpdate) -> bool {
    !condition.status && condition.reason != "NoData"
}
