//! Whether the node leads where the API server says.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dormouse::local::SYSTEM_NAMESPACE;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::world::World;

/// kube-proxy pauses for up to a minute between attempts, and one that gets through may be refused, or cut off once more.
const LAGGING: Duration = Duration::from_secs(180);
/// What is seen within this time was told by a watch, not by a list that happened to come.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Waits until the node follows the API server again, and says how long that took. After the API server was away it may
/// take more than a minute, and a rollout meanwhile loses connections, whoever does it.
pub async fn until_it_follows(world: &World) -> Result<()> {
    let (begun, mut seen) = (Instant::now(), Duration::MAX);
    let mut asked = 0;
    while seen > AT_ONCE {
        ensure!(
            begun.elapsed() < LAGGING,
            "the node does not follow after {:.0?}",
            begun.elapsed()
        );
        asked += 1;
        seen = until_it_leads_to(world, &format!("follow-{asked}")).await?;
    }
    println!("          the node follows after {:.1?}", begun.elapsed());
    Ok(())
}

/// Makes a new Service and says after how long the node leads to what is behind it.
async fn until_it_leads_to(world: &World, name: &str) -> Result<Duration> {
    let ns = "default";
    lead_to_a_dlx(world, ns, name).await?;
    let begun = Instant::now();
    world.until_connected(LAGGING, ns, name).await?;
    let seen = begun.elapsed();
    let services = Api::<Service>::namespaced(world.client.clone(), ns);
    let slices = Api::<EndpointSlice>::namespaced(world.client.clone(), ns);
    services.delete(name, &DeleteParams::default()).await?;
    slices.delete(name, &DeleteParams::default()).await?;
    Ok(seen)
}

async fn lead_to_a_dlx(world: &World, ns: &str, name: &str) -> Result<()> {
    let pods = Api::<Pod>::namespaced(world.client.clone(), SYSTEM_NAMESPACE);
    let dlx = ListParams::default().labels("app.kubernetes.io/component=dlx");
    let address = pods
        .list(&dlx)
        .await?
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .find_map(|pod| pod.status?.pod_ip)
        .context("no DLX has an address")?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "namespace": ns, "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
        "ports": [{ "port": 9090 }],
    });
    world.apply(&slice.to_string()).await?;
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": ns },
        "spec": { "ports": [{ "port": 80 }] },
    });
    world.apply(&service.to_string()).await
}
