//! From a file to something that can be called: read, hash, compile, link, and try.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Instance, InstancePre};
use wasmtime::{Engine, PoolConcurrencyLimitError, Store, Trap};
use wasmtime_wasi::I32Exit;

use crate::bindings::exports::dormouse::plugin::{ingress_targets, scaler};
use crate::host::{TooManyHostCalls, clip, one_line};
use crate::link::{NotThere, Permissions, check_exports, check_imports, exported, stub};
use crate::meter::CpuMeter;
use crate::state::{CallState, Shared};
use crate::{HostEngine, PluginError, WIT_VERSION};

const SCALER: &str = "dormouse:plugin/scaler";
const INGRESS: &str = "dormouse:plugin/ingress-targets";

/// SHA-256 in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Bytes of the compiler's stack. It recurses with the nesting of the code that it is given.
const COMPILER_STACK: usize = 16 << 20;

/// The component of `bytes`, from the cache or compiled now. Compiling takes a tenth of a second for a Rust guest, and 20 s for
/// an interpreter; one component is compiled at a time.
pub(crate) async fn component(
    engine: &HostEngine,
    digest: &str,
    bytes: Arc<Vec<u8>>,
) -> Result<Component, PluginError> {
    looks_like_a_component(&bytes)?;
    if let Some(component) = cached(engine, digest).await {
        return Ok(component);
    }
    let internal = |reason: String| PluginError::Internal { reason };
    let place = Arc::clone(engine.compiler()).acquire_owned().await;
    let place = place.map_err(|error| internal(error.to_string()))?;
    let (compiler, digest) = (engine.clone(), digest.to_owned());
    let compiled = aside(move || {
        // Given back when the compiler ends, which may be after nobody waits any more.
        let _place = place;
        let component = compile(compiler.engine(), &bytes)?;
        if let Some(cache) = compiler.cache()
            && let Err(error) = cache.store(compiler.engine(), &digest, &component)
        {
            tracing::warn!("a compiled plugin is not kept: {error}");
        }
        Ok(component)
    });
    let limit = engine.config().compile_limit;
    match tokio::time::timeout(limit, compiled).await {
        Ok(compiled) => compiled,
        Err(_) => Err(PluginError::Malformed {
            reason: format!("compiling it took longer than {limit:?}"),
        }),
    }
}

/// What was compiled before.
async fn cached(engine: &HostEngine, digest: &str) -> Option<Component> {
    let cache = engine.cache()?.clone();
    let (engine, digest) = (engine.engine().clone(), digest.to_owned());
    let found = aside(move || {
        Ok(cache.load(&engine, &digest).unwrap_or_else(|error| {
            tracing::warn!("a compiled plugin is compiled anew: {error}");
            None
        }))
    });
    found.await.ok().flatten()
}

/// Runs `work` in a thread of its own with a deep stack, and makes an error of a panic: the compiler is large, its input is
/// what somebody put into a directory, and a fault in it must end neither the process nor another plugin.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PluginError> + Send + 'static,
) -> Result<T, PluginError> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let internal = |reason: String| PluginError::Internal { reason };
    std::thread::Builder::new()
        .name("plugin-compiler".into())
        .stack_size(COMPILER_STACK)
        .spawn(move || {
            let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
                let said = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("without a message");
                Err(PluginError::Malformed {
                    reason: format!("the compiler failed on it, which is a fault of the compiler: {said}"),
                })
            });
            // Nobody may be waiting any more.
            let _ = tell.send(done);
        })
        .map_err(|error| internal(format!("no thread for the compiler: {error}")))?;
    told.await
        .unwrap_or_else(|_| Err(internal("the compiler ended without an answer".into())))
}

