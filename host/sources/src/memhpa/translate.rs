//! From a MemHpa to a target.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dormouse_model::{MemoryPolicy, ObjectRef, Owner, OwnerKind, Policy, Query, Target, TargetKey};
use dormouse_readings::template;
use dormouse_scaling::memory::{Correction, MemorySpec};
use kube::{Resource, ResourceExt};
use workloads::annotations::Managed;

use super::api::{MemHpa, MemHpaSpec, ScaleTargetRef};
use super::config::MemHpaConfig;
use crate::sleep;

/// What pods use, as kubelets of today report it of their containers: what they cannot give back.
pub const USAGE: &str = r#"sum by (pod) (avg_over_time(container_memory_working_set_bytes{namespace="{namespace}",container!="",container!="POD"}[1m]))"#;

/// How often it is decided without a change: MemHpa's resync.
const EVERY: Duration = Duration::from_secs(30);
/// How far back the query looks, where it asks for it.
const WINDOW: Duration = Duration::from_secs(60);

/// What is wrong with what is declared, and what is used instead.
pub fn corrections(object: &MemHpa) -> Vec<Correction> {
    let sleeps = sleep::asked(object.annotations()).is_ok_and(|asked| asked.is_some());
    declared(&object.spec, sleeps).corrected().1
}

fn declared(spec: &MemHpaSpec, sleeps: bool) -> MemorySpec {
    MemorySpec {
        // Zero is what it sleeps at; while it is up there is one at least.
        min_replicas: match spec.min_replicas {
            Some(0) if sleeps => Some(1),
            min => min,
        },
        max_replicas: spec.max_replicas,
        target_utilization: spec.target_utilization_percentage,
    }
}

/// A target that is only scaled, and how it asks for sleep.
pub struct Declared {
    pub target: Target,
    pub sleep: Option<Managed>,
}

/// All of them as targets. Of several that scale the same workload the oldest does; the others say so.
pub fn targets(objects: &[Arc<MemHpa>], config: &MemHpaConfig) -> Vec<Declared> {
    let mut objects: Vec<_> = objects
        .iter()
        .filter(|object| object.meta().deletion_timestamp.is_none())
        .collect();
    objects.sort_by_key(|object| {
        let created = object.creation_timestamp().map(|time| time.0);
        (created.is_none(), created, object.namespace(), object.name_any())
    });
    let mut claimed = HashMap::new();
    objects
        .into_iter()
        .map(|object| {
            let workload = workload(&object.spec.scale_target_ref);
            let namespace = object.namespace().unwrap_or_default();
            let group = workload.group().to_owned();
            let claim = (namespace, group, workload.kind.clone(), workload.name.clone());
            let problem = match claimed.get(&claim) {
                Some(first) => Some(format!(
                    "MemHpa {first} scales {} {} too, and is older; delete one of the two",
                    workload.kind, workload.name
                )),
                None => missing(&object.spec.scale_target_ref),
            };
            if problem.is_none() {
                claimed.insert(claim, object.name_any());
            }
            // What is wrong with its annotations stands in its status, and it stays awake.
            let sleep = sleep::asked(object.annotations()).unwrap_or_default();
            let target = target(object, workload, problem, sleep.is_some(), config);
            Declared {
                sleep: sleep.filter(|_| target.problem.is_none()),
                target,
            }
        })
        .collect()
}

fn target(
    object: &MemHpa,
    workload: ObjectRef,
    problem: Option<String>,
    sleeps: bool,
    config: &MemHpaConfig,
) -> Target {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let (calculator, _) = declared(&object.spec, sleeps).corrected();
    let query = template::expand(&config.query, &namespace, &workload.name, WINDOW);
    let usage = query.map_err(|error| error.to_string()).map(|query| {
        Arc::new(Query::PrometheusPods {
            namespace: namespace.clone(),
            server: config.server.clone(),
            query,
        })
    });
    let last_scale = object
        .status
        .as_ref()
        .and_then(|status| status.last_scale_time.as_ref());
    let key = TargetKey {
        owner: Owner {
            kind: OwnerKind::MemHpa,
            name: name.clone(),
            uid: object.uid(),
        },
        namespace,
        name: name.clone(),
    };
    let itself = ObjectRef {
        api_version: MemHpa::api_version(&()).into_owned(),
        kind: MemHpa::kind(&()).into_owned(),
        name,
    };
    let policy = Policy::Memory(Arc::new(MemoryPolicy {
        min_replicas: calculator.bounds.min,
        max_replicas: calculator.bounds.max,
        target_utilization: calculator.target_utilization,
        usage,
        last_scale: last_scale.map(|time| time.0),
    }));
    Target {
        problem,
        ..Target::only_scaled(key, itself, workload, policy, EVERY)
    }
}

fn missing(target: &ScaleTargetRef) -> Option<String> {
    let field = match (&*target.kind, &*target.name) {
        ("", _) => "kind",
        (_, "") => "name",
        _ => return None,
    };
    Some(format!(
        "spec.scaleTargetRef.{field} is missing: name what is to be scaled, such as kind: Deployment, name: web"
    ))
}

