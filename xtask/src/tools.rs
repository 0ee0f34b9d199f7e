//! What a machine must have, and how to get it: installed here where rustup can, named exactly where it cannot.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use xtask_command::Cmd;
use xtask_oci::Arch;

/// The target of plugins.
pub const GUEST_TARGET: &str = "wasm32-wasip2";

/// What it takes to build the host and the plugins.
pub fn for_everything(workspace: &Workspace) -> Result<()> {
    c_compiler()?;
    for_guests(workspace)
}

/// What it takes to build plugins.
pub fn for_guests(workspace: &Workspace) -> Result<()> {
    target(workspace, GUEST_TARGET)
}

/// What it takes to build static programs for an image.
pub fn for_image(workspace: &Workspace, arch: Arch) -> Result<()> {
    c_compiler()?;
    match linking(arch) {
        Linking::Zig => eprintln!("      cargo-zigbuild: there"),
        Linking::Musl { compiler, .. } => {
            if let Err(how) = compile(compiler) {
                bail!(
                    "`{compiler}`, which compiles the C parts of a static program for {}, does not work: {how}\n\
                     what to do: {}",
                    arch.name(),
                    if compiler == MUSL {
                        "Debian, Ubuntu: apt-get install musl-tools; Fedora: dnf install musl-gcc; Arch: pacman -S musl"
                    } else {
                        "install zig and cargo-zigbuild (`pip install ziglang cargo-zigbuild` has both), or a musl \
                         cross compiler of that name"
                    }
                );
            }
            eprintln!("      C compiler {compiler}: works");
        }
    }
    target(workspace, triple(arch))
}

/// The Rust target of an architecture.
pub fn triple(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64-unknown-linux-musl",
        Arch::Arm64 => "aarch64-unknown-linux-musl",
    }
}

/// The wrapper of the machine's own compiler that musl comes with.
const MUSL: &str = "musl-gcc";

/// What compiles C and links for the target of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linking {
    /// cargo-zigbuild in place of `cargo build`.
    Zig,
    /// A C compiler that knows musl.
    Musl {
        /// It.
        compiler: &'static str,
        /// Whether it links too; else the machine's own compiler does, which can link for its own architecture.
        links: bool,
    },
}

/// For the architecture of this machine musl's own wrapper; for another one cargo-zigbuild, or a cross compiler.
pub fn linking(arch: Arch) -> Linking {
    let native = Arch::of_this_machine().is_ok_and(|own| own == arch);
    if native {
        return Linking::Musl {
            compiler: MUSL,
            links: false,
        };
    }
    if Cmd::new("cargo-zigbuild").arg("--version").succeeds() {
        return Linking::Zig;
    }
    Linking::Musl {
        compiler: match arch {
            Arch::Amd64 => "x86_64-linux-musl-gcc",
            Arch::Arm64 => "aarch64-linux-musl-gcc",
        },
        links: true,
    }
}

impl Linking {
    /// Of cargo.
    pub fn subcommand(self) -> &'static str {
        match self {
            Self::Zig => "zigbuild",
            Self::Musl { .. } => "build",
        }
    }

    /// A linker that cargo has to be told.
    pub fn linker(self) -> Option<&'static str> {
        match self {
            Self::Musl {
                compiler,
                links: true,
            } => Some(compiler),
            _ => None,
        }
    }
}

/// Adds the standard library of a target where it is missing.
fn target(workspace: &Workspace, target: &str) -> Result<()> {
    let dir = Cmd::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .dir(workspace.root())
        .hint("Rust is missing, or the toolchain of rust-toolchain.toml is: install rustup, then `rustup toolchain install`")
        .output()?;
    if Path::new(dir.trim()).is_dir() {
        eprintln!("      Rust target {target}: there");
        return Ok(());
    }
    rustup(
        workspace,
        &["target", "add", target],
        &format!("the Rust target {target}"),
    )
}

/// Adds a component of the toolchain, such as rustfmt, where it is missing.
pub fn component(workspace: &Workspace, name: &str, cargo_subcommand: &str) -> Result<()> {
    if Cmd::new("cargo")
        .args([cargo_subcommand, "--version"])
        .dir(workspace.root())
        .succeeds()
    {
        return Ok(());
    }
    rustup(workspace, &["component", "add", name], name)
}

fn rustup(workspace: &Workspace, args: &[&str], what: &str) -> Result<()> {
    if !Cmd::new("rustup").arg("--version").succeeds() {
        bail!(
            "{what} is missing, and so is rustup, which would install it.\n\
             what to do: install rustup and run `rustup {}` in this folder, or install the package of your \
             distribution that holds it for Rust {}",
            args.join(" "),
            env!("CARGO_PKG_RUST_VERSION")
        );
    }
    Cmd::new("rustup")
        .args(args)
        .dir(workspace.root())
        .hint(format!(
            "rustup could not get {what}: see its message above; it needs the network"
        ))
        .run()
}

/// The C compiler links every Rust program and compiles the C parts of a few dependencies (ring, mimalloc).
fn c_compiler() -> Result<()> {
    let compiler = std::env::var("CC")
        .ok()
        .filter(|cc| !cc.is_empty())
        .unwrap_or_else(|| "cc".to_owned());
    match compile(&compiler) {
        Ok(()) => {
            eprintln!("      C compiler {compiler}: works");
            Ok(())
        }
        Err(how) => bail!(
            "the C compiler and linker `{compiler}` does not work: {how}\n\
             what to do: Debian, Ubuntu: apt-get install build-essential; Fedora: dnf install gcc; \
             Alpine: apk add build-base; macOS: xcode-select --install"
        ),
    }
}

/// Compiles and links a small program that needs the C headers.
fn compile(compiler: &str) -> Result<(), String> {
    let mut words = compiler.split_whitespace();
    let out = std::env::temp_dir().join(format!("dormouse-xtask-cc-{}", std::process::id()));
    let mut child = Command::new(words.next().unwrap_or("cc"))
        .args(words)
        .args(["-x", "c", "-", "-o"])
        .arg(&out)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    // It may have died already; its own message then says more than a broken pipe.
    let _ = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(b"#include <stdlib.h>\nint main(void) { return 0; }\n"));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let _ = std::fs::remove_file(&out);
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_is_not_there_is_told_from_one_that_works() {
        assert!(compile("cc").is_ok());
        assert!(compile("no-such-compiler").is_err());
        assert!(compile("false").is_err());
    }
}
