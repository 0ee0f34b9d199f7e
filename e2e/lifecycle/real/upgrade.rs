//! From the version before to this one, with workloads asleep, looked at and awake, and back.
//!
//! The other cases have this version on the cluster. This one is started on a cluster with the version before.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dormouse::requests;
use dormouse_lifecycle::Epoch;
use dormouse_model::{Owner, Phase};
use jiff::Timestamp;

use super::chart::{RELEASE, chart, helm};
use crate::traffic::{Lost, Traffic, none_lost};
use crate::world::{NEVER, PLUGIN, Wanted, World};
use crate::{Case, case};

/// Names the values of this version. Where it is not set, this version is on the cluster.
const VALUES: &str = "DORMOUSE_E2E_VALUES";

pub fn cases() -> Vec<Case> {
    if std::env::var_os(VALUES).is_none() {
        return Vec::new();
    }
    vec![case!(exclusive upgrade_from_the_version_before).within(Duration::from_secs(10 * 60))]
}

/// Of the workloads that sleep all the time, so that what is written there is easy to count.
const ASLEEP: &str = "before-asleep";
const SLEEPERS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];
/// Of the others.
const BUSY: &str = "before-busy";
/// Requests at once to one that sleeps.
const BURST: usize = 10;

/// Where a Sleeper is. It is the same object, and nothing has happened to it, if this is the same.
#[derive(Debug, PartialEq)]
struct Place {
    uid: Option<String>,
    phase: Phase,
    epoch: Epoch,
    since: Option<Timestamp>,
}

async fn place(world: &World, ns: &str, name: &str) -> Result<Place> {
    let sleeper = world.sleeper(ns, name).await?.context("no Sleeper")?;
    let state = sleeper.status.map(|status| status.state).unwrap_or_default();
    Ok(Place {
        uid: sleeper.metadata.uid,
        phase: state.phase,
        epoch: state.epoch,
        since: state.since,
    })
}

async fn places(world: &World, names: &[&str]) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for name in names {
        places.push(place(world, ASLEEP, name).await?);
    }
    Ok(places)
}

/// Asleep, and its replicas are written, which is a step later.
async fn until_at_zero(world: &World, name: &str) -> Result<()> {
    world.until_phase(ASLEEP, name, Phase::Asleep).await?;
    world
        .until(&format!("{name} to be at zero"), async || {
            Ok((world.replicas(ASLEEP, name).await? == 0).then_some(()))
        })
        .await
}

/// Requests to several that sleep, and those of them that were lost.
#[derive(Default)]
struct Asked {
    sent: usize,
    lost: Vec<Lost>,
}

impl Asked {
    /// Several at once, to one that sleeps: they are answered, and it was woken once.
    async fn wake(&mut self, world: &World, name: &str) -> Result<()> {
        let before = place(world, ASLEEP, name).await?;
        ensure!(before.phase == Phase::Asleep, "{name} does not sleep: {before:?}");
        let answers = requests::burst(&world.url(ASLEEP, name).await?, BURST).await;
        self.sent += answers.len();
        let lost = answers.iter().filter(|answer| !answer.is_ok());
        self.lost.extend(lost.map(Lost::now));
        let after = place(world, ASLEEP, name).await?;
        ensure!(
            after.uid == before.uid && after.epoch > before.epoch,
            "{name} answered and was not woken: {before:?}, then {after:?}"
        );
        println!(
            "          {name} was woken: epoch {} to {}",
            before.epoch, after.epoch
        );
        Ok(())
    }
}

