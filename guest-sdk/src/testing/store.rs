//! What the fake host remembers.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Call, Event, Line, Patched, select};
use crate::ResourceId;
use crate::kubernetes::{Error, ObjectKey, PatchType, Subresource};
use crate::lifecycle::{self, Sleeper};

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(super) config: BTreeMap<String, String>,
    pub(super) objects: BTreeMap<ObjectKey, Value>,
    pub(super) sleepers: BTreeMap<ResourceId, Sleeper>,
    pub(super) failures: Vec<(Call, Error)>,
    pub(super) lifecycle_failures: BTreeMap<ResourceId, lifecycle::Error>,
    pub(super) calls: Vec<Call>,
    pub(super) sleeps: Vec<(ResourceId, String)>,
    pub(super) wakes: Vec<(ResourceId, String)>,
    pub(super) patches: Vec<Patched>,
    pub(super) events: Vec<Event>,
    pub(super) lines: Vec<Line>,
    pub(super) clock: Option<Timestamp>,
    pub(super) zone: Option<String>,
    pub(super) time_left: Option<Duration>,
    version: u64,
}

impl State {
    /// Counts a call, and fails it when the test asked for that.
    pub(super) fn begin(&mut self, call: Call) -> Result<(), Error> {
        self.calls.push(call);
        match self.failures.iter().position(|(failing, _)| *failing == call) {
            Some(index) => Err(self.failures.remove(index).1),
            None => Ok(()),
        }
    }

    pub(super) fn existing(&self, key: &ObjectKey) -> Result<&Value, Error> {
        self.objects
            .get(key)
            .ok_or_else(|| Error::NotFound(key.to_string()))
    }

    /// Stores an object under the next resourceVersion, unless it brings one.
    pub(super) fn put(&mut self, mut object: Value) -> Value {
        let key = select::key_of(&object).unwrap_or_else(|problem| panic!("{problem}: {object}"));
        self.version += 1;
        let metadata = &mut object["metadata"];
        if metadata["resourceVersion"].is_null() {
            metadata["resourceVersion"] = json!(self.version.to_string());
        }
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.version));
        }
        self.objects.insert(key, object.clone());
        object
    }

    pub(super) fn change(&mut self, key: &ObjectKey, merge_patch: &Value) {
        let Some(object) = self.objects.get(key) else {
            panic!("no {key} to change")
        };
        let mut object = object.clone();
        json_patch::merge(&mut object, merge_patch);
        self.store_anew(object);
    }

    /// Stores an object under the next resourceVersion whatever it brings.
    fn store_anew(&mut self, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = Value::Null;
        self.put(object)
    }

    pub(super) fn patch(
        &mut self,
        key: &ObjectKey,
        subresource: Subresource,
        kind: PatchType,
        body: &Value,
    ) -> Result<Value, Error> {
        let before = self.existing(key)?.clone();
        let mut after = before.clone();
        match kind {
            // Near enough for the objects of a test: lists with merge keys are replaced, not merged.
            PatchType::Merge | PatchType::StrategicMerge => {
                if let Some(expected) = body["metadata"]["resourceVersion"].as_str()
                    && before["metadata"]["resourceVersion"] != expected
                {
                    return Err(Error::Conflict(format!("{key} was changed")));
                }
                json_patch::merge(&mut after, body);
            }
            PatchType::Json => {
                let operations: json_patch::Patch = serde_json::from_value(body.clone())
                    .map_err(|error| Error::Invalid(error.to_string()))?;
                json_patch::patch(&mut after, &operations)
                    .map_err(|error| Error::Invalid(error.to_string()))?;
            }
        }
        // As the API server does: each of them changes its own part only.
        match subresource {
            Subresource::None => {}
            Subresource::Status => {
                let status = after["status"].take();
                after.clone_from(&before);
                after["status"] = status;
            }
            Subresource::Scale => {
                let replicas = after["spec"]["replicas"].take();
                after.clone_from(&before);
                after["spec"]["replicas"] = replicas;
            }
        }
        Ok(self.store_anew(after))
    }

    pub(super) fn request(&self, resource: &ResourceId) -> Result<(), lifecycle::Error> {
        if let Some(error) = self.lifecycle_failures.get(resource) {
            return Err(error.clone());
        }
        if !self.sleepers.is_empty() && !self.sleepers.contains_key(resource) {
            return Err(lifecycle::Error::UnknownResource(resource.clone()));
        }
        Ok(())
    }
}
