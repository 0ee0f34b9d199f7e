//! What of a cluster runs and works.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;

use super::Cluster;
use super::cleanup::leftovers;
use super::components::{NAMES, component};
use super::layout::{KEEPER, Layout};
use super::process::Process;
use super::sandbox;
use super::up::{alive, node_ready};

/// Whether every process of the cluster runs.
pub fn complete(layout: &Layout) -> bool {
    sandbox::keeper(layout).is_some() && NAMES.iter().all(|name| alive(layout, name))
}

/// Prints a table. Says whether everything works.
pub fn print(cluster: &Cluster) -> Result<bool> {
    let layout = &cluster.layout;
    let kubectl = cluster.components.path("kubectl")?;
    // Asked all at once: one that does not answer takes seconds.
    let answers = std::thread::scope(|scope| {
        let asked = NAMES
            .iter()
            .filter_map(|name| component(name))
            .map(|component| {
                let kubectl = &kubectl;
                scope.spawn(move || {
                    let process =
                        Process::read(&layout.pid_file(component.name)).filter(|process| process.alive());
                    let answer = match process {
                        None => Err("it has ended; see its log".to_owned()),
                        Some(_) => {
                            sandbox::probe(layout, kubectl, &component).map_err(|error| format!("{error:#}"))
                        }
                    };
                    (component.name, process, answer)
                })
            })
            .collect::<Vec<_>>();
        asked
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect::<Vec<_>>()
    });
    let mut text = String::new();
    let mut fine = answers.len() == NAMES.len();
    writeln!(text, "{:24}  {:>8}  {:>8}  state", "component", "pid", "uptime")?;
    let keeper = sandbox::keeper(layout);
    writeln!(text, "{:24}  {}  ok", KEEPER, columns(keeper))?;
    for (name, process, answer) in answers {
        let state = match answer {
            Ok(()) => "ok".to_owned(),
            Err(why) => {
                fine = false;
                why
            }
        };
        writeln!(text, "{name:24}  {}  {state}", columns(process))?;
    }
    let node = match node_ready(layout, &kubectl) {
        Ok(()) => "Ready".to_owned(),
        Err(error) => {
            fine = false;
            format!(
                "not Ready: {}",
                error.to_string().lines().next().unwrap_or_default()
            )
        }
    };
    writeln!(
        text,
        "\nnode        {node}\nKubernetes  {}\nnamespace   {}\nkubeconfig  {}\nlogs        {}",
        cluster.components.kubernetes_version(),
        layout.namespace(),
        layout.kubeconfig().display(),
        layout.logs().display()
    )?;
    // One write, and nobody may be left to read it: `status | head`.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(fine)
}

/// For a cluster that does not run.
pub fn print_absent(layout: &Layout) {
    let left = leftovers(layout);
    if left.is_empty() {
        println!(
            "cluster {} does not run, and nothing of it is on this machine",
            layout.name()
        );
    } else {
        println!(
            "cluster {} does not run, but this is left of it; `cargo xtask cluster down --name {}` removes it:\n    {}",
            layout.name(),
            layout.name(),
            left.join("\n    ")
        );
    }
}

fn columns(process: Option<Process>) -> String {
    let pid = process.map_or_else(|| "-".to_owned(), |process| process.pid().to_string());
    let age = process
        .and_then(Process::age)
        .map_or_else(|| "-".to_owned(), span);
    format!("{pid:>8}  {age:>8}")
}

fn span(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h {:02}", seconds / 3600, seconds / 60 % 60),
    }
}
