//! `dormouse explain`: where a workload stands, why, and what it waits for, without kubectl.

mod lines;
mod memhpa;
mod story;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use dormouse_kubernetes::{ClusterError, limited};
use dormouse_sleepers::Sleeper;
use dormouse_sources::memhpa::MemHpa;
use jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;

use crate::output;

/// Longest request.
const REQUEST: Duration = Duration::from_secs(10);
/// Short names of kinds, as kubectl has them.
const SHORT: [(&str, &str); 4] = [
    ("deploy", "deployment"),
    ("sts", "statefulset"),
    ("svc", "service"),
    ("rs", "replicaset"),
];

/// Options of `dormouse explain`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What to explain, such as deployment/web, service/web, sleeper/web.workloads or memhpa/web
    #[arg(value_name = "KIND/NAME")]
    what: What,
    /// Its namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// kubeconfig file [default: in-cluster configuration, else the usual kubeconfig]
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig_path: Option<PathBuf>,
}

/// An object, as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct What {
    /// See [`singular`].
    kind: String,
    name: String,
}

impl FromStr for What {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, name) = text
            .split_once('/')
            .context("it needs a kind and a name, as in deployment/web")?;
        ensure!(
            !kind.is_empty() && !name.is_empty(),
            "it needs a kind and a name, as in deployment/web"
        );
        let kind = kind.to_lowercase();
        let long = SHORT.iter().find(|(short, _)| *short == kind);
        let kind = long.map_or(kind.as_str(), |(_, long)| long);
        Ok(Self {
            kind: singular(kind),
            name: name.to_owned(),
        })
    }
}

/// A kind in lower case, without what tells one from several: both sides of a comparison go through it, so that it may be wrong about words
/// that end so anyway.
fn singular(kind: &str) -> String {
    let kind = kind.to_lowercase();
    kind.strip_suffix('s').map(str::to_owned).unwrap_or(kind)
}

impl What {
    /// Whether a Sleeper is about it.
    fn is_of(&self, sleeper: &Sleeper) -> bool {
        let spec = &sleeper.spec;
        let is = |kind: &str, name: &str| singular(kind) == self.kind && name == self.name;
        let mut objects = spec.workloads.iter().chain([&spec.object]);
        match self.kind.as_str() {
            "sleeper" => sleeper.metadata.name.as_deref() == Some(&self.name),
            "service" if spec.services.contains(&self.name) => true,
            _ => objects.any(|object| is(&object.kind, &object.name)),
        }
    }

    /// Whether a MemHpa is about it.
    fn is_of_memhpa(&self, object: &MemHpa) -> bool {
        let target = &object.spec.scale_target_ref;
        let is_itself = self.kind == "memhpa" && object.metadata.name.as_deref() == Some(&self.name);
        is_itself || (singular(&target.kind) == self.kind && target.name == self.name)
    }
}

/// The MemHpas of a namespace; none where nobody knows that kind. None where they may not be listed.
async fn memhpas(client: &kube::Client, namespace: &str) -> Result<Option<Vec<MemHpa>>> {
    let api: Api<MemHpa> = Api::namespaced(client.clone(), namespace);
    let what = || format!("listing MemHpas of {namespace}");
    match limited(REQUEST, what, api.list(&ListParams::default())).await {
        Ok(found) => Ok(Some(found.items)),
        Err(ClusterError::NotFound { .. }) => Ok(Some(Vec::new())),
        Err(ClusterError::Forbidden { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Tells of each Sleeper and each MemHpa that is about it.
pub async fn run(options: Options) -> Result<()> {
    let client = dormouse_kubernetes::client(options.kubeconfig_path.as_deref()).await?;
    let (What { kind, name }, namespace) = (&options.what, &options.namespace);
    let api: Api<Sleeper> = Api::namespaced(client.clone(), namespace);
    let what = || format!("listing Sleepers of {namespace}");
    let sleepers = limited(REQUEST, what, api.list(&ListParams::default())).await?;
    let about = sleepers
        .items
        .iter()
        .filter(|sleeper| options.what.is_of(sleeper));
    let now = Timestamp::now();
    let mut stories: Vec<_> = about.map(|sleeper| story::tell(sleeper, now)).collect();
    let memhpas = memhpas(&client, namespace).await?;
    let about = memhpas
        .iter()
        .flatten()
        .filter(|object| options.what.is_of_memhpa(object));
    stories.extend(about.map(|object| memhpa::tell(object, now)));
    let unknown = memhpas
        .is_none()
        .then(|| format!("MemHpas of {namespace} may not be listed by you, so nothing is told of them"));
    if stories.is_empty() {
        if let Some(unknown) = unknown {
            bail!("no Sleeper of namespace {namespace} is about {kind} {name}; {unknown}");
        }
        bail!(
            "no Sleeper or MemHpa of namespace {namespace} is about {kind} {name}, so Dormouse leaves it alone. A Deployment or StatefulSet takes part \
             with the annotation dormouse.dev/sleep-after; what is wrong with an annotation is an Event on the object, and other \
             kinds are for their plugins to list"
        );
    }
    stories.extend(unknown.map(|unknown| format!("{unknown}\n")));
    Ok(output::answer(&stories.join("\n"))?)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn sleeper() -> Sleeper {
        let spec = json!({
            "resource": "web",
            "object": {"apiVersion": "example.com/v1", "kind": "Site", "name": "web"},
            "workloads": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web-main"}],
            "services": ["front"],
        });
        let mut sleeper = Sleeper::new("web.sites", serde_json::from_value(spec).unwrap());
        sleeper.metadata.namespace = Some("shop".to_owned());
        sleeper
    }

    #[rstest]
    #[case::its_object("site/web", true)]
    #[case::a_workload("Deployments/web-main", true)]
    #[case::a_short_name("deploy/web-main", true)]
    #[case::a_service("svc/front", true)]
    #[case::itself("sleeper/web.sites", true)]
    #[case::a_kind_that_ends_like_several("sites/web", true)]
    #[case::another_kind("deployment/web", false)]
    #[case::another_name("svc/web", false)]
    fn a_sleeper_is_about_all_that_it_names(#[case] what: &str, #[case] is: bool) {
        assert_eq!(what.parse::<What>().unwrap().is_of(&sleeper()), is);
    }

    #[test]
    fn the_sleeper_of_a_memhpa_is_told_with_it_and_with_its_workload() {
        let mut sleeper = sleeper();
        sleeper.spec.object.kind = "MemHpa".to_owned();
        sleeper.spec.object.name = "by-memory".to_owned();
        for what in ["memhpa/by-memory", "memhpas/by-memory", "deploy/web-main"] {
            assert!(what.parse::<What>().unwrap().is_of(&sleeper), "{what}");
        }
    }

    #[rstest]
    #[case("web")]
    #[case("deployment/")]
    #[case("/web")]
    fn what_is_no_object_is_refused(#[case] what: &str) {
        let error = what.parse::<What>().unwrap_err().to_string();
        assert!(error.contains("as in deployment/web"), "{error}");
    }
}
