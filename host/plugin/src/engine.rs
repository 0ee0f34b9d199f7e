//! The engine: one for all plugins, with its ticker, its pool and its linkers.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use dormouse_aot::Cache;
use tokio::sync::Semaphore;
use wasmtime::component::Linker;
use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures,
};

use crate::budget::Budget;
use crate::compile::CompilerProcess;
use crate::link::{Permissions, linker};
use crate::state::CallState;
use crate::{BreakerPolicy, Metrics, PluginError};

/// What all plugins of a host share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Who calls, as `call-context.caller` says it.
    pub caller: &'static str,
    /// Calls that run at once, over all plugins. The pool is sized to it, so it also bounds address space.
    pub concurrent_calls: usize,
    /// How long a call waits for a place before it is refused.
    pub admission_wait: Duration,
    /// The most bytes of linear memory that any plugin's limit may allow; the size of a pool slot.
    pub memory_ceiling: usize,
    /// The granularity of CPU budgets, and how often a computing guest makes room for others.
    pub tick: Duration,
    /// The largest plugin file in bytes. Components with a JavaScript or Python runtime have about 20 MiB.
    pub file_limit: u64,
    /// When calls to a failing plugin pause.
    pub breaker: BreakerPolicy,
    /// How long compiling one component may take. One with a JavaScript runtime takes about 20 s of CPU time.
    pub compile_limit: Duration,
    /// Where compiled components are kept. None: each start compiles anew.
    pub cache: Option<PathBuf>,
    /// What compiles, where there is a cache. None: this process, without a limit of memory.
    pub compiler: Option<CompilerProcess>,
    /// Bytes of memory of all guests together. None: as many as their calls may have.
    pub guest_memory: Option<usize>,
    /// The most bytes of compiled components that are kept. One with a JavaScript or Python runtime has about 40 MiB.
    pub cache_limit: u64,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            caller: "cli",
            concurrent_calls: 32,
            admission_wait: Duration::from_secs(2),
            memory_ceiling: 256 << 20,
            tick: Duration::from_millis(10),
            file_limit: 64 << 20,
            breaker: BreakerPolicy::default(),
            compile_limit: Duration::from_secs(600),
            cache: None,
            compiler: None,
            guest_memory: None,
            cache_limit: 512 << 20,
        }
    }
}

/// Table elements of one instance. Guests with large interpreters have some ten thousand functions.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;
/// Core instances of one component: its modules, and the adapters that the toolchain adds. Python with `--stub-wasi` has 38.
const PARTS: u32 = 64;
/// Memories of one component. One as a rule; composed components and QuickJS have one for each part, and all of them together
/// stay below the memory limit of a call.
const MEMORIES: u32 = 8;
/// Tables of one component.
const TABLES: u32 = 16;
/// Bytes of a memory that are reset in place instead of given back, when the kernel can say which pages were touched.
const KEEP_RESIDENT: usize = 1 << 20;

/// Where instances get their memory from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// From slots that are reserved at start: an instance costs microseconds.
    Pooling,
    /// From the operating system, each time. What remains when the address space is too small for the pool.
    OnDemand,
}

/// The engine that runs every plugin of this host. Cheap to clone.
#[derive(Clone)]
pub struct HostEngine {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    config: EngineConfig,
    allocation: Allocation,
    // By `Permissions::index`.
    linkers: Vec<Linker<CallState>>,
    admission: Arc<Semaphore>,
    // One component is compiled at a time: compiling is what needs most memory.
    compiler: Arc<Semaphore>,
    cache: Option<Cache>,
    guest_memory: Arc<Budget>,
    metrics: Metrics,
    // Dropping it ends the ticker thread.
    _stop: mpsc::Sender<()>,
}

