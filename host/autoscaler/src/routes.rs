//! Where requests go that name a resource and no Service: asked of its source, and kept on its Sleeper, so that no DLX has to ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dormouse_plugin::types::{Resource, ResourceId};
use dormouse_sleepers::{Route, Sleeper, SleeperSpec};
use futures::{StreamExt, stream};

use crate::spec::spec;
use crate::{CONCURRENCY, Source};

/// How long a round asks. What was not asked by then is asked in the next; until then what the Sleeper says stays.
const ENOUGH: Duration = Duration::from_secs(5);

/// What a source said, for as long as the resource's Sleeper would say the same.
#[derive(Default)]
pub(crate) struct Routes(BTreeMap<ResourceId, (SleeperSpec, Option<Route>)>);

impl Routes {
    /// Asks about resources that are new or have changed since they were asked about.
    pub async fn ask(&mut self, source: &Arc<dyn Source>, resources: &[Resource]) {
        let owner = source.owner();
        let mut known = std::mem::take(&mut self.0);
        let mut questions = Vec::new();
        for resource in resources {
            let declared = spec(&owner, resource, None);
            match known.remove(&resource.id) {
                Some(answer) if answer.0 == declared => {
                    self.0.insert(resource.id.clone(), answer);
                }
                _ => questions.push(async move { (resource, declared, source.route(resource).await) }),
            }
        }
        let answers = stream::iter(questions).buffer_unordered(CONCURRENCY);
        let mut answers = std::pin::pin!(answers.take_until(tokio::time::sleep(ENOUGH)));
        while let Some((resource, declared, answer)) = answers.next().await {
            match answer {
                Ok(route) => {
                    self.0.insert(resource.id.clone(), (declared, route));
                }
                Err(error) => tracing::debug!(resource = %resource.id, "its route is not known: {error}"),
            }
        }
    }

    /// Where requests for a resource go: as its source said, or else as its Sleeper says from earlier.
    pub fn of(&self, resource: &Resource, known: Option<&Sleeper>) -> Option<Route> {
        match self.0.get(&resource.id) {
            Some((_, route)) => route.clone(),
            None => known.and_then(|sleeper| sleeper.spec.route.clone()),
        }
    }
}
