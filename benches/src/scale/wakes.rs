//! Requests to targets that sleep, each through a DLX, as nodes lead them there.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Sends one request to each of these, spread over a span of time. The answer is how long each took, and why others failed.
pub async fn request(to: Vec<SocketAddr>, over: Duration, limit: Duration) -> (Vec<f64>, Vec<String>) {
    let mut asking = JoinSet::new();
    let count = u32::try_from(to.len()).unwrap_or(u32::MAX).max(1);
    for (number, address) in (0..).zip(to) {
        let after = over * number / count;
        asking.spawn(async move {
            sleep(after).await;
            let begun = Instant::now();
            timeout(limit, one(address)).await.context("no answer")??;
            anyhow::Ok(begun.elapsed().as_secs_f64())
        });
    }
    let (mut took, mut failed) = (Vec::new(), Vec::new());
    while let Some(answered) = asking.join_next().await {
        match answered {
            Ok(Ok(seconds)) => took.push(seconds),
            Ok(Err(error)) => failed.push(format!("{error:#}")),
            Err(error) => failed.push(error.to_string()),
        }
    }
    (took, failed)
}

async fn one(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: bench.example\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "{}",
        answer.lines().next().unwrap_or("nothing")
    );
    Ok(())
}

/// The port of a target at one of the DLX replicas, which take turns.
pub fn door(dlx: &[Ipv4Addr], turn: usize, port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::new((*dlx.get(turn % dlx.len().max(1))?).into(), port))
}
