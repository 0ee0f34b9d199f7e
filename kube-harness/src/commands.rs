//! The command line of `cargo xtask cluster`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use super::build::Components;
use super::layout::Layout;
use super::up::ProxyMode;
use super::{Cluster, Harness, cleanup, keeper, requirements, sandbox, status};
use xtask_command::Cmd;

/// A real Kubernetes on this machine, in namespaces of its own.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Action,
    /// Which cluster; several may run side by side
    #[arg(long, global = true, default_value = "dev")]
    name: String,
    /// An existing cluster to use instead, such as one of kind. Default: KUBECONFIG
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KUBECONFIG",
        hide_env_values = true
    )]
    kubeconfig: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Action {
    /// Builds Kubernetes and its companions from source, once for this user (about 15 minutes); `up` does it too
    Build,
    /// Starts a cluster and waits until its node is Ready
    Up {
        /// How kube-proxy leads to what is behind a Service
        #[arg(long, value_enum, default_value_t)]
        proxy_mode: ProxyMode,
    },
    /// Ends and removes a cluster, whatever state it is in
    Down,
    /// What runs and works
    Status,
    /// kubectl as the administrator
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Helm as the administrator
    Helm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Any command in the cluster's network, with KUBECONFIG set
    Exec {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Makes images known to the node: OCI archives, or docker ones as `docker save` writes
    LoadImage {
        #[arg(required = true, value_name = "ARCHIVE")]
        archives: Vec<PathBuf>,
    },
    /// Ends a component with SIGTERM, starts it again and waits until it works
    Restart {
        /// Such as kube-apiserver
        component: String,
    },
    /// Freezes a container of a pod, as a node that hangs does; it ends with its pod
    Freeze {
        /// Its id, as in the pod's status
        container: String,
    },
    /// The log of a component; without one: which there are
    Logs {
        /// Such as kubelet
        component: Option<String>,
        /// Goes on as it grows
        #[arg(long, short)]
        follow: bool,
    },
    /// What this machine needs for it, and what is missing
    Doctor,
    /// The first process of a cluster's namespaces; `up` starts it
    #[command(hide = true)]
    Keep {
        state: PathBuf,
        bin: PathBuf,
        pid_file: PathBuf,
        ready: PathBuf,
    },
}

/// Runs `cargo xtask cluster …`.
pub fn command(harness: &Harness, args: Args) -> Result<()> {
    let name = args.name.as_str();
    let layout = Layout::new(name, &harness.cache)?;
    // Inside of `cluster exec` the variable names one of our own clusters.
    let foreign = args
        .kubeconfig
        .filter(|file| !file.as_os_str().is_empty() && !file.starts_with(layout.states()));
    if let Some(file) = foreign {
        return elsewhere(harness, &layout, args.command, &file);
    }
    match args.command {
        Action::Build => Components::pinned(&harness.modules, &layout.bin())?.build(),
        Action::Up { proxy_mode } => up(harness, name, proxy_mode),
        Action::Down => {
            let there = !cleanup::leftovers(&layout).is_empty();
            Cluster::take_down(&layout)?;
            if there {
                println!("cluster {name} is gone");
            } else {
                println!("cluster {name} does not run, and nothing of it is on this machine");
            }
            Ok(())
        }
        Action::Status => {
            if sandbox::keeper(&layout).is_none() {
                status::print_absent(&layout);
                bail!("cluster {name} does not run");
            }
            if !status::print(&Cluster::running(harness, name)?)? {
                bail!("not everything works; see `cargo xtask cluster logs --name {name} <component>`");
            }
            Ok(())
        }
        Action::Kubectl { args } => Cluster::running(harness, name)?.kubectl(args)?.hand_over(),
        Action::Helm { args } => Cluster::running(harness, name)?.helm(args)?.hand_over(),
        Action::Exec { command } => {
            let (program, args) = command.split_first().context("no command was given")?;
            Cluster::running(harness, name)?
                .exec(program)?
                .args(args)
                .hand_over()
        }
        Action::LoadImage { archives } => {
            let cluster = Cluster::running(harness, name)?;
            for archive in archives {
                print!("{}", cluster.load_image(&archive)?);
            }
            Ok(())
        }
        Action::Restart { component } => {
            let start = std::time::Instant::now();
            Cluster::running(harness, name)?.restart(&component)?;
            println!(
                "{component} works again after {}",
                xtask_command::seconds(start.elapsed())
            );
            Ok(())
        }
        Action::Freeze { container } => Cluster::running(harness, name)?.freeze(&container),
        Action::Logs { component, follow } => logs(&layout, component.as_deref(), follow),
        Action::Doctor => doctor(),
        Action::Keep {
            state,
            bin,
            pid_file,
            ready,
        } => keeper::keep(&state, &bin, &pid_file, &ready),
    }
}

fn up(harness: &Harness, name: &str, proxy_mode: ProxyMode) -> Result<()> {
    let cluster = Cluster::up(harness, name, proxy_mode)?;
    let cluster = cluster.keep();
    let layout = &cluster.layout;
    match &cluster.stages {
        Some(stages) => println!("cluster {name} is up: {}", stages.line()),
        None => println!("cluster {name} runs already"),
    }
    let option = if name == "dev" {
        String::new()
    } else {
        format!(" --name {name}")
    };
    println!(
        "  runs        Kubernetes {}, etcd, containerd, CoreDNS in the network namespace {}\n  \
           kubeconfig  {}\n  \
           logs        {}\n\
         next:\n  \
           cargo xtask cluster kubectl{option} get nodes\n  \
           cargo xtask cluster load-image{option} <archive>\n  \
           cargo xtask cluster exec{option} -- <any command in its network>\n  \
           cargo xtask cluster down{option}",
        cluster.components.kubernetes_version(),
        layout.namespace(),
        layout.kubeconfig().display(),
        layout.logs().display(),
    );
    Ok(())
}

/// With a cluster that somebody else runs.
fn elsewhere(harness: &Harness, layout: &Layout, action: Action, kubeconfig: &Path) -> Result<()> {
    let shown = kubeconfig.display();
    let refused = |what: &str| -> Result<()> {
        bail!(
            "KUBECONFIG or --kubeconfig names an existing cluster ({shown}), and {what}\nwhat to do: unset KUBECONFIG \
             to work with a cluster of this machine"
        )
    };
    let components = Components::pinned(&harness.modules, &layout.bin())?;
    // Ours where it is built, else the one that comes with that cluster's tools.
    let tool = |name: &str| -> Result<Cmd> {
        let built = components.path(name)?;
        let program = if built.is_file() { built } else { name.into() };
        Ok(Cmd::new(program).env("KUBECONFIG", kubeconfig).hint(format!(
            "`cargo xtask cluster build` builds {name}, or install it"
        )))
    };
    match action {
        Action::Build => components.build(),
        Action::Doctor => doctor(),
        Action::Kubectl { args } => tool("kubectl")?.args(args).hand_over(),
        Action::Helm { args } => tool("helm")?.args(args).hand_over(),
        Action::Exec { command } => {
            let (program, args) = command.split_first().context("no command was given")?;
            Cmd::new(program)
                .args(args)
                .env("KUBECONFIG", kubeconfig)
                .hand_over()
        }
        Action::Status => tool("kubectl")?
            .args(["get", "nodes", "--output=wide"])
            .hand_over(),
        Action::LoadImage { .. } => refused(
            "only its owner can load images into it: `kind load image-archive <archive>`, `minikube image load \
             <archive>`, `k3s ctr images import <archive>`, or push the image to a registry that it can pull from",
        ),
        Action::Up { .. } => refused("it runs already: nothing to bring up"),
        Action::Down => refused("it is not ours to bring down"),
        Action::Restart { .. } => refused("its components are not ours to restart"),
        Action::Freeze { .. } => refused("its node is not ours"),
        Action::Logs { .. } => refused("its logs are not on this machine"),
        Action::Keep { .. } => refused("this command is for `up` only"),
    }
}

fn logs(layout: &Layout, component: Option<&str>, follow: bool) -> Result<()> {
    let mut names = std::fs::read_dir(layout.logs())
        .with_context(|| format!("cluster {} does not run: it has no logs", layout.name()))?
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".log")?.to_owned()))
        .collect::<Vec<_>>();
    names.sort();
    match component {
        Some(component) if names.iter().any(|name| name == component) => Cmd::new("tail")
            .arg("--lines=200")
            .args(follow.then_some("--follow"))
            .arg(layout.log(component))
            .hand_over(),
        Some(component) => bail!("no log is called `{component}`; there are {}", names.join(", ")),
        None => {
            for name in names {
                println!("{}", layout.log(&name).display());
            }
            Ok(())
        }
    }
}

fn doctor() -> Result<()> {
    let all = requirements::check();
    let width = all
        .iter()
        .map(|requirement| requirement.what.len())
        .max()
        .unwrap_or(0);
    println!("{:width$}  state", "what a cluster needs");
    for requirement in &all {
        let state = match &requirement.problem {
            None => "ok".to_owned(),
            Some(problem) => format!("MISSING: {problem}; {}", requirement.remedy),
        };
        println!("{:width$}  {state}", requirement.what);
    }
    let missing = requirements::missing();
    if missing.is_empty() {
        println!("\nthis machine can run a cluster: cargo xtask cluster up");
        Ok(())
    } else {
        bail!("what to do:\n    {}", missing.join("\n    "))
    }
}
