//! What the author of a Dormouse plugin imports.
//!
//! A resource-scaler says what there is to put to sleep; the host does the rest. Only [`Scaler::resources`] has to be
//! written:
//!
//! ```
//! use dormouse_sdk::prelude::*;
//!
//! #[derive(Default)]
//! struct Previews;
//!
//! impl Scaler for Previews {
//!     fn resources(&self) -> Result<Vec<Resource>> {
//!         let services = Service::list().fetch()?;
//!         let deployments = Workload::list("apps/v1", "Deployment").labels("tier=preview").fetch()?;
//!         let resources = deployments.iter().filter(|deployment| !deployment.is_deleting()).map(|deployment| {
//!             Resource::of(deployment)
//!                 .services(deployment.services(&services).map(Service::name))
//!                 .rule(Rule::observed_traffic(minutes(15)))
//!         });
//!         Ok(resources.collect())
//!     }
//! }
//!
//! dormouse_sdk::register!(Previews);
//! ```
//!
//! Built for `wasm32-wasip2`, that is a plugin. Built for anything else, it is a library whose logic plain `cargo test`
//! exercises: there, every host function talks to `testing::Host`.
//!
//! Every call of the host runs in a fresh instance: the scaler is made by [`Default`], asked once, and dropped. State
//! belongs in the cluster.

mod about;
pub mod config;
pub mod context;
pub mod duration;
mod error;
pub mod evaluator;
#[doc(hidden)]
pub mod export;
#[doc(hidden)]
pub mod guest;
mod host;
pub mod kubernetes;
pub mod lifecycle;
pub mod log;
pub mod nearest;
mod resource;
mod rule;
mod scaler;
mod scaling;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod time;
pub mod trigger;
mod zone;

pub use about::{About, Describe};
pub use error::{Error, Result};
pub use evaluator::Evaluator;
pub use jiff::Timestamp;
pub use resource::{ObjectRef, Resource, ResourceHandle, ResourceId, ScaleEvent, ScaleEventKind, State};
pub use rule::{MetricSource, ParseQuantityError, PodScrape, Quantity, Rule};
pub use scaler::{
    FieldCondition, GroupKind, IngressTargets, MultiTargetStrategy, Outcome, PathBackend, Scaler,
    ServiceTarget, Settings,
};
pub use scaling::{Goal, GoalTarget, Scaling};
pub use trigger::Trigger;

/// Everything that most scalers name.
pub mod prelude {
    pub use crate::duration::{hours, minutes, seconds};
    pub use crate::kubernetes::{Service, Workload};
    pub use crate::{
        About, Describe, Error, FieldCondition, Goal, IngressTargets, ObjectRef, Outcome, PathBackend,
        Quantity, Resource, ResourceHandle, ResourceId, Result, Rule, ScaleEvent, ScaleEventKind, Scaler,
        Scaling, ServiceTarget, Settings, State, Timestamp, config, context, debug, duration, error, info,
        kubernetes, lifecycle, time, warn,
    };
    pub use std::time::Duration;
}

/// Makes a type the plugin of this crate. Call it once, at the root of a crate of type `cdylib`.
///
/// * `register!(MyScaler)`: a [`Scaler`].
/// * `register!(MyScaler, MyTargets)`: also [`IngressTargets`]; both may be the same type.
#[macro_export]
macro_rules! register {
    ($scaler:ty $(,)?) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type DormouseScaler = $crate::guest::ExportScaler<$scaler>;
            $crate::guest::bindings::scaler::export_scaler!(
                DormouseScaler with_types_in $crate::guest::bindings::scaler
            );
        };
        // Elsewhere nothing is exported, but a type that could not be registered is an error all the same.
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn is_a_scaler<T: $crate::Scaler>() {}
            is_a_scaler::<$scaler>();
        };
    };
    ($scaler:ty, $targets:ty $(,)?) => {
        $crate::register!($scaler);
        #[cfg(target_family = "wasm")]
        const _: () = {
            type DormouseTargets = $crate::guest::ExportIngressTargets<$targets>;
            $crate::guest::bindings::ingress::export_ingress_targets!(
                DormouseTargets with_types_in $crate::guest::bindings::ingress
            );
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn has_ingress_targets<T: $crate::IngressTargets>() {}
            has_ingress_targets::<$targets>();
        };
    };
}

/// Exports what the plugin of this crate says that it is: a type that is [`Describe`]. Its version is that of the crate.
#[macro_export]
macro_rules! register_about {
    ($describe:ty $(,)?) => {
        const _: () = {
            #[allow(
                dead_code,
                reason = "used by what is exported, which is nothing outside of a component"
            )]
            struct Own;
            impl $crate::export::OwnVersion for Own {
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");
            }
            #[cfg(target_family = "wasm")]
            type DormouseAbout = $crate::export::ExportAbout<$describe, Own>;
            #[cfg(target_family = "wasm")]
            $crate::guest::bindings::about::export_about!(
                DormouseAbout with_types_in $crate::guest::bindings::about
            );
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn describes_itself<T: $crate::Describe>() {}
            describes_itself::<$describe>();
        };
    };
}

/// Exports an [`Evaluator`].
#[macro_export]
macro_rules! register_evaluator {
    ($evaluator:ty $(,)?) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type DormouseEvaluator = $crate::export::ExportEvaluator<$evaluator>;
            $crate::guest::bindings::evaluator::export_evaluator!(
                DormouseEvaluator with_types_in $crate::guest::bindings::evaluator
            );
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn is_an_evaluator<T: $crate::Evaluator>() {}
            is_an_evaluator::<$evaluator>();
        };
    };
}

/// Exports a [`Trigger`].
#[macro_export]
macro_rules! register_trigger {
    ($trigger:ty $(,)?) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type DormouseTrigger = $crate::export::ExportTrigger<$trigger>;
            $crate::guest::bindings::trigger::export_trigger!(
                DormouseTrigger with_types_in $crate::guest::bindings::trigger
            );
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn is_a_trigger<T: $crate::Trigger>() {}
            is_a_trigger::<$trigger>();
        };
    };
}
