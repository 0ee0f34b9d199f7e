//! Static programs for an image: musl, no dynamic loader, the same bytes wherever they are built.

use std::ffi::OsString;
use std::fs;

use anyhow::{Context as _, Result};

use super::content;
use crate::moved::Moved;
use crate::tools;
use crate::workspace::Workspace;
use xtask_oci::Arch;

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

/// Builds the program with the profile `image` and returns its bytes.
pub fn build(workspace: &Workspace, arch: Arch, program: Program) -> Result<Vec<u8>> {
    let triple = tools::triple(arch);
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
