//! LIST: selectors, pages, resource versions.

use std::sync::Arc;

use serde_json::Value;

use crate::error::ApiError;
use crate::resource::ResourceType;
use crate::selector::{FieldSelector, LabelSelector};
use crate::store::Store;

/// How many unfinished paged lists are remembered; older ones get 410 and start again, as after compaction.
const SNAPSHOTS: usize = 64;

/// The rest of a paged list: pages after the first come from the same version, as on a real cluster.
#[derive(Debug)]
pub(crate) struct Snapshot {
    id: u64,
    rv: u64,
    items: Arc<Vec<Arc<Value>>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    pub limit: usize,
    pub continue_token: String,
    pub resource_version: String,
}

pub(crate) struct Page {
    pub items: Vec<Arc<Value>>,
    pub rv: u64,
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

/// A resourceVersion parameter; empty is None.
pub(crate) fn parse_version(text: &str) -> Result<Option<u64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        ApiError::new(
            400,
            "BadRequest",
            format!("resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: invalid syntax"),
        )
    })
}

impl Store {
    pub fn list(&self, rt: &ResourceType, ns: &str, o: &ListOptions) -> Result<Page, ApiError> {
        let mut inner = self.lock();
        if !o.continue_token.is_empty() {
            let bad = || ApiError::bad_request("continue key is not valid");
            let (id, start) = o.continue_token.split_once('.').ok_or_else(bad)?;
            let id: u64 = id.parse().map_err(|_| bad())?;
            let start: usize = start.parse().map_err(|_| bad())?;
            let Some(s) = inner.snapshots.iter().find(|s| s.id == id) else {
                return Err(ApiError::new(
                    410,
                    "Expired",
                    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
                ));
            };
            return Ok(page(s.id, s.rv, &s.items, start, o));
        }
        let asked = parse_version(&o.resource_version)?;
        if let Some(rv) = asked.filter(|rv| *rv > inner.rv) {
            return Err(ApiError::too_large_version(rv, inner.rv));
        }
        let table = inner.tables.get(&rt.id).ok_or_else(ApiError::no_such_path)?;
        let items: Vec<Arc<Value>> = table
            .objects
            .iter()
            .filter(|(k, v)| (ns.is_empty() || k.0 == ns) && o.labels.matches(v) && o.fields.matches(v))
            .map(|(_, v)| v.clone())
            .collect();
        let rv = inner.rv;
        if o.limit == 0 || items.len() <= o.limit {
            return Ok(Page {
                items,
                rv,
                continue_token: None,
                remaining: None,
            });
        }
        let id = inner.next_snapshot;
        inner.next_snapshot += 1;
        let items = Arc::new(items);
        inner.snapshots.push_back(Snapshot {
            id,
            rv,
            items: items.clone(),
        });
        if inner.snapshots.len() > SNAPSHOTS {
            inner.snapshots.pop_front();
        }
        Ok(page(id, rv, &items, 0, o))
    }
}

fn page(id: u64, rv: u64, items: &[Arc<Value>], start: usize, o: &ListOptions) -> Page {
    let start = start.min(items.len());
    let end = if o.limit == 0 {
        items.len()
    } else {
        items.len().min(start + o.limit)
    };
    let left = items.len() - end;
    Page {
        items: items[start..end].to_vec(),
        rv,
        continue_token: (left > 0).then(|| format!("{id}.{end}")),
        // With selectors a real server does not know.
        remaining: (left > 0 && o.labels.is_empty() && o.fields.is_empty()).then_some(left),
    }
}
