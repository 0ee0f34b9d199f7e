//! A call of a plugin through the whole path of the host, beside the same call on bare wasmtime.
//!
//! Both use one engine and one component, and both make a fresh store, instantiate, call and drop. Bare wasmtime has no
//! limits, no admission, no breaker, no span, no metrics, and does not check what comes back. The contestants take turns
//! in short batches, because a machine is never equally quiet for long.

mod bare;
mod stub;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dormouse_plugin::types::ResourceId;
use dormouse_plugin::{EngineConfig, Grants, HostEngine, Metrics, Plugin, PluginConfig, PluginSet};
use tokio::runtime::Runtime;

use bare::Bare;
use stub::Stub;

/// Options of `bench plugin-call`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The component to call. Default: the guest that comes with the tests.
    #[arg(long)]
    plugin: Option<PathBuf>,
    /// Batches of each contestant.
    #[arg(long, default_value_t = 60)]
    batches: usize,
    /// Calls of one batch.
    #[arg(long, default_value_t = 200)]
    calls: usize,
    /// What the guest reads as the configuration `count`: resources that it answers.
    #[arg(long, default_value_t = 10)]
    resources: usize,
}

/// What is measured of one contestant: the time of each call, and the median of each batch.
#[derive(Default)]
struct Times {
    calls: Vec<Duration>,
    batches: Vec<Duration>,
}

impl Times {
    fn batch(&mut self, mut times: Vec<Duration>) {
        times.sort_unstable();
        self.batches.push(times[times.len() / 2]);
        self.calls.append(&mut times);
    }

    fn percentile(&mut self, percent: usize) -> Duration {
        self.calls.sort_unstable();
        self.calls[(self.calls.len() - 1) * percent / 100]
    }
}

#[derive(Clone, Copy)]
enum Contestant {
    Bare,
    Ours,
    Logged,
}

impl Contestant {
    const ALL: [Contestant; 3] = [Contestant::Bare, Contestant::Ours, Contestant::Logged];
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Contestant::Bare => "bare wasmtime",
            Contestant::Ours => "plugin path",
            Contestant::Logged => "plugin path, logging",
        })
    }
}

/// Runs the bench.
///
/// # Errors
///
/// A component that does not load, or a call that fails.
pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.batches > 0 && args.calls > 0, "nothing to measure");
    let path = match &args.plugin {
        Some(path) => path.clone(),
        None => build_guest()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let engine = HostEngine::new(EngineConfig::default(), Metrics::default())?;
    let values = BTreeMap::from([("count".to_owned(), args.resources.to_string())]);
    let plugin = load(&runtime, &engine, &path, &values)?;
    let bare = Bare::new(engine.engine(), &std::fs::read(&path)?, values)?;

    println!(
        "{} ({}), instances {:?}",
        path.display(),
        plugin.short_digest(),
        engine.allocation()
    );
    if cfg!(debug_assertions) {
        println!("a debug build: the host's own code is slower than in a release");
    }
    println!(
        "fresh store, instantiate, call, drop; {} batches of {} calls each, taking turns",
        args.batches, args.calls
    );

    let resources = [ResourceId::new("shop", "workload-0").into()];
    contest(
        args,
        "resources",
        |count| bare.resources(&runtime, count),
        |count| {
            timed(count, || {
                runtime.block_on(plugin.resources()).map(drop).map_err(Into::into)
            })
        },
    )?;
    contest(
        args,
        "set-scale of one resource, with one call of lifecycle.sleep",
        |count| bare.set_scale(&runtime, count),
        |count| {
            timed(count, || {
                runtime
                    .block_on(plugin.set_scale(&resources, 0, "idle"))
                    .map(drop)
                    .map_err(Into::into)
            })
        },
    )
}

