//! One round of one source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dormouse_model::Phase;
use dormouse_plugin::types::{FieldCondition, Resource, ResourceId, ResourceState, Settings};
use dormouse_sleepers::api::condition;
use dormouse_sleepers::{ConditionUpdate, SleeperKey, StoodIn, WishError};
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use crate::act::{Actor, Decided};
use crate::autoscaler::{Clock, Config};
use crate::deciding::Deciding;
use crate::declare::{declare, of_owner, retire_missing};
use crate::metrics::Metrics;
use crate::readings::{Lanes, Readings};
use crate::routes::Routes;
use crate::status::{camel, is_news};
use crate::target::{Target, scales_itself};
use crate::{CONCURRENCY, Effective, Meters, Sleepers, Source, SourceError};

/// How long what is left at zero is left alone before it is looked at again.
const LOOK_AT_ZERO_AGAIN: SignedDuration = SignedDuration::from_secs(30);
const TURNED_OFF_MEANS: &str = "somebody scaled it to zero replicas, and it is left so (dormouse.dev/at-zero, or --at-zero, is off): \
    no request wakes it; scale it up, or set dormouse.dev/at-zero to stand-in";

/// A source and what its rounds need.
pub(crate) struct Line {
    pub source: Arc<dyn Source>,
    pub sleepers: Arc<dyn Sleepers>,
    pub meters: Arc<dyn Meters>,
    pub config: Config,
    pub clock: Clock,
    pub metrics: Metrics,
    /// None until the source told them.
    pub settings: Option<Settings>,
    /// Fields that the source wants watched. A hint only: what counts is what it says in the next round, so losing
    /// this with the process loses the text of a failure at most.
    pub watched: BTreeMap<ResourceId, FieldCondition>,
    pub lanes: Lanes,
    /// Where requests go. Losing it costs the source one more question for each resource.
    pub routes: Routes,
    /// What is at zero without us and cannot be stood in for, and when that was last looked at. Losing it costs one more look.
    pub left_at_zero: BTreeMap<SleeperKey, Timestamp>,
}

impl Line {
    /// What holds for the source, as far as is known.
    pub fn effective(&self) -> Effective {
        self.config
            .overrides
            .over(self.settings.as_ref().unwrap_or(&Settings::default()))
    }

    /// One round: everything that the source looks after, from declaration to the readings that are asked for. What is
    /// decided by them comes out of `deciding`.
    pub async fn round(&mut self, deciding: &mut Deciding) -> Result<(), SourceError> {
        if self.settings.is_none() {
            match self.source.settings().await {
                Ok(settings) => self.settings = Some(settings),
                Err(error) => self.tell_failure("settings", &error),
            }
        }
        let resources = match self.source.resources().await {
            Ok(resources) => resources,
            Err(error) => {
                // Nothing is known about its resources now, so nothing changes for them.
                self.tell_failure("resources", &error);
                self.note_failure(&error).await;
                return Err(error);
            }
        };
        let owner = self.source.owner();
        self.metrics.targets(&owner, resources.len());
        let listed: BTreeSet<_> = resources
            .iter()
            .map(|resource| SleeperKey::new(owner.clone(), &resource.id.namespace, &resource.id.name))
            .collect();
        retire_missing(&owner, &listed, &self.sleepers).await;
        self.routes.ask(&self.source, &resources).await;
        let targets = declare(&owner, resources, &self.routes, &self.sleepers).await;
        self.mirror(&targets).await;
        self.stand_in(&targets).await;
        self.watch(&targets).await;
        self.note_recovery(&targets).await;
        self.decide(targets, deciding);
        Ok(())
    }

    /// Asks for the readings of each target about which nothing is being decided.
    fn decide(&mut self, targets: Vec<Target>, deciding: &mut Deciding) {
        let targets = deciding.free(targets);
        let readings = Arc::new(Readings::start(
            self.source.owner(),
            self.effective().metrics_resource,
            &targets,
            &self.meters,
            &self.sleepers,
            &mut self.lanes,
            self.metrics.clone(),
            self.clock.now(),
        ));
        for target in targets {
            let (readings, clock) = (Arc::clone(&readings), self.clock.clone());
            deciding.begin(target, readings, clock, self.config.settle);
        }
    }

