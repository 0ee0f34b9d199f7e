//! Building Kubernetes and its companions from source with Go, once per user.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use xtask_command::{Cmd, seconds};

/// Compiling the API server cold on a slow machine stays well below this.
const DEADLINE: Duration = Duration::from_secs(40 * 60);

/// One program to build.
struct Recipe {
    name: &'static str,
    module: &'static str,
    package: &'static str,
    /// A cold build on two cores, for people who wait.
    seconds: u32,
}

const RECIPES: &[Recipe] = &[
    recipe("etcd", "etcd", "go.etcd.io/etcd/server/v3", 26),
    recipe("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl", 60),
    recipe(
        "kube-apiserver",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-apiserver",
        260,
    ),
    recipe(
        "kube-controller-manager",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        100,
    ),
    recipe(
        "kube-scheduler",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        15,
    ),
    recipe("kube-proxy", "kubernetes", "k8s.io/kubernetes/cmd/kube-proxy", 15),
    recipe("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet", 40),
    recipe("helm", "helm", "helm.sh/helm/v4/cmd/helm", 120),
    recipe("coredns", "coredns", "github.com/coredns/coredns", 130),
    recipe(
        "dormouse-test-adapter",
        "custom-metrics",
        "sigs.k8s.io/custom-metrics-apiserver/test-adapter",
        150,
    ),
    recipe(
        "metrics-server",
        "metrics-server",
        "sigs.k8s.io/metrics-server/cmd/metrics-server",
        120,
    ),
];

const fn recipe(name: &'static str, module: &'static str, package: &'static str, seconds: u32) -> Recipe {
    Recipe {
        name,
        module,
        package,
        seconds,
    }
}

/// Where every component is, for one state of the pinned modules.
pub struct Components {
    bin: PathBuf,
    /// Folder inside of `bin`, by module.
    digests: Vec<(&'static str, String)>,
    modules: PathBuf,
    flags: Vec<(&'static str, String)>,
    kubernetes: String,
}

impl Components {
    /// Reads what is pinned in a folder for each module, so that none of them bends the versions of another. Builds nothing.
    pub fn pinned(modules: &Path, bin: &Path) -> Result<Self> {
        let kubernetes = version(&modules.join("kubernetes/go.mod"), "k8s.io/kubernetes")?;
        let helm = version(&modules.join("helm/go.mod"), "helm.sh/helm/v4")?;
        let mut digests = Vec::new();
        let mut flags = Vec::new();
        for recipe in RECIPES {
            if digests.iter().any(|(module, _)| *module == recipe.module) {
                continue;
            }
            let linker = linker_flags(recipe.module, &kubernetes, &helm);
            let mut hash = Sha256::new();
            for file in ["go.mod", "go.sum"] {
                let path = modules.join(recipe.module).join(file);
                hash.update(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
            }
            hash.update(&linker);
            hash.update(std::env::consts::ARCH);
            let digest = hash
                .finalize()
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>();
            digests.push((recipe.module, digest));
            flags.push((recipe.module, linker));
        }
        Ok(Self {
            bin: bin.to_owned(),
            digests,
            modules: modules.to_owned(),
            flags,
            kubernetes,
        })
    }

    /// The version of Kubernetes, such as `v1.37.2`.
    pub fn kubernetes_version(&self) -> &str {
        &self.kubernetes
    }

    /// Relative to the folder of all builds.
    pub fn relative(&self, name: &str) -> Result<PathBuf> {
        let recipe = RECIPES
            .iter()
            .find(|recipe| recipe.name == name)
            .with_context(|| format!("no component is called `{name}`"))?;
        Ok(Path::new(self.folder(recipe)).join(recipe.name))
    }

    /// The built program.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        Ok(self.bin.join(self.relative(name)?))
    }

    /// The folders that hold the programs for people.
    pub fn tools(&self) -> Result<Vec<PathBuf>> {
        ["kubectl", "helm", "etcd"]
            .into_iter()
            .filter_map(|name| {
                self.path(name)
                    .map(|path| path.parent().map(Path::to_owned))
                    .transpose()
            })
            .collect()
    }

    fn to_build(&self) -> impl Iterator<Item = &'static Recipe> {
        RECIPES
            .iter()
            .filter(|recipe| !self.bin.join(self.folder(recipe)).join(recipe.name).is_file())
    }

    fn folder(&self, recipe: &Recipe) -> &str {
        of(&self.digests, recipe.module)
    }

    /// Builds what is not there. Two processes that do it at once wait for each other and share the work.
    pub fn build(&self) -> Result<()> {
        if self.to_build().next().is_none() {
            return Ok(());
        }
        fs::create_dir_all(&self.bin).with_context(|| format!("cannot create {}", self.bin.display()))?;
        let _lock = lock(
            &self.bin.join(".lock"),
            "another process builds the components; waiting for it",
        )?;
        let start = Instant::now();
        let expected = self.to_build().map(|recipe| recipe.seconds).sum::<u32>();
        eprintln!(
            "building Kubernetes {} from source, once for this user: about {} on two cores when Go's own cache is \
             empty, less than one otherwise",
            self.kubernetes,
            minutes(expected)
        );
        for (index, recipe) in RECIPES.iter().enumerate() {
            let target = self.bin.join(self.folder(recipe)).join(recipe.name);
            let position = format!("[{}/{}] {}", index + 1, RECIPES.len(), recipe.name);
            if target.is_file() {
                eprintln!("{position}: there");
                continue;
            }
            eprintln!("{position}: about {} the first time", minutes(recipe.seconds));
            let start = Instant::now();
            self.build_one(recipe, &target)?;
            eprintln!("{position}: done in {}", seconds(start.elapsed()));
        }
        eprintln!(
            "all components are in {} ({})",
            self.bin.display(),
            seconds(start.elapsed())
        );
        Ok(())
    }

    fn build_one(&self, recipe: &Recipe, target: &Path) -> Result<()> {
        let folder = self.bin.join(self.folder(recipe));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        // One builder at a time holds the lock, so what is left under this name is from one that was killed.
        let unfinished = folder.join(format!(".{}.unfinished", recipe.name));
        Cmd::new("go")
            .args(["build", "-trimpath", "-ldflags"])
            .arg(of(&self.flags, recipe.module))
            .arg("-o")
            .arg(&unfinished)
            .arg(recipe.package)
            .dir(&self.modules.join(recipe.module))
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off")
            .env("GOFLAGS", "-mod=readonly")
            .deadline(DEADLINE)
            .hint(
                "modules come through Go's own client: see GOPROXY in `go help goproxy` when the network is the \
                 cause; `cargo xtask cluster build` goes on where this one ended",
            )
            .run()?;
        fs::rename(&unfinished, target).with_context(|| format!("cannot write {}", target.display()))
    }
}

fn of<'a>(list: &'a [(&'static str, String)], module: &str) -> &'a str {
    list.iter()
        .find(|(name, _)| *name == module)
        .map_or("", |(_, value)| value)
}

/// Programs say which version they are only when the linker is told.
fn linker_flags(module: &str, kubernetes: &str, helm: &str) -> String {
    let component = "k8s.io/component-base/version";
    let mut numbers = kubernetes.trim_start_matches('v').split('.');
    match module {
        "kubernetes" | "custom-metrics" => format!(
            "-s -w -X {component}.gitVersion={kubernetes} -X {component}.gitMajor={} -X {component}.gitMinor={}",
            numbers.next().unwrap_or_default(),
            numbers.next().unwrap_or_default()
        ),
        "helm" => format!("-s -w -X helm.sh/helm/v4/internal/version.version={helm}"),
        _ => "-s -w".to_owned(),
    }
}

/// The version that a go.mod requires of a module.
fn version(file: &Path, module: &str) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines()
        .find_map(|line| {
            let mut words = line.trim_start_matches("require").split_whitespace();
            (words.next() == Some(module)).then(|| words.next().map(str::to_owned))?
        })
        .with_context(|| format!("{} does not require {module}", file.display()))
}

/// Takes a file lock, which the kernel drops when its holder dies.
pub fn lock(file: &Path, waiting: &str) -> Result<File> {
    let context = || format!("cannot lock {}", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(context)?;
    }
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(file)
        .with_context(context)?;
    match opened.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            eprintln!("{waiting} …");
            opened.lock().with_context(context)?;
        }
        Err(fs::TryLockError::Error(error)) => return Err(error).with_context(context),
    }
    Ok(opened)
}

