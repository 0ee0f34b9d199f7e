//! A connection that is copied byte for byte: connect, bytes there and back, close.

use super::process::{Haproxy, Part};
use super::report::Row;
use super::{Args, Role};

const HAPROXY: &str = "haproxy, TCP mode";
const DIRECT: &str = "no proxy";

/// Bytes there and back, and connections of one pass.
const SIZES: [(&str, usize, usize); 2] = [("64 bytes", 64, 4000), ("4 MB", 4 << 20, 40)];

/// One pass.
#[derive(Clone, Copy, Debug)]
struct Pass {
    /// From before the connect to the end, of one connection.
    micros: f64,
    /// What the proxy used for one connection.
    cpu: f64,
}

/// Time and CPU of one connection, small and large.
pub fn measure(args: &Args, skipped: &mut Vec<String>) -> anyhow::Result<Vec<Row>> {
    println!("tcp: one connection after the other");
    let echo = Part::start(Role::Echo, args, None)?;
    let dlx = Part::start(Role::DlxTcp, args, Some(echo.address))?;
    let haproxy = Haproxy::start(echo.address, args.threads)?;
    if haproxy.is_none() {
        skipped.push(format!(
            "{HAPROXY}: haproxy is not installed (apt-get install haproxy)"
        ));
    }
    let mut rows = Vec::new();
    for (name, bytes, rounds) in SIZES {
        let row =
            |what: &str, baseline| Row::new(format!("TCP, {name} there and back: {what}"), "us", baseline);
        let mut direct = row("time", DIRECT);
        let mut time = row("time", HAPROXY);
        let mut cpu = row("CPU of the proxy", HAPROXY);
        let load = |to| -> anyhow::Result<f64> {
            let more = ["--bytes", &bytes.to_string(), "--rounds", &rounds.to_string()].map(str::to_owned);
            let mut load = Part::start_with(Role::TcpLoad, args, Some(to), &more)?;
            let said = load.ask()?;
            let [micros] = said[..] else {
                anyhow::bail!("the load said {said:?}");
            };
            Ok(micros)
        };
        // The first pass warms up.
        for pass in 0..=args.passes {
            let bare = load(echo.address)?;
            let before = dlx.cpu()?;
            let micros = load(dlx.address)?;
            let ours = Pass {
                micros,
                cpu: (dlx.cpu()? - before) * 1e6 / rounds as f64,
            };
            let theirs = match &haproxy {
                None => None,
                Some(haproxy) => {
                    let before = haproxy.cpu()?;
                    let micros = load(haproxy.address)?;
                    Some(Pass {
                        micros,
                        cpu: (haproxy.cpu()? - before) * 1e6 / rounds as f64,
                    })
                }
            };
            if pass == 0 {
                continue;
            }
            direct.pass(ours.micros, bare);
            if let Some(theirs) = theirs {
                time.pass(ours.micros, theirs.micros);
                cpu.pass(ours.cpu, theirs.cpu);
            }
        }
        rows.push(direct);
        if haproxy.is_some() {
            rows.extend([time, cpu]);
        }
    }
    Ok(rows)
}
