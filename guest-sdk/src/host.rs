//! The one seam between the wrappers and whoever is on the other side: the real host in a component, the fake host of
//! [`crate::testing`] everywhere else.

#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::calls::*;

#[cfg(target_family = "wasm")]
pub(crate) use imports::*;

#[cfg(target_family = "wasm")]
mod imports {
    use crate::ResourceId;
    use crate::guest::bindings::scaler::dormouse::plugin::{
        config, kubernetes as wit, lifecycle as wit_lifecycle, logging,
    };
    use crate::kubernetes::{Error, EventType, List, ObjectKey, PatchType, Subresource};
    use crate::lifecycle::{self, Sleeper};
    use crate::log::Level;

    pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
        logging::log(level.into(), message, fields);
    }

    pub(crate) fn config_get(key: &str) -> Option<String> {
        config::get(key)
    }

    pub(crate) fn config_all() -> Vec<(String, String)> {
        config::all()
    }

    pub(crate) fn get(key: &ObjectKey, fields: &[String]) -> Result<String, Error> {
        Ok(wit::get(&key.into(), fields)?)
    }

    pub(crate) fn list(list: &List) -> Result<Vec<String>, Error> {
        Ok(wit::list(&list.clone().into())?)
    }

    pub(crate) fn create(object: &str) -> Result<String, Error> {
        Ok(wit::create(object)?)
    }

    pub(crate) fn patch(
        key: &ObjectKey,
        subresource: Subresource,
        kind: PatchType,
        body: &str,
    ) -> Result<String, Error> {
        Ok(wit::patch(&key.into(), subresource.into(), kind.into(), body)?)
    }

    pub(crate) fn apply(object: &str, force: bool) -> Result<String, Error> {
        Ok(wit::apply(object, force)?)
    }

    pub(crate) fn delete(key: &ObjectKey) -> Result<(), Error> {
        Ok(wit::delete(&key.into())?)
    }

    pub(crate) fn event(key: &ObjectKey, kind: EventType, reason: &str, message: &str) -> Result<(), Error> {
        Ok(wit::event(&key.into(), kind.into(), reason, message)?)
    }

    pub(crate) fn sleep(resource: &ResourceId, reason: &str) -> Result<(), lifecycle::Error> {
        Ok(wit_lifecycle::sleep(&resource.into(), reason)?)
    }

    pub(crate) fn wake(resource: &ResourceId, reason: &str) -> Result<(), lifecycle::Error> {
        Ok(wit_lifecycle::wake(&resource.into(), reason)?)
    }

    pub(crate) fn state(resource: &ResourceId) -> Result<Option<Sleeper>, lifecycle::Error> {
        Ok(wit_lifecycle::state(&resource.into())?.map(Into::into))
    }
}
