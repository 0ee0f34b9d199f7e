//! The definition of the `Sleeper` custom resource.

use std::time::Duration;

use dormouse_kubernetes::{ClusterError, limited};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, CustomResourceExt};

use crate::api::Sleeper;

/// Fields of the status that are moments. Their Rust type is not one that the schema generator knows.
const TIMES: [&str; 4] = ["since", "wakeStarted", "wakeCompleted", "slept"];

/// The definition.
pub fn sleeper() -> CustomResourceDefinition {
    let mut crd = Sleeper::crd();
    // For `kubectl get slp`.
    crd.spec.names.short_names = Some(vec!["slp".to_owned()]);
    crd.spec.names.categories = Some(vec!["dormouse".to_owned()]);
    for version in &mut crd.spec.versions {
        let schema = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut());
        let Some(schema) = schema else { continue };
        known_formats(schema);
        let status = schema
            .properties
            .as_mut()
            .and_then(|properties| properties.get_mut("status"));
        if let Some(properties) = status.and_then(|status| status.properties.as_mut()) {
            for field in TIMES {
                if let Some(time) = properties.get_mut(field) {
                    time.format = Some("date-time".to_owned());
                }
            }
        }
    }
    crd
}

/// Formats of unsigned numbers are Rust's: an API server warns about them. The ones that it knows say the same, together with
/// the range.
fn known_formats(schema: &mut JSONSchemaProps) {
    let (format, most) = match schema.format.as_deref() {
        Some("uint8") => ("int32", Some(f64::from(u8::MAX))),
        Some("uint16") => ("int32", Some(f64::from(u16::MAX))),
        Some("uint32") => ("int64", Some(f64::from(u32::MAX))),
        Some("uint64" | "uint") => ("int64", None),
        _ => ("", None),
    };
    if !format.is_empty() {
        schema.format = Some(format.to_owned());
        schema.minimum = Some(schema.minimum.unwrap_or_default().max(0.0));
        schema.maximum = schema.maximum.or(most);
    }
    for below in schema.properties.iter_mut().flat_map(|all| all.values_mut()) {
        known_formats(below);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => known_formats(items),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => all.iter_mut().for_each(known_formats),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(more)) = &mut schema.additional_properties {
        known_formats(more);
    }
}

/// The definition as YAML, for `kubectl apply -f -` and the chart.
///
/// # Errors
/// None in practice: the definition is made of plain data.
pub fn yaml() -> Result<String, ClusterError> {
    serde_yaml::to_string(&sleeper()).map_err(|error| ClusterError::Other {
        what: "the Sleeper CRD".to_owned(),
        message: error.to_string(),
    })
}

