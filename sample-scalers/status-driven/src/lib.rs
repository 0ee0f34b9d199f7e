//! Resources that are scaled by writing their status and watching it change, as serverless function platforms do.
//!
//! The platform's own controller does the work: this plugin writes a *request* into the state field (`asleep, please`), the
//! controller carries it out and writes what came of it. What the fields and the states are called is configuration; see
//! [`platform::about`] for every key and `nuclio.yaml` beside this crate for a complete example.
//!
//! Resources are returned without workloads and Services, because the platform scales and diverts by itself.

pub mod path;
pub mod platform;
pub mod rules;

use dormouse_sdk::prelude::*;
use dormouse_sdk::{GroupKind, kubernetes::List};
use serde_json::{Value, json};

use kubernetes::{ObjectKey, PatchType, Subresource};
use platform::Platform;

/// How often a write is tried again when somebody else was faster.
const ATTEMPTS: u32 = 5;

/// The scaler.
#[derive(Debug, Default)]
pub struct StatusDriven;

dormouse_sdk::register!(StatusDriven, StatusDriven);
dormouse_sdk::register_about!(StatusDriven);

impl Describe for StatusDriven {
    fn describe(&self) -> About {
        platform::about()
    }
}

impl Scaler for StatusDriven {
    fn settings(&self) -> Result<Settings> {
        let platform = Platform::configured()?;
        let group = platform
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        Ok(Settings {
            scale_interval: platform.scale_interval,
            metrics_resource: Some(GroupKind {
                group: group.into(),
                kind: platform.kind.clone(),
            }),
            target_name_header: platform.name_header.clone(),
            target_path_header: platform.path_header.clone(),
            target_port: platform.port,
            readiness_timeout: platform.readiness_timeout,
            multi_target_strategy: platform.multi_target_strategy,
        })
    }

    fn resources(&self) -> Result<Vec<Resource>> {
        let platform = Platform::configured()?;
        let mut list: List<Value> =
            kubernetes::list(&platform.api_version, &platform.kind).fields(platform.fields());
        if let Some(namespace) = &platform.namespace {
            list = list.namespace(namespace);
        }
        if let Some(selector) = &platform.selector {
            list = list.labels(selector);
        }
        let objects = list.fetch()?;
        let wanted = objects.iter().filter(|object| platform.may_sleep(object));
        Ok(wanted.map(|object| platform.resource(object)).collect())
    }

    fn set_scale(&self, resources: &[ResourceHandle], replicas: u32, reason: &str) -> Result<Vec<Outcome>> {
        let platform = Platform::configured()?;
        let request = if replicas == 0 {
            Request::Asleep
        } else {
            Request::Awake
        };
        let outcome = |resource: &ResourceHandle| {
            platform
                .bring_about(&resource.id, request, reason)
                .unwrap_or_else(Outcome::Failed)
        };
        Ok(resources.iter().map(outcome).collect())
    }

    fn service(&self, resource: &ResourceHandle) -> Result<ServiceTarget> {
        let platform = Platform::configured()?;
        Ok(ServiceTarget {
            name: platform.service.name_for(&resource.id.name),
            port: platform.port,
        })
    }
}

