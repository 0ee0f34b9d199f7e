//! Only the fields that a guest wants.

use serde_json::{Map, Value};

/// Always kept: without them an object cannot be told apart or written back.
const ALWAYS: [&str; 6] = [
    "apiVersion",
    "kind",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.resourceVersion",
];

/// Keeps what the dotted paths name, and what identifies the object. Lists are passed through: the rest of the path applies
/// to each element. A map whose keys hold dots, such as annotations, can only be named as a whole. No paths: all of it.
pub fn pruned(object: Value, paths: &[String]) -> Value {
    Fields::of(paths).of_object(object)
}

/// Fields to keep, made ready for many objects.
pub(crate) struct Fields(Option<Tree>);

impl Fields {
    /// No paths: all fields.
    pub(crate) fn of(paths: &[String]) -> Self {
        let mut tree = Tree::default();
        for path in ALWAYS.iter().copied().chain(paths.iter().map(String::as_str)) {
            tree.insert(path.trim_start_matches('.').split('.'));
        }
        Self((!paths.is_empty()).then_some(tree))
    }

    pub(crate) fn of_object(&self, object: Value) -> Value {
        match &self.0 {
            Some(tree) => tree.keep(object),
            None => object,
        }
    }
}

/// Whether an object carries an annotation whose key starts with this. None: any object will do.
pub(crate) fn has_annotation(object: &Value, prefix: Option<&str>) -> bool {
    let Some(prefix) = prefix else { return true };
    object
        .pointer("/metadata/annotations")
        .and_then(Value::as_object)
        .is_some_and(|annotations| annotations.keys().any(|key| key.starts_with(prefix)))
}

#[derive(Default)]
pub(crate) struct Tree {
    whole: bool,
    children: std::collections::BTreeMap<String, Tree>,
}

impl Tree {
    fn insert<'a>(&mut self, mut path: impl Iterator<Item = &'a str>) {
        match path.next() {
            None | Some("") => self.whole = true,
            Some(part) => self.children.entry(part.to_owned()).or_default().insert(path),
        }
    }

    fn keep(&self, value: Value) -> Value {
        if self.whole {
            return value;
        }
        match value {
            Value::Object(fields) => {
                let kept: Map<_, _> = fields
                    .into_iter()
                    .filter_map(|(key, value)| {
                        let child = self.children.get(&key)?;
                        Some((key, child.keep(value)))
                    })
                    .collect();
                Value::Object(kept)
            }
            Value::Array(elements) => elements.into_iter().map(|element| self.keep(element)).collect(),
            // The path goes deeper than the object: there is nothing of it.
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "a", "uid": "u", "resourceVersion": "1",
                "annotations": {"dormouse.dev/sleep-after": "15m"}, "labels": {"app": "web"}},
            "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d"}]}}},
            "status": {"replicas": 2},
        })
    }

    fn keep(paths: &[&str]) -> Value {
        pruned(
            object(),
            &paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn what_is_named_stays_with_what_identifies() {
        assert_eq!(
            keep(&["spec.replicas", "metadata.annotations"]),
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "a", "uid": "u", "resourceVersion": "1",
                    "annotations": {"dormouse.dev/sleep-after": "15m"}},
                "spec": {"replicas": 2},
            })
        );
    }

    #[test]
    fn lists_are_passed_through() {
        assert_eq!(
            keep(&["spec.template.spec.containers.name"])["spec"],
            json!({"template": {"spec": {"containers": [{"name": "c"}, {"name": "d"}]}}})
        );
    }

    #[test]
    fn a_whole_object_wins_over_its_part_and_unknown_paths_are_nothing() {
        assert_eq!(keep(&["spec", "spec.replicas"])["spec"], object()["spec"]);
        assert_eq!(keep(&["no.such.path"]).get("no"), None);
        assert_eq!(keep(&[]), object());
    }
}
