//! A protocol that is not HTTP, through a ClusterIP.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dormouse::requests;
use dormouse_model::Phase;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::cycles::client_pod;
use crate::world::{PATIENCE, Wanted, World};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![case!(a_server_that_speaks_first_sleeps_and_wakes_for_clients_of_its_cluster_ip).within(CYCLING)]
}

/// Port of the Service; the pods' own is 2525.
const PORT: u16 = 25;
const CYCLES: usize = 5;
const CYCLING: Duration = Duration::from_secs(4 * 60);

/// A client that is silent until it is spoken to.
async fn greeted(address: &str) -> Result<()> {
    let dialogue = async {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        ensure!(line.starts_with("220 "), "no greeting but {line:?}");
        stream.write_all(b"hello\r\n").await?;
        line.clear();
        stream.read_line(&mut line).await?;
        ensure!(line == "hello\r\n", "no echo but {line:?}");
        Ok(())
    };
    tokio::time::timeout(PATIENCE, dialogue)
        .await
        .context("it is not spoken to")?
}

async fn a_server_that_speaks_first_sleeps_and_wakes_for_clients_of_its_cluster_ip(
    world: Arc<World>,
) -> Result<()> {
    let (ns, name) = ("tcp", "lines");
    world.deploy_known(ns, name, Wanted::never()).await?;
    // Nothing is said of what the port speaks.
    let ports = json!([
        { "name": "http", "port": 80, "targetPort": "http" },
        { "name": "other", "port": PORT, "targetPort": 2525 },
    ]);
    world
        .edit_service(ns, name, json!({ "spec": { "ports": ports } }))
        .await?;
    let address = format!("{}:{PORT}", world.cluster_ip(ns, name).await?);
    world
        .until("the port to lead to the pod", async || {
            // A connection to a port that kube-proxy does not know yet may never get anywhere; the next one does.
            let greeting = tokio::time::timeout(Duration::from_secs(5), greeted(&address)).await;
            Ok(greeting.ok().and_then(Result::ok))
        })
        .await?;
    // From the node: the connection alone wakes it.
    world.put_to_sleep(ns, name).await?;
    greeted(&address).await.context("asleep")?;
    world.until_phase(ns, name, Phase::Awake).await?;
    greeted(&address).await.context("awake again")?;
    // From a pod, over and over.
    let control = client_pod(&world, ns, &format!("lines://{address}")).await?;
    for cycle in 0..CYCLES {
        world.until_phase(ns, name, Phase::Awake).await?;
        let epoch = world.state(ns, name).await?.epoch;
        world.fall_asleep(ns, name).await?;
        tokio::time::sleep(Duration::from_millis(cycle as u64 * 200)).await;
        requests::fetch(&format!("{control}/resume")).await?;
        world
            .until("a wake", async || {
                let state = world.state(ns, name).await?;
                Ok((state.epoch > epoch && state.phase == Phase::Awake).then_some(()))
            })
            .await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        requests::fetch(&format!("{control}/pause")).await?;
    }
    let summary = requests::fetch(&format!("{control}/end")).await?;
    let summary: Value = serde_json::from_str(&summary).context("the client pod's summary")?;
    println!("          {summary}");
    ensure!(summary["failed"] == 0, "lost: {summary}");
    ensure!(
        summary["sent"].as_u64() >= Some(CYCLES as u64),
        "hardly any load: {summary}"
    );
    world.assert_undiverted(ns, name).await
}
