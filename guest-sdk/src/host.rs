//! The one seam between the wrappers and whoever is on the other side: the real host in a component, the fake host of
//! [`crate::testing`] everywhere else.

#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::calls::*;

#[cfg(target_family = "wasm")]
pub(crate) use imports::*;

#[cfg(target_family = "wasm")]
mod imports {
    use std::time::Duration;

    use jiff::Timestamp;
    use jiff::civil::DateTime;

    use crate::guest::bindings::scaler::dormouse::plugin::{
        call_context, config, kubernetes as wit, lifecycle as wit_lifecycle, logging, time as wit_time,
    };
    use crate::guest::civil::{civil_time, date_time};
    use crate::guest::convert::{timestamp, unix_millis};
    use crate::kubernetes::{Error, EventType, List, ObjectKey, PatchType, Subresource};
    use crate::lifecycle::{self, Sleeper};
    use crate::log::Level;
    use crate::{ResourceId, zone};

    pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
        logging::log(level.into(), message, fields);
    }

    pub(crate) fn config_get(key: &str) -> Option<String> {
        config::get(key)
    }

    pub(crate) fn config_all() -> Vec<(String, String)> {
        config::all()
    }

    pub(crate) fn now() -> Timestamp {
        timestamp(wit_time::now())
    }

    pub(crate) fn zone() -> String {
        wit_time::zone()
    }

    pub(crate) fn to_civil(at: Timestamp, zone: Option<&str>) -> Result<DateTime, zone::Error> {
        date_time(&wit_time::to_civil(unix_millis(at), zone)?)
    }

    pub(crate) fn from_civil(shown: DateTime, zone: Option<&str>) -> Result<Timestamp, zone::Error> {
        Ok(timestamp(wit_time::from_civil(civil_time(shown), zone)?))
    }

    pub(crate) fn caller() -> String {
        call_context::caller()
    }

    pub(crate) fn time_left() -> Duration {
        Duration::from_millis(call_context::time_left())
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