async fn upgrade_from_the_version_before(world: Arc<World>) -> Result<()> {
    for name in SLEEPERS {
        world.deploy_known(ASLEEP, name, Wanted::default()).await?;
    }
    // One without traffic that Dormouse looks at for minutes, one with traffic that it looks at now and then, one that it leaves alone.
    for (name, sleep_after) in [("looked-at", "10m"), ("busy", "10m"), ("awake", NEVER)] {
        let wanted = Wanted {
            sleep_after,
            pod_annotations: &[],
            ..Wanted::default()
        };
        world.deploy_known(BUSY, name, wanted).await?;
    }
    for name in SLEEPERS {
        until_at_zero(&world, name).await?;
    }
    world.until_phase(BUSY, "looked-at", Phase::Observing).await?;
    let old = world.sleeper(ASLEEP, "one").await?.context("no Sleeper")?;
    ensure!(
        old.spec.owner.is_none() && old.spec.plugin.as_deref() == Some(PLUGIN),
        "the version before is not on the cluster: {:?}",
        old.spec
    );

    let busy = Traffic::start(world.url(BUSY, "busy").await?);
    let awake = Traffic::start(world.url(BUSY, "awake").await?);
    let mut asked = Asked::default();
    let outcome = there_and_back(&world, &mut asked).await;
    let all = [
        ("one that is awake", awake.end().await?),
        ("one that is looked at", busy.end().await?),
        ("some that slept", (asked.sent, asked.lost)),
    ];
    for (whom, (sent, lost)) in &all {
        println!("          {sent} requests to {whom}, {} lost", lost.len());
    }
    // What was lost tells more than what came of it.
    for (whom, (sent, lost)) in all {
        none_lost(sent, lost).with_context(|| format!("to {whom}"))?;
    }
    outcome
}

async fn there_and_back(world: &World, asked: &mut Asked) -> Result<()> {
    let before = places(world, &SLEEPERS).await?;
    let looked_at = place(world, BUSY, "looked-at").await?;
    let awake = place(world, BUSY, "awake").await?;
    let scaled = world.installation().scale_writes(ASLEEP)?;
    let values = PathBuf::from(std::env::var_os(VALUES).unwrap_or_default());
    let values = values.to_str().context("the path of the values is no text")?;
    let chart = chart()?;
    helm(
        world,
        &[
            "upgrade",
            RELEASE,
            &chart,
            "--values",
            values,
            "--wait",
            "--timeout",
            "3m",
        ],
    )
    .await?;

    // Taken over: the same objects, which now say who owns them.
    let owner = Owner::plugin(PLUGIN);
    let all = SLEEPERS.map(|name| (ASLEEP, name));
    for (ns, name) in all
        .into_iter()
        .chain(["looked-at", "busy", "awake"].map(|name| (BUSY, name)))
    {
        world
            .until(&format!("{ns}/{name} to be taken over"), async || {
                let sleeper = world.sleeper(ns, name).await?.context("no Sleeper")?;
                Ok((sleeper.spec.owner.as_ref() == Some(&owner)).then_some(()))
            })
            .await?;
    }
    same(&before, &places(world, &SLEEPERS).await?, "the upgrade")?;
    let scaled_since = world.installation().scale_writes(ASLEEP)? - scaled;
    ensure!(
        scaled_since == 0,
        "replicas were written {scaled_since} times by the upgrade"
    );
    let now = place(world, BUSY, "awake").await?;
    ensure!(now == awake, "one that is awake: {awake:?}, then {now:?}");
    let now = place(world, BUSY, "looked-at").await?;
    ensure!(
        now.uid == looked_at.uid,
        "one that is looked at: {looked_at:?}, then {now:?}"
    );
    println!(
        "          one that is looked at: {:?}, then {:?}",
        looked_at.phase, now.phase
    );
    println!(
        "          upgraded: {} Sleepers taken over, {} asleep as before, no replicas written",
        all.len() + 3,
        all.len()
    );

    // Woken, and put to sleep again, by this version.
    let (woken, still) = SLEEPERS.split_at(3);
    for name in woken {
        asked.wake(world, name).await?;
    }
    for name in woken {
        until_at_zero(world, name).await?;
    }
    same(&before[3..], &places(world, still).await?, "the wakes of others")?;

    let before = places(world, &SLEEPERS).await?;
    helm(world, &["rollback", RELEASE, "--wait", "--timeout", "3m"]).await?;
    same(&before, &places(world, &SLEEPERS).await?, "the rollback")?;
    println!("          rolled back: {} asleep as before", before.len());
    // One that this version has put to sleep, and one that slept all the time.
    for name in [woken[0], still[0]] {
        asked.wake(world, name).await?;
    }
    Ok(())
}

fn same(before: &[Place], after: &[Place], what: &str) -> Result<()> {
    ensure!(
        before == after,
        "not the same after {what}: {before:#?}, then {after:#?}"
    );
    Ok(())
}
