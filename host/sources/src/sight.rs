//! What is seen of the workloads that objects of other kinds name: whether they are up, when they were updated, and which Services lead to
//! them. Workloads are seen as plugins see them, by the same type.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use dormouse_kubernetes::objects::{ListQuery, ObjectError};
use dormouse_kubernetes::{Cache, Objects};
use dormouse_model::{ObjectRef, ScaleEvent, ScaleEventKind, TargetState};
use dormouse_sdk::State;
use dormouse_sdk::kubernetes::Workload;
use dormouse_sleepers::{Cluster, ServiceIndex};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Service;

/// What nobody asks here of what [`Workload`] reads.
const UNREAD: [&str; 2] = ["metadata.labels", "metadata.annotations"];

/// A kind: group with version, and name.
type Kind = (String, String);

/// Workloads of a cluster. They are kept up to date by a watch for each kind, from the second look on.
pub(crate) struct Workloads {
    objects: Objects,
    services: Arc<Cache<Service>>,
}

/// What is seen of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It is there.
    There {
        /// Whether it has replicas.
        state: TargetState,
        /// When it was last updated, if that is known.
        updated: Option<ScaleEvent>,
        /// Services that lead to its pods.
        services: Vec<String>,
    },
    /// It is not there, or on its way out.
    Gone,
    /// It could not be looked at; the text says why.
    Unknown(String),
}

impl Workloads {
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            objects: cluster.objects().clone(),
            services: Arc::clone(&cluster.caches().services),
        }
    }

    /// Looks at these, each named by its namespace and a reference. A kind that cannot be listed spoils no other.
    pub async fn look(&self, named: &[(&str, &ObjectRef)]) -> Sights {
        let mut names: HashMap<Kind, BTreeSet<(String, String)>> = HashMap::new();
        for (namespace, workload) in named {
            let kind = (workload.api_version.clone(), workload.kind.clone());
            let name = ((*namespace).to_owned(), workload.name.clone());
            names.entry(kind).or_default().insert(name);
        }
        let namespaces: BTreeSet<_> = names.values().flatten().map(|(at, _)| at.as_str()).collect();
        let services: Vec<_> = namespaces
            .into_iter()
            .flat_map(|namespace| self.services.in_namespace(namespace))
            .collect();
        let found = names.iter().map(async |(kind, names)| {
            let found = self.find(kind, names).await;
            (kind.clone(), found)
        });
        Sights {
            found: join_all(found).await.into_iter().collect(),
            services: ServiceIndex::of(services.iter().map(|service| &**service)),
        }
    }

    async fn find(&self, (api_version, kind): &Kind, names: &BTreeSet<(String, String)>) -> Found {
        let fields = Workload::FIELDS
            .into_iter()
            .filter(|field| !UNREAD.contains(field));
        let query = ListQuery {
            api_version: api_version.clone(),
            kind: kind.clone(),
            fields: fields.map(str::to_owned).collect(),
            ..ListQuery::default()
        };
        let found = match self.objects.find(&query, names).await {
            Ok(found) => found,
            // Without the kind there are no objects of it.
            Err(ObjectError::NotFound(_)) => Vec::new(),
            Err(error) => return Err(format!("{kind}s cannot be listed: {error}")),
        };
        let read = found.iter().map(|text| {
            let workload: Workload = serde_json::from_str(text)
                .map_err(|error| format!("a {kind} is not as a workload is: {error}"))?;
            Ok((
                (workload.namespace().to_owned(), workload.name().to_owned()),
                workload,
            ))
        });
        read.collect()
    }
}

/// Workloads of a kind by namespace and name, or why they are not known.
type Found = Result<HashMap<(String, String), Workload>, String>;

/// What is seen of several workloads.
pub(crate) struct Sights {
    found: HashMap<Kind, Found>,
    services: ServiceIndex,
}

impl Sights {
    /// What is seen of one of them.
    pub fn of(&self, namespace: &str, workload: &ObjectRef) -> Sight {
        let kind = (workload.api_version.clone(), workload.kind.clone());
        let found = match self.found.get(&kind) {
            Some(Ok(found)) => found,
            Some(Err(why)) => return Sight::Unknown(why.clone()),
            None => return Sight::Unknown("it was not looked at".to_owned()),
        };
        let name = (namespace.to_owned(), workload.name.clone());
        let Some(seen) = found.get(&name).filter(|seen| !seen.is_deleting()) else {
            return Sight::Gone;
        };
        Sight::There {
            state: match seen.state() {
                State::Awake => TargetState::Awake,
                State::Asleep => TargetState::Asleep,
                State::Changing => TargetState::Changing,
            },
            updated: seen.last_event().map(|event| ScaleEvent {
                kind: ScaleEventKind::ResourceUpdated,
                at: Some(event.at),
            }),
            services: self
                .services
                .leading_to(namespace, &seen.spec.template.metadata.labels),
        }
    }
}
