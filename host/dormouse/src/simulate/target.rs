//! What is simulated: a manifest as users have it.

mod hpa;
mod memhpa;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dormouse_model::{self as model, Policy};
use dormouse_scaling::hpa::Pod;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use workloads::annotations::{self, Request};

pub(super) use self::hpa::{Hpa, column};

/// A target to simulate.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub name: String,
    /// The fewest replicas while it is up.
    pub min_replicas: i32,
    /// The most replicas. None: nothing decides how many it has.
    pub max_replicas: Option<i32>,
    pub declared: Declared,
    /// What its pods look like, if the file says it.
    pub pod: Option<Pod>,
    /// Replicas, if the file says it.
    pub replicas: Option<i32>,
    /// What is used instead of what is wrong in it.
    pub corrections: Vec<String>,
}

/// As what it is declared.
#[derive(Clone, Debug)]
pub(super) enum Declared {
    /// Kubernetes scales it.
    Hpa(Hpa),
    /// Dormouse does.
    Target(Box<model::Target>),
}

/// Kinds that can be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hpa,
    MemHpa,
    Workload,
}

const SUPPORTED: &str = "a HorizontalPodAutoscaler of autoscaling/v2, a MemHpa of xinhuang.com/v1, and a workload with annotations such \
     as dormouse.dev/targets or dormouse.dev/sleep-after can";

/// What all objects have.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    annotations: BTreeMap<String, serde_yaml::Value>,
}

/// A workload, as far as it says what its pods are.
#[derive(Deserialize)]
struct Pods {
    #[serde(default)]
    spec: PodsSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodsSpec {
    replicas: Option<i32>,
    template: Option<Template>,
}

#[derive(Deserialize)]
struct Template {
    spec: Option<k8s_openapi::api::core::v1::PodSpec>,
}

/// The documents of a file.
struct File<'a> {
    text: &'a str,
    /// What each of them is. None: it is empty.
    heads: Vec<Option<Head>>,
}

impl Target {
    /// Reads the only target of a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let file = File::read(text)?;
        let (index, kind) = file.only_target()?;
        let target = match kind {
            Kind::Hpa => hpa::read(&file, index)?,
            Kind::MemHpa => memhpa::read(&file, index)?,
            Kind::Workload => workload::read(&file, index)?,
        };
        target.check()?;
        Ok(target)
    }

    /// Where the most replicas are declared.
    pub fn field_of_most(&self) -> &'static str {
        match &self.declared {
            Declared::Target(target) if matches!(target.policy, Policy::Metrics(_)) => {
                "annotation dormouse.dev/max-replicas"
            }
            Declared::Hpa(_) | Declared::Target(_) => "spec.maxReplicas",
        }
    }

    /// How often it is decided in a cluster.
    pub fn every(&self) -> std::time::Duration {
        match &self.declared {
            Declared::Hpa(_) => hpa::EVERY,
            Declared::Target(target) => target.every,
        }
    }

    /// Whether it sleeps by rules of its own.
    pub fn has_rules(&self) -> bool {
        match &self.declared {
            Declared::Hpa(_) => false,
            Declared::Target(target) => !target.triggers.is_empty(),
        }
    }

    /// Whether it is scaled by what its pods use of their memory limits.
    pub fn is_scaled_by_memory(&self) -> bool {
        match &self.declared {
            Declared::Hpa(_) => false,
            Declared::Target(target) => matches!(target.policy, Policy::Memory(_)),
        }
    }

    /// What a wake brings back, if that is declared.
    pub fn restores(&self) -> Option<i32> {
        match &self.declared {
            Declared::Hpa(_) => None,
            Declared::Target(target) => target
                .restore_replicas
                .and_then(|count| i32::try_from(count).ok()),
        }
    }

    fn check(&self) -> Result<()> {
        let Some(max) = self.max_replicas else {
            return Ok(());
        };
        let min = self.min_replicas;
        ensure!(min >= 0, "spec.minReplicas is {min}: it must be at least 0");
        ensure!(max >= 1, "spec.maxReplicas is {max}: it must be at least 1");
        ensure!(
            min <= max,
            "spec.minReplicas is {min} and spec.maxReplicas {max}: the least is more than the most"
        );
        match &self.declared {
            Declared::Hpa(hpa) => check_columns(hpa.metrics.iter().map(column)),
            Declared::Target(_) => Ok(()),
        }
    }
}

