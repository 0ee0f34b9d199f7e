//! Where requests go that name a resource and no Service: asked of its plugin, and kept on its Sleeper, so that no DLX has to ask.

use std::collections::HashMap;
use std::time::Duration;

use dormouse_model::{ObjectRef, Routing};
use dormouse_plugin::types::{Resource, ResourceId};
use futures::{StreamExt, stream};

use super::ResourceScaler;
use crate::CONCURRENCY;

/// How long a listing asks. What was not asked by then is asked in the next; until then what the Sleeper says stays.
const ENOUGH: Duration = Duration::from_secs(5);

/// What a route may depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Described {
    object: ObjectRef,
    workloads: Vec<ObjectRef>,
    services: Vec<String>,
    readiness_timeout: Option<Duration>,
    restore_replicas: Option<u32>,
    cookie: Option<String>,
}

impl From<&Resource> for Described {
    fn from(resource: &Resource) -> Self {
        Self {
            object: resource.object.clone(),
            workloads: resource.workloads.clone(),
            services: resource.services.clone(),
            readiness_timeout: resource.readiness_timeout,
            restore_replicas: resource.restore_replicas,
            cookie: resource.cookie.clone(),
        }
    }
}

/// What a plugin said, for as long as it describes the resource in the same way. Losing it costs the plugin one more question for
/// each resource.
#[derive(Default)]
pub(super) struct Routes(HashMap<ResourceId, (Described, Routing)>);

impl Routes {
    /// Asks about resources that are new or have changed since they were asked about.
    pub async fn ask(&mut self, plugin: &dyn ResourceScaler, resources: &[Resource]) {
        let mut known = std::mem::take(&mut self.0);
        let mut questions = Vec::new();
        for resource in resources {
            let described = Described::from(resource);
            match known.remove(&resource.id) {
                Some(answer) if answer.0 == described => {
                    self.0.insert(resource.id.clone(), answer);
                }
                _ => questions.push(async move { (resource, described, plugin.route(resource).await) }),
            }
        }
        let answers = stream::iter(questions).buffer_unordered(CONCURRENCY);
        let mut answers = std::pin::pin!(answers.take_until(tokio::time::sleep(ENOUGH)));
        while let Some((resource, described, answer)) = answers.next().await {
            match answer {
                Ok(routing) => {
                    self.0.insert(resource.id.clone(), (described, routing));
                }
                Err(error) => tracing::debug!(resource = %resource.id, "its route is not known: {error}"),
            }
        }
    }

    /// Where requests for a resource go.
    pub fn of(&self, id: &ResourceId) -> Routing {
        self.0
            .get(id)
            .map_or(Routing::Unknown, |(_, routing)| routing.clone())
    }
}
