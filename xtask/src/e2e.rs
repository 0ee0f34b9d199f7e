//! `cargo xtask e2e`: the whole system on a real Kubernetes, from nothing to nothing.

mod before;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::before::Before;
use crate::build::{self, Tests};
use crate::workspace::Workspace;
use crate::{chart, guests, image, tools, tutorial};
use kube_harness::{Cluster, ProxyMode};
use xtask_command::{Cmd, Steps};
use xtask_oci::{Arch, Image, Layer, write_archive};

/// What `cargo xtask e2e` takes.
#[derive(clap::Args)]
#[command(after_help = ABOUT_THE_UPGRADE)]
pub struct Args {
    /// Only cases whose name contains one of these
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    /// Cases to leave out, by a part of their names
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    skip: Vec<String>,
    /// Leaves the cluster running afterwards, with Dormouse on it if the last cases did not take it away
    #[arg(long)]
    keep: bool,
    /// The cluster; one of this name that runs already is used and left alone
    #[arg(long, default_value = "e2e")]
    name: String,
    /// How kube-proxy leads to what is behind a Service
    #[arg(long, value_enum, default_value_t)]
    proxy_mode: ProxyMode,
    /// Sleep and wake cycles of the case that counts them
    #[arg(long, default_value_t = 100)]
    cycles: u32,
    /// A component that came out of docs/writing-a-scaler.md. Default: the document is followed first
    #[arg(long, value_name = "FILE")]
    user_plugin: Option<PathBuf>,
    /// Packs the programs as the tests have built them, instead of those that are shipped: minutes faster, larger, slower
    #[arg(long)]
    dev_image: bool,
    /// The lifecycle suite, where it is built already, and with it the programs and the plugins.
    #[arg(skip)]
    suite: Option<PathBuf>,
}

impl Args {
    /// What fits into a run of all tests: with the plugin of the tutorial that was followed already, and with programs that are
    /// built already. What is shipped is built by `cargo xtask e2e` alone.
    pub fn for_tests(user_plugin: PathBuf, suite: PathBuf) -> Self {
        Self {
            cases: SMOKE.map(str::to_owned).to_vec(),
            skip: Vec::new(),
            keep: false,
            name: "e2e".to_owned(),
            proxy_mode: ProxyMode::default(),
            cycles: 100,
            user_plugin: Some(user_plugin),
            dev_image: true,
            suite: Some(suite),
        }
    }

    /// Whether the case that begins with the version before is among the cases.
    fn wants_upgrade(&self) -> bool {
        let named = self.cases.is_empty() || self.cases.iter().any(|part| UPGRADE.contains(part.as_str()));
        named && !self.skip.iter().any(|part| UPGRADE.contains(part.as_str()))
    }

    /// Whether it is the only one.
    fn wants_only_upgrade(&self) -> bool {
        self.wants_upgrade() && self.cases.iter().any(|part| part == UPGRADE) && self.cases.len() == 1
    }
}

/// Cases that a run of all tests does on a real cluster: what an embedded one cannot show, or shows least well. The others
/// take half an hour more, and `cargo xtask e2e` runs them all.
pub const SMOKE: [&str; 16] = [
    "an_idle_workload_goes_to_sleep",
    "a_request_wakes_it_and_gets_its_answer",
    "forced_sleeps_under_steady_traffic_lose_nothing",
    "a_stateful_set_sleeps_and_wakes",
    "every_port_of_a_service_wakes",
    "a_service_with_external_traffic_policy_local",
    "services_that_cannot_be_diverted_say_why",
    "two_workloads_behind_one_service",
    "a_canary_beside_a_sleeper",
    "field_16",
    "a_server_that_speaks_first",
    "the_adapter_of_custom_metrics_is_read",
    "what_metrics_server_measures_decides",
    "a_killed_leader_is_replaced",
    "without_any_dlx_everything_wakes",
    "a_users_own_plugin",
];

const ABOUT_THE_UPGRADE: &str = "\
upgrade_from_the_version_before begins with the chart and the image of an earlier revision of this repository. They are built once, which \
took 13 minutes on two cores that a dozen compilers had at the same time, and kept in the cache of this user. The case itself takes a \
minute and a half. A clone without that revision leaves it out.";

