//! A fake host, so that the logic of a plugin is tested by plain `cargo test`.
//!
//! ```
//! use dormouse_sdk::prelude::*;
//! use dormouse_sdk::testing::Host;
//! use serde_json::json;
//!
//! #[derive(Default)]
//! struct Everything;
//! impl Scaler for Everything {
//!     fn resources(&self) -> Result<Vec<Resource>> {
//!         Ok(Workload::list("apps/v1", "Deployment").fetch()?.iter().map(Resource::of).collect())
//!     }
//! }
//!
//! let host = Host::new();
//! host.config("sleep-after", "3s").add(json!({
//!     "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "demo", "name": "web"}
//! }));
//! let resources = Everything.resources()?;
//! Everything.set_scale(&[resources[0].id.clone().into()], 0, "idle")?;
//! assert_eq!(host.sleeps(), [(ResourceId::new("demo", "web"), "idle".into())]);
//! # Ok::<(), Error>(())
//! ```
//!
//! The fake answers as the real host does: lists honour namespace, label selector, annotation prefix and *fields*, so a
//! scaler that forgets to ask for a field fails here too. It grants everything; use [`Host::fail_next`] to see what a
//! scaler does when it is refused.

pub(crate) mod calls;
mod select;
mod store;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::kubernetes::{self, EventType, ObjectKey, PatchType, Subresource};
use crate::lifecycle::Sleeper;
use crate::log::Level;
use crate::{ResourceId, lifecycle};
use store::State;

thread_local! {
    static CURRENT: RefCell<Option<Rc<RefCell<State>>>> = const { RefCell::new(None) };
}

/// The fake host of this thread, from [`Host::new`] until it is dropped.
#[derive(Debug)]
pub struct Host {
    state: Rc<RefCell<State>>,
}

/// A host function, for [`Host::fail_next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`kubernetes::get`].
    Get,
    /// [`kubernetes::List::fetch`].
    List,
    /// [`kubernetes::create`].
    Create,
    /// [`kubernetes::patch`].
    Patch,
    /// [`kubernetes::apply`].
    Apply,
    /// [`kubernetes::delete`].
    Delete,
    /// [`kubernetes::event`].
    Event,
}

/// A patch that the plugin sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Patched {
    /// To which object.
    pub key: ObjectKey,
    /// To which part of it.
    pub subresource: Subresource,
    /// How to read the body.
    pub kind: PatchType,
    /// The body.
    pub body: Value,
}

/// An Event that the plugin recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// On which object.
    pub regarding: ObjectKey,
    /// Whether it is good news.
    pub kind: EventType,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// A line that the plugin logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How much it matters.
    pub level: Level,
    /// The text.
    pub message: String,
    /// The fields.
    pub fields: Vec<(String, String)>,
}

impl Host {
    /// A host with nothing in it. It replaces the one before it on this thread.
    #[expect(
        clippy::new_without_default,
        reason = "it becomes the thread's host, which a default should not do"
    )]
    pub fn new() -> Self {
        let state = Rc::new(RefCell::new(State::default()));
        CURRENT.with(|current| *current.borrow_mut() = Some(state.clone()));
        Self { state }
    }

    /// Configures a key of the plugin.
    pub fn config(&self, key: &str, value: &str) -> &Self {
        self.state.borrow_mut().config.insert(key.into(), value.into());
        self
    }

    /// Sets the clock. Before that it is the machine's.
    pub fn clock(&self, now: Timestamp) -> &Self {
        self.state.borrow_mut().clock = Some(now);
        self
    }

    /// Sets the time zone of the plugin, as the operator would by `timeZone`.
    pub fn time_zone(&self, name: &str) -> &Self {
        self.state.borrow_mut().zone = Some(name.into());
        self
    }

    /// Sets how long the call may still take.
    pub fn time_left(&self, left: Duration) -> &Self {
        self.state.borrow_mut().time_left = Some(left);
        self
    }

    /// Puts an object into the cluster, or replaces it. It needs `apiVersion`, `kind` and `metadata.name`; a missing
    /// `metadata.resourceVersion` or `uid` is filled in.
    ///
    /// # Panics
    /// When one of those is missing: the test is wrong.
    pub fn add(&self, object: Value) -> &Self {
        self.state.borrow_mut().put(object);
        self
    }

    /// Takes an object out of the cluster.
    pub fn remove(&self, key: &ObjectKey) -> &Self {
        self.state.borrow_mut().objects.remove(key);
        self
    }

    /// Changes an object, as somebody else might.
    ///
    /// # Panics
    /// When there is no such object: the test is wrong.
    pub fn change(&self, key: &ObjectKey, merge_patch: &Value) -> &Self {
        self.state.borrow_mut().change(key, merge_patch);
        self
    }

    /// Sets what the Sleeper of a resource says. Also makes the resource known to `lifecycle`, which then refuses
    /// others; until the first of these every resource is known.
    pub fn sleeper(&self, resource: ResourceId, sleeper: Sleeper) -> &Self {
        self.state.borrow_mut().sleepers.insert(resource, sleeper);
        self
    }

    /// Makes the next call of a function fail. Several of these fail one after another.
    pub fn fail_next(&self, call: Call, error: kubernetes::Error) -> &Self {
        self.state.borrow_mut().failures.push((call, error));
        self
    }

    /// Makes every sleep and wake of a resource fail.
    pub fn fail_lifecycle(&self, resource: ResourceId, error: lifecycle::Error) -> &Self {
        self.state.borrow_mut().lifecycle_failures.insert(resource, error);
        self
    }

    /// An object as it is now.
    pub fn object(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state
            .borrow()
            .objects
            .get(&ObjectKey::new(api_version, kind, namespace, name))
            .cloned()
    }

    /// Resources that were asked to sleep, with the reason.
    pub fn sleeps(&self) -> Vec<(ResourceId, String)> {
        self.state.borrow().sleeps.clone()
    }

    /// Resources that were asked to wake, with the reason.
    pub fn wakes(&self) -> Vec<(ResourceId, String)> {
        self.state.borrow().wakes.clone()
    }

    /// Patches that were sent, also those that failed.
    pub fn patches(&self) -> Vec<Patched> {
        self.state.borrow().patches.clone()
    }

    /// Events that were recorded.
    pub fn events(&self) -> Vec<Event> {
        self.state.borrow().events.clone()
    }

    /// Lines that were logged.
    pub fn lines(&self) -> Vec<Line> {
        self.state.borrow().lines.clone()
    }

    /// How many times each function was called, in the order of the calls.
    pub fn calls(&self) -> Vec<Call> {
        self.state.borrow().calls.clone()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        CURRENT.with(|current| {
            let mut current = current.borrow_mut();
            // A newer host may have taken over already.
            if current
                .as_ref()
                .is_some_and(|state| Rc::ptr_eq(state, &self.state))
            {
                *current = None;
            }
        });
    }
}

#[cfg(test)]
mod tests;