fn timed(count: usize, mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<Duration>> {
    (0..count)
        .map(|_| {
            let began = Instant::now();
            call()?;
            Ok(began.elapsed())
        })
        .collect()
}

fn contest(
    args: &Args,
    what: &str,
    mut bare: impl FnMut(usize) -> anyhow::Result<Vec<Duration>>,
    mut ours: impl FnMut(usize) -> anyhow::Result<Vec<Duration>>,
) -> anyhow::Result<()> {
    let mut times: [Times; 3] = Default::default();
    // One round to warm up, which does not count.
    for round in 0..=args.batches {
        for turn in 0..Contestant::ALL.len() {
            let index = (round + turn) % Contestant::ALL.len();
            let batch = match Contestant::ALL[index] {
                Contestant::Bare => bare(args.calls)?,
                Contestant::Ours => ours(args.calls)?,
                Contestant::Logged => {
                    // As in production: spans exist, and lines at `info` would be written.
                    let log = tracing_subscriber::fmt()
                        .json()
                        .with_max_level(tracing::Level::INFO)
                        .with_writer(std::io::sink)
                        .finish();
                    let _logging = tracing::subscriber::set_default(log);
                    ours(args.calls)?
                }
            };
            if round > 0 {
                times[index].batch(batch);
            }
        }
    }

    println!("\n{what}");
    println!(
        "  {:<22} {:>10} {:>10} {:>16} {:>16}",
        "", "p50", "p99", "ratio of p50", "ratio of p99"
    );
    let mut reference = None;
    for contestant in Contestant::ALL {
        let times = &mut times[contestant as usize];
        let (p50, p99) = (times.percentile(50), times.percentile(99));
        let (p50_bare, p99_bare) = *reference.get_or_insert((p50, p99));
        println!(
            "  {contestant:<22} {:>7.1} us {:>7.1} us {:>16.2} {:>16.2}",
            micros(p50),
            micros(p99),
            micros(p50) / micros(p50_bare),
            micros(p99) / micros(p99_bare),
        );
    }
    let [bare, ours, _] = &times;
    let mut ratios: Vec<f64> = ours
        .batches
        .iter()
        .zip(&bare.batches)
        .map(|(ours, bare)| micros(*ours) / micros(*bare))
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    println!(
        "  median of the batches' ratios {:.2}   (aim: at most 1.30)",
        ratios[ratios.len() / 2]
    );
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn load(
    runtime: &Runtime,
    engine: &HostEngine,
    path: &Path,
    values: &BTreeMap<String, String>,
) -> anyhow::Result<Arc<Plugin>> {
    let directory = tempfile::tempdir()?;
    std::fs::copy(path, directory.path().join("bench.wasm")).with_context(|| path.display().to_string())?;
    let config = PluginConfig {
        grants: Grants {
            lifecycle: dormouse_plugin::LifecycleGrant::All(true),
            events: true,
            ..Grants::default()
        },
        config: values.clone(),
        ..PluginConfig::default()
    };
    let configs = BTreeMap::from([("bench".to_owned(), config)]);
    let set = runtime.block_on(PluginSet::load(
        engine,
        directory.path(),
        &configs,
        Arc::new(Stub),
    ));
    set.get("bench")
        .with_context(|| format!("the plugin does not load: {:?}", set.statuses()))
}

/// The guest of the tests, built beside this program.
fn build_guest() -> anyhow::Result<PathBuf> {
    let manifest = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../host/plugin/tests/guests/bench/Cargo.toml"
    );
    let program = std::env::current_exe()?;
    let target = program
        .ancestors()
        .nth(2)
        .context("this program is in no target directory")?
        .join("guests");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--target",
            "wasm32-wasip2",
            "--manifest-path",
            manifest,
            "--target-dir",
        ])
        .arg(&target)
        .env_remove("RUSTFLAGS")
        .status()?;
    ensure!(
        built.success(),
        "the guest does not build; is the target wasm32-wasip2 installed?"
    );
    Ok(target.join("wasm32-wasip2/release/bench.wasm"))
}
