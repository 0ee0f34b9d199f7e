//! Images of programs as the tests have built them: quick to come by, for tests of what Dormouse does and not of how it is shipped.
//!
//! The programs are those of the profile `dev`, dynamically linked; the loader and the libraries that they need come from this
//! machine, at their own paths. Such an image runs on this machine, and is nobody's to ship.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::content;
use super::origin::Origin;
use super::{Program, WORKLOAD, plugins};
use crate::workspace::{Profile, Workspace};
use crate::{build, guests, tools};
use xtask_command::{Cmd, Steps};
use xtask_oci::{Arch, Image, Layer, write_archive};

/// `cargo xtask image --dev`.
pub fn command(workspace: &Workspace, only_workload: bool) -> Result<()> {
    let mut steps = Steps::new(4);
    steps.run("check the tools", || tools::for_everything(workspace))?;
    steps.run(guests::WHAT, || guests::build(workspace))?;
    steps.run("build dormouse and the workload as the tests do", || {
        build::for_tests(workspace)
    })?;
    let file = steps.run("write the image", || {
        if only_workload {
            Ok(workload(workspace)?.1)
        } else {
            dormouse(workspace)
        }
    })?;
    println!("{}", file.display());
    Ok(())
}

/// The image of Dormouse, of programs and plugins that are built. Called as the one that is shipped: the chart asks for it by that name.
pub fn dormouse(workspace: &Workspace) -> Result<PathBuf> {
    let file = archive(workspace, "dormouse-dev.tar");
    dormouse_of(
        workspace,
        &format!("dormouse:{}", Origin::of(workspace)?.version),
        &program(workspace, Program::Dormouse),
        &guests::built(workspace)?,
        &file,
    )?;
    Ok(file)
}

/// The same with another name, of a program and plugins that are somewhere else.
pub fn dormouse_of(
    workspace: &Workspace,
    reference: &str,
    program: &Path,
    bundled: &[(String, Vec<u8>)],
    file: &Path,
) -> Result<()> {
    let origin = Origin::of(workspace)?;
    let mut image = image(workspace, &origin, reference, Program::Dormouse, program)?;
    image.layers.insert(1, plugins(bundled)?);
    image.labels = origin.labels("dormouse", "Dormouse as its tests have built it");
    write(&image, file)
}

/// The image of the pods of the end-to-end tests, and its archive.
pub fn workload(workspace: &Workspace) -> Result<(Image, PathBuf)> {
    let origin = Origin::of(workspace)?;
    let program = program(workspace, Program::Workload);
    let mut image = image(workspace, &origin, WORKLOAD, Program::Workload, &program)?;
    image.labels = origin.labels(
        "dormouse-workload",
        "The workload of the end-to-end tests as they have built it",
    );
    let file = archive(workspace, "workload-dev.tar");
    write(&image, &file)?;
    Ok((image, file))
}

/// As the tests have built it.
fn program(workspace: &Workspace, program: Program) -> PathBuf {
    workspace.program(Profile::Dev, program.file())
}

fn archive(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.target().join("image").join(name)
}

fn write(image: &Image, file: &Path) -> Result<()> {
    let written = write_archive(image, file)?;
    eprintln!("      {}: {} MiB", image.reference, written.size >> 20);
    Ok(())
}

fn image(
    workspace: &Workspace,
    origin: &Origin,
    reference: &str,
    program: Program,
    built: &Path,
) -> Result<Image> {
    let mut image = Image::new(reference.parse()?, Arch::of_this_machine()?, origin.created);
    let path = program.path();
    image.layers = vec![
        content::base()?,
        libraries(built)?,
        Layer::new("a program as the tests have built it").file(path, 0o755, stripped(workspace, built)?)?,
    ];
    image.user = content::USER.to_owned();
    image.entrypoint = vec![path.to_owned()];
    image.ports = program.ports().to_vec();
    Ok(image)
}

/// The dynamic loader and what it loads.
fn libraries(program: &Path) -> Result<Layer> {
    let listing = Cmd::new("ldd")
        .arg(program)
        .hint("`ldd` comes with the C library; without `--dev-image` a static program is built, which needs no libraries")
        .output()?;
    let mut layer = Layer::new("the dynamic loader and shared libraries of the machine that built it");
    for path in paths(&listing)? {
        let bytes = fs::read(path).with_context(|| format!("cannot read {path}"))?;
        layer = layer.file(path, 0o755, bytes)?;
    }
    Ok(layer)
}

/// What `ldd` lists: `libm.so.6 => /lib/libm.so.6 (0x…)`, and the loader itself without an arrow. What the kernel provides has no
/// path.
fn paths(listing: &str) -> Result<Vec<&str>> {
    let mut paths = Vec::new();
    for line in listing.lines() {
        let found = line.split_once(" => ").map_or(line, |(_, found)| found).trim();
        if found.starts_with("not found") {
            bail!("a shared library of the program is missing: {}", line.trim());
        }
        if let Some(path) = found.split(" (").next().filter(|path| path.starts_with('/'))
            && !paths.contains(&path)
        {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        bail!("`ldd` lists no library of the program:\n{listing}");
    }
    Ok(paths)
}

/// Without line tables, which are most of it. Symbols stay, for the sake of backtraces.
fn stripped(workspace: &Workspace, program: &Path) -> Result<Vec<u8>> {
    let folder = workspace.target().join("image");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = folder.join(format!(".stripped-{}", std::process::id()));
    let strip = Cmd::new("strip")
        .arg("--strip-debug")
        .arg("-o")
        .arg(&file)
        .arg(program);
    // It comes with the linker. A larger image does as well.
    let from = if strip.succeeds() { file.as_path() } else { program };
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()));
    let _ = fs::remove_file(&file);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_every_library_is_found() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffc)\n\
             \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f)\n\
             \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
             \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            paths(listing).unwrap(),
            [
                "/lib/x86_64-linux-gnu/libgcc_s.so.1",
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        let missing = paths("\tlibx.so => not found\n").unwrap_err().to_string();
        assert!(missing.contains("libx.so"), "{missing}");
        assert!(paths("\tstatically linked\n").is_err());
    }

    #[test]
    fn what_this_program_needs_is_in_the_layer() {
        let layer = libraries(&std::env::current_exe().unwrap()).unwrap();
        assert!(layer.paths().any(|path| path.contains("libc.")), "no C library");
    }
}