/// What is meant in the API of today.
fn workload(target: &ScaleTargetRef) -> ObjectRef {
    let said = target.api_version.as_deref().unwrap_or_default();
    let today = match &*target.kind {
        "Deployment" | "ReplicaSet" | "StatefulSet" => Some("apps/v1"),
        "ReplicationController" => Some("v1"),
        _ => None,
    };
    let removed = ["", "extensions/v1beta1", "apps/v1beta1", "apps/v1beta2"].contains(&said);
    ObjectRef {
        api_version: today.filter(|_| removed).unwrap_or(said).to_owned(),
        kind: target.kind.clone(),
        name: target.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn config() -> MemHpaConfig {
        MemHpaConfig {
            server: "main".to_owned(),
            query: USAGE.to_owned(),
            scale_interval: EVERY,
        }
    }

    fn memhpa(name: &str, created: &str, spec: &Value) -> Arc<MemHpa> {
        let metadata = json!({"namespace": "shop", "name": name, "uid": name, "creationTimestamp": created});
        let object =
            json!({"apiVersion": "xinhuang.com/v1", "kind": "MemHpa", "metadata": metadata, "spec": spec});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn web() -> Value {
        json!({"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 5})
    }

    #[rstest]
    #[case(Some("extensions/v1beta1"), "Deployment", "apps/v1")]
    #[case(Some("apps/v1beta2"), "StatefulSet", "apps/v1")]
    #[case(None, "ReplicaSet", "apps/v1")]
    #[case(None, "ReplicationController", "v1")]
    #[case(Some("v1"), "ReplicationController", "v1")]
    #[case(Some("apps/v1"), "Deployment", "apps/v1")]
    #[case(Some("example.com/v2"), "Deployment", "example.com/v2")]
    #[case(Some("example.com/v2"), "Farm", "example.com/v2")]
    fn versions_that_are_gone_mean_their_successors(
        #[case] said: Option<&str>,
        #[case] kind: &str,
        #[case] meant: &str,
    ) {
        let target = ScaleTargetRef {
            api_version: said.map(str::to_owned),
            kind: kind.to_owned(),
            name: "web".to_owned(),
        };
        assert_eq!(workload(&target).api_version, meant);
    }

    #[test]
    fn the_older_of_two_scales_the_workload_and_the_other_says_so() {
        let younger = memhpa("a", "2026-03-01T12:00:01Z", &web());
        let older = memhpa("b", "2026-03-01T12:00:00Z", &web());
        let targets = targets(&[younger, older], &config());
        let problems: Vec<_> = targets
            .iter()
            .map(|declared| (&*declared.target.key.name, declared.target.problem.as_deref()))
            .collect();
        assert_eq!(
            problems,
            [
                ("b", None),
                (
                    "a",
                    Some("MemHpa b scales Deployment web too, and is older; delete one of the two")
                )
            ]
        );
    }

    #[test]
    fn one_question_serves_all_of_a_namespace() {
        let other = json!({"scaleTargetRef": {"kind": "Deployment", "name": "api"}, "maxReplicas": 5});
        let objects = [
            memhpa("a", "2026-03-01T12:00:00Z", &web()),
            memhpa("b", "2026-03-01T12:00:00Z", &other),
        ];
        let queries: Vec<_> = targets(&objects, &config())
            .iter()
            .map(|declared| match &declared.target.policy {
                Policy::Memory(policy) => policy.usage.clone().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(queries[0], queries[1]);
        let Query::PrometheusPods { query, .. } = &*queries[0] else {
            panic!("{queries:?}")
        };
        assert!(query.contains(r#"namespace="shop""#), "{query}");
    }

    #[rstest]
    #[case(json!({"maxReplicas": 5}), "spec.scaleTargetRef.kind is missing")]
    #[case(json!({"scaleTargetRef": {"kind": "Deployment"}}), "spec.scaleTargetRef.name is missing")]
    fn what_names_nothing_says_so(#[case] spec: Value, #[case] expected: &str) {
        let targets = targets(&[memhpa("a", "2026-03-01T12:00:00Z", &spec)], &config());
        let problem = targets[0].target.problem.clone().unwrap();
        assert!(problem.contains(expected), "{problem}");
    }

    fn bounds(declared: &Declared) -> (i32, i32) {
        match &declared.target.policy {
            Policy::Memory(policy) => (policy.min_replicas, policy.max_replicas),
            other => panic!("{other:?}"),
        }
    }

    #[rstest]
    #[case::by_traffic(json!({"dormouse.dev/sleep-after": "15m"}), true)]
    #[case::by_rules(json!({"dormouse.dev/rules": r#"[{"metric": "requests", "window": "5m"}]"#}), true)]
    #[case::paused(json!({"dormouse.dev/sleep-after": "15m", "dormouse.dev/paused": "true"}), false)]
    #[case::wrong(json!({"dormouse.dev/sleep-after": "soon"}), false)]
    #[case::without(json!({}), false)]
    fn zero_is_right_for_one_that_asks_for_sleep(#[case] annotations: Value, #[case] asks: bool) {
        let mut spec = web();
        spec["minReplicas"] = json!(0);
        spec["targetUtilizationPercentage"] = json!(50);
        let mut object = MemHpa::clone(&memhpa("a", "2026-03-01T12:00:00Z", &spec));
        object.metadata.annotations = serde_json::from_value(annotations).unwrap();
        let expected: &[_] = if asks { &[] } else { &[Correction::MinReplicas(1)] };
        assert_eq!(corrections(&object), expected);
        let targets = targets(&[Arc::new(object)], &config());
        assert_eq!((targets[0].sleep.is_some(), bounds(&targets[0])), (asks, (1, 5)));
    }

    #[test]
    fn one_that_may_not_scale_does_not_sleep_either() {
        let mut younger = MemHpa::clone(&memhpa("a", "2026-03-01T12:00:01Z", &web()));
        younger.metadata.annotations =
            Some([("dormouse.dev/sleep-after".to_owned(), "15m".to_owned())].into());
        let older = memhpa("b", "2026-03-01T12:00:00Z", &web());
        let targets = targets(&[Arc::new(younger), older], &config());
        assert!(targets.iter().all(|declared| declared.sleep.is_none()));
    }
}
