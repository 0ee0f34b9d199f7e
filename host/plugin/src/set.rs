//! The plugins of a directory.
//!
//! They are loaded in the background, each for itself: whoever holds a set sees each plugin as soon as it is ready. Whoever holds a
//! [`Plugin`] keeps its generation until it lets go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::Component;

use crate::compile::component;
use crate::file::{read, scan};
use crate::load::{Template, digest};
use crate::metrics::PluginMetrics;
use crate::services::HostServices;
use crate::state::Shared;
use crate::types::Settings;
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
    /// It is being read, compiled or tried.
    Loading,
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
#[derive(Clone, Debug, Default)]
struct Snapshot {
    directory: Option<PluginError>,
    plugins: BTreeMap<String, Arc<Plugin>>,
    /// By name and path: of two files of one name both have a status.
    statuses: BTreeMap<(String, PathBuf), LoadState>,
    /// The places were looked at: every file has a status.
    scanned: bool,
    settled: bool,
}

/// The plugins of a directory.
#[derive(Debug)]
pub struct PluginSet {
    inner: Arc<Inner>,
    _loading: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Inner {
    current: ArcSwap<Snapshot>,
    changes: watch::Sender<u64>,
}

/// What the plugins of a set are loaded with.
#[derive(Clone)]
struct Loader {
    engine: HostEngine,
    configs: Arc<BTreeMap<String, PluginConfig>>,
    services: Arc<dyn HostServices>,
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
        let set = Self::start(engine, places, configs, services);
        set.settled().await;
        set
    }

    /// As [`PluginSet::load_from`], but returns at once: plugins appear as they become ready. Small files come first, and one
    /// is compiled at a time, so that none waits for a large one that was found before it, or for a file that cannot be read.
    #[must_use]
    pub fn start(
        engine: &HostEngine,
        places: &[PathBuf],
        configs: &BTreeMap<String, PluginConfig>,
        services: Arc<dyn HostServices>,
    ) -> PluginSet {
        let (changes, _) = watch::channel(0);
        let inner = Arc::new(Inner {
            current: ArcSwap::default(),
            changes,
        });
        let loader = Loader {
            engine: engine.clone(),
            configs: Arc::new(configs.clone()),
            services,
        };
        let (places, loading) = (places.to_vec(), Arc::clone(&inner));
        let loading = tokio::spawn(async move {
            loader.run(&places, &loading).await;
            loading.change(|snapshot| snapshot.settled = true);
        });
        PluginSet {
            inner,
            _loading: AbortOnDropHandle::new(loading),
        }
    }

    /// The plugins that are ready, by name.
    #[must_use]
    pub fn plugins(&self) -> Vec<Arc<Plugin>> {
        self.inner.current.load().plugins.values().cloned().collect()
    }

    /// Those that have resources.
    #[must_use]
    pub fn scalers(&self) -> Vec<Arc<Plugin>> {
        let mut plugins = self.plugins();
        plugins.retain(|plugin| plugin.is_scaler());
        plugins
    }

