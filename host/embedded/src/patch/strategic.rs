//! Strategic merge patch: like a merge patch, but lists with a known key are merged item by item. Of its directives
//! `$patch` is carried out.

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::patch::topology::list_keys;

pub(crate) fn merge(live: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::bad_request("a strategic merge patch is a JSON object"));
    };
    merge_map(live, patch, &mut Vec::new())
}

fn merge_map(live: &mut Value, patch: &Map<String, Value>, path: &mut Vec<String>) -> Result<(), ApiError> {
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let rest = patch
                .iter()
                .filter(|(k, _)| !k.starts_with('$'))
                .map(|(k, v)| (k.clone(), v.clone()));
            *live = Value::Object(rest.collect());
            return Ok(());
        }
        Some("delete") => {
            *live = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "unknown patch type found: {other}"
            )));
        }
    }
    let live = crate::value::object(live);
    for (k, v) in patch {
        // The order of elements matters to `kubectl apply` only. Nothing here depends on it.
        if k.starts_with('$') {
            continue;
        }
        if v.is_null() {
            live.remove(k);
            continue;
        }
        path.push(k.clone());
        match v {
            Value::Object(p) => {
                let slot = live.entry(k.clone()).or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                merge_map(slot, p, path)?;
            }
            Value::Array(items) => merge_list(live, k, items, path)?,
            scalar => {
                live.insert(k.clone(), scalar.clone());
            }
        }
        path.pop();
    }
    Ok(())
}

fn merge_list(
    live: &mut Map<String, Value>,
    k: &str,
    items: &[Value],
    path: &mut Vec<String>,
) -> Result<(), ApiError> {
    let slot = live
        .entry(k.to_owned())
        .or_insert_with(|| Value::Array(Vec::new()));
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(list) = slot else { return Ok(()) };
    let Some(keys) = list_keys(path) else {
        *list = items.to_vec();
        return Ok(());
    };
    let Some(key) = keys.first() else {
        for i in items {
            if !list.contains(i) {
                list.push(i.clone());
            }
        }
        return Ok(());
    };
    if items
        .iter()
        .any(|i| i.get("$patch").and_then(Value::as_str) == Some("replace"))
    {
        *list = items
            .iter()
            .filter(|i| i.get("$patch").is_none())
            .cloned()
            .collect();
        return Ok(());
    }
    for item in items {
        let Some(id) = item.get(key) else {
            return Err(ApiError::bad_request(format!(
                "map: {item} does not contain declared merge key: {key}"
            )));
        };
        let found = list.iter().position(|x| x.get(key) == Some(id));
        if item.get("$patch").and_then(Value::as_str) == Some("delete") {
            if let Some(i) = found {
                list.remove(i);
            }
            continue;
        }
        let i = found.unwrap_or_else(|| {
            list.push(Value::Object(Map::new()));
            list.len() - 1
        });
        if let Value::Object(p) = item {
            merge_map(&mut list[i], p, path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_and_env_merge_by_name() {
        let mut live = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a", "image": "x", "env": [{"name": "K", "value": "1"}]}, {"name": "b", "image": "y"}]}}}});
        let patch = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a", "env": [{"name": "L", "value": "2"}]}, {"name": "b", "$patch": "delete"}]}}}});
        merge(&mut live, &patch).unwrap();
        assert_eq!(
            live.pointer("/spec/template/spec/containers").unwrap(),
            &json!([{"name": "a", "image": "x", "env": [{"name": "K", "value": "1"}, {"name": "L", "value": "2"}]}])
        );
    }

    #[test]
    fn nulls_delete_and_replace_replaces() {
        let mut live = json!({"spec": {"selector": {"app": "web", "tier": "x"}, "type": "ClusterIP"}});
        merge(
            &mut live,
            &json!({"spec": {"selector": {"$patch": "replace", "p": "q"}, "type": null}}),
        )
        .unwrap();
        assert_eq!(live, json!({"spec": {"selector": {"p": "q"}}}));
    }
}