    /// Carries decisions out.
    pub async fn act(&mut self, together: &[Decided]) {
        let actor = Actor {
            source: &self.source,
            sleepers: &self.sleepers,
            metrics: &self.metrics,
        };
        self.watched.extend(actor.act(together, self.clock.now()).await);
    }

    /// Shows what the platforms of resources that scale themselves say.
    async fn mirror(&self, targets: &[Target]) {
        let sleepers = &self.sleepers;
        // Futures are collected first: a stream that maps references inside a spawned task is beyond what the compiler
        // can prove to be Send.
        let mut shows = Vec::new();
        for target in targets.iter().filter(|target| scales_itself(&target.resource)) {
            let shown = target.state().phase;
            let seen = phase(target.resource.state, shown);
            if seen == shown {
                continue;
            }
            shows.push(async move {
                let reason = "its platform says so";
                if let Err(error) = sleepers.mirror(&target.key, seen, reason).await {
                    tracing::warn!(resource = %target.key, "its phase was not shown: {error}");
                }
            });
        }
        stream::iter(shows)
            .buffer_unordered(CONCURRENCY)
            .collect::<()>()
            .await;
    }

    /// Zero is zero, whoever made it: what is at zero without us is put to sleep, so that a request wakes it; or its Sleeper says
    /// why not.
    async fn stand_in(&mut self, targets: &[Target]) {
        let now = self.clock.now();
        let zero: Vec<_> = targets
            .iter()
            .filter(|target| target.is_at_zero_without_us())
            .collect();
        let keys: BTreeSet<_> = zero.iter().map(|target| &target.key).collect();
        self.left_at_zero
            .retain(|key, looked| keys.contains(key) && now.duration_since(*looked) < LOOK_AT_ZERO_AGAIN);
        let sleepers = &self.sleepers;
        let mut asked = Vec::new();
        for target in zero
            .into_iter()
            .filter(|target| !self.left_at_zero.contains_key(&target.key))
        {
            asked.push(async move { (target, sleepers.stand_in(&target.key).await) });
        }
        let answers: Vec<_> = stream::iter(asked).buffer_unordered(CONCURRENCY).collect().await;
        for (target, answer) in answers {
            let update = match answer {
                Ok(StoodIn::TurnedOff) => {
                    ConditionUpdate::bad(condition::WAKEABLE, "TurnedOff", TURNED_OFF_MEANS)
                }
                Err(WishError::Unsupported(why) | WishError::Denied(why)) => {
                    let message = format!("it is at zero replicas, and nothing stands in for it: {why}");
                    ConditionUpdate::bad(condition::DIVERTIBLE, "Undivertible", message)
                }
                Ok(StoodIn::Wished(_) | StoodIn::NotAtZero)
                | Err(WishError::Superseded | WishError::Unknown(_)) => continue,
                Err(WishError::Cluster(error)) => {
                    tracing::warn!(resource = %target.key, "at zero, and nothing stands in yet: {error}");
                    continue;
                }
            };
            self.left_at_zero.insert(target.key.clone(), now);
            if is_news(&target.sleeper, &update, now) {
                let (namespace, object) = (&target.resource.id.namespace, &target.resource.object);
                let (reason, message) = (&update.reason, &update.message);
                self.sleepers.tell(namespace, object, true, reason, message).await;
                self.record_conditions(&target.key, update).await;
            }
        }
        // What was turned on again, or is asleep by the protocol, can be woken.
        for target in targets
            .iter()
            .filter(|target| !target.is_at_zero_without_us() && says_turned_off(target))
        {
            let update = ConditionUpdate::good(condition::WAKEABLE);
            self.record_conditions(&target.key, update).await;
        }
    }

