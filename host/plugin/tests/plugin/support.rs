//! Guests, a directory to drop them into, and services that only remember.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use dormouse_kubernetes::objects::{ListQuery, PatchType, Subresource};
use dormouse_kubernetes::{EventType, ObjectError};
use dormouse_model::ObjectKey;
use dormouse_plugin::types::ResourceId;
use dormouse_plugin::{
    EngineConfig, HostEngine, HostServices, LifecycleError, LoadState, Metrics, Plugin, PluginConfig,
    PluginError, PluginSet, SleeperView,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

/// The guest crates under `tests/guests`, built once for each run.
static GUESTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("guests");
    for guest in ["asked", "bench", "evil"] {
        let manifest = format!("{}/tests/guests/{guest}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--release",
                "--target",
                "wasm32-wasip2",
                "--manifest-path",
                &manifest,
            ])
            .arg("--target-dir")
            .arg(&target)
            // Coverage or lints of the host must not leak into the guest.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .status()
            .unwrap();
        assert!(built.success(), "the {guest} guest does not build");
    }
    target.join("wasm32-wasip2/release")
});

pub fn guest(name: &str) -> Vec<u8> {
    std::fs::read(GUESTS.join(format!("{name}.wasm"))).unwrap()
}

/// Everything granted that a guest of these tests could want, except what the tests of denials ask for.
pub const GRANTS: &str = "lifecycle: true
kubernetes: [{apiVersion: apps/v1, kind: '*', verbs: [get, create]}]";

pub fn config(yaml: &str) -> PluginConfig {
    serde_yaml::from_str(yaml).unwrap()
}

/// A plugin configuration with [`GRANTS`], and `rest` as further top-level keys.
pub fn granted(rest: &str) -> PluginConfig {
    let mut config = config(rest);
    config.grants = serde_yaml::from_str(GRANTS).unwrap();
    config
}

/// Limits that end an attack soon, but never before the limit that it is about.
pub const LIMITS: &str = "limits: {cpu: 10s, wall: 60s, memoryBytes: 33554432}";
/// The same for attacks that compute.
pub const SHORT: &str = "limits: {cpu: 100ms, wall: 60s}";

/// A plugins directory, its engine and what they count.
pub struct House {
    pub directory: TempDir,
    pub engine: HostEngine,
    pub services: Arc<FakeServices>,
    pub configs: BTreeMap<String, PluginConfig>,
    registry: Registry,
}

impl House {
    pub fn new() -> House {
        House::with(EngineConfig {
            concurrent_calls: 8,
            ..EngineConfig::default()
        })
    }

    pub fn with(config: EngineConfig) -> House {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        House {
            directory: tempfile::tempdir().unwrap(),
            engine: HostEngine::new(config, metrics).unwrap(),
            services: Arc::default(),
            configs: BTreeMap::new(),
            registry,
        }
    }

    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> &House {
        std::fs::write(self.directory.path().join(name), bytes).unwrap();
        self
    }

    pub fn configure(&mut self, plugin: &str, config: PluginConfig) -> &mut House {
        self.configs.insert(plugin.into(), config);
        self
    }

    pub async fn load(&self) -> PluginSet {
        PluginSet::load(
            &self.engine,
            self.directory.path(),
            &self.configs,
            self.services.clone(),
        )
        .await
    }

    /// The only plugin, which must be ready.
    pub async fn only(&self) -> Arc<Plugin> {
        let set = self.load().await;
        let plugins = set.plugins();
        assert_eq!(plugins.len(), 1, "{:?}", set.statuses());
        plugins[0].clone()
    }

    /// Why the file `name` of these bytes is not loaded.
    pub async fn refused(&self, bytes: impl AsRef<[u8]>) -> PluginError {
        self.file("refused.wasm", bytes);
        let set = self.load().await;
        assert!(set.get("refused").is_none());
        let status = set
            .statuses()
            .into_iter()
            .find(|status| status.name == "refused")
            .unwrap();
        match status.state {
            LoadState::Failed { error } => error,
            other => panic!("it is {other:?}"),
        }
    }

    /// The value of a sample, such as `dormouse_plugin_calls_total{plugin="good",call="resources"}`.
    pub fn metric(&self, sample: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or_else(|| panic!("no {sample} in\n{text}"))
    }
}

/// The good plugin and the evil one, side by side.
pub struct Both {
    pub house: House,
    pub good: Arc<Plugin>,
    pub evil: Arc<Plugin>,
}

