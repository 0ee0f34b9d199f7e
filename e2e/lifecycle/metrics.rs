//! Every source of readings that needs a metrics API, Prometheus or pods.
//!
//! On the embedded cluster nobody serves most of them: there the cases show that what is missing keeps a workload awake and
//! is named on its Sleeper. A real cluster has an aggregated server of custom and external metrics (e2e/metrics).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dormouse_kubernetes::{CustomMetric, MetricError, MetricValue};
use dormouse_model::Phase;
use dormouse_sleepers::Sleeper;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use kube::api::DeleteParams;

use crate::world::{Wanted, World};
use crate::{Case, case};

const SECOND: Duration = Duration::from_secs(5);

pub fn cases() -> Vec<Case> {
    let anywhere = vec![
        case!(a_prometheus_that_nobody_configured_is_named_with_those_that_are),
        case!(usage_without_metrics_server_says_what_is_missing),
        case!(a_page_that_is_no_metrics_keeps_its_workload_awake),
        case!(an_external_metric_that_nobody_knows_is_no_data),
    ];
    let real = [
        case!(the_adapter_of_custom_metrics_is_read_with_and_without_labels),
        case!(the_adapter_of_external_metrics_is_read_and_a_denied_client_hears_why),
        case!(an_external_metric_puts_to_sleep_when_its_sum_is_low_enough),
        case!(pods_say_themselves_whether_they_are_idle),
        // Other cases say that there is no metrics-server.
        case!(exclusive what_metrics_server_measures_decides_as_long_as_it_is_there),
    ];
    let real = real.into_iter().map(|case| Case { real: true, ..case });
    anywhere.into_iter().chain(real).collect()
}

/// A workload with one rule.
async fn deploy(world: &World, ns: &str, rule: &str) -> Result<()> {
    let rules = format!("[{rule}]");
    let annotations = [("dormouse.dev/rules", rules.as_str())];
    let wanted = Wanted {
        annotations: &annotations,
        ..Wanted::default()
    };
    world.deploy_known(ns, "web", wanted).await
}

/// Waits until the Sleeper says why there is no reading, and makes sure that the workload stays awake over it.
async fn awake_because(world: &World, ns: &str, reason: &str, part: &str) -> Result<()> {
    world
        .complaint_that(ns, "web", "ReadingsAvailable", |condition| {
            condition.reason == reason && condition.message.contains(part)
        })
        .await
        .with_context(|| format!("waiting for {reason}: {part:?}"))?;
    world.until_a_witness_sleeps(ns).await?;
    ensure!(
        world.replicas(ns, "web").await? == 1 && world.state(ns, "web").await?.phase == Phase::Awake,
        "it was put to sleep without a reading"
    );
    Ok(())
}

async fn a_prometheus_that_nobody_configured_is_named_with_those_that_are(world: Arc<World>) -> Result<()> {
    let ns = "no-prometheus";
    let rule = r#"{"source":"prometheus","server":"elsewhere","query":"vector(0)","window":"1s"}"#;
    deploy(&world, ns, rule).await?;
    awake_because(
        &world,
        ns,
        "ReadingFailed",
        "no Prometheus server \"elsewhere\" is configured",
    )
    .await
}

async fn usage_without_metrics_server_says_what_is_missing(world: Arc<World>) -> Result<()> {
    let ns = "no-usage";
    deploy(
        &world,
        ns,
        r#"{"source":"resource","resource":"cpu","threshold":"50m","window":"1s"}"#,
    )
    .await?;
    awake_because(&world, ns, "ReadingFailed", "is metrics-server installed?").await
}

async fn a_page_that_is_no_metrics_keeps_its_workload_awake(world: Arc<World>) -> Result<()> {
    let ns = "no-page";
    // JSON with status 200: an application behind a catch-all route.
    let rule = r#"{"source":"pods","port":8080,"path":"/stats","metric":"sessions","window":"1s"}"#;
    deploy(&world, ns, rule).await?;
    awake_because(
        &world,
        ns,
        "ReadingFailed",
        "line 1 is not in the Prometheus text format",
    )
    .await
}