    /// The plugin of a name, if it is ready.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Plugin>> {
        self.inner.current.load().plugins.get(name).cloned()
    }

    /// Every file and what became of it, by name, and every configuration without a file.
    #[must_use]
    pub fn statuses(&self) -> Vec<PluginStatus> {
        let current = self.inner.current.load();
        let statuses = current.statuses.iter();
        statuses
            .map(|((name, path), state)| PluginStatus {
                name: name.clone(),
                path: path.clone(),
                state: state.clone(),
            })
            .collect()
    }

    /// Why the directory, or the first of several that failed, could not be read. What is missing from it is not known.
    #[must_use]
    pub fn directory_error(&self) -> Option<PluginError> {
        self.inner.current.load().directory.clone()
    }

    /// Whether everything that was found is ready or has failed. Before that nobody knows which plugins there are.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.inner.current.load().settled
    }

    /// Whether a plugin of this name may still become ready.
    #[must_use]
    pub fn may_come(&self, name: &str) -> bool {
        let current = self.inner.current.load();
        let mut files = current
            .statuses
            .iter()
            .filter(|((of, _), _)| of == name)
            .peekable();
        // Before the directory was read nobody knows.
        let none_yet = files.peek().is_none() && !current.scanned;
        none_yet || files.any(|(_, state)| *state == LoadState::Loading)
    }

    /// Plugins that are still being loaded, by name.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        let current = self.inner.current.load();
        let loading = current
            .statuses
            .iter()
            .filter(|(_, state)| **state == LoadState::Loading);
        loading.map(|((name, _), _)| name.clone()).collect()
    }

    /// Of each setting, what the first plugin with an opinion says. Several plugins behind one DLX have to share its headers.
    #[must_use]
    pub fn defaults(&self) -> Settings {
        let mut merged = Settings::default();
        for plugin in self.plugins() {
            let settings = plugin.defaults();
            merged.scale_interval = merged.scale_interval.or(settings.scale_interval);
            merged.metrics_resource = merged.metrics_resource.or(settings.metrics_resource);
            merged.target_name_header = merged.target_name_header.or(settings.target_name_header);
            merged.target_path_header = merged.target_path_header.or(settings.target_path_header);
            merged.target_port = merged.target_port.or(settings.target_port);
            merged.readiness_timeout = merged.readiness_timeout.or(settings.readiness_timeout);
            merged.multi_target_strategy = merged.multi_target_strategy.or(settings.multi_target_strategy);
        }
        merged
    }

    /// Changes whenever a plugin becomes ready or fails.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Waits until everything that was found is ready or has failed.
    pub async fn settled(&self) {
        let mut changes = self.changes();
        while !self.is_settled() && changes.changed().await.is_ok() {}
    }
}

impl Inner {
    /// Only the loader changes anything.
    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.current.load());
        change(&mut snapshot);
        self.current.store(Arc::new(snapshot));
        self.changes.send_modify(|count| *count += 1);
    }

    fn take(&self, engine: &HostEngine, name: &str, path: &Path, loaded: Result<Plugin, PluginError>) {
        let state = match &loaded {
            Ok(plugin) => {
                engine.metrics().loaded(name, "ready");
                tracing::info!(
                    plugin = name,
                    generation = plugin.generation(),
                    digest = plugin.short_digest(),
                    "plugin is ready"
                );
                if !plugin.stubs().is_empty() {
                    tracing::info!(
                        plugin = name,
                        stubs = plugin.stubs().len(),
                        "the plugin imports functions that this host does not have; a call of one fails"
                    );
                }
                LoadState::Ready {
                    generation: plugin.generation(),
                    digest: plugin.digest().to_owned(),
                    ingress_targets: plugin.has_ingress_targets(),
                }
            }
            Err(error) => {
                engine.metrics().loaded(name, error.code());
                tracing::error!(
                    plugin = name,
                    path = %path.display(),
                    code = error.code(),
                    "plugin is not loaded: {error}"
                );
                LoadState::Failed { error: error.clone() }
            }
        };
        self.change(|snapshot| {
            snapshot
                .statuses
                .insert((name.to_owned(), path.to_owned()), state);
            if let Ok(plugin) = loaded {
                snapshot.plugins.insert(name.to_owned(), Arc::new(plugin));
            }
        });
    }
}

/// A file that was read.
struct Read {
    name: String,
    path: PathBuf,
    digest: String,
    bytes: Arc<Vec<u8>>,
}

impl Loader {
    async fn run(&self, places: &[PathBuf], set: &Inner) {
        let mut files = Vec::new();
        let mut unreadable = None;
        for found in join_all(places.iter().map(|place| scan(place))).await {
            match found {
                Ok(found) => files.extend(found),
                Err(error) => {
                    tracing::error!(code = error.code(), "{error}");
                    unreadable.get_or_insert(error);
                }
            }
        }
        // Without a single place nobody knows which files there should be: each configuration would be reported as missing.
        let unknown = files.is_empty() && unreadable.is_some();
        let (files, later) = once_each(&files);
        set.change(|snapshot| {
            snapshot.directory = unreadable;
            snapshot.scanned = true;
            let loading = files
                .iter()
                .map(|path| ((stem(path), path.clone()), LoadState::Loading));
            snapshot.statuses.extend(loading);
        });
        // Before those that are used, whose metrics are to have the last word.
        for (path, first) in later {
            let error = PluginError::NameTaken {
                plugin: stem(&path),
                first: first.display().to_string(),
            };
            set.take(&self.engine, &stem(&path), &path, Err(error));
        }
        if !unknown {
            self.report_missing(places, &files, set);
        }
        self.load_all(files, set).await;
    }

