//! The four kinds of PATCH. Merge, JSON and strategic merge are functions of the live object and the body;
//! server-side apply also needs to know who applied what before ([`apply`]).

pub(crate) mod apply;
pub(crate) mod strategic;
pub(crate) mod topology;

use serde_json::Value;

use crate::error::ApiError;

/// How a PATCH body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

const MAX_OPERATIONS: usize = 10_000;

impl PatchKind {
    pub fn from_content_type(content_type: &str, builtin: bool) -> Result<Self, ApiError> {
        let media = content_type.split(';').next().unwrap_or("").trim();
        match media {
            "application/json-patch+json" => Ok(PatchKind::Json),
            "application/merge-patch+json" => Ok(PatchKind::Merge),
            "application/strategic-merge-patch+json" if builtin => Ok(PatchKind::Strategic),
            "application/apply-patch+yaml" => Ok(PatchKind::Apply),
            _ if builtin => Err(ApiError::unsupported_media(
                "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
            )),
            _ => Err(ApiError::unsupported_media(
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }
}

/// The live object after a merge, JSON or strategic merge patch.
pub(crate) fn patched(kind: PatchKind, live: &Value, body: &Value) -> Result<Value, ApiError> {
    let mut out = live.clone();
    match kind {
        PatchKind::Json => {
            let ops: json_patch::Patch = serde_json::from_value(body.clone())
                .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
            if ops.0.len() > MAX_OPERATIONS {
                return Err(ApiError::new(
                    413,
                    "RequestEntityTooLarge",
                    format!(
                        "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                        ops.0.len()
                    ),
                ));
            }
            for op in &ops.0 {
                // Real API servers let `test` find null where there is nothing; kube's finalizer helper relies on it.
                if let json_patch::PatchOperation::Test(t) = op
                    && t.value.is_null()
                    && out.pointer(t.path.as_str()).is_none()
                {
                    continue;
                }
                json_patch::patch(&mut out, std::slice::from_ref(op)).map_err(ApiError::unprocessable)?;
            }
        }
        PatchKind::Merge | PatchKind::Strategic if !body.is_object() => {
            return Err(ApiError::bad_request(
                "error decoding patch: expected a JSON object",
            ));
        }
        PatchKind::Merge => json_patch::merge(&mut out, body),
        PatchKind::Strategic => strategic::merge(&mut out, body)?,
        PatchKind::Apply => return Err(ApiError::unsupported_media("application/merge-patch+json")),
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_test_for_null_passes_where_there_is_nothing() {
        let live = json!({ "metadata": { "name": "a" } });
        let body = json!([
            { "op": "test", "path": "/metadata/finalizers", "value": null },
            { "op": "add", "path": "/metadata/finalizers", "value": ["x"] },
        ]);
        let out = patched(PatchKind::Json, &live, &body).unwrap();
        assert_eq!(out["metadata"]["finalizers"], json!(["x"]));
        assert_eq!(patched(PatchKind::Json, &out, &body).unwrap_err().code, 422);
    }
}
