//! What a plugin file is, for `dormouse plugin inspect`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::compile::component;
use crate::file::read;
use crate::link::{exported, how_to_grant, own_interface, same_track};
use crate::load::{Template, digest};
use crate::metrics::PluginMetrics;
use crate::producers::producers;
use crate::state::Shared;
use crate::types::Description;
use crate::{
    EngineConfig, Grants, HostEngine, LifecycleGrant, Limits, Metrics, NoServices, Plugin, PluginError,
    Producer,
};

/// What a plugin file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// The name that it would have: the file stem.
    pub name: String,
    /// SHA-256 in hexadecimal.
    pub digest: String,
    /// Bytes.
    pub size: usize,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What the operator has to grant before it loads.
    pub needs: Vec<Need>,
    /// True when it decides itself which resources an Ingress path routes to.
    pub ingress_targets: bool,
    /// What it was made with.
    pub producers: Vec<Producer>,
    /// How long compiling took.
    pub compile_time: Duration,
    /// Functions that it imports and this host does not have. It loads; a call of one fails.
    pub stubs: Vec<String>,
    /// What it says that it is, if it does.
    pub description: Option<Description>,
    /// What came of loading it with everything granted.
    pub trial: Trial,
}

/// An interface that needs a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The import.
    pub import: String,
    /// The configuration that grants it.
    pub how: String,
}

/// What came of a trial instantiation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Trial {
    /// It loads.
    Passed {
        /// How long one instantiation took.
        took: Duration,
    },
    /// It does not.
    Failed {
        /// [`PluginError::code`].
        code: &'static str,
        /// Why.
        error: String,
    },
}

/// Reads, compiles and tries the plugin at `path`, without any cluster.
///
/// # Errors
///
/// When the file cannot be read or compiled. What is wrong with a component that compiles is in [`Inspection::trial`].
pub async fn inspect(path: &Path) -> Result<Inspection, PluginError> {
    inspect_with(EngineConfig::default(), path).await
}

/// As [`inspect`], as a host with this configuration would do it: the same engine, pool and checks.
///
/// # Errors
///
/// As [`inspect`].
pub async fn inspect_with(config: EngineConfig, path: &Path) -> Result<Inspection, PluginError> {
    let engine = HostEngine::new(config, Metrics::default())?;
    let name = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let bytes = Arc::new(read(path, engine.config().file_limit).await?);
    let digest = digest(&bytes);

    let began = Instant::now();
    let component = component(&engine, &digest, Arc::clone(&bytes)).await?;
    let compile_time = began.elapsed();

    let kind = component.component_type();
    let names = |list: &mut dyn Iterator<Item = &str>| list.map(str::to_owned).collect::<Vec<_>>();
    let imports = names(&mut kind.imports(engine.engine()).map(|(name, _)| name));
    let exports = names(&mut kind.exports(engine.engine()).map(|(name, _)| name));
    let needs = imports
        .iter()
        .filter_map(|import| {
            let own = own_interface(import)?;
            // For another version of the contract no grant helps.
            let how = how_to_grant(&name, own.interface).filter(|_| same_track(own.version))?;
            Some(Need {
                import: import.clone(),
                how,
            })
        })
        .collect();

    let limits = Limits::default();
    let shared = Arc::new(Shared {
        metrics: PluginMetrics::new(engine.metrics(), &name, limits.concurrent_calls),
        name: name.clone(),
        grants: Grants {
            lifecycle: LifecycleGrant::EVERYTHING,
            events: true,
            ..Grants::default()
        },
        config: std::collections::BTreeMap::new(),
        zone: jiff::tz::TimeZone::UTC,
        caller: engine.config().caller,
        limits,
        services: Arc::new(NoServices),
    });
    let began = Instant::now();
    let mut stubs = Vec::new();
    let tried = async {
        let template = Template::link(&engine, &component, shared)?;
        stubs = template.stubs().to_vec();
        template.try_out().await?;
        let took = began.elapsed();
        let plugin = Plugin::new(&engine, template, digest.clone(), 1);
        Ok((took, plugin.describe().await?))
    };
    let (trial, description) = match tried.await {
        Ok((took, description)) => (Trial::Passed { took }, description),
        Err(error) => {
            let error: PluginError = error;
            let trial = Trial::Failed {
                code: error.code(),
                error: error.to_string(),
            };
            (trial, None)
        }
    };
    Ok(Inspection {
        digest,
        size: bytes.len(),
        ingress_targets: exported(engine.engine(), &component, "ingress-targets").is_some(),
        producers: producers(&bytes),
        name,
        imports,
        exports,
        needs,
        compile_time,
        stubs,
        description,
        trial,
    })
}