    fn report_missing(&self, places: &[PathBuf], files: &[PathBuf], set: &Inner) {
        let present: BTreeSet<String> = files.iter().map(|path| stem(path)).collect();
        for name in self.configs.keys().filter(|name| !present.contains(*name)) {
            let file = format!("{name}.wasm");
            let path = places
                .first()
                .map_or_else(PathBuf::new, |place| place.join(&file));
            let error = PluginError::NoFile {
                plugin: name.clone(),
                file,
            };
            set.take(&self.engine, name, &path, Err(error));
        }
    }

    /// Reads all at once, and compiles what was read one by one, the smallest first.
    async fn load_all(&self, files: Vec<PathBuf>, set: &Inner) {
        let mut reading: FuturesUnordered<_> = files.into_iter().map(|path| self.read(path)).collect();
        let mut waiting: Vec<Read> = Vec::new();
        // What was compiled for one file serves every other with the same bytes.
        let mut compiled: BTreeMap<String, Component> = BTreeMap::new();
        loop {
            let next = if waiting.is_empty() {
                reading.next().await
            } else {
                // Whatever else has been read in the meantime.
                reading.next().now_or_never().flatten()
            };
            match next {
                Some((_, _, Ok(read))) => waiting.push(read),
                Some((name, path, Err(error))) => set.take(&self.engine, &name, &path, Err(error)),
                None if waiting.is_empty() => return,
                None => {
                    waiting.sort_by_key(|read| std::cmp::Reverse((read.bytes.len(), read.name.clone())));
                    let Some(read) = waiting.pop() else { return };
                    // Unreadable files are told while this one compiles.
                    let mut loading = std::pin::pin!(self.load(&read, &mut compiled));
                    let loaded = loop {
                        tokio::select! {
                            loaded = &mut loading => break loaded,
                            Some((name, path, outcome)) = reading.next(), if !reading.is_empty() => match outcome {
                                Ok(read) => waiting.push(read),
                                Err(error) => set.take(&self.engine, &name, &path, Err(error)),
                            },
                        }
                    };
                    set.take(&self.engine, &read.name, &read.path, loaded);
                }
            }
        }
    }

    async fn read(&self, path: PathBuf) -> (String, PathBuf, Result<Read, PluginError>) {
        let name = stem(&path);
        let outcome = async {
            plugin_name(&name).map_err(|reason| PluginError::InvalidName {
                name: name.clone(),
                reason: reason.into(),
            })?;
            let bytes = read(&path, self.engine.config().file_limit).await?;
            let bytes = Arc::new(bytes);
            Ok(Read {
                name: name.clone(),
                path: path.clone(),
                digest: digest(&bytes),
                bytes,
            })
        };
        let outcome = outcome.await;
        (name, path, outcome)
    }

    async fn load(
        &self,
        read: &Read,
        compiled: &mut BTreeMap<String, Component>,
    ) -> Result<Plugin, PluginError> {
        let (engine, name) = (&self.engine, read.name.as_str());
        let nothing = PluginConfig::default();
        let config = self.configs.get(name).unwrap_or(&nothing);
        let limits = Limits::default().with(&config.limits, engine.config())?;
        let component = match compiled.get(&read.digest) {
            Some(component) => component.clone(),
            None => {
                let component = component(engine, &read.digest, Arc::clone(&read.bytes)).await?;
                compiled.insert(read.digest.clone(), component.clone());
                component
            }
        };
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            grants: config.grants.clone(),
            config: config.config.clone(),
            zone: config.zone()?,
            caller: engine.config().caller,
            metrics: PluginMetrics::new(engine.metrics(), name, limits.concurrent_calls),
            limits,
            services: Arc::clone(&self.services),
        });
        let template = Template::link(engine, &component, shared)?;
        template.try_out().await?;
        let plugin = Plugin::new(engine, template, read.digest.clone(), 1);
        plugin.introduce().await?;
        Ok(plugin)
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
