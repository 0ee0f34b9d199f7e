//! Fields by dotted path, such as `status.scaleToZero.lastScaleEvent`.

use serde_json::{Map, Value};

/// The value at a path.
pub fn get<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, part| value.get(part))
}

/// The text at a path.
pub fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    get(object, path)?.as_str()
}

/// Sets the value at a path, and makes the objects on the way. No value: nothing is set.
pub fn put(object: &mut Value, path: &str, value: Option<Value>) {
    let Some(value) = value else { return };
    let mut place = object;
    for part in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[part];
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_put_is_found() {
        let mut object = json!({"status": {"state": "ready"}});
        put(&mut object, "status.zero.event", Some(json!("x")));
        put(&mut object, "status.zero.time", Some(json!(1)));
        put(&mut object, "status.state", Some(json!("asleep")));
        put(&mut object, "status.none", None);
        assert_eq!(
            object,
            json!({"status": {"state": "asleep", "zero": {"event": "x", "time": 1}}})
        );
        assert_eq!(text(&object, "status.zero.event"), Some("x"));
        assert_eq!(text(&object, "status.zero.time"), None);
        assert_eq!(get(&object, "status.state.deeper"), None);
    }
}
