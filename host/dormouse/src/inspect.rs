//! `dormouse plugin inspect`.

mod block;
mod call;
mod question;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use dormouse_plugin::{Inspection, Trial};

use crate::host::engine_config;
use crate::output;

/// Options of `dormouse plugin inspect`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The component
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Directory in which compiled plugins are kept; with it, compiling is done as the processes do it
    #[arg(long, env = "DORMOUSE_PLUGINS_CACHE_DIR", value_name = "DIR")]
    plugins_cache_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Call this function, without a cluster, and print what it answers
    #[arg(long, value_enum, value_name = "FUNCTION")]
    call: Option<call::Function>,
    /// Manifests from which --call answers what the plugin reads of Kubernetes; may be given several times
    #[arg(long, value_name = "FILE", requires = "call")]
    objects: Vec<PathBuf>,
    /// Questions for --call evaluate, check or observe: one or a list of them, in YAML or JSON
    #[arg(long, value_name = "FILE", requires = "call")]
    questions: Option<PathBuf>,
    /// The time zone of the plugin for --call, as `plugins.<name>.timeZone` has it
    #[arg(long, value_name = "ZONE", requires = "call")]
    time_zone: Option<String>,
    /// A key of the plugin's configuration for --call, as `plugins.<name>.config` has it; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::demo::key_value, requires = "call")]
    config: Vec<(String, String)>,
}

/// Shows what a component is and whether this host can run it; the latter is the exit code.
pub async fn run(options: Options) -> Result<()> {
    let config = engine_config("cli", options.plugins_cache_dir.as_deref(), &BTreeMap::new())?;
    if let Some(function) = options.call {
        let called = call::run(config, &options, function).await?;
        return Ok(output::answer(&called)?);
    }
    let inspection = dormouse_plugin::inspect_with(config, &options.file).await?;
    if options.json {
        output::answer(&format!("{}\n", serde_json::to_string_pretty(&inspection)?))?;
    } else {
        output::answer(&describe(&inspection))?;
    }
    match &inspection.trial {
        Trial::Passed { .. } => Ok(()),
        Trial::Failed { .. } => bail!("this host cannot run {}", options.file.display()),
    }
}

fn describe(inspection: &Inspection) -> String {
    let mut lines = vec![
        format!("name       {}", inspection.name),
        format!("digest     sha256:{}", inspection.digest),
        format!("size       {} KiB", inspection.size.div_ceil(1024)),
        format!("compiled   in {} ms", inspection.compile_time.as_millis()),
    ];
    for producer in &inspection.producers {
        lines.push(format!("made with  {} {}", producer.name, producer.version));
    }
    lines.push("imports".to_owned());
    lines.extend(inspection.imports.iter().map(|import| format!("  {import}")));
    lines.push("exports".to_owned());
    lines.extend(inspection.exports.iter().map(|export| format!("  {export}")));
    let routing = if inspection.ingress_targets {
        "the plugin decides"
    } else {
        "by backend Service"
    };
    lines.push(format!("ingress    {routing}"));
    if let Some(description) = &inspection.description {
        lines.push(format!(
            "says       {} {}",
            description.title, description.version
        ));
        lines.push("configure  it wants:".to_owned());
        let block = block::lines(&inspection.name, description);
        lines.extend(block.into_iter().map(|line| format!("  {line}")));
    }
    let wanted = inspection.description.iter().flat_map(|said| &said.wants);
    let wanted: Vec<_> = wanted.map(|grant| format!("/{}@", grant.name)).collect();
    let mut unsaid = inspection
        .needs
        .iter()
        .filter(|need| !wanted.iter().any(|name| need.import.contains(name)))
        .peekable();
    if inspection.needs.is_empty() {
        lines.push("grants     none needed".to_owned());
    } else if unsaid.peek().is_some() {
        lines.push("grants     needed before it loads:".to_owned());
        lines.extend(unsaid.map(|need| format!("  {}: {}", need.import, need.how)));
    }
    if !inspection.stubs.is_empty() {
        lines.push("not here   it loads, but a call of one of these fails:".to_owned());
        lines.extend(inspection.stubs.iter().map(|stub| format!("  {stub}")));
    }
    lines.push(match &inspection.trial {
        Trial::Passed { took } => format!("trial      passed in {:.2} ms", took.as_secs_f64() * 1000.0),
        Trial::Failed { code, error } => format!("trial      failed ({code}): {error}"),
    });
    lines.join("\n") + "\n"
}
