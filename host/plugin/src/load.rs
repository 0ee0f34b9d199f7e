//! From a file to something that can be called: read, hash, compile, link, and try.

use std::fmt::Write as _;
use std::sync::Arc;

use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Instance, InstancePre};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};
use wasmtime_wasi::I32Exit;

use crate::bindings::exports::dormouse::plugin::{about, evaluator, ingress_targets, scaler, trigger};
use crate::host::{TooManyHostCalls, clip, one_line};
use crate::link::{NotThere, Permissions, check_exports, check_imports, exported, stub};
use crate::meter::CpuMeter;
use crate::state::{CallState, Shared};
use crate::{HostEngine, PluginError, WIT_VERSION};

/// SHA-256 in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A component that is linked and was tried: whatever can be known about it before the first call, is.
pub(crate) struct Template {
    engine: HostEngine,
    shared: Arc<Shared>,
    pre: InstancePre<CallState>,
    exports: Exports,
    stubs: Vec<String>,
}

/// Where the exports of the component are. None: it has no such export.
pub(crate) struct Exports {
    pub scaler: Option<scaler::GuestIndices>,
    pub ingress: Option<ingress_targets::GuestIndices>,
    pub about: Option<about::GuestIndices>,
    pub evaluator: Option<evaluator::GuestIndices>,
    pub trigger: Option<trigger::GuestIndices>,
}

/// A function of an interface was called that the component does not export.
#[derive(Debug, thiserror::Error)]
#[error("the plugin does not export {0}")]
pub(crate) struct NotExported(pub &'static str);

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
        let exports = Exports::of(engine, component, &pre)?;
        Ok(Template {
            engine: engine.clone(),
            shared,
            pre,
            exports,
            stubs,
        })
    }

    /// Instantiates once and looks up every export. The types of exports are only checked here, and start code runs.
    pub(crate) async fn try_out(&self) -> Result<(), PluginError> {
        let ran = self.run(|exports, store, instance| {
            Box::pin(async move {
                macro_rules! load {
                    ($($field:ident: $name:literal),*) => {$(
                        let export = exports.$field.as_ref().map(|export| export.load(&mut *store, &instance));
                        if let Some(Err(error)) = export {
                            return Ok(Err(incompatible(concat!("dormouse:plugin/", $name), &error)));
                        }
                    )*};
                }
                load!(
                    scaler: "scaler", ingress: "ingress-targets", about: "about", evaluator: "evaluator", trigger: "trigger"
                );
                Ok(Ok(()))
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

    pub(crate) fn exports(&self) -> &Exports {
        &self.exports
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

impl Exports {
    fn of(
        engine: &HostEngine,
        component: &Component,
        pre: &InstancePre<CallState>,
    ) -> Result<Exports, PluginError> {
        macro_rules! find {
            ($module:ident, $name:literal) => {
                exported(engine.engine(), component, $name)
                    .map(|_| $module::GuestIndices::new(pre))
                    .transpose()
                    .map_err(|error| incompatible(concat!("dormouse:plugin/", $name), &error))?
            };
        }
        Ok(Exports {
            scaler: find!(scaler, "scaler"),
            ingress: find!(ingress_targets, "ingress-targets"),
            about: find!(about, "about"),
            evaluator: find!(evaluator, "evaluator"),
            trigger: find!(trigger, "trigger"),
        })
    }
}

fn incompatible(what: &str, error: &wasmtime::Error) -> PluginError {
    PluginError::Incompatible {
        wanted: format!("other types of {what} ({error:#})"),
        have: WIT_VERSION,
    }
}

/// Bytes of what a guest wrote to stderr in an error.
const SAID: usize = 4 << 10;

/// How wasmtime begins to say that a guest handed over too much: there is no type for it. A test fails when it says it in
/// another way.
const TOO_MUCH_DATA: &str = "too much data is being copied between the host and the guest";

/// The end of a text, where the panic is.
fn last(text: &str, most: usize) -> String {
    let from = text.len().saturating_sub(most);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at));
    from.map_or_else(String::new, |from| text[from..].to_owned())
}

/// Which limit ended the call, or what the guest did.
fn classify(error: &wasmtime::Error, state: &CallState) -> PluginError {
    let limits = &state.shared.limits;
    tracing::debug!(error = format!("{error:?}"), "the plugin's call ended");
    if error.is::<TooManyHostCalls>() {
        return PluginError::HostCalls {
            limit: limits.host_calls,
        };
    }
    if let Some(NotExported(export)) = error.downcast_ref() {
        return PluginError::NotExported { export };
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
    if let Some(limit) = state.memory.host_denied {
        return PluginError::HostMemory { limit };
    }
    if state.memory.denied {
        return PluginError::Memory { limit: limits.memory };
    }
    let said = last(&one_line(&state.stderr.text()), SAID);
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