/// Where the release goes, and its name.
const RELEASE: &str = "dormouse";
/// How the chart is installed.
const VALUES: &str = "e2e/values.yaml";
/// What its permissions and their use differ in, because of what the suite does.
const EXCEPTIONS: &str = "e2e/rbac-exceptions.yaml";
/// The case that begins with the version before, and comes last: it takes this version away first.
const UPGRADE: &str = "upgrade_from_the_version_before";
/// Longer than the suite takes, or it hangs.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Cluster up, images, chart, suite, cluster down.
pub fn e2e(workspace: &Workspace, args: &Args) -> Result<()> {
    let missing = kube_harness::missing();
    if !missing.is_empty() {
        bail!(
            "this machine cannot run a real Kubernetes:\n  {}",
            missing.join("\n  ")
        );
    }
    let arch = Arch::of_this_machine()?;
    let mut steps = Steps::new(12);
    steps.run("check the tools", || {
        tools::for_everything(workspace)?;
        if args.dev_image {
            return Ok(());
        }
        tools::for_image(workspace, arch)
    })?;
    // Before this version: cargo's folder ends up with the plugins and programs that were built last.
    let before = before(workspace, &mut steps, args)?;
    let suite = if let Some(suite) = &args.suite {
        suite.clone()
    } else {
        steps.run(guests::WHAT, || guests::build(workspace))?;
        steps.run("build the lifecycle suite", || {
            let tests = Tests::build(workspace, &["--test", "lifecycle"])?;
            Ok(tests.find("lifecycle")?.file.clone())
        })?
    };
    let (user_plugin, _tutorial) = if args.wants_only_upgrade() {
        (None, None)
    } else {
        steps.run("a plugin as its user writes it", || user_plugin(workspace, args))?
    };
    let images = steps.run("build the images", || {
        images(workspace, arch, args, user_plugin.as_deref())
    })?;
    let cluster = steps.run("start a real Kubernetes", || {
        Cluster::up(&workspace.harness()?, &args.name, args.proxy_mode)
    })?;
    let built = Built {
        images,
        suite,
        user_plugin,
        before,
    };
    let outcome = on(workspace, &cluster, &mut steps, &built, args);
    if let Err(error) = &outcome {
        eprintln!("\nerror: {error:#}");
        if let Err(error) = keep_evidence(workspace, &cluster) {
            eprintln!("the evidence could not be kept: {error:#}");
        }
    }
    if args.keep {
        eprintln!("cluster {} is left running", args.name);
        let _kept = cluster.keep();
    } else {
        steps.run("bring the cluster down", || cluster.down())?;
    }
    outcome
}

/// What is built before the cluster starts.
struct Built {
    images: Vec<PathBuf>,
    /// The lifecycle suite.
    suite: PathBuf,
    /// The component that came out of docs/writing-a-scaler.md, where a case may need it.
    user_plugin: Option<PathBuf>,
    /// Where its case is wanted and can run.
    before: Option<Before>,
}

/// The version before, if its case is wanted and this clone has it.
fn before(workspace: &Workspace, steps: &mut Steps, args: &Args) -> Result<Option<Before>> {
    if !args.wants_upgrade() {
        return Ok(None);
    }
    if let Some(reason) = Before::missing(workspace) {
        if args.wants_only_upgrade() {
            bail!("{UPGRADE} cannot run: {reason}");
        }
        eprintln!("\nleft out: {UPGRADE}: {reason}");
        return Ok(None);
    }
    steps
        .run(
            "the version before, as its tests built it (once, then it is kept)",
            || Before::get(workspace),
        )
        .map(Some)
}

/// Everything that happens while the cluster is up.
fn on(workspace: &Workspace, cluster: &Cluster, steps: &mut Steps, built: &Built, args: &Args) -> Result<()> {
    steps.run("load the images", || {
        for image in &built.images {
            cluster.load_image(image)?;
        }
        // A metrics server whose values a test writes, and the one of resource metrics.
        for program in ["dormouse-test-adapter", "metrics-server"] {
            eprint!(
                "{}",
                cluster.load_image(&component(workspace, cluster, program)?)?
            );
        }
        prepare(workspace, cluster)
    })?;
    if !args.wants_only_upgrade() {
        this_version(workspace, cluster, steps, built, args)?;
    }
    if let Some(before) = &built.before {
        steps.run("upgrade from the version before", || {
            cluster.load_image(&before.image())?;
            cluster
                .helm(["uninstall", RELEASE, "--namespace", RELEASE])?
                .args(["--ignore-not-found", "--wait", "--timeout", "5m"])
                .run()?;
            let flags = [Before::image_flag()];
            install(cluster, &before.chart(), &before.values(), &flags)?;
            lifecycle(workspace, cluster, built, &[UPGRADE.to_owned()], args)?
                .env("DORMOUSE_E2E_VALUES", workspace.path(VALUES))
                .run()
        })?;
    }
    Ok(())
}

