//! What Dormouse notes on objects of others.

use dormouse_kubernetes::remove;
use serde_json::Value;

use crate::api::{ASLEEP, FENCE, FENCE_LABEL, PARKED_SELECTOR, PARKED_WORKLOADS};

/// Leaves of an object that a plugin lists what its owner says with it: Dormouse's own notes are none of that, and a selector that
/// is parked counts as the one that was there before.
pub(crate) fn owners_part(object: &mut Value) {
    let parked = object
        .pointer("/metadata/annotations")
        .and_then(|all| all.get(PARKED_SELECTOR)?.as_str())
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    if let (Some(selector), Some(place)) = (parked, object.pointer_mut("/spec/selector")) {
        *place = selector;
    }
    for key in [FENCE, ASLEEP, PARKED_SELECTOR, PARKED_WORKLOADS] {
        remove(object, "/metadata/annotations", key);
    }
    remove(object, "/metadata/labels", FENCE_LABEL);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PARKED_LABEL;
    use serde_json::json;

    #[test]
    fn what_dormouse_notes_on_an_object_is_not_its_owners() {
        let left = |mut object: Value| {
            owners_part(&mut object);
            object
        };
        let service = |annotations: Value, selector: &str| json!({"metadata": {"annotations": annotations, "labels": {}}, "spec": {"selector": {selector: "web"}}});
        let theirs = service(json!({"team": "shop"}), "app");
        let kept = json!({"team": "shop", PARKED_SELECTOR: r#"{"app":"web"}"#, FENCE: "1@u", ASLEEP: "{}"});
        let mut ours = service(kept, PARKED_LABEL);
        ours["metadata"]["labels"][FENCE_LABEL] = json!("1.u");
        assert_eq!(left(ours), left(theirs.clone()));
        assert_ne!(left(service(json!({"team": "shop"}), "other")), left(theirs));
    }
}
