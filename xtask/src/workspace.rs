//! Where things are: the checkout, the shared build cache, the bundled plugins.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use kube_harness::Harness;

use xtask_command::Cmd;

/// The checkout and where its builds go.
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
    /// `CARGO_TARGET_DIR` was set by the user, so the folder is theirs.
    foreign_target: bool,
}

impl Workspace {
    /// Finds the checkout that this program was compiled in.
    pub fn locate() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has no parent folder")?
            .to_path_buf();
        if !root.join("rust-toolchain.toml").is_file() {
            bail!(
                "{} is not the checkout any more; run `cargo xtask` inside of it",
                root.display()
            );
        }
        // Relative to where the user is, as cargo itself reads it.
        let given = env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty());
        let foreign_target = given.is_some();
        let target = match given {
            Some(dir) => env::current_dir()?.join(dir),
            None => cache_dir(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))?.join("target"),
        };
        Ok(Self {
            root,
            target,
            foreign_target,
        })
    }

    /// Another checkout, with a target folder of its own.
    pub fn elsewhere(root: PathBuf, target: PathBuf) -> Self {
        Self {
            root,
            target,
            foreign_target: true,
        }
    }

    /// The checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path inside the checkout.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Cargo's target folder.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The per-user cache of the project, whatever CARGO_TARGET_DIR says.
    pub fn cache() -> Result<PathBuf> {
        cache_dir(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))
    }

    /// Where clusters of this machine are kept, and what they are built from.
    pub fn harness(&self) -> Result<Harness> {
        Ok(Harness::new(self.path("e2e/cluster/components"), Self::cache()?))
    }

    /// Where the bundled plugins are put.
    pub fn plugins(&self) -> PathBuf {
        self.target.join("plugins")
    }

    /// The built `dormouse`.
    pub fn binary(&self, profile: Profile) -> PathBuf {
        self.program(profile, "dormouse")
    }

    /// A built program.
    pub fn program(&self, profile: Profile, name: &str) -> PathBuf {
        self.target
            .join(profile.folder())
            .join(format!("{name}{}", env::consts::EXE_SUFFIX))
    }

    /// A cargo command in the checkout, with the shared target folder.
    pub fn cargo(&self, subcommand: &str) -> Cmd {
        Cmd::new("cargo")
            .arg(subcommand)
            .dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            // Tests and benches that load the bundled plugins find them here.
            .env("DORMOUSE_PLUGINS_DIR", self.plugins())
    }

    /// Makes sure that what was built of our own crates for a profile and a target came from this checkout.
    ///
    /// Clones share the target folder, and cargo knows a crate of a workspace by its path inside of it: it would take what
    /// another clone has built for up to date wherever the files here are older than that. Dependencies stay.
    pub fn claim(&self, profile: &str, target: &str) -> Result<()> {
        // The only profile whose folder has another name, `dev`, is not built for another target by anybody.
        let folder = self.target.join(target).join(profile);
        let marker = folder.join("checkout");
        let ours = self.root.to_string_lossy();
        if fs::read_to_string(&marker).is_ok_and(|root| root == ours) {
            return Ok(());
        }
        if folder.exists() {
            let metadata = self
                .cargo("metadata")
                .args(["--no-deps", "--locked", "--format-version", "1"])
                .output()?;
            let metadata: serde_json::Value =
                serde_json::from_str(&metadata).context("`cargo metadata` did not write JSON")?;
            let mut clean =
                self.cargo("clean")
                    .args(["--quiet", "--locked", "--profile", profile, "--target", target]);
            for package in metadata["packages"].as_array().into_iter().flatten() {
                if let Some(name) = package["name"].as_str() {
                    clean = clean.args(["--package", name]);
                }
            }
            clean.output()?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        fs::write(&marker, ours.as_bytes()).with_context(|| format!("cannot write {}", marker.display()))
    }

    /// Every Markdown file of the project, sorted.
    pub fn markdown_files(&self) -> Result<Vec<PathBuf>> {
        self.files(".md")
    }

    /// Every file of the project whose name ends so, sorted.
    pub fn files(&self, end: &str) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
                let path = entry?.path();
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                if path.is_dir() {
                    if name != "target" && !name.starts_with('.') {
                        folders.push(path);
                    }
                } else if name.ends_with(end) {
                    found.push(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// A path for people: relative to the checkout where it is inside.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// Deletes the shared cache. A folder that the user chose is left alone.
    pub fn clean(&self) -> Result<()> {
        if self.foreign_target {
            bail!(
                "CARGO_TARGET_DIR is set, so {} is yours and is left alone; `cargo clean` empties it",
                self.target.display()
            );
        }
        if !self.target.ends_with("dormouse/target") {
            bail!(
                "{} does not look like our cache; nothing was deleted",
                self.target.display()
            );
        }
        if !self.target.exists() {
            println!("nothing to delete: {} does not exist", self.target.display());
            return Ok(());
        }
        fs::remove_dir_all(&self.target)
            .with_context(|| format!("cannot delete {}", self.target.display()))?;
        println!("deleted {}", self.target.display());
        Ok(())
    }
}

/// How something is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build; dependencies are optimised all the same.
    Dev,
    /// For measuring and for use.
    Release,
}

impl Profile {
    /// The folder inside the target folder.
    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }

    /// The flag for cargo.
    pub fn args(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }
}

