//! Static programs for an image: musl, no dynamic loader, the same bytes wherever they are built.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::content;
use super::oci::Arch;
use crate::run::Cmd;
use crate::tools;
use crate::workspace::Workspace;

/// What is built for an image.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// The product.
    Dormouse,
    /// What answers in the pods of the end-to-end tests.
    Workload,
}

impl Program {
    fn package(self) -> &'static str {
        match self {
            Self::Dormouse => "dormouse",
            Self::Workload => "dormouse-e2e-workload",
        }
    }

    /// Of the executable.
    pub fn file(self) -> &'static str {
        match self {
            Self::Dormouse => "dormouse",
            Self::Workload => "workload",
        }
    }

    /// Where it is in its image.
    pub fn path(self) -> &'static str {
        match self {
            Self::Dormouse => content::PROGRAM,
            Self::Workload => "/workload",
        }
    }

    /// What it listens on.
    pub fn ports(self) -> &'static [u16] {
        match self {
            // The DLX and the admin endpoint; further ports of the DLX are dealt out at run time.
            Self::Dormouse => &[8080, 9090],
            Self::Workload => &[8080],
        }
    }
}

/// The Rust target of an architecture.
pub fn triple(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64-unknown-linux-musl",
        Arch::Arm64 => "aarch64-unknown-linux-musl",
    }
}

/// Builds the program with the profile `image` and returns its bytes.
pub fn build(workspace: &Workspace, arch: Arch, program: Program) -> Result<Vec<u8>> {
    let triple = triple(arch);
    workspace.claim("image", triple)?;
    let moved = Moved::of(workspace)?;
    let linking = tools::linking(arch);
    let mut rustflags = moved.rustflags();
    // Where the linker adds one by itself, it is no part of what is loaded and would tell two equal programs apart.
    rustflags.push("-Clink-arg=-Wl,--build-id=none".into());
    let underscored = triple.replace('-', "_");
    let mut cargo = workspace
        .cargo(linking.subcommand())
        .args(["--locked", "--profile", "image", "--target", triple])
        .args(["--package", program.package(), "--bin", program.file()])
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            rustflags.join(&OsString::from("\u{1f}")),
        )
        .env(&format!("CFLAGS_{underscored}"), moved.cflags())
        // C code that says when it was compiled: never.
        .env("SOURCE_DATE_EPOCH", "0")
        .hint("the compiler's message is above; if a download failed, check the network and run it again");
    if let Some(linker) = linking.linker() {
        let variable = format!("CARGO_TARGET_{}_LINKER", underscored.to_uppercase());
        cargo = cargo.env(&variable, linker);
    }
    cargo.run()?;
    let built = workspace.target().join(triple).join("image").join(program.file());
    fs::read(&built).with_context(|| format!("cannot read {}", built.display()))
}

/// Folders of this machine, and what the compilers write in their place: paths get into programs through the messages
/// of panics and assertions.
pub struct Moved {
    /// Cargo's home and the target folder. Not the checkout: cargo names the files of a workspace by their path in it, and
    /// flags that differ from clone to clone would make every clone compile all dependencies again.
    folders: Vec<(PathBuf, String)>,
    /// The sources of the standard library, where they are installed. No C compiler ever sees them.
    library: (PathBuf, String),
}

impl Moved {
    /// Asks rustc and the environment.
    pub fn of(workspace: &Workspace) -> Result<Self> {
        let rustc = |args: &[&str]| Cmd::new("rustc").args(args).dir(workspace.root()).output();
        let about = rustc(&["-vV"])?;
        let commit = about
            .lines()
            .find_map(|line| line.strip_prefix("commit-hash: "))
            .context("`rustc -vV` names no commit")?;
        let sysroot = rustc(&["--print", "sysroot"])?;
        let cargo_home = env::var_os("CARGO_HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
            .context("neither CARGO_HOME nor HOME is set")?;
        Ok(Self {
            folders: vec![
                (cargo_home, "/cargo".to_owned()),
                (workspace.target().to_owned(), "/target".to_owned()),
            ],
            library: (
                Path::new(sysroot.trim()).join("lib/rustlib/src/rust"),
                format!("/rustc/{commit}"),
            ),
        })
    }

    /// For rustc.
    pub fn rustflags(&self) -> Vec<OsString> {
        flags(
            "--remap-path-prefix=",
            self.folders.iter().chain([&self.library]).collect(),
        )
    }

    /// For a C compiler.
    fn cflags(&self) -> OsString {
        flags("-ffile-prefix-map=", self.folders.iter().collect()).join(&OsString::from(" "))
    }
}

/// One folder may hold another, and both compilers let the last match win: the inner one comes last.
fn flags(name: &str, mut folders: Vec<&(PathBuf, String)>) -> Vec<OsString> {
    folders.sort_by_key(|(folder, _)| folder.as_os_str().len());
    folders
        .into_iter()
        .map(|(folder, instead)| {
            let mut flag = OsString::from(name);
            flag.push(folder);
            flag.push("=");
            flag.push(instead);
            flag
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_folder_comes_last() {
        let folder = |path: &str, instead: &str| (PathBuf::from(path), instead.to_owned());
        let moved = Moved {
            folders: vec![
                folder("/me/.cargo/target", "/target"),
                folder("/me/.cargo", "/cargo"),
            ],
            library: folder("/rust", "/rustc/0"),
        };
        assert_eq!(
            moved.cflags(),
            "-ffile-prefix-map=/me/.cargo=/cargo -ffile-prefix-map=/me/.cargo/target=/target"
        );
        assert_eq!(
            moved.rustflags(),
            [
                "--remap-path-prefix=/rust=/rustc/0",
                "--remap-path-prefix=/me/.cargo=/cargo",
                "--remap-path-prefix=/me/.cargo/target=/target"
            ]
        );
    }
}
