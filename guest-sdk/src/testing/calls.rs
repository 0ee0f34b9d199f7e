//! The host functions, answered by the fake host of this thread.

use std::cell::RefMut;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::store::State;
use super::{CURRENT, Call, Event, Line, Patched, select};
use crate::kubernetes::{Error, EventType, List, ObjectKey, PatchType, Subresource};
use crate::lifecycle::{self, Sleeper};
use crate::log::Level;
use crate::{ResourceId, zone as wrong};

/// Runs with the state of this thread's host.
fn with<T>(run: impl FnOnce(RefMut<'_, State>) -> T) -> T {
    let state = CURRENT.with(|current| current.borrow().clone());
    let Some(state) = state else {
        panic!(
            "a host function was called without a host: make a `dormouse_sdk::testing::Host` first, and keep it"
        );
    };
    run(state.borrow_mut())
}

pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
    // Logging must work anywhere, also where no host was made.
    let state = CURRENT.with(|current| current.borrow().clone());
    if let Some(mut state) = state.as_ref().and_then(|state| state.try_borrow_mut().ok()) {
        state.lines.push(Line {
            level,
            message: message.into(),
            fields: fields.to_vec(),
        });
    }
}

pub(crate) fn config_get(key: &str) -> Option<String> {
    with(|state| state.config.get(key).cloned())
}

pub(crate) fn config_all() -> Vec<(String, String)> {
    with(|state| state.config.clone().into_iter().collect())
}

pub(crate) fn now() -> Timestamp {
    with(|state| state.clock.unwrap_or_else(Timestamp::now))
}

pub(crate) fn zone() -> String {
    with(|state| state.zone.clone().unwrap_or_else(|| "UTC".to_owned()))
}

pub(crate) fn to_civil(at: Timestamp, zone: Option<&str>) -> Result<DateTime, wrong::Error> {
    Ok(time_zone(zone)?.to_datetime(at))
}

pub(crate) fn from_civil(shown: DateTime, zone: Option<&str>) -> Result<Timestamp, wrong::Error> {
    let shown = time_zone(zone)?.to_ambiguous_zoned(shown).compatible();
    let at = shown.map_err(|error| wrong::Error::OutOfRange(error.to_string()))?;
    Ok(at.timestamp())
}

fn time_zone(name: Option<&str>) -> Result<TimeZone, wrong::Error> {
    let name = name.map_or_else(zone, str::to_owned);
    TimeZone::get(&name).map_err(|_| wrong::Error::UnknownZone(name))
}

pub(crate) fn caller() -> String {
    "cli".to_owned()
}

pub(crate) fn time_left() -> Duration {
    with(|state| state.time_left.unwrap_or(Duration::from_secs(10)))
}

pub(crate) fn get(key: &ObjectKey, fields: &[String]) -> Result<String, Error> {
    with(|mut state| {
        state.begin(Call::Get)?;
        Ok(select::project(state.existing(key)?, fields).to_string())
    })
}

pub(crate) fn list(list: &List) -> Result<Vec<String>, Error> {
    with(|mut state| {
        state.begin(Call::List)?;
        let selector = list
            .label_selector
            .as_deref()
            .map(select::parse)
            .transpose()
            .map_err(Error::Invalid)?;
        let wanted = |key: &ObjectKey, object: &Value| {
            key.api_version == list.api_version
                && key.kind == list.kind
                && (list.namespace.is_none() || key.namespace == list.namespace)
                && selector
                    .as_ref()
                    .is_none_or(|selector| select::matches(selector, object))
                && list
                    .annotation_prefix
                    .as_ref()
                    .is_none_or(|prefix| select::annotated(prefix, object))
        };
        let found = state.objects.iter().filter(|(key, object)| wanted(key, object));
        Ok(found
            .map(|(_, object)| select::project(object, &list.fields).to_string())
            .collect())
    })
}

pub(crate) fn create(object: &str) -> Result<String, Error> {
    with(|mut state| {
        state.begin(Call::Create)?;
        let object = parse(object)?;
        let key = select::key_of(&object).map_err(Error::Invalid)?;
        if state.objects.contains_key(&key) {
            return Err(Error::Conflict(format!("{key} exists")));
        }
        Ok(state.put(object).to_string())
    })
}

pub(crate) fn patch(
    key: &ObjectKey,
    subresource: Subresource,
    kind: PatchType,
    body: &str,
) -> Result<String, Error> {
    with(|mut state| {
        let body = parse(body)?;
        state.patches.push(Patched {
            key: key.clone(),
            subresource,
            kind,
            body: body.clone(),
        });
        state.begin(Call::Patch)?;
        state
            .patch(key, subresource, kind, &body)
            .map(|object| object.to_string())
    })
}

pub(crate) fn apply(object: &str, _force: bool) -> Result<String, Error> {
    with(|mut state| {
        state.begin(Call::Apply)?;
        let object = parse(object)?;
        let key = select::key_of(&object).map_err(Error::Invalid)?;
        if !state.objects.contains_key(&key) {
            return Ok(state.put(object).to_string());
        }
        state
            .patch(&key, Subresource::None, PatchType::Merge, &object)
            .map(|object| object.to_string())
    })
}

pub(crate) fn delete(key: &ObjectKey) -> Result<(), Error> {
    with(|mut state| {
        state.begin(Call::Delete)?;
        state.objects.remove(key);
        Ok(())
    })
}

pub(crate) fn event(key: &ObjectKey, kind: EventType, reason: &str, message: &str) -> Result<(), Error> {
    with(|mut state| {
        state.begin(Call::Event)?;
        state.events.push(Event {
            regarding: key.clone(),
            kind,
            reason: reason.into(),
            message: message.into(),
        });
        Ok(())
    })
}

pub(crate) fn sleep(resource: &ResourceId, reason: &str) -> Result<(), lifecycle::Error> {
    with(|mut state| {
        state.sleeps.push((resource.clone(), reason.into()));
        state.request(resource)
    })
}

pub(crate) fn wake(resource: &ResourceId, reason: &str) -> Result<(), lifecycle::Error> {
    with(|mut state| {
        state.wakes.push((resource.clone(), reason.into()));
        state.request(resource)
    })
}

pub(crate) fn state(resource: &ResourceId) -> Result<Option<Sleeper>, lifecycle::Error> {
    with(|state| Ok(state.sleepers.get(resource).cloned()))
}

fn parse(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| Error::Invalid(error.to_string()))
}
