//! The adapters of evaluators, triggers and descriptions that the registration macros export. Not for direct use.

mod convert;

use std::marker::PhantomData;

use crate::about::Describe;
use crate::evaluator::Evaluator;
use crate::guest::bindings::about::exports::dormouse::plugin::about as wit_about;
use crate::guest::bindings::evaluator::exports::dormouse::plugin::evaluator as wit_evaluator;
use crate::guest::bindings::scaler::dormouse::plugin::types as wit_types;
use crate::guest::bindings::trigger::exports::dormouse::plugin::trigger as wit_trigger;
use crate::log::install_panic_hook;
use crate::trigger::Trigger;

/// The version of the plugin's own crate.
pub trait OwnVersion {
    /// As in its `Cargo.toml`.
    const VERSION: &'static str;
}

/// Exports [`Describe`] as the interface `about`.
#[derive(Debug)]
pub struct ExportAbout<D, V>(PhantomData<(D, V)>);

impl<D: Describe, V: OwnVersion + 'static> wit_about::Guest for ExportAbout<D, V> {
    fn describe() -> wit_about::Description {
        install_panic_hook();
        convert::description(D::default().describe(), V::VERSION)
    }
}

/// Exports an [`Evaluator`] as the interface `evaluator`.
#[derive(Debug)]
pub struct ExportEvaluator<E>(PhantomData<E>);

impl<E: Evaluator> wit_evaluator::Guest for ExportEvaluator<E> {
    fn evaluate(
        questions: Vec<wit_evaluator::Question>,
    ) -> Result<Vec<Result<wit_evaluator::Recommendation, wit_types::PluginError>>, wit_types::PluginError>
    {
        install_panic_hook();
        let evaluator = E::default();
        let answers = questions.into_iter().map(|question| {
            let recommended = evaluator.evaluate(&question.try_into()?)?;
            Ok(recommended.into())
        });
        Ok(answers.collect())
    }
}

/// Exports a [`Trigger`] as the interface `trigger`.
#[derive(Debug)]
pub struct ExportTrigger<T>(PhantomData<T>);

impl<T: Trigger> wit_trigger::Guest for ExportTrigger<T> {
    fn check(target: wit_trigger::Target) -> Result<(), wit_types::PluginError> {
        install_panic_hook();
        Ok(T::default().check(&target.into())?)
    }

    fn observe(
        targets: Vec<wit_trigger::Target>,
    ) -> Result<Vec<Result<wit_trigger::Observation, wit_types::PluginError>>, wit_types::PluginError> {
        install_panic_hook();
        let targets: Vec<_> = targets.into_iter().map(Into::into).collect();
        let answers = T::default().observe(&targets)?;
        let answers = answers
            .into_iter()
            .map(|answer| answer.map(Into::into).map_err(Into::into));
        Ok(answers.collect())
    }
}
