//! `cargo xtask image --check`: whether two clones give one image.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::origin::Origin;
use super::{assemble, build};
use crate::workspace::Workspace;
use xtask_command::{Cmd, Steps};
use xtask_oci::{self as oci, Arch, Written};

/// Builds the image here, and from a copy of the checkout with a target folder of its own, and compares.
pub fn check(workspace: &Workspace, arch: Arch) -> Result<()> {
    let origin = Origin::of(workspace)?;
    let mut steps = Steps::new(7);
    let folder = workspace.target().join("image").join("check");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot delete {}", folder.display()))?;
    }
    let copy = folder.join("a-clone-elsewhere");
    let files = steps.run("copy the checkout", || {
        let files = files(workspace)?;
        copy_files(workspace, &files, &copy)?;
        Ok(files)
    })?;
    let here = image(workspace, arch, &origin, &folder.join("here.tar"), &mut steps)?;
    unchanged(workspace, &files, &copy)?;
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

/// Every file that git knows or would know; what is built is not among them.
fn files(workspace: &Workspace) -> Result<Vec<String>> {
    let listing = Cmd::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .dir(workspace.root())
        .hint("the check needs a git checkout, to know which files belong to it")
        .output()?;
    Ok(listing
        .split('\0')
        // One that was deleted is listed until that is committed.
        .filter(|file| !file.is_empty() && workspace.path(file).is_file())
        .map(str::to_owned)
        .collect())
}

fn copy_files(workspace: &Workspace, files: &[String], to: &Path) -> Result<()> {
    for file in files {
        let (from, to) = (workspace.path(file), to.join(file));
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// The first build takes minutes, in which somebody may go on working.
fn unchanged(workspace: &Workspace, files: &[String], copy: &Path) -> Result<()> {
    for file in files {
        if fs::read(workspace.path(file)).ok() != fs::read(copy.join(file)).ok() {
            bail!(
                "{file} changed while the image was built; nothing can be said about such a build, run it again"
            );
        }
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
