//! Plugins in JavaScript and Python: docs/languages/, made with the tools of their languages, loaded and called by the host.
//!
//! The tools, and what they made, are kept in the per-user cache: a component is made anew when its source, the contract or a tool changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use xtask_command::Cmd;

use crate::outcome::Outcome;
use crate::workspace::{Profile, Workspace};

const JAVASCRIPT: &str = "@bytecodealliance/componentize-js@0.23.0";
const PYTHON: &str = "componentize-py==0.25.1";
/// How long a download or a build may take.
const PATIENCE: Duration = Duration::from_secs(480);

const DEPLOYMENT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop, labels: { tier: preview } }
spec: { replicas: 2, template: { metadata: { labels: { app: web } } } }
---
apiVersion: v1
kind: Service
metadata: { name: front, namespace: shop }
spec: { selector: { app: web } }
";
const QUESTIONS: &str = r"
- { name: always, parameters: { from: 0, to: 24 } }
- { name: wrong, parameters: { from: early } }
";

/// A language, and what makes components of it.
struct Language {
    name: &'static str,
    /// What has to be on the machine.
    programs: &'static [&'static str],
    /// What is installed by their own package manager.
    tool: &'static str,
    install: fn(&Path) -> Result<()>,
    /// Makes a component of the plugin in docs/languages/ and asks it.
    ask: fn(&Workspace, &Path, &Path) -> Result<()>,
}

const LANGUAGES: [Language; 2] = [
    Language {
        name: "JavaScript",
        programs: &["node", "npm"],
        tool: JAVASCRIPT,
        install: |folder| {
            let npm = Cmd::new("npm").args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"]);
            npm.arg(folder).arg(JAVASCRIPT).deadline(PATIENCE).run()
        },
        ask: javascript,
    },
    Language {
        name: "Python",
        programs: &["python3"],
        tool: PYTHON,
        install: |folder| {
            Cmd::new("python3")
                .args(["-m", "venv"])
                .arg(folder)
                .deadline(PATIENCE)
                .run()?;
            let pip = Cmd::new(folder.join("bin/pip"));
            let pip = pip.args(["install", "--quiet", "--disable-pip-version-check", PYTHON]);
            pip.deadline(PATIENCE).run()
        },
        ask: python,
    },
];

/// Makes each and asks each.
pub fn suite(workspace: &Workspace) -> Result<Outcome> {
    let cache = Workspace::cache()?.join("languages");
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let mut asked = Vec::new();
    let mut without = Vec::new();
    for language in LANGUAGES {
        let name = language.name;
        if let Some(program) = missing(language.programs) {
            without.push(format!("{name}: {program} is not installed"));
            continue;
        }
        match installed(&cache, &language) {
            Ok(tool) => {
                (language.ask)(workspace, &cache, &tool).with_context(|| format!("the plugin in {name}"))?
            }
            Err(error) => {
                without.push(format!(
                    "{name}: {} cannot be installed: {error:#}",
                    language.tool
                ));
                continue;
            }
        }
        asked.push(name);
    }
    if asked.is_empty() {
        return Ok(Outcome::Skipped(without.join("; ")));
    }
    Ok(Outcome::passed_without(asked.join(" and "), without))
}