fn minutes(seconds: u32) -> String {
    if seconds < 90 {
        format!("{seconds} s")
    } else {
        format!("{} min", seconds.div_ceil(60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_modules_are_read() {
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/cluster/components");
        let components = Components::pinned(&modules, Path::new("/bin-folder")).unwrap();
        assert!(components.kubernetes_version().starts_with("v1."));
        let kubelet = components.path("kubelet").unwrap();
        assert!(kubelet.starts_with("/bin-folder"), "{}", kubelet.display());
        assert_eq!(kubelet.parent(), components.path("kube-proxy").unwrap().parent());
        assert_ne!(kubelet.parent(), components.path("helm").unwrap().parent());
        assert!(components.path("no-such-component").is_err());
        assert_eq!(components.to_build().count(), RECIPES.len());
    }

    #[test]
    fn the_version_is_found_in_both_forms_of_require() {
        let file = std::env::temp_dir().join(format!("dormouse-xtask-gomod-{}", std::process::id()));
        fs::write(
            &file,
            "module m\nrequire a.b/c v1.2.3\nrequire (\n\td.e/f v4.5.6 // indirect\n)\n",
        )
        .unwrap();
        assert_eq!(version(&file, "a.b/c").unwrap(), "v1.2.3");
        assert_eq!(version(&file, "d.e/f").unwrap(), "v4.5.6");
        assert!(version(&file, "g").is_err());
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn programs_know_their_version() {
        let flags = linker_flags("kubernetes", "v1.37.2", "v4.3.1");
        assert!(
            flags.contains("gitVersion=v1.37.2")
                && flags.contains("gitMajor=1 ")
                && flags.ends_with("gitMinor=37")
        );
    }
}