/// The chart of this version, the suite, and the permissions.
fn this_version(
    workspace: &Workspace,
    cluster: &Cluster,
    steps: &mut Steps,
    built: &Built,
    args: &Args,
) -> Result<()> {
    steps.run("install the chart, test it", || {
        install(cluster, &workspace.path("chart"), &workspace.path(VALUES), &[])
    })?;
    steps.run(
        "the lifecycle suite, unchanged, and what only a real cluster can show",
        || lifecycle(workspace, cluster, built, &args.cases, args)?.run(),
    )?;
    if !args.cases.is_empty() || !args.skip.is_empty() {
        eprintln!("\npermissions are compared after a run of all cases only");
        return Ok(());
    }
    // Now, because the version before has permissions of its own.
    steps.run(
        "compare the permissions of the chart with those that were used",
        || permissions(workspace, cluster),
    )
}

/// The lifecycle suite on the cluster.
fn lifecycle(
    workspace: &Workspace,
    cluster: &Cluster,
    built: &Built,
    cases: &[String],
    args: &Args,
) -> Result<Cmd> {
    let own = std::env::current_exe().context("this program cannot be found")?;
    let own = own.to_str().context("the path of this program is no text")?;
    let command = cluster
        .exec(&built.suite)?
        .args(cases)
        .env("DORMOUSE_E2E_SKIP", args.skip.join(","))
        .env("DORMOUSE_E2E_CYCLES", args.cycles.to_string())
        .env("DORMOUSE_E2E_KUBECONFIG", cluster.kubeconfig())
        .env("DORMOUSE_E2E_AUDIT_LOG", cluster.state().join("logs/audit.log"))
        .env("DORMOUSE_E2E_CHART", workspace.path("chart"))
        .env(
            "DORMOUSE_E2E_CLUSTER_COMMAND",
            format!("{own} cluster --name {}", cluster.name()),
        )
        .deadline(LIMIT);
    Ok(match &built.user_plugin {
        Some(plugin) => command.env("DORMOUSE_E2E_USER_PLUGIN", plugin),
        None => command,
    })
}

/// Every permission that the chart grants was used, and none was missing.
fn permissions(workspace: &Workspace, cluster: &Cluster) -> Result<()> {
    let log = audit_log(workspace, cluster)?;
    let release = chart::Release {
        name: RELEASE,
        namespace: RELEASE,
        values: &[workspace.path(VALUES)],
        exceptions: &[workspace.path(EXCEPTIONS)],
    };
    let compared = chart::permissions(workspace, &cluster.program("helm")?, &release, &log)?;
    let wrong = compared.wrong();
    if !wrong.is_empty() {
        bail!(
            "the chart's permissions are not those that are used:\n  {}",
            wrong.join("\n  ")
        );
    }
    eprintln!(
        "      {} permissions, all used and none missing in {} requests",
        compared.granted, compared.requests
    );
    Ok(())
}

/// The audit log in one piece, with its older parts in front.
fn audit_log(workspace: &Workspace, cluster: &Cluster) -> Result<PathBuf> {
    let folder = cluster.state().join("logs");
    let mut parts = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with("audit-") && name.ends_with(".log") {
            parts.push(path);
        }
    }
    parts.sort();
    parts.push(folder.join("audit.log"));
    let whole = evidence(workspace)?.join("audit.log");
    let mut out = fs::File::create(&whole).with_context(|| format!("cannot write {}", whole.display()))?;
    for part in parts {
        let mut file = fs::File::open(&part).with_context(|| format!("cannot read {}", part.display()))?;
        std::io::copy(&mut file, &mut out).with_context(|| format!("cannot copy {}", part.display()))?;
    }
    Ok(whole)
}

