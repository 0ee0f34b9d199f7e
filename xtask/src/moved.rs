//! What is built is the same wherever it is built: folders of this machine do not get into it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xtask_command::Cmd;

use crate::workspace::Workspace;

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
    pub fn cflags(&self) -> OsString {
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