async fn an_external_metric_that_nobody_knows_is_no_data(world: Arc<World>) -> Result<()> {
    let ns = "no-external";
    deploy(
        &world,
        ns,
        r#"{"source":"external","metric":"unheard-of","window":"1s"}"#,
    )
    .await?;
    awake_because(&world, ns, "NoData", "no series of unheard-of").await
}

/// The adapter takes values over its own port; the API server leads there.
pub async fn write(
    world: &World,
    ns: &str,
    name: &str,
    metric: &str,
    labels: &str,
    value: &str,
) -> Result<()> {
    let labels = match labels {
        "" => String::new(),
        labels => format!("?labels={labels}"),
    };
    let path = format!(
        "/api/v1/namespaces/custom-metrics/services/http:custom-metrics-writer:80/proxy/write-metrics/\
         namespaces/{ns}/deployments.apps/{name}/{metric}{labels}"
    );
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(value)?)?;
    world.client.request_text(request).await?;
    Ok(())
}

async fn the_adapter_of_custom_metrics_is_read_with_and_without_labels(world: Arc<World>) -> Result<()> {
    let ns = "adapter-custom";
    world.deploy(ns, "web", Wanted::default()).await?;
    write(&world, ns, "web", "requests_per_1s", "verb%3DGET", "1500m").await?;
    let read = async |metric: &str, selector: Option<&str>| {
        let wanted = CustomMetric {
            group: "apps",
            kind: "Deployment",
            namespace: ns,
            metric,
            selector,
        };
        world.cluster.metrics_api().custom_metric(wanted, SECOND).await
    };
    let value = read("requests_per_1s", None).await?;
    ensure!(
        value.get("web") == Some(&MetricValue::Value("1500m".to_owned())),
        "{value:?}"
    );
    let value = read("requests_per_1s", Some("verb=GET")).await?;
    ensure!(value.contains_key("web"), "{value:?}");
    let value = read("requests_per_1s", Some("verb=POST")).await?;
    ensure!(value.is_empty(), "{value:?}");
    let value = read("unheard_of_per_1s", None).await?;
    ensure!(value.is_empty(), "{value:?}");
    let error = read("requests_per_1s", Some("verb in")).await;
    ensure!(error.is_err(), "a selector that is none: {error:?}");
    Ok(())
}

async fn the_adapter_of_external_metrics_is_read_and_a_denied_client_hears_why(
    world: Arc<World>,
) -> Result<()> {
    // The adapter has two series of this one.
    let metric = "my-external-metric";
    let mut values = world
        .cluster
        .metrics_api()
        .external_metric("default", metric, None, SECOND)
        .await?;
    values.sort();
    ensure!(values == ["42", "43"], "{values:?}");
    let values = world
        .cluster
        .metrics_api()
        .external_metric("default", metric, Some("foo=bar"), SECOND)
        .await?;
    ensure!(values == ["42"], "{values:?}");
    let values = world
        .cluster
        .metrics_api()
        .external_metric("default", metric, Some("foo=other"), SECOND)
        .await?;
    ensure!(values.is_empty(), "{values:?}");
    let usage = world
        .cluster
        .metrics_api()
        .pod_usage("default", "app=web", SECOND)
        .await;
    ensure!(
        matches!(&usage, Err(MetricError::NotServed { .. })),
        "nobody serves metrics.k8s.io here: {usage:?}"
    );
    // Somebody without any right.
    let name = "system:serviceaccount:default:nobody";
    let request = http::Request::get(format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/{metric}"
    ))
    .header("impersonate-user", name)
    .body(Vec::new())?;
    let refused = world.client.request_text(request).await;
    ensure!(
        matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403),
        "{refused:?}"
    );
    Ok(())
}