    /// Looks at the fields that the source wanted watched. Only a failure is news: success shows in the resource's state.
    async fn watch(&mut self, targets: &[Target]) {
        let by_id: BTreeMap<_, _> = targets
            .iter()
            .map(|target| (&target.resource.id, target))
            .collect();
        self.watched
            .retain(|id, _| by_id.get(id).is_some_and(|target| is_changing(&target.resource)));
        let (sleepers, now) = (&self.sleepers, self.clock.now());
        let mut looks = Vec::new();
        for (id, condition) in &self.watched {
            looks.push(async move { (id, condition, sleepers.field(&id.namespace, condition).await) });
        }
        let fields: Vec<_> = stream::iter(looks).buffer_unordered(CONCURRENCY).collect().await;
        let mut ended = Vec::new();
        for (id, condition, field) in fields {
            match field {
                Ok(Some(value)) if condition.ready_values.contains(&value) => ended.push(id.clone()),
                Ok(Some(value)) if condition.failed_values.contains(&value) => {
                    ended.push(id.clone());
                    let Some(target) = by_id.get(id) else { continue };
                    let message = format!("{} is {value:?}", condition.path);
                    let update = ConditionUpdate::bad(condition::PLUGIN, "SleepFailed", &message);
                    if is_news(&target.sleeper, &update, now) {
                        let object = &target.resource.object;
                        sleepers
                            .tell(&id.namespace, object, true, "SleepFailed", &message)
                            .await;
                        self.record_conditions(&target.key, update).await;
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(resource = %id, "the watched field was not read: {error}"),
            }
        }
        ended.iter().for_each(|id| {
            self.watched.remove(id);
        });
    }

    fn tell_failure(&self, call: &'static str, error: &SourceError) {
        // The plugin's call has said it already, in its own span.
        tracing::debug!(
            owner = %self.source.owner(),
            call,
            code = error.code,
            "the plugin failed: {error}"
        );
    }

    /// Writes the failure on the plugin's Sleepers, once.
    async fn note_failure(&self, error: &SourceError) {
        let update = ConditionUpdate::bad(condition::PLUGIN, camel(error.code), error.to_string());
        let now = self.clock.now();
        let news: Vec<_> = of_owner(&self.sleepers, &self.source.owner())
            .into_iter()
            .filter(|sleeper| is_news(sleeper, &update, now))
            .map(|sleeper| SleeperKey::of(&sleeper))
            .collect();
        stream::iter(news)
            .for_each_concurrent(CONCURRENCY, |key| {
                let update = update.clone();
                async move { self.record_conditions(&key, update).await }
            })
            .await;
    }

    /// Takes it back on those about which nothing is decided now; the others are recorded with their decision.
    async fn note_recovery(&self, targets: &[Target]) {
        let (update, now) = (ConditionUpdate::good(condition::PLUGIN), self.clock.now());
        let mut records = Vec::new();
        for target in targets {
            if !target.is_up() && !is_changing(&target.resource) && is_news(&target.sleeper, &update, now) {
                records.push(self.record_conditions(&target.key, update.clone()));
            }
        }
        stream::iter(records)
            .buffer_unordered(CONCURRENCY)
            .collect::<()>()
            .await;
    }

    async fn record_conditions(&self, key: &SleeperKey, update: ConditionUpdate) {
        if let Err(error) = self.sleepers.record_conditions(key, &[update]).await {
            tracing::warn!(resource = %key, "a condition was not written: {error}");
        }
    }
}

fn says_turned_off(target: &Target) -> bool {
    let status = target.sleeper.status.iter();
    let mut conditions = status.flat_map(|status| &status.conditions);
    conditions.any(|known| {
        known.type_ == condition::WAKEABLE && known.status == "False" && known.reason == "TurnedOff"
    })
}

fn is_changing(resource: &Resource) -> bool {
    resource.state == ResourceState::Changing
}

/// The phase of a resource that scales itself.
fn phase(state: ResourceState, shown: Phase) -> Phase {
    match state {
        ResourceState::Awake => Phase::Awake,
        ResourceState::Asleep => Phase::Asleep,
        ResourceState::Changing if matches!(shown, Phase::Asleep | Phase::Waking | Phase::Ready) => {
            Phase::Waking
        }
        ResourceState::Changing => Phase::Draining,
    }
}
