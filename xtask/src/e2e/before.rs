//! The version before this one, from the history of the repository: its image, its chart and its values, to upgrade from.
//!
//! It is built once and kept in the per-user cache, by its revision.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::workspace::{Profile, Workspace};
use crate::{guests, image};
use xtask_command::Cmd;

/// Whose Sleepers and settings this version must take over: the last one whose Sleepers know plugins only.
const REVISION: &str = "7f5532cf91e218bce1aaba740fbdf5dcfd37e816";
/// What its image is called, beside that of this version.
const TAG: &str = "before";
/// Its program. Another name than that of this version, whose builds are in the same folder.
const PROGRAM: &str = "dormouse-before";

/// The version before, built.
pub struct Before {
    folder: PathBuf,
}

impl Before {
    /// Why there is none: nothing, or what is missing of the repository.
    pub fn missing(workspace: &Workspace) -> Option<String> {
        let commit = format!("{REVISION}^{{commit}}");
        let known = Cmd::new("git")
            .args(["cat-file", "-e", &commit])
            .dir(workspace.root())
            .succeeds();
        (!known)
            .then(|| format!("this clone does not have revision {REVISION}; `git fetch --unshallow` gets it"))
    }

    /// Finds it, or builds it.
    pub fn get(workspace: &Workspace) -> Result<Self> {
        let before = Self {
            folder: Workspace::cache()?.join("before").join(REVISION),
        };
        // Written last.
        if !before.image().is_file() {
            before.build(workspace)?;
        }
        Ok(before)
    }

    /// The archive of its image.
    pub fn image(&self) -> PathBuf {
        self.folder.join("image.tar")
    }

    /// Its chart.
    pub fn chart(&self) -> PathBuf {
        self.tree().join("chart")
    }

    /// How its suite installed its chart.
    pub fn values(&self) -> PathBuf {
        self.tree().join(super::VALUES)
    }

    /// The flag of Helm that names its image.
    pub fn image_flag() -> String {
        format!("--set=image.tag={TAG}")
    }

    fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    fn build(&self, workspace: &Workspace) -> Result<()> {
        self.export(workspace)?;
        set_apart(&self.tree())?;
        // Nearly all dependencies are those of this version, and compiled already.
        let tree = Workspace::elsewhere(self.tree(), workspace.target().to_owned());
        tree.cargo("build")
            .args(["--workspace", "--all-features", "--bin", PROGRAM])
            // Any test brings the features that only tests ask for, so that dependencies are those of this version's tests.
            .args(["--test", "quantity"])
            .hint(
                "the compiler's message is above; it is about the version before, which is not to be changed",
            )
            .run()?;
        // What is built of plugins is told apart by their names alone: a folder of their own.
        let plugins = Workspace::elsewhere(self.tree(), self.folder.join("target"));
        guests::build(&plugins)?;
        let plugins = guests::built(&plugins)?;
        let program = tree.program(Profile::Dev, PROGRAM);
        image::dev::dormouse_of(
            &tree,
            &format!("dormouse:{TAG}"),
            &program,
            &plugins,
            &self.image(),
        )?;
        fs::remove_dir_all(self.folder.join("target")).context("cannot delete what plugins were built from")
    }

    /// Its files, without a history.
    fn export(&self, workspace: &Workspace) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)
                .with_context(|| format!("cannot delete {}", self.folder.display()))?;
        }
        fs::create_dir_all(self.tree())
            .with_context(|| format!("cannot create {}", self.tree().display()))?;
        let archive = self.folder.join("tree.tar");
        Cmd::new("git")
            .args(["archive", "--format=tar", "--output"])
            .arg(&archive)
            .arg(REVISION)
            .dir(workspace.root())
            .output()?;
        Cmd::new("tar")
            .arg("-xf")
            .arg(&archive)
            .dir(&self.tree())
            .output()?;
        fs::remove_file(&archive).with_context(|| format!("cannot delete {}", archive.display()))
    }
}

/// Cargo knows a crate of a workspace by its path in it and its version. With another version, and another name of the program, it
/// keeps apart what it builds here and what it builds of this version, in one target folder.
fn set_apart(tree: &Path) -> Result<()> {
    replace(
        &tree.join("Cargo.toml"),
        "\nversion = \"0.1.0\"\n",
        &format!("\nversion = \"0.1.0-{TAG}\"\n"),
    )?;
    replace(
        &tree.join("host/dormouse/Cargo.toml"),
        "[[bin]]\nname = \"dormouse\"\n",
        &format!("[[bin]]\nname = \"{PROGRAM}\"\n"),
    )
}

fn replace(file: &Path, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let found = text.matches(from).count();
    ensure!(found == 1, "{from:?} is {found} times in {}", file.display());
    fs::write(file, text.replacen(from, to, 1)).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_must_be_there_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Cargo.toml");
        fs::write(&file, "a = 1\nb = 1\n").unwrap();
        replace(&file, "a = 1", "a = 2").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 2\nb = 1\n");
        assert!(replace(&file, "a = 1", "a = 2").is_err());
        assert!(replace(&file, "= ", "=").is_err());
    }
}
