//! The plugins of a directory.
//!
//! A set is replaced as a whole: whoever holds a [`Plugin`] keeps its generation until it lets go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::join_all;

use crate::load::{Template, compile, digest, read, unreadable};
use crate::metrics::PluginMetrics;
use crate::services::HostServices;
use crate::state::Shared;
use crate::validate::plugin_name;
use crate::{HostEngine, Limits, Plugin, PluginConfig, PluginError};

/// What became of one plugin file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginStatus {
    /// The file stem.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Loaded or not.
    pub state: LoadState,
}

/// Whether a plugin is there to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// It was linked and tried.
    Ready {
        /// Which load of this name it is.
        generation: u64,
        /// SHA-256 of the file, in hexadecimal.
        digest: String,
        /// Whether it decides about Ingress paths.
        ingress_targets: bool,
    },
    /// It was not. The others are not affected.
    Failed {
        /// Why.
        error: PluginError,
    },
}

/// One moment of a set.
#[derive(Debug, Default)]
struct Snapshot {
    directory: Option<PluginError>,
    plugins: BTreeMap<String, Arc<Plugin>>,
    statuses: Vec<PluginStatus>,
}

/// The plugins of a directory.
#[derive(Debug)]
pub struct PluginSet {
    current: ArcSwap<Snapshot>,
}

impl PluginSet {
    /// Loads every `*.wasm` of `directory`; the file stem is the plugin's name and its key in `configs`.
    ///
    /// Never fails as a whole: see [`PluginSet::statuses`] and [`PluginSet::directory_error`]. Hidden entries are
    /// skipped and links are followed, so that a mounted ConfigMap works.
    pub async fn load(
        engine: &HostEngine,
        directory: &Path,
        configs: &BTreeMap<String, PluginConfig>,
        services: Arc<dyn HostServices>,
    ) -> PluginSet {
        Self::load_from(engine, &[directory.to_owned()], configs, services).await
    }

    /// As [`PluginSet::load`], from several places, each a directory or one file: an image, a ConfigMap and a volume are
    /// mounted at different paths. A name that is found twice belongs to the earlier place; the later file is reported, so
    /// that nothing is replaced without anybody noticing.
    pub async fn load_from(
        engine: &HostEngine,
        places: &[PathBuf],
        configs: &BTreeMap<String, PluginConfig>,
        services: Arc<dyn HostServices>,
    ) -> PluginSet {
        let mut files = Vec::new();
        let mut unreadable = None;
        for place in places {
            match scan(place) {
                Ok(found) => files.extend(found),
                Err(error) => {
                    tracing::error!(code = error.code(), "{error}");
                    unreadable.get_or_insert(error);
                }
            }
        }
        // Without a single place nobody knows which files there should be: each configuration would be reported as missing.
        let unknown = files.is_empty() && unreadable.is_some();
        let nothing = BTreeMap::new();
        let configs = if unknown { &nothing } else { configs };
        let mut snapshot = Snapshot::load(engine, places, &files, configs, &services).await;
        snapshot.directory = unreadable;
        PluginSet {
            current: ArcSwap::from_pointee(snapshot),
        }
    }

    /// The plugins that are ready, by name.
    #[must_use]
    pub fn plugins(&self) -> Vec<Arc<Plugin>> {
        self.current.load().plugins.values().cloned().collect()
    }

    /// The plugin of a name, if it is ready.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Plugin>> {
        self.current.load().plugins.get(name).cloned()
    }

    /// Every file and what became of it, by name, and every configuration without a file.
    #[must_use]
    pub fn statuses(&self) -> Vec<PluginStatus> {
        self.current.load().statuses.clone()
    }

    /// Why the directory, or the first of several that failed, could not be read. What is missing from it is not known.
    #[must_use]
    pub fn directory_error(&self) -> Option<PluginError> {
        self.current.load().directory.clone()
    }
}

