//! Server-side apply of whole objects: creates them where they are not.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::patch::apply::{self, Applier};
use crate::resource::ResourceType;
use crate::store::{Part, Store, Write};
use crate::value::{metadata, str_at};

impl Store {
    /// Merges `body` into the object, or creates it. True: it is new.
    pub fn apply(
        &self,
        rt: &ResourceType,
        ns: &str,
        name: &str,
        body: &Value,
        manager: &str,
        w: &Write<'_>,
    ) -> Result<(Arc<Value>, bool), ApiError> {
        let w = Write { applied: true, ..*w };
        let by = Applier {
            manager,
            subresource: if w.part == Part::Status { "status" } else { "" },
            version: w.version,
        };
        let precondition = str_at(body, "metadata.resourceVersion");
        for _ in 0..2 {
            let outcome = self.update(rt, ns, name, &w, |live| {
                let mut out = apply::apply(rt, Some(live), body, &by);
                // Merging copied the body's version; without one the live version stands.
                if precondition.is_none() {
                    let rv = live["metadata"]["resourceVersion"].clone();
                    metadata(&mut out).insert("resourceVersion".into(), rv);
                }
                Ok(out)
            });
            match outcome {
                Err(e) if e.code == 404 && w.part == Part::Main => {}
                other => return Ok((other?, false)),
            }
            if precondition.is_some() || str_at(body, "metadata.uid").is_some() {
                let why = "the object does not exist, and the patch has a uid or resourceVersion";
                return Err(ApiError::conflict(rt, name, why));
            }
            let mut new = apply::apply(rt, None, body, &by);
            metadata(&mut new).insert("name".into(), json!(name));
            match self.create(rt, ns, new, &w) {
                // Somebody created it in between: apply to that.
                Err(e) if e.reason == "AlreadyExists" => {}
                other => return Ok((other?, true)),
            }
        }
        let why = "the object keeps appearing and disappearing";
        Err(ApiError::conflict(rt, name, why))
    }
}
