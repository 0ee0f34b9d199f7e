//! The lifecycle suite: the whole system, real processes, real component, live traffic.
//!
//! It is written once against the Kubernetes API and plain HTTP, so that it runs on the embedded cluster and unchanged
//! on a real one: a difference is a bug in the embedded cluster.
//!
//! `cargo test -p dormouse --test lifecycle -- <part of a name>` runs some of it.

#![expect(clippy::expect_used, reason = "a test may stop at the first surprise")]

mod crashes;
mod defects;
mod installation;
mod memhpa;
mod metrics;
mod phases;
mod plain;
mod real;
mod rollback;
mod scaling;
mod sharing;
mod status_driven;
mod traffic;
mod trouble;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures::future::LocalBoxFuture;
use installation::Installation;
use world::World;

/// One sentence about the system, and what shows that it is true.
pub struct Case {
    name: &'static str,
    /// Whether it stops or starts processes that other cases need.
    exclusive: bool,
    /// Whether it needs a real cluster.
    real: bool,
    /// Whether it measures, and so comes before others have left workloads that Dormouse looks at.
    measures: bool,
    /// It takes no longer, or it hangs.
    limit: Duration,
    run: fn(Arc<World>) -> LocalBoxFuture<'static, Result<()>>,
}

impl Case {
    /// With another limit.
    fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// On a cluster with nothing else on it.
    fn measuring(self) -> Self {
        Self {
            measures: true,
            ..self
        }
    }
}

/// Declares a case from an async function.
macro_rules! case {
    ($function:path) => {
        $crate::Case {
            name: stringify!($function),
            exclusive: false,
            real: false,
            measures: false,
            limit: $crate::LIMIT,
            run: |world| Box::pin($function(world)),
        }
    };
    (exclusive $function:path) => {
        $crate::Case {
            name: stringify!($function),
            exclusive: true,
            real: false,
            measures: false,
            limit: $crate::LIMIT,
            run: |world| Box::pin($function(world)),
        }
    };
}
pub(crate) use case;

/// What cases may take that do not say otherwise.
const LIMIT: Duration = Duration::from_secs(180);
/// Cases at once, where they do not disturb each other.
const AT_ONCE: usize = 4;

fn main() -> ExitCode {
    let filter: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let cases: Vec<Case> = [
        plain::cases(),
        phases::cases(),
        rollback::cases(),
        trouble::cases(),
        defects::cases(),
        sharing::cases(),
        status_driven::cases(),
        metrics::cases(),
        scaling::cases(),
        memhpa::cases(),
        traffic::cases(),
        crashes::cases(),
        real::cases(),
    ]
    .into_iter()
    .flatten()
    .filter(|case| !skipped(case.name))
    .filter(|case| filter.is_empty() || filter.iter().any(|part| case.name.contains(part.as_str())))
    .collect();
    if std::env::args().any(|arg| arg == "--list") {
        for case in &cases {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    // Cases take turns on one thread; the cluster and the clients run on the others.
    if tokio::task::LocalSet::new().block_on(&runtime, run(cases)) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether the environment leaves a case out, and says so.
fn skipped(name: &str) -> bool {
    let skip = std::env::var("DORMOUSE_E2E_SKIP").unwrap_or_default();
    let skipped = skip
        .split(',')
        .any(|part| !part.is_empty() && name.contains(part));
    if skipped {
        println!("left out: {name}");
    }
    skipped
}

async fn run(mut cases: Vec<Case>) -> bool {
    let all = cases.len();
    if !Installation::is_real_wanted() {
        cases.retain(|case| !case.real);
    }
    println!(
        "\nlifecycle: {} cases{}",
        cases.len(),
        match all - cases.len() {
            0 => String::new(),
            left => format!("; {left} need a real cluster and are left out"),
        }
    );
    let world = match World::start().await {
        Ok(world) => Arc::new(world),
        Err(error) => {
            println!("lifecycle: the cluster did not start: {error:#}");
            return false;
        }
    };
    let (measuring, cases): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.measures);
    let (alone, together): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.exclusive);
    let mut failed = Vec::new();
    for case in measuring {
        failed.extend(one(Arc::clone(&world), case).await);
    }
    {
        use futures::StreamExt;
        let mut running =
            futures::stream::iter(together.into_iter().map(|case| one(Arc::clone(&world), case)))
                .buffer_unordered(AT_ONCE);
        while let Some(outcome) = running.next().await {
            failed.extend(outcome);
        }
    }
    for case in alone {
        failed.extend(one(Arc::clone(&world), case).await);
    }
    let good = failed.is_empty();
    if !good {
        println!("\nlifecycle: failed:");
        for (name, error) in &failed {
            println!("  {name}: {error:#}");
        }
        world.keep_logs();
    }
    if let Ok(world) = Arc::try_unwrap(world) {
        world.stop().await;
    }
    println!("lifecycle: {}", if good { "ok" } else { "FAILED" });
    good
}

async fn one(world: Arc<World>, case: Case) -> Option<(&'static str, anyhow::Error)> {
    let start = Instant::now();
    // A task of its own, so that a panic in one case is that case's failure.
    let task = tokio::task::spawn_local((case.run)(world));
    let outcome = match tokio::time::timeout(case.limit, task).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => Err(anyhow!("panicked: {panic}")),
        Err(_) => Err(anyhow!("still running after {} s", case.limit.as_secs())),
    };
    let took = start.elapsed().as_secs_f64();
    match outcome {
        Ok(()) => {
            println!("  ok      {took:6.1} s  {}", case.name);
            None
        }
        Err(error) => {
            println!("  FAILED  {took:6.1} s  {}: {error:#}", case.name);
            Some((case.name, error))
        }
    }
}