impl Snapshot {
    async fn load(
        engine: &HostEngine,
        places: &[PathBuf],
        files: &[PathBuf],
        configs: &BTreeMap<String, PluginConfig>,
        services: &Arc<dyn HostServices>,
    ) -> Snapshot {
        let nothing = PluginConfig::default();
        let (files, later) = once_each(files);
        let loads = files.iter().map(|path| {
            let name = stem(path);
            let config = configs.get(&name).unwrap_or(&nothing);
            async move {
                let loaded = load(engine, path, &name, 1, config, services).await;
                (name, path.clone(), loaded)
            }
        });
        let mut snapshot = Snapshot::default();
        // Before those that are used, whose metrics are to have the last word.
        for (path, first) in later {
            let error = PluginError::NameTaken {
                plugin: stem(&path),
                first: first.display().to_string(),
            };
            snapshot.take(engine, stem(&path), path, Err(error));
        }
        for (name, path, loaded) in join_all(loads).await {
            snapshot.take(engine, name, path, loaded);
        }
        let present: BTreeSet<String> = files.iter().map(|path| stem(path)).collect();
        for name in configs.keys().filter(|name| !present.contains(*name)) {
            let file = format!("{name}.wasm");
            let path = places
                .first()
                .map_or_else(PathBuf::new, |place| place.join(&file));
            let error = PluginError::NoFile {
                plugin: name.clone(),
                file,
            };
            snapshot.take(engine, name.clone(), path, Err(error));
        }
        snapshot.statuses.sort_by(|a, b| a.name.cmp(&b.name));
        snapshot
    }

    fn take(
        &mut self,
        engine: &HostEngine,
        name: String,
        path: PathBuf,
        loaded: Result<Plugin, PluginError>,
    ) {
        let state = match loaded {
            Ok(plugin) => {
                engine.metrics().loaded(&name, "ready");
                tracing::info!(
                    plugin = name,
                    generation = plugin.generation(),
                    digest = plugin.short_digest(),
                    "plugin is ready"
                );
                let state = LoadState::Ready {
                    generation: plugin.generation(),
                    digest: plugin.digest().to_owned(),
                    ingress_targets: plugin.has_ingress_targets(),
                };
                self.plugins.insert(name.clone(), Arc::new(plugin));
                state
            }
            Err(error) => {
                engine.metrics().loaded(&name, error.code());
                tracing::error!(
                    plugin = name,
                    path = %path.display(),
                    code = error.code(),
                    "plugin is not loaded: {error}"
                );
                LoadState::Failed { error }
            }
        };
        self.statuses.push(PluginStatus { name, path, state });
    }
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The first file of each name, and the later ones of a name with the first.
fn once_each(files: &[PathBuf]) -> (Vec<PathBuf>, Vec<(PathBuf, PathBuf)>) {
    let mut first: BTreeMap<String, PathBuf> = BTreeMap::new();
    let (mut once, mut later) = (Vec::new(), Vec::new());
    for path in files {
        match first.get(&stem(path)) {
            Some(earlier) => later.push((path.clone(), earlier.clone())),
            None => {
                first.insert(stem(path), path.clone());
                once.push(path.clone());
            }
        }
    }
    (once, later)
}

/// The plugin files of a directory, sorted; or the one file that is named.
///
/// A mounted ConfigMap or Secret holds links through a hidden `..data`, which is a link itself: what is hidden is
/// skipped, and links are followed when a file is read.
fn scan(directory: &Path) -> Result<Vec<PathBuf>, PluginError> {
    let failed = |error: std::io::Error| unreadable(directory, &error);
    if directory.is_file() {
        return Ok(vec![directory.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let path = entry.path();
        let wasm = path.extension().is_some_and(|extension| extension == "wasm");
        // A link that leads nowhere stays in the list: reading it says so.
        if !hidden && wasm && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

async fn load(
    engine: &HostEngine,
    path: &Path,
    name: &str,
    generation: u64,
    config: &PluginConfig,
    services: &Arc<dyn HostServices>,
) -> Result<Plugin, PluginError> {
    plugin_name(name).map_err(|reason| PluginError::InvalidName {
        name: name.into(),
        reason: reason.into(),
    })?;
    let limits = Limits::default().with(&config.limits, engine.config())?;

    let (path, limit, compiler) = (
        path.to_owned(),
        engine.config().file_limit,
        engine.engine().clone(),
    );
    let compiled = tokio::task::spawn_blocking(move || {
        let bytes = read(&path, limit)?;
        Ok::<_, PluginError>((digest(&bytes), compile(&compiler, &bytes)?))
    });
    let (digest, component) = compiled.await.map_err(|error| PluginError::Internal {
        reason: format!("compiling did not end: {error}"),
    })??;

    let shared = Arc::new(Shared {
        name: name.to_owned(),
        grants: config.grants.clone(),
        config: config.config.clone(),
        metrics: PluginMetrics::new(engine.metrics(), name, limits.concurrent_calls),
        limits,
        services: Arc::clone(services),
    });
    let template = Template::link(engine, &component, shared)?;
    template.try_out().await?;
    Ok(Plugin::new(engine, template, digest, generation))
}