impl HostEngine {
    /// An engine with a pool, or without one where the pool's address space cannot be reserved.
    ///
    /// # Errors
    ///
    /// [`PluginError::Internal`] when WebAssembly cannot run here at all, or the ticker thread cannot start.
    pub fn new(config: EngineConfig, metrics: Metrics) -> Result<HostEngine, PluginError> {
        match Engine::new(&profile(&config, Allocation::Pooling)) {
            Ok(engine) => HostEngine::around(engine, Allocation::Pooling, config, metrics),
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "no address space for the instance pool; calls will be slower"
                );
                HostEngine::on_demand(config, metrics)
            }
        }
    }

    /// An engine without a pool: for tools that run a few calls, and where address space is short.
    ///
    /// # Errors
    ///
    /// As [`HostEngine::new`].
    pub fn on_demand(config: EngineConfig, metrics: Metrics) -> Result<HostEngine, PluginError> {
        let engine =
            Engine::new(&profile(&config, Allocation::OnDemand)).map_err(|error| internal(&error))?;
        HostEngine::around(engine, Allocation::OnDemand, config, metrics)
    }

    fn around(
        engine: Engine,
        allocation: Allocation,
        config: EngineConfig,
        metrics: Metrics,
    ) -> Result<HostEngine, PluginError> {
        let linkers = Permissions::ALL
            .into_iter()
            .map(|permissions| linker(&engine, permissions))
            .collect::<Result<_, _>>()
            .map_err(|error| internal(&error))?;

        let (stop, stopped) = mpsc::channel();
        let (weak, tick) = (engine.weak(), config.tick);
        std::thread::Builder::new()
            .name("plugin-ticker".into())
            .spawn(move || ticker(&weak, tick, &stopped))
            .map_err(|error| PluginError::Internal {
                reason: format!("no thread for the ticker: {error}"),
            })?;

        let cache =
            config
                .cache
                .as_deref()
                .and_then(|parent| match Cache::open(parent, config.cache_limit) {
                    Ok(cache) => Some(cache),
                    Err(error) => {
                        tracing::warn!(
                            "compiled plugins are not kept, each start compiles them anew: {error}"
                        );
                        None
                    }
                });
        metrics.host_limit(config.concurrent_calls);
        let admission = Arc::new(Semaphore::new(config.concurrent_calls));
        let inner = Inner {
            engine,
            guest_memory: Arc::new(Budget::new(config.guest_memory)),
            config,
            allocation,
            linkers,
            admission,
            compiler: Arc::new(Semaphore::new(1)),
            cache,
            metrics,
            _stop: stop,
        };
        Ok(HostEngine {
            inner: Arc::new(inner),
        })
    }

    /// The wasmtime engine below.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// Where instances get their memory from.
    #[must_use]
    pub fn allocation(&self) -> Allocation {
        self.inner.allocation
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn linker(&self, permissions: Permissions) -> &Linker<CallState> {
        &self.inner.linkers[permissions.index()]
    }

    pub(crate) fn admission(&self) -> &Arc<Semaphore> {
        &self.inner.admission
    }

    pub(crate) fn compiler(&self) -> &Arc<Semaphore> {
        &self.inner.compiler
    }

    /// What guests have of memory, all together.
    pub(crate) fn guest_memory(&self) -> &Arc<Budget> {
        &self.inner.guest_memory
    }

    /// Where the cache is, if it can be used.
    pub(crate) fn cache_parent(&self) -> Option<&Path> {
        self.inner.cache.as_ref()?;
        self.inner.config.cache.as_deref()
    }

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.inner.cache.as_ref()
    }
}

impl std::fmt::Debug for HostEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostEngine")
            .field("config", self.config())
            .field("allocation", &self.allocation())
            .finish()
    }
}

fn internal(error: &wasmtime::Error) -> PluginError {
    PluginError::Internal {
        reason: format!("{error:#}"),
    }
}

/// Raises the epoch until the engine or its owner is gone. A thread and not a task: a task could starve behind the
/// very guests that it is to interrupt.
fn ticker(engine: &EngineWeak, tick: Duration, stopped: &mpsc::Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(tick) {
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
    }
}

/// How wasmtime is set up, and why.
fn profile(config: &EngineConfig, allocation: Allocation) -> Config {
    let mut profile = Config::new();
    profile
        // CPU budgets. Cheaper than fuel, and fair to other tasks by yielding.
        .epoch_interruption(true)
        // Guests are synchronous; leaving out the machinery for asynchronous ones makes a call about three times cheaper.
        .concurrency_support(false)
        // An instance starts from a copy-on-write image of its data, not from a copy.
        .memory_init_cow(true)
        // Halves the memory that compiling needs, on two cores, and leaves the other core to the traffic.
        .parallel_compilation(false)
        // Enough to find the place, in debug logs only.
        .wasm_backtrace_max_frames(NonZeroUsize::new(8));

    // What no guest of ours needs is surface without use. Function references stay: Go needs them. So do several memories:
    // wasmtime's own adapters between the parts of a composed component have two, and without them it panics.
    for unneeded in [
        WasmFeatures::MEMORY64,
        WasmFeatures::RELAXED_SIMD,
        WasmFeatures::GC,
        WasmFeatures::GC_TYPES,
        WasmFeatures::EXCEPTIONS,
        WasmFeatures::THREADS,
    ] {
        profile.wasm_features(unneeded, false);
    }
    profile.wasm_features(WasmFeatures::FUNCTION_REFERENCES, true);

    if allocation == Allocation::Pooling {
        profile.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
    }
    profile
}

/// A pool with room for every admitted call, and a quarter more for instances that are still being torn down.
fn pool(config: &EngineConfig) -> PoolingAllocationConfig {
    let calls =
        u32::try_from(config.concurrent_calls + config.concurrent_calls.div_ceil(4)).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_stacks(calls)
        // A component has one memory as a rule. Its modules are several: adapters, shims and fix-ups.
        .total_core_instances(calls.saturating_mul(PARTS))
        // Most components have one memory and two tables, so not each call can have the most of both at once.
        .total_memories(calls.saturating_mul(2).max(MEMORIES))
        .total_tables(calls.saturating_mul(4).max(TABLES))
        .max_core_instances_per_component(PARTS)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_tables_per_module(4)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(config.memory_ceiling)
        // Interpreters have large instances: many globals and functions.
        .max_core_instance_size(16 << 20)
        .max_component_instance_size(16 << 20)
        .pagemap_scan(Enabled::Auto);
    // Without the page map, keeping memory means clearing all of it each time, which is slower than giving it back.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(64 << 10);
    }
    pool
}
