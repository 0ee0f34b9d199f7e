//! The first request of a sleeping workload, without the time that the workload itself takes.
//!
//! Each moment is stamped where it happens, with the clock of the machine: the client sends, the proxy asks for the workload,
//! the workload is ready, the workload gets the request, the client gets the answer.

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::process::Part;
use super::report::{Row, median};
use super::roles::now;
use super::{Args, Role};

const MINIMAL: &str = "bare hyper, notify";

/// Microseconds of our own, by stage.
#[derive(Clone, Copy, Debug)]
struct Stages {
    /// Until the workload is asked for: connect, accept, read, route, hold.
    ask: f64,
    /// From the ready workload until it gets the request: see it, connect, forward.
    forward: f64,
    /// From there until the client has the answer.
    answer: f64,
}

/// Our share, and its stages.
pub fn measure(args: &Args) -> anyhow::Result<[Row; 4]> {
    println!(
        "cold: {} first requests each, of a workload that takes {} ms",
        args.cold, args.startup_millis
    );
    let workload = Part::start(Role::Stamped, args, None)?;
    let mut dlx = Part::start(Role::DlxSleeping, args, Some(workload.address))?;
    let mut minimal = Part::start(Role::MinimalSleeping, args, Some(workload.address))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let row = |what: &str| Row::new(format!("cold start, {what}"), "us", MINIMAL);
    let mut rows = [
        row("without the workload"),
        row("until it is asked for"),
        row("ready until it has the request"),
        row("from there to the answer"),
    ];
    // A pass is the median of its share of the cold starts; the first one warms up.
    let each = (args.cold / args.passes.max(1)).max(1);
    for pass in 0..=args.passes {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..each {
            ours.push(runtime.block_on(start(&mut dlx))?);
            theirs.push(runtime.block_on(start(&mut minimal))?);
        }
        if pass > 0 {
            let values = |stages: &Stages| {
                let Stages { ask, forward, answer } = *stages;
                [ask + forward + answer, ask, forward, answer]
            };
            for (index, row) in rows.iter_mut().enumerate() {
                let middle = |of: &[Stages]| median(of.iter().map(|stages| values(stages)[index]).collect());
                row.pass(middle(&ours), middle(&theirs));
            }
        }
    }
    Ok(rows)
}

async fn start(proxy: &mut Part) -> anyhow::Result<Stages> {
    let sent = now();
    let stream = TcpStream::connect(proxy.address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/").header("host", "bench.example");
    let response = sender.send_request(request.body(Empty::new())?).await?;
    ensure!(response.status() == 200, "{}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    let answered = now();
    let got: f64 = std::str::from_utf8(&body)?
        .parse()
        .with_context(|| format!("the workload said {}", body.escape_ascii()))?;
    drop(sender);
    connection.await??;
    // It falls asleep again.
    let said = proxy.ask()?;
    let [asked, ready] = said[..] else {
        anyhow::bail!("the proxy said {said:?}");
    };
    ensure!(
        sent <= asked && asked <= ready && ready <= got && got <= answered,
        "the clock was set"
    );
    Ok(Stages {
        ask: asked - sent,
        forward: got - ready,
        answer: answered - got,
    })
}