/// Installs the definition and waits until the API server serves it. For the demo and tests; in a cluster the chart does this.
///
/// # Errors
/// [`ClusterError`] of the requests; [`ClusterError::Sync`] when the kind is not served in time.
pub async fn install(
    client: &kube::Client,
    field_manager: &str,
    patience: Duration,
) -> Result<(), ClusterError> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = sleeper();
    let name = crd.metadata.name.clone().unwrap_or_default();
    let params = PatchParams::apply(field_manager).force();
    limited(
        patience,
        || format!("CRD {name}"),
        crds.patch(&name, &params, &Patch::Apply(&crd)),
    )
    .await?;
    let sleepers: Api<Sleeper> = Api::all(client.clone());
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let listed = limited(
            patience,
            || "listing Sleepers".to_owned(),
            sleepers.list(&ListParams::default().limit(1)),
        )
        .await;
        match listed {
            Ok(_) => return Ok(()),
            Err(ClusterError::NotFound { .. } | ClusterError::Unavailable { .. })
                if tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(ClusterError::NotFound { .. }) => {
                return Err(ClusterError::Sync {
                    kind: "sleepers.dormouse.dev",
                    after: patience,
                    hint: "the CRD was applied but is not served".to_owned(),
                });
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn schema() -> Value {
        let crd = serde_json::to_value(sleeper()).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn columns_and_status_are_there() {
        let crd = serde_json::to_value(sleeper()).unwrap();
        let version = &crd["spec"]["versions"][0];
        let columns: Vec<_> = version["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            columns,
            ["PHASE", "RESOURCE", "OWNER", "OWNER-KIND", "SINCE", "REASON"]
        );
        assert_eq!(version["subresources"]["status"], serde_json::json!({}));
        for column in version["additionalPrinterColumns"].as_array().unwrap() {
            let path = column["jsonPath"].as_str().unwrap();
            let pointer: String = path
                .trim_start_matches('.')
                .split('.')
                .map(|part| format!("/properties/{part}"))
                .collect();
            assert!(
                schema().pointer(&pointer).is_some(),
                "{path} is not in the schema"
            );
        }
    }

    /// What the API server knows; anything else is a warning at each installation.
    #[test]
    fn operator_09_every_format_is_one_that_the_api_server_knows() {
        fn formats(node: &Value, found: &mut Vec<(String, Value)>) {
            match node {
                Value::Object(map) => {
                    if let (Some(Value::String(format)), true) = (map.get("format"), map.contains_key("type"))
                    {
                        found.push((format.clone(), node.clone()));
                    }
                    map.values().for_each(|below| formats(below, found));
                }
                Value::Array(list) => list.iter().for_each(|below| formats(below, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        formats(&schema(), &mut found);
        assert!(found.len() > 5, "{found:?}");
        for (format, node) in &found {
            let known = ["int32", "int64", "float", "double", "date-time", "date", "byte"];
            assert!(known.contains(&format.as_str()), "{format}: {node}");
        }
        let status = &schema()["properties"]["status"]["properties"];
        let port = &status["ports"]["items"]["properties"]["port"];
        assert_eq!(
            (&port["format"], &port["minimum"], &port["maximum"]),
            (&Value::from("int32"), &Value::from(0.0), &Value::from(65_535.0)),
            "{status}"
        );
    }

    /// The rules of structural schemas that generators get wrong: a type everywhere, no `$ref`, nothing but validations in
    /// logical junctors, no `nullable`-by-type-list.
    #[test]
    fn the_schema_is_structural() {
        fn check(path: &str, node: &Value) {
            let object = node
                .as_object()
                .unwrap_or_else(|| panic!("{path} is no schema: {node}"));
            assert!(
                !object.contains_key("$ref") && !object.contains_key("definitions"),
                "{path} has a reference"
            );
            let open = object.contains_key("x-kubernetes-int-or-string")
                || object.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            assert!(
                open || object.get("type").is_some_and(Value::is_string),
                "{path} has no single type: {node}"
            );
            for junctor in ["allOf", "anyOf", "oneOf"] {
                for branch in object
                    .get(junctor)
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    for key in [
                        "type",
                        "description",
                        "default",
                        "additionalProperties",
                        "nullable",
                    ] {
                        assert!(branch.get(key).is_none(), "{path}: {key} within {junctor}");
                    }
                }
            }
            for (name, child) in object
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                check(&format!("{path}.{name}"), child);
            }
            if let Some(items) = object.get("items") {
                check(&format!("{path}[]"), items);
            }
            if let Some(additional) = object.get("additionalProperties").filter(|a| a.is_object()) {
                check(&format!("{path}{{}}"), additional);
            }
        }
        check("", &schema());
    }

    #[test]
    fn phases_are_an_enum_and_times_are_date_times() {
        let schema = schema();
        let status = &schema["properties"]["status"]["properties"];
        let phases: Vec<_> = status["phase"]["enum"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(
            phases,
            [
                "Awake",
                "Diverting",
                "Observing",
                "Draining",
                "Asleep",
                "Waking",
                "Ready"
            ]
        );
        assert_eq!(
            status["wish"]["enum"],
            serde_json::json!(["Awake", "Observed", "Asleep"])
        );
        for field in ["since", "wakeStarted", "wakeCompleted", "slept"] {
            assert_eq!(status[field]["format"], "date-time", "{field}: {}", status[field]);
        }
    }

    #[test]
    fn yaml_reads_back_as_the_same_definition() {
        let back: CustomResourceDefinition = serde_yaml::from_str(&yaml().unwrap()).unwrap();
        assert_eq!(back, sleeper());
    }
}