/// Its two series are 42 and 43.
async fn an_external_metric_puts_to_sleep_when_its_sum_is_low_enough(world: Arc<World>) -> Result<()> {
    let rule = |threshold: u32| {
        format!(
            r#"{{"source":"external","metric":"my-external-metric","window":"1s","threshold":{threshold}}}"#
        )
    };
    deploy(&world, "external-high", &rule(84)).await?;
    deploy(&world, "external-low", &rule(85)).await?;
    world.until_phase("external-low", "web", Phase::Asleep).await?;
    let sleeper = world
        .sleeper("external-high", "web")
        .await?
        .context("no Sleeper")?;
    let decision = sleeper
        .status
        .and_then(|status| status.last_decision)
        .context("no decision")?;
    ensure!(
        decision.outcome == "InUse" && decision.inputs.iter().any(|input| input.contains("85")),
        "{decision:?}"
    );
    Ok(())
}

const METRICS_SERVER: &str = include_str!("../metrics/metrics-server.yaml");

async fn what_metrics_server_measures_decides_as_long_as_it_is_there(world: Arc<World>) -> Result<()> {
    world.apply(METRICS_SERVER).await?;
    let outcome = measured(&world).await;
    // An API without its server would be in the way of others, such as the end of namespaces.
    Api::<APIService>::all(world.client.clone())
        .delete("v1beta1.metrics.k8s.io", &DeleteParams::default())
        .await?;
    outcome
}

async fn measured(world: &World) -> Result<()> {
    let rule = |resource: &str, threshold: &str| {
        format!(r#"{{"source":"resource","resource":"{resource}","window":"30s","threshold":"{threshold}"}}"#)
    };
    let (low, high) = ("measured-low", "measured-high");
    deploy(world, low, &rule("cpu", "4")).await?;
    deploy(world, high, &rule("memory", "1")).await?;
    for ns in [low, high] {
        world
            .until("a measured pod", async || {
                let usage = world.cluster.metrics_api().pod_usage(ns, "app=web", SECOND).await;
                Ok(usage.is_ok_and(|pods| !pods.is_empty()).then_some(()))
            })
            .await?;
    }
    world.until_phase(low, "web", Phase::Asleep).await?;
    let decision = |sleeper: Option<Sleeper>| sleeper.and_then(|sleeper| sleeper.status?.last_decision);
    world
        .until("memory to be in use", async || {
            let last = decision(world.sleeper(high, "web").await?);
            Ok(last.filter(|last| last.outcome == "InUse").map(|_| ()))
        })
        .await?;
    world.scale("metrics-server", "metrics-server", 0).await?;
    awake_because(world, high, "ReadingFailed", "unavailable").await?;
    ensure!(
        world.replicas(high, "web").await? == 1,
        "it was put to sleep unmeasured"
    );
    Ok(())
}

async fn pods_say_themselves_whether_they_are_idle(world: Arc<World>) -> Result<()> {
    let ns = "scraped";
    let rule = r#"{"source":"pods","port":8080,"metric":"sessions","window":"1s"}"#;
    deploy(&world, ns, rule).await?;
    // Nobody knows the metric yet.
    awake_because(&world, ns, "NoData", "sessions of its pods").await?;
    let pods = world.cluster.metrics_api().namespace_pods(ns, SECOND).await?;
    ensure!(
        pods.len() == 1 && pods[0].ready && !pods[0].host_network,
        "{pods:?}"
    );
    set_gauge(&world, ns, "2").await?;
    world.until_a_witness_sleeps(&format!("{ns}-in-use")).await?;
    ensure!(
        world.replicas(ns, "web").await? == 1,
        "it was put to sleep with two sessions"
    );
    set_gauge(&world, ns, "0").await?;
    world.until_phase(ns, "web", Phase::Asleep).await?;
    Ok(())
}

async fn set_gauge(world: &World, ns: &str, value: &str) -> Result<()> {
    let path = format!("gauge?name=sessions&value={value}");
    world.post_to_pods(ns, &path).await
}
