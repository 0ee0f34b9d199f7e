//! The data plane of the DLX, beside the least that could do the same job: a warm request, held requests and their release, a
//! cold start, and a TCP connection.
//!
//! Every part is a process of its own (this binary again, with a role), so that the CPU time of a proxy can be read from
//! `/proc/<pid>/stat` and nothing else is in it. The proxies take turns in short passes, because a machine is never equally
//! quiet for long; the medians and the ratios are what counts.

mod cold;
mod held;
mod process;
mod report;
mod roles;
mod tcp;
mod warm;

use std::net::SocketAddr;
use std::path::PathBuf;

use report::Row;

/// Options of `bench dlx`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What is measured; everything, if nothing is named.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Measure>,
    /// Keep-alive connections of the load generator.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds of one pass over a warm path.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Passes for each contestant.
    #[arg(long, default_value_t = 5)]
    passes: usize,
    /// Requests that are held at once, to see what one costs and how fast all are let go.
    #[arg(long, default_value_t = 2000)]
    held: usize,
    /// Cold starts for each contestant.
    #[arg(long, default_value_t = 100)]
    cold: usize,
    /// Milliseconds that the workload of a cold start takes until it is ready.
    #[arg(long, default_value_t = 20)]
    startup_millis: u64,
    /// Threads of each proxy.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Where the table is written as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What this process is; set by the bench itself.
    #[arg(long, hide = true)]
    role: Option<Role>,
    /// Address of the backend or proxy, for a role that needs one.
    #[arg(long, hide = true)]
    to: Option<SocketAddr>,
    /// Bytes there and back, for a role that sends them.
    #[arg(long, hide = true, default_value_t = 0)]
    bytes: usize,
    /// Connections in a row, for a role that makes them.
    #[arg(long, hide = true, default_value_t = 0)]
    rounds: usize,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Measure {
    /// A request of an awake workload.
    Warm,
    /// Requests that are held and let go.
    Held,
    /// The first request of a sleeping workload.
    Cold,
    /// A connection that is copied byte for byte.
    Tcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Backend,
    Stamped,
    Echo,
    Minimal,
    MinimalHolding,
    MinimalSleeping,
    Dlx,
    DlxHolding,
    DlxSleeping,
    DlxTcp,
    Load,
    TcpLoad,
}

/// Runs the bench, or one of its parts.
///
/// # Errors
/// A part that cannot be started, or a request that was not answered.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match args.role {
        None => bench(args),
        Some(role) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(args.threads.max(1))
                .enable_all()
                .build()?;
            runtime.block_on(roles::part(role, args))
        }
    }
}

fn bench(args: &Args) -> anyhow::Result<()> {
    println!(
        "workload, load and proxies in processes of their own; {} thread(s) each; {} passes",
        args.threads, args.passes
    );
    let (mut rows, mut skipped): (Vec<Row>, Vec<String>) = (Vec::new(), Vec::new());
    let wanted = |measure| args.only.is_empty() || args.only.contains(&measure);
    if wanted(Measure::Warm) {
        rows.extend(warm::measure(args)?);
    }
    if wanted(Measure::Held) {
        rows.extend(held::measure(args)?);
    }
    if wanted(Measure::Cold) {
        rows.extend(cold::measure(args)?);
    }
    if wanted(Measure::Tcp) {
        rows.extend(tcp::measure(args, &mut skipped)?);
    }
    report::report(&rows, &skipped, args.json.as_deref())
}