impl IngressTargets for StatusDriven {
    /// The resource whose Service stands behind the path.
    fn targets(&self, backend: &PathBackend) -> Result<Vec<ResourceId>> {
        let platform = Platform::configured()?;
        let Some(name) = platform.service.resource_of(&backend.service) else {
            return Ok(Vec::new());
        };
        let resource = ResourceId::new(&backend.namespace, name);
        match kubernetes::get::<Value>(&platform.key(&resource), &["metadata.deletionTimestamp"]) {
            Ok(_) => Ok(vec![resource]),
            Err(kubernetes::Error::NotFound(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the host wants of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Asleep,
    Awake,
}

/// What is to be done about a request, given the state that the resource is in.
#[derive(Debug, PartialEq, Eq)]
enum Todo {
    /// It is so already.
    Nothing,
    /// The platform is at it.
    Watch,
    /// Write the request.
    Write,
    /// Not now.
    Refuse(Error),
}

impl Platform {
    /// Every object is a resource unless it is on its way out, was not opted in, or must keep replicas.
    fn may_sleep(&self, object: &Value) -> bool {
        let present = |path: &str| path::get(object, path).is_some_and(|value| !value.is_null());
        let minimum = self
            .min_replicas_path
            .as_deref()
            .and_then(|path| path::get(object, path)?.as_i64());
        !present("metadata.deletionTimestamp")
            && self.opt_in_path.as_deref().is_none_or(present)
            && minimum.unwrap_or(self.min_replicas_default) <= 0
    }

    fn resource(&self, object: &Value) -> Resource {
        let text = |path: &str| path::text(object, path).unwrap_or_default();
        let name = text("metadata.name");
        let mut resource = Resource::new(text("metadata.namespace"), name)
            .object(ObjectRef::new(&self.api_version, &self.kind, name))
            .state(self.state_of(object));
        resource.last_event = self.last_event(object);
        match rules::of(self, object) {
            Ok(rules) => resource.rules(rules),
            // Without rules it is never idle, and it can still be woken.
            Err(problem) => {
                let key = self.key(&resource.id);
                kubernetes::warn_about(&key, "InvalidRules", &format!("{problem}. It is left awake."));
                resource
            }
        }
    }

    fn state_of(&self, object: &Value) -> State {
        match path::text(object, &self.state_path) {
            Some(state) if self.ready_states.contains(state) => State::Awake,
            Some(state) if self.asleep_states.contains(state) => State::Asleep,
            // Being built, brought up, brought down, or broken: the platform's business.
            _ => State::Changing,
        }
    }

    /// None when there was no event yet, or one that nobody knows.
    fn last_event(&self, object: &Value) -> Option<ScaleEvent> {
        let kind = match path::text(object, self.event_path.as_deref()?)? {
            "resourceUpdated" => ScaleEventKind::ResourceUpdated,
            "scaleFromZeroStarted" => ScaleEventKind::ScaleFromZeroStarted,
            "scaleFromZeroCompleted" => ScaleEventKind::ScaleFromZeroCompleted,
            "scaleToZeroStarted" => ScaleEventKind::ScaleToZeroStarted,
            "scaleToZeroCompleted" => ScaleEventKind::ScaleToZeroCompleted,
            _ => return None,
        };
        let at = path::text(object, self.event_time_path.as_deref()?)?
            .parse()
            .ok()?;
        Some(ScaleEvent { kind, at })
    }

    fn key(&self, resource: &ResourceId) -> ObjectKey {
        ObjectKey::new(&self.api_version, &self.kind, &resource.namespace, &resource.name)
    }

    /// Reads, decides, writes; again when somebody else wrote in between.
    fn bring_about(&self, resource: &ResourceId, request: Request, reason: &str) -> Result<Outcome> {
        let key = self.key(resource);
        for _ in 0..ATTEMPTS {
            let object: Value = match kubernetes::get(&key, &[&self.state_path]) {
                Err(kubernetes::Error::NotFound(_)) => return Err(Error::UnknownResource(resource.clone())),
                other => other?,
            };
            match self.todo(path::text(&object, &self.state_path), request) {
                Todo::Nothing => return Ok(Outcome::Done),
                Todo::Watch => return Ok(Outcome::Watch(self.condition(resource, request))),
                Todo::Refuse(error) => return Err(error),
                Todo::Write => {}
            }
            let subresource = if self.status_subresource {
                Subresource::Status
            } else {
                Subresource::None
            };
            match kubernetes::patch(
                &key,
                subresource,
                PatchType::Merge,
                &self.written(&object, request),
            ) {
                Ok(_) => {
                    info!(
                        "wrote the request",
                        resource = resource,
                        state = self.requested_state(request),
                        reason = reason
                    );
                    return Ok(Outcome::Watch(self.condition(resource, request)));
                }
                Err(kubernetes::Error::Conflict(_)) => {
                    debug!("it was changed meanwhile", resource = resource)
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::transient(format!(
            "{key} was changed by others {ATTEMPTS} times in a row"
        )))
    }

    fn todo(&self, state: Option<&str>, request: Request) -> Todo {
        let state = state.unwrap_or_default();
        let is = |states: &std::collections::BTreeSet<String>| states.contains(state);
        match request {
            Request::Asleep if is(&self.asleep_states) => Todo::Nothing,
            Request::Asleep if state == self.sleep_state => Todo::Watch,
            Request::Asleep if is(&self.ready_states) => Todo::Write,
            // Wake beats sleep, and whatever else goes on must not be cut short.
            Request::Asleep => Todo::Refuse(Error::transient(format!(
                "its state is `{state}`: only what is ready can sleep"
            ))),
            Request::Awake if is(&self.ready_states) => Todo::Nothing,
            Request::Awake if is(&self.asleep_states) || state == self.sleep_state => Todo::Write,
            Request::Awake if is(&self.failed_states) => Todo::Refuse(Error::Other(format!(
                "its state is `{state}`: the platform has to mend it first"
            ))),
            // It was woken, or is being built or updated: it will be ready, or fail.
            Request::Awake => Todo::Watch,
        }
    }

    fn requested_state(&self, request: Request) -> &str {
        match request {
            Request::Asleep => &self.sleep_state,
            Request::Awake => &self.wake_state,
        }
    }

    /// The merge patch: state, event and time, on the condition that nobody wrote since.
    fn written(&self, object: &Value, request: Request) -> Value {
        let mut patch = json!({});
        path::put(
            &mut patch,
            "metadata.resourceVersion",
            path::get(object, "metadata.resourceVersion").cloned(),
        );
        path::put(
            &mut patch,
            &self.state_path,
            Some(json!(self.requested_state(request))),
        );
        let event = match request {
            Request::Asleep => "scaleToZeroStarted",
            Request::Awake => "scaleFromZeroStarted",
        };
        if let Some(path) = &self.event_path {
            path::put(&mut patch, path, Some(json!(event)));
        }
        if let Some(path) = &self.event_time_path {
            path::put(&mut patch, path, Some(json!(Timestamp::now())));
        }
        patch
    }

    /// What the host watches, so that nothing in here has to wait.
    fn condition(&self, resource: &ResourceId, request: Request) -> FieldCondition {
        let ready = match request {
            Request::Asleep => &self.asleep_states,
            Request::Awake => &self.ready_states,
        };
        FieldCondition {
            object: ObjectRef::new(&self.api_version, &self.kind, &resource.name),
            path: self.state_path.clone(),
            ready_values: ready.iter().cloned().collect(),
            failed_values: self.failed_states.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
