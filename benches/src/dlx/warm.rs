//! A request of an awake workload.

use anyhow::{Context, ensure};

use super::process::Part;
use super::report::Row;
use super::{Args, Role};

const MINIMAL: &str = "minimal hyper";

/// One pass over one proxy.
#[derive(Clone, Copy, Debug)]
struct Pass {
    micros: f64,
    rate: f64,
}

/// CPU per request, and throughput.
pub fn measure(args: &Args) -> anyhow::Result<[Row; 2]> {
    println!(
        "warm: {} keep-alive connections, GET, 64 bytes back, {} s each",
        args.connections, args.seconds
    );
    let backend = Part::start(Role::Backend, args, None)?;
    let minimal = Part::start(Role::Minimal, args, Some(backend.address))?;
    let dlx = Part::start(Role::Dlx, args, Some(backend.address))?;
    let mut cpu = Row::new("warm request: CPU of the proxy", "us", MINIMAL);
    let mut rate = Row::new("warm requests: throughput", "req/s", MINIMAL);
    // One pass to warm up, which does not count.
    for pass in 0..=args.passes {
        let (theirs, ours) = if pass % 2 == 0 {
            let first = load(&minimal, args)?;
            (first, load(&dlx, args)?)
        } else {
            let first = load(&dlx, args)?;
            (load(&minimal, args)?, first)
        };
        println!(
            "{pass:>4}  {MINIMAL} {:.1} us {:.0} req/s   DLX {:.1} us {:.0} req/s",
            theirs.micros, theirs.rate, ours.micros, ours.rate
        );
        if pass > 0 {
            cpu.pass(ours.micros, theirs.micros);
            rate.pass(ours.rate, theirs.rate);
        }
    }
    Ok([cpu, rate])
}

fn load(proxy: &Part, args: &Args) -> anyhow::Result<Pass> {
    let mut load = Part::start(Role::Load, args, Some(proxy.address))?;
    let before = proxy.cpu()?;
    let said = load.ask()?;
    let after = proxy.cpu()?;
    let [count, seconds] = said[..] else {
        return Err(anyhow::anyhow!("the load said {said:?}")).context("two numbers are expected");
    };
    ensure!(count > 0.0, "no request was answered");
    Ok(Pass {
        micros: (after - before) * 1e6 / count,
        rate: count / seconds,
    })
}
