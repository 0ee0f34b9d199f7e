//! The control endpoints under `/embedded`, for processes that do not hold the Rust handle. Not part of Kubernetes.
//!
//! | request | effect |
//! |---|---|
//! | `PUT /embedded/custom-metrics` | sets one metric or a list of them ([`CustomMetric`]); `value: null` removes it |
//! | `GET`, `DELETE /embedded/custom-metrics` | lists, removes all |
//! | `POST`, `DELETE /embedded/custom-metrics/faults` | adds a [`MetricFault`], removes all |
//! | `POST`, `GET`, `DELETE /embedded/faults` | adds a [`Fault`] (or a list), lists, removes all |
//! | `GET /embedded/requests` | the API requests so far |
//! | `GET /embedded/pod-requests` | the requests that in-process pods answered |
//! | `POST /embedded/compact` | forgets the history: watches from older versions get 410 |

use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::core::Core;
use crate::error::ApiError;
use crate::faults::Fault;
use crate::http::request::Call;
use crate::http::{Reply, full};
use crate::metrics::{CustomMetric, MetricFault};

fn many<T: DeserializeOwned>(call: &Call) -> Result<Vec<T>, ApiError> {
    let body = call.json()?;
    let list = match body {
        Value::Array(a) => a,
        one => vec![one],
    };
    list.into_iter()
        .map(|v| serde_json::from_value(v).map_err(|e| ApiError::bad_request(e.to_string())))
        .collect()
}

pub(crate) fn handle(core: &Core, path: &[&str], call: &Call) -> Result<Reply, ApiError> {
    let get = call.method == Method::GET;
    let delete = call.method == Method::DELETE;
    let put = call.method == Method::PUT || call.method == Method::POST;
    let done = || full(200, &json!({}));
    let shown = |v: Result<Value, serde_json::Error>| v.map(|v| full(200, &v)).map_err(ApiError::internal);
    match path {
        ["custom-metrics"] if put => {
            for m in many::<CustomMetric>(call)? {
                core.metrics.set(&core.store, m);
            }
            Ok(done())
        }
        ["custom-metrics"] if get => shown(serde_json::to_value(core.metrics.list())),
        ["custom-metrics"] if delete => {
            core.metrics.clear();
            Ok(done())
        }
        ["custom-metrics", "faults"] if put => {
            many::<MetricFault>(call)?
                .into_iter()
                .for_each(|f| core.metrics.add_fault(f));
            Ok(done())
        }
        ["custom-metrics", "faults"] if delete => {
            core.metrics.clear_faults();
            Ok(done())
        }
        ["faults"] if put => {
            many::<Fault>(call)?.into_iter().for_each(|f| core.faults.add(f));
            Ok(done())
        }
        ["faults"] if get => shown(serde_json::to_value(core.faults.list())),
        ["faults"] if delete => {
            core.faults.clear();
            Ok(done())
        }
        ["requests"] if get => shown(serde_json::to_value(core.faults.log())),
        ["pod-requests"] if get => shown(serde_json::to_value(core.pod_requests())),
        ["compact"] if put => {
            core.store.compact();
            Ok(done())
        }
        _ => Err(ApiError::no_such_path()),
    }
}
