//! What is wrong shows where people look: on the Sleeper and in its events.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use dormouse::local::SYSTEM_NAMESPACE;
use dormouse_kubernetes::CustomMetric;
use dormouse_model::Phase;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::world::{Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(exclusive a_missing_permission_is_named_on_the_sleeper_and_heals),
        case!(a_metric_that_nobody_serves_is_named_on_the_sleeper),
        case!(exclusive a_metrics_api_that_is_gone_is_named_on_the_sleeper_and_delays_nobody),
        case!(exclusive a_metrics_api_that_hangs_or_talks_nonsense_is_named_on_the_sleeper),
    ]
}

/// The cluster roles of one of Dormouse's service accounts.
async fn roles_of(world: &World, account: &str) -> Result<Vec<ClusterRole>> {
    let bindings = Api::<ClusterRoleBinding>::all(world.client.clone())
        .list(&ListParams::default())
        .await?;
    let roles = Api::<ClusterRole>::all(world.client.clone());
    let mut found = Vec::new();
    for binding in bindings {
        let bound =
            binding.subjects.iter().flatten().any(|subject| {
                subject.name == account && subject.namespace.as_deref() == Some(SYSTEM_NAMESPACE)
            });
        if bound {
            found.push(roles.get(&binding.role_ref.name).await?);
        }
    }
    ensure!(!found.is_empty(), "no cluster role is bound to {account}");
    Ok(found)
}

async fn put_rules(world: &World, name: &str, rules: Option<Vec<PolicyRule>>) -> Result<()> {
    let roles = Api::<ClusterRole>::all(world.client.clone());
    let mut role = roles.get(name).await?;
    role.rules = rules;
    roles.replace(name, &PostParams::default(), &role).await?;
    Ok(())
}

fn without_scaling(rules: Option<Vec<PolicyRule>>) -> Option<Vec<PolicyRule>> {
    let scales = |rule: &PolicyRule| {
        let mut resources = rule.resources.iter().flatten();
        resources.any(|resource| resource.ends_with("/scale"))
    };
    let writes = |verb: &String| verb != "update" && verb != "patch";
    rules.map(|rules| {
        rules
            .into_iter()
            .map(|mut rule| {
                if scales(&rule) {
                    rule.verbs.retain(writes);
                }
                rule
            })
            .collect()
    })
}

async fn a_missing_permission_is_named_on_the_sleeper_and_heals(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("forbidden", "web");
    world.deploy_known(ns, name, Wanted::never()).await?;
    let roles = roles_of(&world, "dormouse-autoscaler").await?;
    for role in &roles {
        let name = role.metadata.name.as_deref().unwrap_or_default();
        put_rules(&world, name, without_scaling(role.rules.clone())).await?;
    }
    let told = async {
        // The authoriser hears of it a moment later.
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.request_sleep(ns, name).await?;
        world
            .complaint(ns, name, "Divertible", "cannot update resource")
            .await
    }
    .await;
    for role in roles {
        let name = role.metadata.name.clone().unwrap_or_default();
        put_rules(&world, &name, role.rules).await?;
    }
    let told = told?;
    ensure!(
        told.contains("deployments/scale") && told.contains("dormouse-autoscaler"),
        "{told}"
    );
    world.until_phase(ns, name, Phase::Asleep).await?;
    world
        .until("the replicas to go, now that it may", async || {
            Ok((world.replicas(ns, name).await? == 0).then_some(()))
        })
        .await
}

const RULES: &str = r#"[{"metric":"unheard_of","window":"1s","threshold":"0"}]"#;

async fn by_metric(world: &World, ns: &str, name: &str) -> Result<()> {
    let annotations = [("dormouse.dev/rules", RULES)];
    let wanted = Wanted {
        annotations: &annotations,
        ..Wanted::default()
    };
    world.deploy_known(ns, name, wanted).await
}

async fn a_metric_that_nobody_serves_is_named_on_the_sleeper(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("no-metric", "web");
    by_metric(&world, ns, name).await?;
    world
        .complaint(ns, name, "ReadingsAvailable", "unheard_of")
        .await?;
    ensure!(
        world.replicas(ns, name).await? == 1,
        "it was put to sleep without data"
    );
    Ok(())
}

