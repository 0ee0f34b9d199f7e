//! The Helm chart: whether it says what it should, before any cluster sees it.
//!
//! `helm lint`, files of values that must be accepted or refused, and invariants of everything that is rendered.

mod cases;
mod invariants;
pub mod rbac;
pub mod values;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::outcome::Outcome;
use crate::workspace::Workspace;
use xtask_command::Cmd;

/// The chart.
pub const CHART: &str = "chart";
/// Where the cluster harness keeps what it built, below the cache folder.
const BUILT: &str = "cluster/bin";

/// What `cargo xtask chart` takes.
#[derive(clap::Args)]
pub struct Args {
    /// The `helm` to use. Default: that of PATH, else the one that the cluster harness built
    #[arg(long, value_name = "FILE")]
    helm: Option<PathBuf>,
    /// Compares the roles of the chart with this audit log of an API server instead, in both directions
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
    /// Values of the release that the audit log saw
    #[arg(long, value_name = "FILE", requires = "audit_log")]
    values: Vec<PathBuf>,
    /// Name of that release
    #[arg(long, default_value = "dormouse", requires = "audit_log")]
    release: String,
    /// Its namespace
    #[arg(long, default_value = "dormouse", requires = "audit_log")]
    namespace: String,
    /// Known differences, beside those that the chart lists itself
    #[arg(long, value_name = "FILE", requires = "audit_log")]
    exceptions: Vec<PathBuf>,
}

/// `cargo xtask chart`.
pub fn command(workspace: &Workspace, args: &Args) -> Result<()> {
    if let Some(log) = &args.audit_log {
        let found = args.helm.clone().or_else(helm);
        let found = found.context("there is no helm; name one with --helm")?;
        let release = Release {
            name: &args.release,
            namespace: &args.namespace,
            values: &args.values,
            exceptions: &args.exceptions,
        };
        let comparison = permissions(workspace, &found, &release, log)?;
        let wrong = comparison.wrong();
        if !wrong.is_empty() {
            bail!(
                "{} permissions are not as used\n    {}",
                wrong.len(),
                wrong.join("\n    ")
            );
        }
        println!(
            "{} permissions are granted, and used in {} requests",
            comparison.granted, comparison.requests
        );
        return Ok(());
    }
    let outcome = match &args.helm {
        Some(helm) => check(workspace, helm)?,
        None => suite(workspace)?,
    };
    match outcome {
        Outcome::Passed(note) | Outcome::Partly { note, .. } => {
            println!("{note}");
            Ok(())
        }
        Outcome::Skipped(why) | Outcome::Failed(why) => bail!(why),
    }
}

/// The suite: skipped by name where there is no Helm.
pub fn suite(workspace: &Workspace) -> Result<Outcome> {
    match helm() {
        Some(helm) => check(workspace, &helm),
        None => Ok(Outcome::Skipped(
            "there is no helm: neither in PATH nor built by `cargo xtask cluster build`".to_owned(),
        )),
    }
}

/// Helm from the PATH, else what the cluster harness built last.
pub fn helm() -> Option<PathBuf> {
    let in_path = env::var_os("PATH").and_then(|path| {
        env::split_paths(&path)
            .map(|folder| folder.join("helm"))
            .find(|file| file.is_file())
    });
    in_path.or_else(|| {
        let built = Workspace::cache().ok()?.join(BUILT);
        newest(
            fs::read_dir(built)
                .ok()?
                .flatten()
                .map(|entry| entry.path().join("helm")),
        )
    })
}

fn newest(files: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    files
        .filter_map(|file| Some((fs::metadata(&file).ok()?.modified().ok()?, file)))
        .max()
        .map(|(_, file)| file)
}

/// Everything, with this Helm.
pub fn check(workspace: &Workspace, helm: &Path) -> Result<Outcome> {
    let chart = workspace.path(CHART);
    Cmd::new(helm).args(["lint", "--quiet"]).arg(&chart).output()?;
    let mut wrong = values::wrong(workspace)?;
    let cases = cases::read(&chart.join("ci"))?;
    for case in &cases {
        wrong.extend(cases::wrong(helm, &chart, case)?);
    }
    if wrong.is_empty() {
        Ok(Outcome::Passed(format!("{} files of values", cases.len())))
    } else {
        Ok(Outcome::Failed(format!(
            "{} are wrong\n    {}",
            wrong.len(),
            wrong.join("\n    ")
        )))
    }
}

/// A release, as an audit log saw it.
pub struct Release<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its files of values.
    pub values: &'a [PathBuf],
    /// Files of exceptions beside the chart's own.
    pub exceptions: &'a [PathBuf],
}

/// Compares the roles of a release, hooks included, with what an audit log says was used.
pub fn permissions(
    workspace: &Workspace,
    helm: &Path,
    release: &Release<'_>,
    audit_log: &Path,
) -> Result<rbac::Comparison> {
    let values = release
        .values
        .iter()
        .flat_map(|file| ["--values".to_owned(), file.display().to_string()]);
    let more: Vec<String> = values.collect();
    let chart = workspace.path(CHART);
    let manifests = render(helm, &chart, release.name, release.namespace, &more)?;
    let own = chart.join("rbac/exceptions.yaml");
    let mut exceptions = Vec::new();
    for file in std::iter::once(&own).chain(release.exceptions) {
        let wrong = || format!("{} cannot be used", file.display());
        let known = fs::read_to_string(file).with_context(wrong)?;
        exceptions.extend(rbac::exceptions(&known).with_context(wrong)?);
    }
    let log = fs::File::open(audit_log).with_context(|| format!("cannot read {}", audit_log.display()))?;
    rbac::compare(&manifests, std::io::BufReader::new(log), &exceptions)
}

/// What the chart renders to, as it would be installed.
pub fn render(helm: &Path, chart: &Path, release: &str, namespace: &str, more: &[String]) -> Result<String> {
    Cmd::new(helm)
        .args(["template", release])
        .arg(chart)
        .args(["--namespace", namespace])
        .args(more)
        .output()
}

/// The objects of a YAML stream.
pub fn objects(yaml: &str) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let value: Value =
            serde::Deserialize::deserialize(document).context("what was rendered is not YAML")?;
        if !value.is_null() {
            objects.push(value);
        }
    }
    Ok(objects)
}

/// A text of an object, by JSON pointer; empty when there is none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The entries of a list, by JSON pointer; none when there is none.
fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_split_into_its_objects() {
        let two = objects("---\n# Source: a\nkind: A\n---\n---\nkind: B\nspec: {ports: [1]}\n").unwrap();
        assert_eq!(
            two.iter().map(|object| text(object, "/kind")).collect::<Vec<_>>(),
            ["A", "B"]
        );
        assert_eq!(list(&two[1], "/spec/ports").len(), 1);
        assert!(list(&two[0], "/spec/ports").is_empty());
        assert!(objects("a: [").is_err());
    }
}
