//! The least that can call a plugin: generated bindings, WASI, and host functions that answer at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use bindings::ResourceScalerPre;
use bindings::dormouse::plugin::{config, kubernetes, lifecycle, logging, types};

mod bindings {
    //! Generated.

    wasmtime::component::bindgen!({
        path: "../wit",
        world: "resource-scaler",
        with: {
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wasi:random": wasmtime_wasi::p2::bindings::random,
        },
        imports: {
            "dormouse:plugin/logging": trappable,
            "dormouse:plugin/config": trappable,
            default: async | trappable,
        },
        exports: { default: async },
    });
}

pub struct Bare {
    engine: Engine,
    pre: ResourceScalerPre<State>,
    values: BTreeMap<String, String>,
}

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    values: BTreeMap<String, String>,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl Bare {
    pub fn new(engine: &Engine, component: &[u8], values: BTreeMap<String, String>) -> anyhow::Result<Bare> {
        let component = Component::from_binary(engine, component)?;
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        // What the guest of this bench may import.
        types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        logging::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        config::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        kubernetes::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        lifecycle::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        let pre = ResourceScalerPre::new(linker.instantiate_pre(&component)?)?;
        Ok(Bare {
            engine: engine.clone(),
            pre,
            values,
        })
    }

    fn store(&self) -> Store<State> {
        let state = State {
            wasi: WasiCtxBuilder::new().build(),
            table: ResourceTable::new(),
            values: self.values.clone(),
        };
        let mut store = Store::new(&self.engine, state);
        // The engine counts epochs, so a store must say when it minds. Never.
        store.set_epoch_deadline(u64::MAX / 2);
        store
    }

    pub fn resources(&self, runtime: &Runtime, count: usize) -> anyhow::Result<Vec<Duration>> {
        let call = async || {
            let mut store = self.store();
            let guest = self.pre.instantiate_async(&mut store).await?;
            guest.dormouse_plugin_scaler().call_resources(&mut store).await
        };
        timed(runtime, count, call)
    }

    pub fn set_scale(&self, runtime: &Runtime, count: usize) -> anyhow::Result<Vec<Duration>> {
        let call = async || {
            let id = types::ResourceId {
                namespace: "shop".into(),
                name: "workload-0".into(),
            };
            let mut store = self.store();
            let guest = self.pre.instantiate_async(&mut store).await?;
            guest
                .dormouse_plugin_scaler()
                .call_set_scale(
                    &mut store,
                    &[types::ResourceHandle { id, cookie: None }],
                    0,
                    "idle",
                )
                .await
        };
        timed(runtime, count, call)
    }
}

fn timed<T>(
    runtime: &Runtime,
    count: usize,
    call: impl AsyncFn() -> wasmtime::Result<Result<T, types::PluginError>>,
) -> anyhow::Result<Vec<Duration>> {
    (0..count)
        .map(|_| {
            let began = Instant::now();
            let answer = runtime.block_on(call())?;
            anyhow::ensure!(answer.is_ok(), "the guest answered with an error");
            drop(answer);
            Ok(began.elapsed())
        })
        .collect()
}

impl types::Host for State {}

impl logging::Host for State {
    fn log(&mut self, _: logging::Level, _: String, _: Vec<(String, String)>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl config::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.values.get(&key).cloned())
    }

    fn all(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.values.clone().into_iter().collect())
    }
}

type Answer<T> = wasmtime::Result<Result<T, kubernetes::KubernetesError>>;

fn nothing<T>() -> Answer<T> {
    Ok(Err(kubernetes::KubernetesError::Unavailable(
        "there is no cluster".into(),
    )))
}

impl kubernetes::Host for State {
    async fn get(&mut self, _: kubernetes::ObjectKey, _: Vec<String>) -> Answer<String> {
        nothing()
    }

    async fn list(&mut self, _: kubernetes::ListQuery) -> Answer<Vec<String>> {
        nothing()
    }

    async fn create(&mut self, _: String) -> Answer<String> {
        nothing()
    }

    async fn patch(
        &mut self,
        _: kubernetes::ObjectKey,
        _: kubernetes::Subresource,
        _: kubernetes::PatchType,
        _: String,
    ) -> Answer<String> {
        nothing()
    }

    async fn apply(&mut self, _: String, _: bool) -> Answer<String> {
        nothing()
    }

    async fn delete(&mut self, _: kubernetes::ObjectKey) -> Answer<()> {
        nothing()
    }

    async fn event(
        &mut self,
        _: kubernetes::ObjectKey,
        _: kubernetes::EventType,
        _: String,
        _: String,
    ) -> Answer<()> {
        nothing()
    }
}

impl lifecycle::Host for State {
    async fn sleep(
        &mut self,
        _: types::ResourceId,
        _: String,
    ) -> wasmtime::Result<Result<(), lifecycle::LifecycleError>> {
        Ok(Ok(()))
    }

    async fn wake(
        &mut self,
        _: types::ResourceId,
        _: String,
    ) -> wasmtime::Result<Result<(), lifecycle::LifecycleError>> {
        Ok(Ok(()))
    }

    async fn state(
        &mut self,
        _: types::ResourceId,
    ) -> wasmtime::Result<Result<Option<lifecycle::Sleeper>, lifecycle::LifecycleError>> {
        Ok(Ok(None))
    }
}