async fn a_metrics_api_that_is_gone_is_named_on_the_sleeper_and_delays_nobody(
    world: Arc<World>,
) -> Result<()> {
    let (ns, name) = ("no-api", "web");
    by_metric(&world, ns, name).await?;
    world
        .complaint(ns, name, "ReadingsAvailable", "unheard_of")
        .await?;
    world.scale(SERVER, "adapter", 0).await?;
    let told = async {
        // Whichever comes first: the API server knows of no server any more, or nobody answered.
        let told = world
            .complaint_that(ns, name, "ReadingsAvailable", |condition| {
                ["unavailable", "not answered", "took longer"]
                    .iter()
                    .any(|part| condition.message.contains(part))
            })
            .await?;
        // Others are read, decided about and put to sleep meanwhile.
        let observed = Wanted {
            sleep_after: "1s",
            ..Wanted::default()
        };
        world.deploy_known(ns, "other", observed).await?;
        world.until_phase(ns, "other", Phase::Asleep).await?;
        anyhow::Ok(told)
    }
    .await;
    world.scale(SERVER, "adapter", 1).await?;
    println!("          told: {}", told?);
    ensure!(
        world.replicas(ns, name).await? == 1,
        "it was put to sleep by an API that is gone"
    );
    // What was taken away is there again for the cases after this one.
    answers_again(&world, ns, name).await
}

/// The namespace of the real server of custom metrics.
const SERVER: &str = "custom-metrics";

/// Until the metrics API answers and the Sleeper says so. The API server takes half a minute to notice.
async fn answers_again(world: &World, ns: &str, name: &str) -> Result<()> {
    let metric = CustomMetric {
        group: "apps",
        kind: "Deployment",
        namespace: ns,
        metric: "unheard_of_per_1s",
        selector: None,
    };
    world
        .until("the metrics API to be there again", async || {
            let read = world
                .cluster
                .metrics_api()
                .custom_metric(metric, Duration::from_secs(5))
                .await;
            Ok(read.ok())
        })
        .await?;
    world
        .complaint(ns, name, "ReadingsAvailable", "unheard_of_per_1s says nothing")
        .await?;
    Ok(())
}

async fn a_metrics_api_that_hangs_or_talks_nonsense_is_named_on_the_sleeper(world: Arc<World>) -> Result<()> {
    let (ns, name) = ("mute-api", "web");
    by_metric(&world, ns, name).await?;
    answers_again(&world, ns, name).await?;

    // It accepts connections and says nothing: its process is stopped.
    signal_the_server(&world, "-STOP").await?;
    // Whichever is first: a question that is not answered in time, or the API server, which asks it too.
    let hangs = world
        .complaint_that(ns, name, "ReadingsAvailable", |condition| {
            condition.message.contains("not answered") || condition.message.contains("unavailable")
        })
        .await;
    signal_the_server(&world, "-CONT").await?;
    println!("          told: {}", hangs?);
    answers_again(&world, ns, name).await?;

    // Something answers that does not speak TLS.
    lead_to(&world, "writer").await?;
    let nonsense = world
        .complaint(ns, name, "ReadingsAvailable", "unavailable")
        .await;
    lead_to(&world, "api").await?;
    println!("          told: {}", nonsense?);
    answers_again(&world, ns, name).await?;
    ensure!(
        world.replicas(ns, name).await? == 1,
        "it was put to sleep without data"
    );
    Ok(())
}

async fn signal_the_server(world: &World, signal: &str) -> Result<()> {
    let exec = [
        "kubectl",
        "exec",
        "--namespace",
        SERVER,
        "deploy/adapter",
        "--container",
        "hand",
        "--",
    ];
    let mut all = exec.to_vec();
    all.extend(["killall", signal, "test-adapter"]);
    world.installation().cluster_command(&all).await
}

/// Which port of the server is behind its API.
async fn lead_to(world: &World, port: &str) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "ports": [{ "port": 443, "targetPort": port }] } }));
    Api::<Service>::namespaced(world.client.clone(), SERVER)
        .patch("custom-metrics-apiserver", &PatchParams::default(), &patch)
        .await?;
    Ok(())
}