impl Both {
    pub async fn new() -> Both {
        Both::with(House::new(), granted(LIMITS)).await
    }

    pub async fn with(mut house: House, evil: PluginConfig) -> Both {
        house
            .file("good.wasm", guest("bench"))
            .file("evil.wasm", guest("evil"));
        house.configure("good", granted("{}")).configure("evil", evil);
        let set = house.load().await;
        let get = |name| {
            set.get(name)
                .unwrap_or_else(|| panic!("{name}: {:?}", set.statuses()))
        };
        Both {
            good: get("good"),
            evil: get("evil"),
            house,
        }
    }

    /// What an attack comes to. Afterwards the host lives, and so do both plugins.
    pub async fn attack(&self, how: &str) -> PluginError {
        let error = self.evil.set_scale(&[], 0, how).await.unwrap_err();
        assert_eq!(self.good.resources().await.unwrap().len(), 10);
        assert_eq!(
            self.evil
                .set_scale(&[id("a").into()], 0, "nothing")
                .await
                .unwrap()
                .len(),
            1
        );
        error
    }

    /// What the guest says about an attack that it survives.
    pub async fn told(&self, how: &str) -> String {
        match self.attack(how).await {
            PluginError::Guest(error) => error.to_string(),
            error => panic!("{error}"),
        }
    }
}

pub fn id(name: &str) -> ResourceId {
    ResourceId::new("shop", name)
}

/// Remembers what it was asked. `Slow` objects never come.
#[derive(Debug, Default)]
pub struct FakeServices {
    asked: Mutex<Vec<String>>,
}

impl FakeServices {
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn ask(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

#[async_trait]
impl HostServices for FakeServices {
    async fn get(
        &self,
        plugin: &str,
        key: &ObjectKey,
        fields: &[String],
        _: Instant,
    ) -> Result<Value, ObjectError> {
        self.ask(format!(
            "{plugin} get {} {} {}",
            key.kind,
            key.name,
            fields.join(",")
        ));
        if key.kind == "Slow" {
            std::future::pending::<()>().await;
        }
        Ok(json!({"kind": key.kind}))
    }

    async fn list(&self, plugin: &str, query: &ListQuery, _: Instant) -> Result<Vec<Arc<str>>, ObjectError> {
        self.ask(format!("{plugin} list {}", query.kind));
        Ok(vec![json!({"kind": query.kind}).to_string().into()])
    }

    async fn create(&self, plugin: &str, object: Value, _: Instant) -> Result<Value, ObjectError> {
        self.ask(format!("{plugin} create {object}"));
        Ok(object)
    }

    async fn patch(
        &self,
        plugin: &str,
        key: &ObjectKey,
        subresource: Subresource,
        _: PatchType,
        body: Value,
        _: Instant,
    ) -> Result<Value, ObjectError> {
        self.ask(format!("{plugin} patch {} {subresource:?} {body}", key.name));
        Ok(body)
    }

    async fn apply(&self, plugin: &str, object: Value, _: bool, _: Instant) -> Result<Value, ObjectError> {
        self.ask(format!("{plugin} apply {object}"));
        Ok(object)
    }

    async fn delete(&self, plugin: &str, key: &ObjectKey, _: Instant) -> Result<(), ObjectError> {
        self.ask(format!("{plugin} delete {}", key.name));
        Ok(())
    }

    async fn event(
        &self,
        plugin: &str,
        regarding: &ObjectKey,
        kind: EventType,
        reason: &str,
        message: &str,
        _: Instant,
    ) -> Result<(), ObjectError> {
        self.ask(format!(
            "{plugin} event {} {kind:?} {reason} {message}",
            regarding.name
        ));
        Ok(())
    }

    async fn sleep(
        &self,
        plugin: &str,
        id: &ResourceId,
        reason: &str,
        _: Instant,
    ) -> Result<(), LifecycleError> {
        self.ask(format!("{plugin} sleep {id} {reason}"));
        if id.name == "nobody" {
            Err(LifecycleError::UnknownResource(id.clone()))
        } else {
            Ok(())
        }
    }

    async fn wake(
        &self,
        plugin: &str,
        id: &ResourceId,
        reason: &str,
        _: Instant,
    ) -> Result<(), LifecycleError> {
        self.ask(format!("{plugin} wake {id} {reason}"));
        Ok(())
    }

    async fn state(
        &self,
        _: &str,
        _: &ResourceId,
        _: Instant,
    ) -> Result<Option<SleeperView>, LifecycleError> {
        Ok(None)
    }
}