fn missing(programs: &[&'static str]) -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<_> = std::env::split_paths(&path).collect();
    let is_there = |program: &str| places.iter().any(|place| place.join(program).is_file());
    programs.iter().copied().find(|program| !is_there(program))
}

/// A resource-scaler: what it looks after, from manifests.
fn javascript(workspace: &Workspace, cache: &Path, tool: &Path) -> Result<()> {
    let source = workspace.path("docs/languages/previews.js");
    let plugin = made(workspace, cache, &source, JAVASCRIPT, |to| {
        Cmd::new(tool.join("node_modules/.bin/componentize-js"))
            .arg(&source)
            .arg("--wit")
            .arg(workspace.path("wit"))
            // Without these it imports what no host offers.
            .args(["-n", "resource-scaler", "-d", "http", "fetch-event", "-o"])
            .arg(to)
            .deadline(PATIENCE)
            .run()
    })?;
    let minutes = ["--config", "minutes=20"];
    let said = ask(
        workspace,
        cache,
        &plugin,
        ["resources", "--objects"],
        DEPLOYMENT,
        &minutes,
    )?;
    let web = &said["resources"][0];
    let seen = [
        &web["name"],
        &web["state"],
        &web["services"][0],
        &web["rules"][0]["window"],
    ];
    ensure!(seen == ["web", "awake", "front", "20m0s"], "it answered {said:#}");
    Ok(())
}

/// A trigger, of which nothing has to be granted: whether there is work, now.
fn python(workspace: &Workspace, cache: &Path, tool: &Path) -> Result<()> {
    let source = workspace.path("docs/languages/office_hours.py");
    let plugin = made(workspace, cache, &source, PYTHON, |to| {
        Cmd::new(tool.join("bin/componentize-py"))
            .arg("-d")
            .arg(workspace.path("wit"))
            .args(["-w", "trigger-plugin", "componentize", "office_hours", "-p"])
            .arg(workspace.path("docs/languages"))
            .arg("-o")
            .arg(to)
            .dir(cache)
            .deadline(PATIENCE)
            .run()
    })?;
    let zone = ["--time-zone", "Europe/Vienna"];
    let said = ask(
        workspace,
        cache,
        &plugin,
        ["observe", "--questions"],
        QUESTIONS,
        &zone,
    )?;
    let answer = &said["answers"][0]["answer"];
    let reason = answer["reason"].as_str().unwrap_or_default();
    ensure!(
        answer["active"].is_boolean() && reason.ends_with("in Europe/Vienna, says the cli"),
        "it answered {said:#}"
    );
    let refused = said["answers"][1]["error"].as_str().unwrap_or_default();
    ensure!(
        refused.contains(r#"write {"from": 8, "to": 18}"#),
        "it answered {said:#}"
    );
    Ok(())
}

/// The folder of a tool, installed if it is not there yet.
fn installed(cache: &Path, language: &Language) -> Result<PathBuf> {
    let folder = cache.join(digest(&[language.tool.as_bytes()]));
    let done = folder.join("installed");
    if !done.is_file() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        (language.install)(&folder)?;
        fs::write(&done, language.tool)?;
    }
    Ok(folder)
}

/// The component of a source, made if it is not there yet.
fn made(
    workspace: &Workspace,
    cache: &Path,
    source: &Path,
    tool: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let mut parts = vec![tool.as_bytes().to_vec(), fs::read(source)?];
    for file in workspace.files(".wit")? {
        parts.push(fs::read(file)?);
    }
    let name = digest(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let plugin = cache.join(format!("made-{name}.wasm"));
    if !plugin.is_file() {
        let unfinished = cache.join(format!("unfinished-{name}-{}.wasm", std::process::id()));
        make(&unfinished)?;
        fs::rename(&unfinished, &plugin).context("nothing was made")?;
    }
    Ok(plugin)
}

fn digest(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    let bytes = digest.finalize();
    bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// What a function of a plugin answers, as the command for authors shows it.
fn ask(
    workspace: &Workspace,
    cache: &Path,
    plugin: &Path,
    [function, option]: [&str; 2],
    text: &str,
    rest: &[&str],
) -> Result<serde_json::Value> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("asked.yaml");
    fs::write(&file, text)?;
    let output = Cmd::new(workspace.binary(Profile::Dev))
        .args(["plugin", "inspect", "--json", "--call", function, option])
        .arg(&file)
        .args(rest)
        .arg("--plugins-cache-dir")
        .arg(cache.join("compiled"))
        .arg(plugin)
        .deadline(PATIENCE)
        .stdout()?;
    let Ok(said) = serde_json::from_str(&output) else {
        bail!("it answered no JSON: {output}");
    };
    Ok(said)
}