/// Where what is worth looking at afterwards is kept.
fn evidence(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target().join("e2e");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// The component that came out of docs/writing-a-scaler.md, and the folder that it is in for as long as it is wanted.
fn user_plugin(workspace: &Workspace, args: &Args) -> Result<(Option<PathBuf>, Option<tutorial::Followed>)> {
    if let Some(file) = &args.user_plugin {
        return Ok((Some(file.clone()), None));
    }
    let tutorial = tutorial::Followed::anew(workspace)?;
    Ok(if args.keep {
        // A volume of the cluster is in its folder.
        (Some(tutorial.keep()), None)
    } else {
        (Some(tutorial.plugin().to_owned()), Some(tutorial))
    })
}

/// Dormouse, the workload, and the workload with the user's plugin in it, for an init container to copy.
fn images(
    workspace: &Workspace,
    arch: Arch,
    args: &Args,
    user_plugin: Option<&Path>,
) -> Result<Vec<PathBuf>> {
    let (dormouse, mut image, workload) = if args.dev_image {
        if args.suite.is_none() {
            build::for_tests(workspace)?;
        }
        let (image, workload) = image::dev::workload(workspace)?;
        (image::dev::dormouse(workspace)?, image, workload)
    } else {
        let (_, dormouse) = image::dormouse(workspace, arch, None, None)?;
        let (image, workload) = image::workload(workspace, arch, None, None)?;
        (dormouse.file, image, workload.file)
    };
    let mut images = vec![dormouse, workload];
    if let Some(plugin) = user_plugin {
        let bytes = fs::read(plugin).with_context(|| format!("cannot read {}", plugin.display()))?;
        image.reference = "dormouse.test/plugin:1".parse()?;
        image
            .layers
            .push(Layer::new("a plugin").file("/plugin.wasm", 0o644, bytes)?);
        let file = workspace.target().join("image").join("plugin-1.tar");
        write_archive(&image, &file)?;
        images.push(file);
    }
    Ok(images)
}

/// An image of a program that was built with the cluster: `dormouse.test/<name>:1`.
fn component(workspace: &Workspace, cluster: &Cluster, program: &str) -> Result<PathBuf> {
    let name = program.trim_start_matches("dormouse-");
    let program = cluster.program(program)?;
    let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    let mut image = Image::new(
        format!("dormouse.test/{name}:1").parse()?,
        Arch::of_this_machine()?,
        0,
    );
    let path = format!("/{name}");
    image.layers = vec![
        Layer::new(name)
            .file(&path, 0o755, bytes)?
            .folder("/tmp", 0o1777)?,
    ];
    image.entrypoint = vec![path];
    image.user = "65532:65532".to_owned();
    let file = workspace.target().join("image").join(format!("{name}-1.tar"));
    write_archive(&image, &file)?;
    Ok(file)
}

/// What the suite needs beside Dormouse: a platform, and a server of custom metrics.
fn prepare(workspace: &Workspace, cluster: &Cluster) -> Result<()> {
    for file in ["e2e/metrics/platform.yaml", "e2e/metrics/adapter.yaml"] {
        let file = workspace.path(file);
        cluster.kubectl(["apply", "-f"])?.arg(file).output()?;
    }
    cluster
        .kubectl([
            "rollout",
            "status",
            "-n",
            "custom-metrics",
            "deployment/adapter",
            "--timeout=2m",
        ])?
        .run()
}

/// Installs a chart, and asks it whether it works.
fn install(cluster: &Cluster, chart: &Path, values: &Path, flags: &[String]) -> Result<()> {
    cluster
        .helm(["upgrade", "--install", RELEASE])?
        .arg(chart)
        .args([
            "--namespace",
            RELEASE,
            "--create-namespace",
            "--wait",
            "--timeout",
            "3m",
            "--values",
        ])
        .arg(values)
        .args(flags)
        .run()?;
    cluster
        .helm(["test", RELEASE, "--namespace", RELEASE, "--logs"])?
        .run()
}

/// What one wants to see when something failed and the cluster is gone.
fn keep_evidence(workspace: &Workspace, cluster: &Cluster) -> Result<()> {
    let folder = evidence(workspace)?;
    let wanted: [(&str, &[&str]); 5] = [
        ("sleepers.txt", &["get", "sleepers", "-A", "-o", "wide"]),
        ("pods.txt", &["get", "pods", "-A", "-o", "wide"]),
        ("events.txt", &["get", "events", "-A", "--sort-by=.lastTimestamp"]),
        (
            "autoscaler.log",
            &[
                "logs",
                "-n",
                RELEASE,
                "-l",
                "app.kubernetes.io/component=autoscaler",
                "--prefix",
                "--tail=-1",
            ],
        ),
        (
            "dlx.log",
            &[
                "logs",
                "-n",
                RELEASE,
                "-l",
                "app.kubernetes.io/component=dlx",
                "--prefix",
                "--tail=-1",
            ],
        ),
    ];
    for (file, args) in wanted {
        let text = cluster
            .kubectl(args)?
            .output()
            .unwrap_or_else(|error| format!("{error:#}\n"));
        fs::write(folder.join(file), text)?;
    }
    audit_log(workspace, cluster)?;
    eprintln!("what the cluster looked like is kept in {}", folder.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upgrade_is_part_of_a_full_run_and_of_no_other_that_does_not_name_it() {
        let args = |cases: &[&str], skip: &[&str]| Args {
            cases: cases.iter().map(|case| (*case).to_owned()).collect(),
            skip: skip.iter().map(|case| (*case).to_owned()).collect(),
            ..Args::for_tests(PathBuf::new(), PathBuf::new())
        };
        let wants = |args: &Args| (args.wants_upgrade(), args.wants_only_upgrade());
        assert_eq!(wants(&args(&[], &[])), (true, false));
        assert_eq!(wants(&args(&[UPGRADE], &[])), (true, true));
        assert_eq!(wants(&args(&["upgrade"], &[])), (true, false));
        assert_eq!(wants(&args(&["sleeps"], &[])), (false, false));
        assert_eq!(wants(&args(&[], &["upgrade"])), (false, false));
        assert!(!Args::for_tests(PathBuf::new(), PathBuf::new()).wants_upgrade());
    }
}
