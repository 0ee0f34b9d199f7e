//! Who declares what there is to scale.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use dormouse_model::{Owner, OwnerKind, Target, TargetKey};
use dormouse_plugin::types::ScaleOutcome;
use tokio::sync::watch;

use crate::error::SourceError;
use crate::report::Report;

/// Declares what there is to scale, hears what became of it, and scales it down.
///
/// Every call has a deadline of its own; the line adds a limit on top, no more.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Who declares its targets: part of their identity.
    fn owner(&self) -> Owner;

    /// A number that rises when the targets should be asked for again: something changed, or it has been a while.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Every target that it looks after. An error says nothing about any of them.
    async fn targets(&self) -> Result<Vec<Arc<Target>>, SourceError>;

    /// What was decided about targets, for a status of their own. It stands on their Sleepers already, where they have some.
    async fn report(&self, _reports: Vec<(TargetKey, Report)>) {}

    /// Whether it tells people itself what is wrong with the number of replicas of a target, in the words of its kind.
    fn tells_of_numbers(&self) -> bool {
        false
    }

    /// Whether it puts its targets to sleep in its own way ([`Source::set_scale`]). For others the line asks for that.
    fn puts_to_sleep(&self) -> bool {
        false
    }

    /// Scales targets; one outcome for each, in their order. Only what may sleep is scaled in this way.
    async fn set_scale(
        &self,
        _targets: &[TargetKey],
        _replicas: u32,
        _reason: &str,
    ) -> Result<Vec<ScaleOutcome>, SourceError> {
        Err(SourceError {
            code: "not_scaled_to_zero",
            message: format!("{} scales nothing to zero", self.owner()),
        })
    }
}

/// Sources that become ready one after the other.
pub trait Sources: Send + Sync + 'static {
    /// Those that are ready. One that was ready once stays.
    fn ready(&self) -> Vec<Arc<dyn Source>>;

    /// Which there are, and which there should be.
    fn roster(&self) -> Roster;

    /// Changes whenever one of the two does.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Which owners there are, and which there should be.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// Owners whose sources run; all objects of a kind together are one.
    pub ready: BTreeSet<Owner>,
    /// Owners that cannot say what is theirs: plugins that could not be loaded, or that are configured without a file.
    pub failed: BTreeMap<Owner, SourceError>,
    /// Kinds of which all owners are known. Of any other kind nobody knows what is missing.
    pub complete: BTreeSet<OwnerKind>,
}

impl Roster {
    /// Whether a source looks after what an owner declares.
    pub(crate) fn looks_after(&self, owner: &Owner) -> bool {
        self.ready.contains(owner) || self.ready.contains(&Owner::all_of(owner.kind))
    }

    /// With sources that are there from the beginning: of kinds other than plugins there are no more.
    #[must_use]
    pub fn with_built_in(mut self, sources: &[Arc<dyn Source>]) -> Self {
        self.ready.extend(sources.iter().map(|source| source.owner()));
        let kinds = OwnerKind::ALL.into_iter();
        self.complete
            .extend(kinds.filter(|kind| *kind != OwnerKind::Plugin));
        self
    }
}

/// Sources that are all there.
pub(crate) struct Fixed {
    sources: Vec<Arc<dyn Source>>,
    roster: Roster,
    // Nothing ever changes.
    changes: watch::Sender<u64>,
}

impl Fixed {
    pub fn new(sources: Vec<Arc<dyn Source>>, roster: Roster) -> Self {
        Self {
            sources,
            roster,
            changes: watch::Sender::new(0),
        }
    }
}

impl Sources for Fixed {
    fn ready(&self) -> Vec<Arc<dyn Source>> {
        self.sources.clone()
    }

    fn roster(&self) -> Roster {
        self.roster.clone()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
