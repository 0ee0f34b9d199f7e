//! What a store holds: everything that one call knows.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::budget::Portion;
use crate::engine::TABLE_ELEMENTS;
use crate::meter::CpuMeter;
use crate::metrics::PluginMetrics;
use crate::services::{ConfigValues, HostServices};
use crate::stderr::StderrTail;
use crate::{Grants, HostEngine, Limits};

/// Handles that a guest may hold at once. Each costs the host an allocation.
const HANDLES: usize = 1_000;
/// Bytes of randomness in one request.
const RANDOM_BYTES: u64 = 1 << 20;

/// What all calls of one plugin share.
pub(crate) struct Shared {
    pub name: String,
    pub grants: Grants,
    pub config: ConfigValues,
    /// What it is told when it asks for a time of day without a zone.
    pub zone: TimeZone,
    /// Which process calls it.
    pub caller: &'static str,
    pub limits: Limits,
    pub services: Arc<dyn HostServices>,
    pub metrics: PluginMetrics,
}

/// What one call knows. Never outlives it.
pub(crate) struct CallState {
    wasi: WasiCtx,
    table: ResourceTable,
    pub memory: MemoryLimiter,
    pub shared: Arc<Shared>,
    /// Until when host functions may take.
    pub deadline: Instant,
    pub host_calls: u32,
    pub log_lines: u32,
    pub stderr: StderrTail,
}

impl CallState {
    /// A store for one call that begins now. `meter` measures the future that will run in it.
    pub(crate) fn store(engine: &HostEngine, shared: &Arc<Shared>, meter: &CpuMeter) -> Store<CallState> {
        let limits = &shared.limits;
        let stderr = StderrTail::default();
        // Nothing is inherited: no arguments, environment, files, addresses or input. Clocks and randomness work.
        let wasi = WasiCtxBuilder::new()
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(RANDOM_BYTES)
            .stderr(stderr.clone())
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES);
        let state = CallState {
            wasi,
            table,
            memory: MemoryLimiter::new(limits.memory, Portion::new(engine.guest_memory())),
            shared: Arc::clone(shared),
            deadline: Instant::now() + limits.host_budget(),
            host_calls: 0,
            log_lines: 0,
            stderr,
        };

        let mut store = Store::new(engine.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(limits.returned_bytes);
        store.set_max_component_handles(HANDLES);
        store.set_epoch_deadline(1);
        let (meter, budget) = (meter.clone(), limits.cpu);
        store.epoch_deadline_callback(move |_| {
            Ok(if meter.spent_now() >= budget {
                UpdateDeadline::Interrupt
            } else {
                UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
            })
        });
        store
    }

    /// Log lines that were dropped.
    pub(crate) fn dropped_log_lines(&self) -> u32 {
        self.log_lines.saturating_sub(self.shared.limits.log_lines)
    }

    /// The wall limit of the call.
    pub(crate) fn wall(&self) -> Duration {
        self.shared.limits.wall
    }
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Limits memory over all memories of an instance, and remembers that it had to: a guest whose allocation is refused
/// ends in some trap or other, and the trap does not say why.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    limit: usize,
    used: usize,
    portion: Portion,
    /// The call has reached its own limit.
    pub denied: bool,
    /// All calls together have reached theirs; the bytes of it.
    pub host_denied: Option<usize>,
}

impl MemoryLimiter {
    fn new(limit: usize, portion: Portion) -> MemoryLimiter {
        MemoryLimiter {
            limit,
            used: 0,
            portion,
            denied: false,
            host_denied: None,
        }
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        if used > self.limit {
            self.denied = true;
            return Ok(false);
        }
        if !self.portion.grow(used - self.used) {
            self.host_denied = Some(self.portion.limit());
            return Ok(false);
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired <= TABLE_ELEMENTS;
        self.denied |= !allowed;
        Ok(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    #[test]
    fn memories_are_limited_together_and_a_refusal_is_remembered() {
        let all = Arc::new(Budget::new(Some(110)));
        let mut limiter = MemoryLimiter::new(100, Portion::new(&all));
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap(), "a second memory");
        assert!(limiter.denied);
        assert!(limiter.memory_growing(60, 100, None).unwrap());
        assert!(!limiter.memory_growing(100, 101, None).unwrap());

        let mut other = MemoryLimiter::new(100, Portion::new(&all));
        assert!(
            !other.memory_growing(0, 20, None).unwrap(),
            "more than all may have"
        );
        assert_eq!((other.denied, other.host_denied), (false, Some(110)));
        drop(limiter);
        assert!(other.memory_growing(0, 20, None).unwrap());
    }
}