/// What decides about a number of replicas has a column of its own.
pub(super) fn check_columns(names: impl Iterator<Item = String>) -> Result<()> {
    let mut columns = BTreeSet::new();
    for column in names {
        ensure!(
            columns.insert(column.clone()),
            "two metrics are called {column}: readings have one column of that name"
        );
    }
    Ok(())
}

impl Head {
    fn target(&self) -> Option<Kind> {
        match (&*self.kind, &*self.api_version) {
            (hpa::KIND, hpa::API_VERSION) => Some(Kind::Hpa),
            (memhpa::KIND, memhpa::API_VERSION) => Some(Kind::MemHpa),
            _ => self.asks_for_something().then_some(Kind::Workload),
        }
    }

    /// Whether there are annotations for Dormouse, right or wrong. Those that Dormouse itself writes are none.
    fn asks_for_something(&self) -> bool {
        let annotations = self.metadata.annotations.iter();
        let texts =
            annotations.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()));
        !matches!(annotations::read(&texts.collect()), Ok(Request::None))
    }
}

impl<'a> File<'a> {
    fn read(text: &'a str) -> Result<Self> {
        let documents = serde_yaml::Deserializer::from_str(text);
        let heads: Result<Vec<_>, _> = documents.map(Option::<Head>::deserialize).collect();
        let heads = heads.context("it is no Kubernetes manifest")?;
        ensure!(
            heads.iter().any(Option::is_some),
            "it is no Kubernetes manifest: it is empty"
        );
        Ok(Self { text, heads })
    }

    fn only_target(&self) -> Result<(usize, Kind)> {
        let heads = self.heads.iter().enumerate();
        let targets = heads.filter_map(|(index, head)| Some((index, head.as_ref()?.target()?)));
        let targets: Vec<_> = targets.collect();
        match targets.as_slice() {
            [one] => Ok(*one),
            [] => {
                let kinds = self.heads.iter().flatten();
                let kinds: Vec<_> = kinds
                    .map(|head| format!("{} of {}", head.kind, head.api_version))
                    .collect();
                bail!("{} cannot be simulated; {SUPPORTED}", kinds.join(", "))
            }
            several => {
                let heads = several
                    .iter()
                    .filter_map(|(index, _)| self.heads.get(*index)?.as_ref());
                let names: Vec<_> = heads
                    .map(|head| format!("{} {}", head.kind, head.metadata.name))
                    .collect();
                bail!(
                    "it has {} targets ({}), and one is simulated: leave it alone in a file",
                    names.len(),
                    names.join(", ")
                )
            }
        }
    }

    /// One of the documents. An error says which field is wrong.
    fn document<T: DeserializeOwned>(&self, index: usize) -> Result<T> {
        let mut documents = serde_yaml::Deserializer::from_str(self.text);
        let document = documents.nth(index).context("it has no such document")?;
        serde_path_to_error::deserialize(document).map_err(|error| {
            let path = error.path().to_string();
            anyhow::Error::new(error.into_inner()).context(format!("field {path}"))
        })
    }

    /// What a workload of the file says of its replicas and its pods.
    fn pods(&self, index: usize) -> Result<(Option<i32>, Option<Pod>)> {
        let Pods { spec } = self.document(index)?;
        let pod = spec.template.and_then(|template| template.spec);
        let pod = pod.filter(|spec| !spec.containers.is_empty()).map(|spec| {
            let pod = k8s_openapi::api::core::v1::Pod {
                spec: Some(spec),
                ..k8s_openapi::api::core::v1::Pod::default()
            };
            dormouse_readings::pod_of(&dormouse_kubernetes::WorkloadPod::of(&pod))
        });
        Ok((spec.replicas, pod))
    }

    /// The same of the workload that is scaled, if it is in the file too.
    fn pods_of(&self, kind: &str, name: &str) -> Result<(Option<i32>, Option<Pod>)> {
        let is_it = |head: &Option<Head>| {
            head.as_ref()
                .is_some_and(|head| head.kind == kind && head.metadata.name == name)
        };
        match self.heads.iter().position(is_it) {
            Some(index) => self.pods(index),
            None => Ok((None, None)),
        }
    }
}

#[cfg(test)]
mod tests;
