//! The bundled plugins: sample-scalers/* as WebAssembly components.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::moved::Moved;
use crate::tools::GUEST_TARGET;
use crate::workspace::Workspace;

/// What the step is called.
pub const WHAT: &str = "build the bundled plugins (sample-scalers/) for wasm32-wasip2, release profile";

/// Builds every folder of sample-scalers/ and puts `<folder>.wasm` into the plugins folder.
pub fn build(workspace: &Workspace) -> Result<()> {
    let guests = guests(workspace)?;
    workspace.claim("release", GUEST_TARGET)?;
    let rustflags = Moved::of(workspace)?.rustflags();
    let mut cargo = workspace
        .cargo("build")
        .args(["--release", "--target", GUEST_TARGET])
        // A component is shipped and hashed as it is: names for backtraces stay, megabytes of line tables go.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "none")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        // The same component from every checkout: its digest is what caches and images know it by.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            rustflags.join(&OsString::from("\u{1f}")),
        )
        .hint("the compiler's message is above; plugins may use only crates that build for wasm32-wasip2");
    for guest in &guests {
        cargo = cargo.args(["--package", &guest.package]);
    }
    cargo.run()?;
    let plugins = workspace.plugins();
    fs::create_dir_all(&plugins).with_context(|| format!("cannot create {}", plugins.display()))?;
    for guest in &guests {
        let built = workspace
            .target()
            .join(GUEST_TARGET)
            .join("release")
            .join(format!("{}.wasm", guest.package.replace('-', "_")));
        let to = plugins.join(format!("{}.wasm", guest.name));
        let bytes = fs::read(&built).with_context(|| {
            format!(
                "{} was not built: does its Cargo.toml say crate-type = [\"cdylib\"]?",
                built.display()
            )
        })?;
        // Written aside and renamed: a host that is just scanning the folder never sees half a file.
        let aside = plugins.join(format!(".{}.wasm.{}", guest.name, std::process::id()));
        fs::write(&aside, &bytes).with_context(|| format!("cannot write {}", aside.display()))?;
        fs::rename(&aside, &to).with_context(|| format!("cannot write {}", to.display()))?;
        eprintln!("      {}  {} KiB", to.display(), bytes.len().div_ceil(1024));
    }
    Ok(())
}

/// The plugins that were built, by name.
pub fn built(workspace: &Workspace) -> Result<Vec<(String, Vec<u8>)>> {
    guests(workspace)?
        .into_iter()
        .map(|guest| {
            let file = workspace.plugins().join(format!("{}.wasm", guest.name));
            let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            Ok((guest.name, bytes))
        })
        .collect()
}

/// The cargo package of a plugin.
pub fn package(workspace: &Workspace, name: &str) -> Result<String> {
    guests(workspace)?
        .into_iter()
        .find(|guest| guest.name == name)
        .map(|guest| guest.package)
        .with_context(|| format!("sample-scalers/ has no `{name}`"))
}

/// Package names of everything that must compile for the guest target, the SDK included.
pub fn packages(workspace: &Workspace) -> Result<Vec<String>> {
    let mut packages = vec!["dormouse-sdk".to_owned()];
    packages.extend(guests(workspace)?.into_iter().map(|guest| guest.package));
    Ok(packages)
}

struct Guest {
    /// Folder and plugin name.
    name: String,
    /// Cargo package.
    package: String,
}

fn guests(workspace: &Workspace) -> Result<Vec<Guest>> {
    let folder = workspace.path("sample-scalers");
    let mut manifests: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path().join("Cargo.toml")))
        .collect::<Result<Vec<_>>>()?;
    manifests.retain(|manifest| manifest.is_file());
    manifests.sort();
    manifests
        .into_iter()
        .map(|manifest| {
            let text = fs::read_to_string(&manifest)?;
            let package =
                package_name(&text).with_context(|| format!("{} has no package name", manifest.display()))?;
            let name = manifest
                .parent()
                .and_then(|dir| dir.file_name())
                .context("a manifest without a folder")?;
            Ok(Guest {
                name: name.to_string_lossy().into_owned(),
                package,
            })
        })
        .collect()
}

/// The `name` of `[package]`.
fn package_name(manifest: &str) -> Option<String> {
    let package = manifest.split_once("[package]")?.1;
    let package = package.split("\n[").next()?;
    package
        .lines()
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| key.trim() == "name")
        .map(|(_, value)| value.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_name_is_that_of_the_package() {
        let manifest =
            "[lib]\nname = \"lib\"\n[package]\nversion = \"1\"\nname = \"a-b\"\n[features]\nname = \"no\"\n";
        assert_eq!(package_name(manifest).as_deref(), Some("a-b"));
        assert_eq!(
            package_name("[package]\nversion = \"1\"\n[x]\nname = \"no\""),
            None
        );
    }

    #[test]
    fn both_bundled_plugins_are_found() {
        let names: Vec<_> = guests(&Workspace::locate().unwrap())
            .unwrap()
            .into_iter()
            .map(|guest| guest.name)
            .collect();
        assert!(names.contains(&"workloads".to_owned()), "{names:?}");
        assert!(names.contains(&"status-driven".to_owned()), "{names:?}");
    }
}
