//! The bindings to the contract and the adapters that the registration macro exports. Not for direct use.

#[cfg(target_family = "wasm")]
pub(crate) mod civil;
pub(crate) mod convert;

use std::marker::PhantomData;

use crate::log::install_panic_hook;
use crate::scaler::{IngressTargets, Scaler};

/// What wit-bindgen makes of `wit/plugin.wit`.
pub mod bindings {
    /// World `resource-scaler`.
    pub mod scaler {
        #![expect(
            missing_docs,
            reason = "generated; the contract is documented in wit/plugin.wit"
        )]

        wit_bindgen::generate!({
            path: "../wit",
            world: "resource-scaler",
            generate_all,
            pub_export_macro: true,
            export_macro_name: "export_scaler",
            default_bindings_module: "dormouse_sdk::guest::bindings::scaler",
            // As JSON a record crosses to a host without a component: see `record`.
            additional_derives: [PartialEq, serde::Serialize],
        });
    }

    /// The interface that `resource-scaler-with-ingress` adds. A component that registers both exports has the union
    /// of the two worlds, which is that world.
    pub mod ingress {
        #![expect(
            missing_docs,
            reason = "generated; the contract is documented in wit/plugin.wit"
        )]

        wit_bindgen::generate!({
            path: "../wit",
            inline: "
                package dormouse:sdk-bindings;
                world ingress {
                    export dormouse:plugin/ingress-targets@0.1.0;
                }
            ",
            world: "dormouse:sdk-bindings/ingress",
            with: {
                "dormouse:plugin/types@0.1.0": super::scaler::dormouse::plugin::types,
            },
            pub_export_macro: true,
            export_macro_name: "export_ingress_targets",
            default_bindings_module: "dormouse_sdk::guest::bindings::ingress",
            additional_derives: [PartialEq],
        });
    }

    /// The interface `about`.
    pub mod about {
        #![expect(
            missing_docs,
            reason = "generated; the contract is documented in wit/plugin.wit"
        )]

        wit_bindgen::generate!({
            path: "../wit",
            inline: "
                package dormouse:sdk-bindings;
                world about {
                    export dormouse:plugin/about@0.1.0;
                }
            ",
            world: "dormouse:sdk-bindings/about",
            with: {
                "dormouse:plugin/types@0.1.0": super::scaler::dormouse::plugin::types,
            },
            pub_export_macro: true,
            export_macro_name: "export_about",
            default_bindings_module: "dormouse_sdk::guest::bindings::about",
            additional_derives: [PartialEq],
        });
    }

    /// The interface `evaluator`.
    pub mod evaluator {
        #![expect(
            missing_docs,
            reason = "generated; the contract is documented in wit/plugin.wit"
        )]

        wit_bindgen::generate!({
            path: "../wit",
            inline: "
                package dormouse:sdk-bindings;
                world evaluator {
                    export dormouse:plugin/evaluator@0.1.0;
                }
            ",
            world: "dormouse:sdk-bindings/evaluator",
            with: {
                "dormouse:plugin/types@0.1.0": super::scaler::dormouse::plugin::types,
                "dormouse:plugin/readings@0.1.0": generate,
            },
            pub_export_macro: true,
            export_macro_name: "export_evaluator",
            default_bindings_module: "dormouse_sdk::guest::bindings::evaluator",
            additional_derives: [PartialEq],
        });
    }

    /// The interface `trigger`.
    pub mod trigger {
        #![expect(
            missing_docs,
            reason = "generated; the contract is documented in wit/plugin.wit"
        )]

        wit_bindgen::generate!({
            path: "../wit",
            inline: "
                package dormouse:sdk-bindings;
                world trigger {
                    export dormouse:plugin/trigger@0.1.0;
                }
            ",
            world: "dormouse:sdk-bindings/trigger",
            with: {
                "dormouse:plugin/types@0.1.0": super::scaler::dormouse::plugin::types,
                "dormouse:plugin/readings@0.1.0": super::evaluator::dormouse::plugin::readings,
            },
            pub_export_macro: true,
            export_macro_name: "export_trigger",
            default_bindings_module: "dormouse_sdk::guest::bindings::trigger",
            additional_derives: [PartialEq],
        });
    }
}

use bindings::ingress::exports::dormouse::plugin::ingress_targets as wit_ingress;
use bindings::scaler::dormouse::plugin::types as wit_types;
use bindings::scaler::exports::dormouse::plugin::scaler as wit;

/// A resource as the contract's record, in JSON: for who runs the code of a plugin without a component.
///
/// # Errors
/// [`Error::Other`](crate::Error::Other) for a resource that is no object at all.
pub fn record(resource: crate::Resource) -> crate::Result<serde_json::Value> {
    let record = wit_types::Resource::try_from(resource)?;
    serde_json::to_value(record).map_err(|error| crate::Error::Other(format!("no JSON comes of it: {error}")))
}

/// Exports a [`Scaler`] as the interface `scaler`.
#[derive(Debug)]
pub struct ExportScaler<S>(PhantomData<S>);

impl<S: Scaler> wit::Guest for ExportScaler<S> {
    fn settings() -> Result<wit::ScalerSettings, wit_types::PluginError> {
        install_panic_hook();
        Ok(S::default().settings()?.into())
    }

    fn resources() -> Result<Vec<wit_types::Resource>, wit_types::PluginError> {
        install_panic_hook();
        let resources = S::default().resources()?;
        Ok(resources
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<_, crate::Error>>()?)
    }

    fn set_scale(
        resources: Vec<wit_types::ResourceHandle>,
        replicas: u32,
        reason: String,
    ) -> Result<Vec<wit::ScaleOutcome>, wit_types::PluginError> {
        install_panic_hook();
        let resources: Vec<_> = resources.into_iter().map(Into::into).collect();
        let outcomes = S::default().set_scale(&resources, replicas, &reason)?;
        Ok(outcomes.into_iter().map(Into::into).collect())
    }

    fn service(resource: wit_types::ResourceHandle) -> Result<wit::ServiceTarget, wit_types::PluginError> {
        install_panic_hook();
        Ok(S::default().service(&resource.into())?.into())
    }
}

/// Exports [`IngressTargets`] as the interface `ingress-targets`.
#[derive(Debug)]
pub struct ExportIngressTargets<T>(PhantomData<T>);

impl<T: IngressTargets> wit_ingress::Guest for ExportIngressTargets<T> {
    fn targets(
        backend: wit_ingress::PathBackend,
    ) -> Result<Vec<wit_types::ResourceId>, wit_types::PluginError> {
        install_panic_hook();
        let targets = T::default().targets(&backend.into())?;
        Ok(targets.into_iter().map(Into::into).collect())
    }
}
