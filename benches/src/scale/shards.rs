//! Two autoscalers that share the targets, and what becomes of those of one that is gone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use tokio::time::sleep;

use super::api::{self, DEPLOYMENT};
use super::controllers::{name, namespace};
use super::report::{LOSE, Stage};
use super::stages::{AUTOSCALERS, Bench, SOON};
use crate::quantile::quantile;

/// Targets that fall asleep after an autoscaler is gone, at most.
const MOST: u32 = 200;
const HELD: &str = "dormouse_shards_held";

impl Bench<'_> {
    /// An autoscaler is killed, and the other one decides about everything.
    pub(super) async fn lose_autoscaler(&mut self) -> anyhow::Result<()> {
        self.rest().await?;
        let [first, second] = AUTOSCALERS;
        let shards = f64::from(self.args.shards);
        let mut numbers = BTreeMap::new();
        for (what, (name, _)) in [("shards of the first", first), ("shards of the second", second)] {
            numbers.insert(what, self.process(name)?.metric(HELD).await?);
        }
        let begun = self.begin()?;
        let at = self.processes.iter().position(|process| process.name == second.0);
        self.processes
            .remove(at.context("the second autoscaler does not run")?)
            .kill()
            .await?;
        let end = Instant::now() + self.args.limit();
        while self.process(first.0)?.metric(HELD).await.unwrap_or(0.0) < shards && Instant::now() < end {
            sleep(Duration::from_millis(100)).await;
        }
        numbers.insert("all shards taken over", begun.at.elapsed().as_secs_f64());
        // Those that are still awake, of all namespaces.
        let awake = self.args.to_sleep()..self.args.targets;
        let targets: Vec<u32> = awake.take(MOST as usize).collect();
        let mut told = Vec::new();
        for target in &targets {
            let patch = json!({"metadata": {"annotations": {"dormouse.dev/sleep-after": SOON}}});
            let namespace = namespace(*target, self.args.namespaces);
            api::patch(&self.client, DEPLOYMENT, &namespace, &name(*target), patch).await?;
            told.push(Instant::now());
        }
        let asleep = |target: &u32| {
            let seen = self.sleepers.get(*target);
            seen.is_some_and(|seen| seen.phase == "Asleep")
        };
        let end = Instant::now() + self.args.limit();
        while !targets.iter().all(asleep) && Instant::now() < end {
            sleep(Duration::from_millis(200)).await;
        }
        let done = targets.iter().filter(|target| asleep(target)).count();
        let mut decided: Vec<f64> = targets
            .iter()
            .zip(&told)
            .filter_map(|(target, told)| {
                let seen = self.sleepers.get(*target).filter(|seen| seen.phase == "Asleep")?;
                Some(seen.desired_since.saturating_duration_since(*told).as_secs_f64())
            })
            .collect();
        numbers.insert("decision p99 afterwards", quantile(&mut decided, 0.99));
        let wanted = u32::try_from(targets.len()).unwrap_or(u32::MAX);
        let done = u32::try_from(done).unwrap_or(u32::MAX);
        self.end(
            &begun,
            Stage {
                name: LOSE,
                wanted,
                done,
                numbers,
                ..Stage::default()
            },
        )
    }
}