fn cache_dir(xdg: Option<std::ffi::OsString>, home: Option<std::ffi::OsString>) -> Result<PathBuf> {
    // The XDG specification: a relative path is invalid and counts as unset.
    let base = xdg
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| {
            home.map(PathBuf::from)
                .filter(|dir| dir.is_absolute())
                .map(|home| home.join(".cache"))
        });
    let base =
        base.context("neither XDG_CACHE_HOME nor HOME is set; set CARGO_TARGET_DIR to say where to build")?;
    Ok(base.join("dormouse"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_clone_has_built_is_not_taken_for_ours() {
        let folder = env::temp_dir().join(format!("dormouse-xtask-claim-{}", std::process::id()));
        let target = folder.join("target");
        for clone in ["one", "other"] {
            let root = folder.join(clone);
            fs::create_dir_all(root.join("src")).unwrap();
            fs::write(
                root.join("Cargo.toml"),
                "[package]\nname = \"dormouse-claimed\"\nversion = \"1.0.0\"\nedition = \"2024\"\n[workspace]\n",
            )
            .unwrap();
            fs::write(
                root.join("src/main.rs"),
                format!("fn main() {{ println!(\"{clone}\") }}\n"),
            )
            .unwrap();
        }
        let host = Cmd::new("rustc")
            .args(["--print", "host-tuple"])
            .output()
            .unwrap();
        let host = host.trim();
        let run = |clone: &str| {
            let workspace = Workspace::elsewhere(folder.join(clone), target.clone());
            workspace
                .cargo("generate-lockfile")
                .arg("--offline")
                .output()
                .unwrap();
            workspace.claim("release", host).unwrap();
            let build = workspace
                .cargo("build")
                .args(["--release", "--offline", "--target", host]);
            build.output().unwrap();
            Cmd::new(target.join(host).join("release/dormouse-claimed"))
                .output()
                .unwrap()
        };
        let said = ["one", "other", "one", "one"].map(run);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(said, ["one\n", "other\n", "one\n", "one\n"]);
    }

    #[test]
    fn the_cache_follows_xdg() {
        let dir =
            |xdg: Option<&str>, home: Option<&str>| cache_dir(xdg.map(Into::into), home.map(Into::into));
        assert_eq!(dir(Some("/x"), Some("/h")).unwrap(), Path::new("/x/dormouse"));
        assert_eq!(dir(None, Some("/h")).unwrap(), Path::new("/h/.cache/dormouse"));
        assert_eq!(
            dir(Some("relative"), Some("/h")).unwrap(),
            Path::new("/h/.cache/dormouse")
        );
        assert!(dir(None, None).is_err());
    }
}
