//! `cargo xtask image --check`: whether two clones give one image.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::oci::{self, Arch, Written};
use super::origin::Origin;
use super::{assemble, build};
use crate::run::{Cmd, Steps};
use crate::workspace::Workspace;

/// Builds the image here, and from a copy of the checkout with a target folder of its own, and compares.
pub fn check(workspace: &Workspace, arch: Arch) -> Result<()> {
    let origin = Origin::of(workspace)?;
    let mut steps = Steps::new(7);
    let folder = workspace.target().join("image").join("check");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot delete {}", folder.display()))?;
    }
    let here = image(workspace, arch, &origin, &folder.join("here.tar"), &mut steps)?;
    let copy = folder.join("a-clone-elsewhere");
    steps.run("copy the checkout", || copy_checkout(workspace, &copy))?;
    let clone = Workspace::elsewhere(copy, folder.join("another-target"));
    let there = image(&clone, arch, &origin, &folder.join("there.tar"), &mut steps)?;
    compare(&here, &there)?;
    println!("two builds at two places gave {}", here.digest);
    fs::remove_dir_all(&folder).with_context(|| format!("cannot delete {}", folder.display()))
}

fn image(
    workspace: &Workspace,
    arch: Arch,
    origin: &Origin,
    file: &Path,
    steps: &mut Steps,
) -> Result<Written> {
    let content = build(workspace, arch, origin, steps)?;
    let image = assemble("dormouse:check".parse()?, arch, origin, &content)?;
    oci::write_archive(&image, file)
}

/// Every file that git knows or would know; what is built stays behind.
fn copy_checkout(workspace: &Workspace, to: &Path) -> Result<()> {
    let files = Cmd::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .dir(workspace.root())
        .hint("the check needs a git checkout, to know which files belong to it")
        .output()?;
    for file in files.split('\0').filter(|file| !file.is_empty()) {
        let (from, to): (PathBuf, PathBuf) = (workspace.path(file), to.join(file));
        // Deleted, and not committed yet.
        if !from.exists() {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

fn compare(here: &Written, there: &Written) -> Result<()> {
    let differ: Vec<_> = here
        .layers
        .iter()
        .zip(&there.layers)
        .filter(|(one, other)| one.digest != other.digest)
        .map(|(one, other)| format!("{}: {} and {}", one.title, one.digest, other.digest))
        .collect();
    if here.digest == there.digest {
        return Ok(());
    }
    bail!(
        "two builds of one checkout differ:\n    {}\n\
         what to do: compare {} and {}; a path of this machine in one of them is the usual cause (`strings`)",
        differ.join("\n    "),
        here.file.display(),
        there.file.display()
    )
}
