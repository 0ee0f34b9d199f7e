//! The real Prometheus: started on loopback with TLS and basic authentication, asked, given new certificates, stopped.
//!
//! It needs the program `prometheus` (`apt-get install prometheus`). Where that is missing, every case is named as ignored.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise, its helpers too"
)]

#[path = "../readings/authority.rs"]
mod authority;
mod cases;
mod process;

use std::process::ExitCode;
use std::time::Duration;

/// No case takes longer, or it hangs.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let filter: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let wanted = |name: &str| filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()));
    let cases: Vec<_> = cases::all()
        .into_iter()
        .filter(|case| wanted(case.name))
        .collect();
    println!("\nrunning {} tests", cases.len());
    if std::env::args().any(|arg| arg == "--list") {
        cases.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let Some(program) = process::find() else {
        for case in &cases {
            println!(
                "test {} ... ignored, prometheus is not installed (apt-get install prometheus)",
                case.name
            );
        }
        println!("\ntest result: ok. 0 passed; 0 failed; {} ignored", cases.len());
        return ExitCode::SUCCESS;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (mut passed, mut failed) = (0, 0);
    for case in cases {
        let task = (case.run)(program.clone());
        // A task of its own, so that a panic in one case is that case's failure.
        let outcome = runtime.block_on(async { tokio::time::timeout(LIMIT, tokio::spawn(task)).await });
        let good = matches!(outcome, Ok(Ok(())));
        println!("test {} ... {}", case.name, if good { "ok" } else { "FAILED" });
        if outcome.is_err() {
            println!("it was still running after {} s", LIMIT.as_secs());
        }
        if good {
            passed += 1;
        } else {
            failed += 1;
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