fn looks_like_a_component(bytes: &[u8]) -> Result<(), PluginError> {
    let not = |reason: &str| {
        Err(PluginError::NotAComponent {
            reason: reason.to_owned(),
        })
    };
    match bytes {
        [] => not("the file is empty"),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            not("it is a core module; build for the target wasm32-wasip2")
        }
        [0, b'a', b's', b'm', ..] => Ok(()),
        _ => not("it does not begin like WebAssembly"),
    }
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, PluginError> {
    Component::from_binary(engine, bytes).map_err(|error| PluginError::Malformed {
        reason: match cut_off_at(bytes) {
            Some(wanted) => format!(
                "it ends after {} bytes, in the middle of a section that goes on until {wanted}; was it copied whole?",
                bytes.len()
            ),
            None => format!("{error:#}"),
        },
    })
}

/// Where the section ends that the file breaks off in, if it does.
fn cut_off_at(bytes: &[u8]) -> Option<usize> {
    let mut at = 8;
    while at < bytes.len() {
        let (mut size, mut shift) = (0_usize, 0);
        at += 1;
        loop {
            let Some(byte) = bytes.get(at) else {
                return Some(at + 1);
            };
            at += 1;
            size |= usize::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        at = at.checked_add(size)?;
    }
    (at > bytes.len()).then_some(at)
}

/// A component that is linked and was tried: whatever can be known about it before the first call, is.
pub(crate) struct Template {
    engine: HostEngine,
    shared: Arc<Shared>,
    pre: InstancePre<CallState>,
    exports: Exports,
    stubs: Vec<String>,
}

/// Where the exports of the component are.
pub(crate) struct Exports {
    pub scaler: scaler::GuestIndices,
    pub ingress: Option<ingress_targets::GuestIndices>,
}

/// What a run of a guest came to.
pub(crate) struct Ran<R> {
    pub outcome: Result<R, PluginError>,
    pub cpu: std::time::Duration,
}

impl Template {
    pub(crate) fn link(
        engine: &HostEngine,
        component: &Component,
        shared: Arc<Shared>,
    ) -> Result<Template, PluginError> {
        let permissions = Permissions::of(&shared.grants);
        check_imports(engine.engine(), component, permissions, &shared.name)?;
        check_exports(engine.engine(), component)?;
        let mut linker = engine.linker(permissions).clone();
        let stubs = stub(engine.engine(), component, &mut linker)
            .map_err(|error| incompatible("its imports", &error))?;
        let pre = linker
            .instantiate_pre(component)
            .map_err(|error| incompatible("its imports", &error))?;
        let scaler = scaler::GuestIndices::new(&pre).map_err(|error| incompatible(SCALER, &error))?;
        let ingress = exported(engine.engine(), component, "ingress-targets")
            .map(|_| ingress_targets::GuestIndices::new(&pre))
            .transpose()
            .map_err(|error| incompatible(INGRESS, &error))?;
        Ok(Template {
            engine: engine.clone(),
            shared,
            pre,
            exports: Exports { scaler, ingress },
            stubs,
        })
    }

    /// Instantiates once and looks up every export. The types of exports are only checked here, and start code runs.
    pub(crate) async fn try_out(&self) -> Result<(), PluginError> {
        let ran = self.run(|exports, store, instance| {
            Box::pin(async move {
                let scaler = exports.scaler.load(&mut *store, &instance);
                if let Err(error) = scaler {
                    return Ok(Err(incompatible(SCALER, &error)));
                }
                let ingress = exports
                    .ingress
                    .as_ref()
                    .map(|ingress| ingress.load(&mut *store, &instance));
                Ok(ingress
                    .transpose()
                    .map(drop)
                    .map_err(|error| incompatible(INGRESS, &error)))
            })
        });
        ran.await.outcome?
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Functions that it imports and this host does not have. A call of one ends the guest's call.
    pub(crate) fn stubs(&self) -> &[String] {
        &self.stubs
    }

    pub(crate) fn has_ingress_targets(&self) -> bool {
        self.exports.ingress.is_some()
    }

    /// Runs `body` in a fresh instance, within the limits. The store is gone when it returns, and with it everything
    /// that the guest did to it.
    pub(crate) async fn run<R>(
        &self,
        body: impl for<'a> FnOnce(
            &'a Exports,
            &'a mut Store<CallState>,
            Instance,
        ) -> BoxFuture<'a, wasmtime::Result<R>>,
    ) -> Ran<R> {
        let meter = CpuMeter::default();
        let mut store = CallState::store(&self.engine, &self.shared, &meter);
        let call = meter.charge(async {
            let instance = self.pre.instantiate_async(&mut store).await?;
            body(&self.exports, &mut store, instance).await
        });
        let outcome = match tokio::time::timeout(self.shared.limits.wall, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(classify(&error, store.data())),
            Err(_) => Err(PluginError::WallTimeout {
                limit: store.data().wall(),
            }),
        };
        let dropped = store.data().dropped_log_lines();
        if dropped > 0 {
            self.shared.metrics.log_lines_dropped(dropped);
            tracing::warn!(dropped, "the plugin logged more lines than a call may");
        }
        Ran {
            outcome,
            cpu: meter.spent(),
        }
    }
}

fn incompatible(what: &str, error: &wasmtime::Error) -> PluginError {
    PluginError::Incompatible {
        wanted: format!("other types of {what} ({error:#})"),
        have: WIT_VERSION,
    }
}

/// How wasmtime begins to say that a guest handed over too much: there is no type for it. A test fails when it says it in
/// another way.
const TOO_MUCH_DATA: &str = "too much data is being copied between the host and the guest";

/// Which limit ended the call, or what the guest did.
fn classify(error: &wasmtime::Error, state: &CallState) -> PluginError {
    let limits = &state.shared.limits;
    tracing::debug!(error = format!("{error:?}"), "the plugin's call ended");
    if error.is::<TooManyHostCalls>() {
        return PluginError::HostCalls {
            limit: limits.host_calls,
        };
    }
    if let Some(full) = error.downcast_ref::<PoolConcurrencyLimitError>() {
        return PluginError::Internal {
            reason: full.to_string(),
        };
    }
    let trap = error.downcast_ref::<Trap>();
    if trap == Some(&Trap::Interrupt) {
        return PluginError::CpuBudget { budget: limits.cpu };
    }
    if state.memory.denied {
        return PluginError::Memory { limit: limits.memory };
    }
    let said = one_line(&state.stderr.text());
    if let Some(I32Exit(status)) = error.downcast_ref() {
        let message = if said.is_empty() {
            format!("exit with status {status}")
        } else {
            said
        };
        return PluginError::Panicked { message };
    }
    match trap {
        Some(Trap::UnreachableCodeReached) => PluginError::Panicked {
            message: if said.is_empty() {
                "without a message on stderr: it aborted, or its language does not print what went wrong"
                    .to_owned()
            } else {
                said
            },
        },
        Some(trap) => PluginError::Trapped {
            reason: match trap {
                Trap::StackOverflow => format!("{trap}: a recursion without end?"),
                // A guest's own stack lies in its memory, and ends where the memory ends.
                Trap::MemoryOutOfBounds => {
                    format!("{trap}: often a stack overflow, by a recursion without end")
                }
                _ => trap.to_string(),
            },
        },
        None if error.root_cause().to_string().starts_with(TOO_MUCH_DATA) => PluginError::Returned {
            limit: limits.returned_bytes,
        },
        // A function that is not there: see `link::stub`.
        None if error.is::<NotThere>() => PluginError::Trapped {
            reason: error.root_cause().to_string(),
        },
        // No trap and none of our own: the guest handed over something that could not be read. What it wrote to stderr may say
        // why: JavaScript prints the exception that became such an answer.
        None => {
            let what = one_line(&clip(error.root_cause().to_string(), 1 << 10));
            PluginError::Garbage {
                what: if said.is_empty() {
                    what
                } else {
                    format!("{what}; on stderr: {said}")
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha_256_in_hexadecimal() {
        assert_eq!(
            digest(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
