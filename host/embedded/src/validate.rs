//! Validation of metadata and of built-in kinds: what a real API server refuses and a test or a plugin could trip over.

mod network;
mod objects;

use dormouse_model::{is_dns_label, is_dns_subdomain};
use serde_json::Value;

use crate::error::FieldError;
use crate::resource::ResourceType;
use crate::value::{at, finalizers, is_deleting, list_at, name_of, str_at, string_map};

const MAX_ANNOTATIONS: usize = 256 * 1024;
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const PORT_NAME: &str = "must be an IANA service name of at most 15 characters";
const PORT_NUMBER: &str = "must be between 1 and 65535, inclusive";
const IMMUTABLE: &str = "field is immutable";

/// What is wrong with an object.
#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn invalid(&mut self, field: impl Into<String>, value: impl Into<Value>, why: &str) {
        self.0.push(FieldError::invalid(field, &value.into(), why));
    }

    fn required(&mut self, field: impl Into<String>, why: &str) {
        self.0.push(FieldError::required(field, why));
    }

    fn forbidden(&mut self, field: &str, why: &str) {
        self.0.push(FieldError::forbidden(field, why));
    }

    fn duplicate(&mut self, field: impl Into<String>, value: impl Into<Value>) {
        self.0.push(FieldError::duplicate(field, &value.into()));
    }

    fn not_supported(&mut self, field: impl Into<String>, value: &str, supported: &[&str]) {
        let supported: Vec<Value> = supported.iter().map(|s| Value::from(*s)).collect();
        self.0
            .push(FieldError::not_supported(field, &value.into(), &supported));
    }

    fn wrong_type(&mut self, field: impl Into<String>, value: &Value, expected: &str) {
        self.0.push(FieldError::wrong_type(field, value, expected));
    }

    /// A DNS label that must be there.
    fn dns_label(&mut self, field: impl Into<String>, name: &str) {
        match name {
            "" => self.required(field, ""),
            name if !is_dns_label(name) => self.invalid(field, name, LABEL),
            _ => {}
        }
    }

    fn port_name(&mut self, field: impl Into<String>, name: &str) {
        let is_fine = name.len() <= 15
            && is_dns_label(name)
            && !name.contains("--")
            && name.chars().any(|c| c.is_ascii_lowercase());
        if !is_fine {
            self.invalid(field, name, PORT_NAME);
        }
    }

    fn port_number(&mut self, field: impl Into<String>, v: Option<&Value>) {
        match v.filter(|v| !v.is_null()) {
            None => self.required(field, ""),
            Some(v) => match v.as_i64() {
                Some(1..=65535) => {}
                Some(n) => self.invalid(field, n, PORT_NUMBER),
                None => self.wrong_type(field, v, "integer"),
            },
        }
    }

    fn labels(&mut self, path: &str, map: Option<&Value>) {
        for (k, v) in string_map(map) {
            if !is_qualified_name(&k) {
                self.invalid(path, k, NAME_PART);
            }
            if v.len() > 63 {
                self.invalid(path, v, "must be no more than 63 bytes");
            } else if !v.is_empty() && !is_name_part(&v) {
                self.invalid(path, v, LABEL_VALUE);
            }
        }
        self.strings(path, map);
    }

    fn strings(&mut self, path: &str, map: Option<&Value>) {
        for (k, v) in map.and_then(Value::as_object).into_iter().flatten() {
            if !v.is_string() {
                self.wrong_type(format!("{path}.{k}"), v, "string");
            }
        }
    }
}

fn is_name_part(s: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    s.len() <= 63
        && edge(s.chars().next())
        && edge(s.chars().last())
        && s.chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_qualified_name(s: &str) -> bool {
    match s.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_name_part(name),
        None => is_name_part(s),
    }
}

/// Everything that is wrong with `new`, on creation when `old` is None.
pub(crate) fn validate(rt: &ResourceType, old: Option<&Value>, new: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    meta(rt, old, new, &mut errors);
    match rt.id.as_str() {
        "services" => network::service(old, new, &mut errors),
        "pods" => objects::pod(old, new, &mut errors),
        "deployments.apps" | "replicasets.apps" | "statefulsets.apps" => {
            objects::workload(old, new, &mut errors)
        }
        "endpointslices.discovery.k8s.io" => network::slice(old, new, &mut errors),
        "events" => objects::event(new, &mut errors),
        "customresourcedefinitions.apiextensions.k8s.io" => objects::crd(old, new, &mut errors),
        _ => {}
    }
    errors.0
}

fn meta(rt: &ResourceType, old: Option<&Value>, new: &Value, errors: &mut Errors) {
    let name = name_of(new);
    if name.is_empty() {
        errors.required("metadata.name", "name or generateName is required");
    } else if old.is_none() {
        if matches!(rt.id.as_str(), "services" | "namespaces") {
            errors.dns_label("metadata.name", name);
        } else if !is_dns_subdomain(name) {
            errors.invalid("metadata.name", name, SUBDOMAIN);
        }
    }
    errors.labels("metadata.labels", at(new, "metadata.labels"));
    let annotations = at(new, "metadata.annotations");
    errors.strings("metadata.annotations", annotations);
    let mut size = 0;
    for (k, v) in string_map(annotations) {
        size += k.len() + v.len();
        if !is_qualified_name(&k.to_lowercase()) {
            errors.invalid("metadata.annotations", k, NAME_PART);
        }
    }
    if size > MAX_ANNOTATIONS {
        let why = format!("may not be more than {MAX_ANNOTATIONS} bytes");
        errors.invalid("metadata.annotations", size, &why);
    }
    let owners = list_at(new, "metadata.ownerReferences");
    for o in owners {
        for f in ["apiVersion", "kind", "name", "uid"] {
            if str_at(o, f).is_none_or(str::is_empty) {
                errors.invalid(format!("metadata.ownerReferences.{f}"), "", "must not be empty");
            }
        }
    }
    let controls = |o: &&Value| o.get("controller") == Some(&Value::Bool(true));
    if owners.iter().filter(controls).count() > 1 {
        let why = "Only one reference can have Controller set to true";
        errors.invalid("metadata.ownerReferences", "[]", why);
    }
    for f in finalizers(new).into_iter().filter(|f| !is_qualified_name(f)) {
        errors.invalid("metadata.finalizers", f, "name is not a qualified name");
    }
    if let Some(old) = old.filter(|o| is_deleting(o)) {
        let before = finalizers(old);
        let mut added = finalizers(new);
        added.retain(|f| !before.contains(f));
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.forbidden("metadata.finalizers", &why);
        }
    }
}
