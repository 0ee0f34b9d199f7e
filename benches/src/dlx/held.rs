//! Requests that are held: what one costs in memory, and how fast all of them are answered once a pod is ready.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::process::Part;
use super::report::Row;
use super::{Args, Role};

const MINIMAL: &str = "bare hyper, notify";
/// As small clients send it.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench.example\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";
/// How long the answers may take.
const LIMIT: Duration = Duration::from_secs(60);
/// The aim for one held request, in kilobytes of 1024 bytes.
const AIM: f64 = 16.0;

/// One pass.
#[derive(Clone, Copy, Debug)]
struct Pass {
    kilobytes: f64,
    first: f64,
    middle: f64,
    last: f64,
}

/// Memory, and the times from the word to the first, the middle and the last answer.
pub fn measure(args: &Args) -> anyhow::Result<[Row; 4]> {
    println!("held: {} requests at once, then a ready pod", args.held);
    let backend = Part::start(Role::Backend, args, None)?;
    let row = |what: &str, unit| Row::new(format!("{} held requests: {what}", args.held), unit, MINIMAL);
    let mut rows = [
        row("memory of one", "KB").aim(AIM),
        row("first answer", "ms"),
        row("middle answer", "ms"),
        row("last answer", "ms"),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Processes are new in each pass, so that memory begins anew.
    for pass in 0..args.passes {
        let one = |role| runtime.block_on(hold(Part::start(role, args, Some(backend.address))?, args.held));
        let (ours, theirs) = if pass % 2 == 0 {
            let first = one(Role::DlxHolding)?;
            (first, one(Role::MinimalHolding)?)
        } else {
            let first = one(Role::MinimalHolding)?;
            (one(Role::DlxHolding)?, first)
        };
        for (name, pass) in [("DLX", ours), (MINIMAL, theirs)] {
            println!(
                "  {name:<18} {:.1} KB each; answers from {:.0} over {:.0} to {:.0} ms",
                pass.kilobytes, pass.first, pass.middle, pass.last
            );
        }
        let values = |pass: Pass| [pass.kilobytes, pass.first, pass.middle, pass.last];
        for ((row, ours), theirs) in rows.iter_mut().zip(values(ours)).zip(values(theirs)) {
            row.pass(ours, theirs);
        }
    }
    Ok(rows)
}

async fn hold(mut proxy: Part, count: usize) -> anyhow::Result<Pass> {
    let before = proxy.resident()?;
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = TcpStream::connect(proxy.address).await?;
        client.write_all(REQUEST).await?;
        clients.push(client);
    }
    // The proxy has to have read them all; its size settles when it has.
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = proxy.resident()?;
        if now == last {
            break;
        }
        last = now;
    }
    let held = last.saturating_sub(before);

    let mut answers = JoinSet::new();
    let began = Instant::now();
    for mut client in clients {
        answers.spawn(async move {
            let mut head = [0; 1024];
            let count = client.read(&mut head).await?;
            ensure!(
                head[..count].starts_with(b"HTTP/1.1 200"),
                "{}",
                head[..count].escape_ascii()
            );
            Ok(began.elapsed().as_secs_f64() * 1e3)
        });
    }
    // All of them wait before the word is given.
    tokio::task::yield_now().await;
    let word = began.elapsed().as_secs_f64() * 1e3;
    proxy.go()?;
    let all = async {
        let mut times = Vec::with_capacity(count);
        while let Some(answer) = answers.join_next().await {
            times.push(answer?? - word);
        }
        anyhow::Ok(times)
    };
    let mut times = tokio::time::timeout(LIMIT, all).await??;
    times.sort_by(f64::total_cmp);
    ensure!(times.len() == count, "{} of {count} were answered", times.len());
    Ok(Pass {
        kilobytes: held as f64 / count as f64 / 1024.0,
        first: times[0],
        middle: times[count / 2],
        last: times[count - 1],
    })
}
