//! What Prometheus answers to an instant query.

use dormouse_model::Quantity;
use serde::Deserialize;
use serde_json::Value;

use crate::Measured;

/// The answer, opened.
pub(super) enum Told {
    Result {
        result: QueryResult,
        warnings: Vec<String>,
    },
    /// In its own words.
    Failure(String),
}

/// Why no number can be made of a result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    Malformed(String),
    NotOneNumber { result: String, hint: &'static str },
    NotOfPods(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    status: String,
    data: Option<QueryResult>,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueryResult {
    result_type: String,
    result: Value,
}

/// Time and value, as Prometheus writes both.
type Point = (f64, String);

#[derive(Deserialize)]
struct Series {
    value: Option<Point>,
}

#[derive(Deserialize)]
struct PodSeries {
    metric: PodLabels,
    value: Option<Point>,
}

/// Kubernetes before 1.16 called the label `pod_name`.
#[derive(Deserialize)]
struct PodLabels {
    pod: Option<String>,
    pod_name: Option<String>,
}

pub(super) fn told(body: &[u8]) -> Result<Told, String> {
    let envelope: Envelope = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    match (envelope.status.as_str(), envelope.data) {
        ("success", Some(result)) => Ok(Told::Result {
            result,
            warnings: envelope.warnings,
        }),
        ("success", None) => Err("there is no data in it".to_owned()),
        ("error", _) => Ok(Told::Failure(format!(
            "{}: {}",
            envelope.error_type, envelope.error
        ))),
        (other, _) => Err(format!("its status is {other:?}")),
    }
}

/// One number, or no data.
pub(super) fn number(result: &QueryResult) -> Result<Measured, Unusable> {
    let malformed = |error: serde_json::Error| Unusable::Malformed(error.to_string());
    let (_, text) = match result.result_type.as_str() {
        "scalar" => Point::deserialize(&result.result).map_err(malformed)?,
        "vector" => {
            let mut series: Vec<Series> = Vec::deserialize(&result.result).map_err(malformed)?;
            match (series.pop(), series.len() + 1) {
                (None, _) => return Ok(Measured::NoData("the query gives no series".to_owned())),
                (Some(_), several) if several > 1 => {
                    return Err(Unusable::NotOneNumber {
                        result: format!("{several} series"),
                        hint: "aggregate them, for example with sum(…) or max(…)",
                    });
                }
                (Some(Series { value: Some(point) }), _) => point,
                (Some(Series { value: None }), _) => {
                    return Err(Unusable::NotOneNumber {
                        result: "a native histogram".to_owned(),
                        hint: "take a number of it, for example with histogram_count(…)",
                    });
                }
            }
        }
        other => {
            return Err(Unusable::NotOneNumber {
                result: format!("a {other}"),
                hint: "write an instant query, for example with sum(rate(…))",
            });
        }
    };
    value(&text)
}

/// The name of the pod and the value, of each series. NaN says nothing.
pub(super) fn of_pods(result: &QueryResult) -> Result<Vec<(String, Quantity)>, Unusable> {
    if result.result_type != "vector" {
        return Err(Unusable::NotOfPods(format!("a {}", result.result_type)));
    }
    let series: Vec<PodSeries> =
        Vec::deserialize(&result.result).map_err(|error| Unusable::Malformed(error.to_string()))?;
    let mut values = Vec::with_capacity(series.len());
    for PodSeries { metric, value: point } in series {
        let pod = metric.pod.or(metric.pod_name).filter(|pod| !pod.is_empty());
        let pod = pod.ok_or_else(|| Unusable::NotOfPods("a series without such a label".to_owned()))?;
        let (_, text) = point.ok_or_else(|| Unusable::NotOfPods("a native histogram".to_owned()))?;
        match value(&text)? {
            Measured::Value(value) => values.push((pod, value)),
            Measured::NoData(_) => {}
        }
    }
    Ok(values)
}

fn value(text: &str) -> Result<Measured, Unusable> {
    let not_a_number = || {
        Unusable::Malformed(format!(
            "the value {:?} is no number",
            crate::http::clip(text, 50)
        ))
    };
    let rough: f64 = text.parse().map_err(|_| not_a_number())?;
    if rough.is_nan() {
        return Ok(Measured::NoData("the query gives NaN".to_owned()));
    }
    if rough.is_infinite() {
        return Err(Unusable::NotOneNumber {
            result: text.to_owned(),
            hint: "is there a division by zero in it?",
        });
    }
    let value: Quantity = text.parse().map_err(|_| not_a_number())?;
    Ok(Measured::Value(value))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn read(kind: &str, result: &Value) -> Result<Measured, Unusable> {
        let body = json!({"status": "success", "data": {"resultType": kind, "result": result}}).to_string();
        match told(body.as_bytes()) {
            Ok(Told::Result { result, .. }) => number(&result),
            _ => panic!("not a result"),
        }
    }

    #[rstest]
    #[case("scalar", json!([1.5, "3"]), Ok("3"))]
    #[case("vector", json!([{"metric": {}, "value": [1, "1.5e+06"]}]), Ok("1500000"))]
    #[case("vector", json!([{"metric": {}, "value": [1, "1e-07"]}]), Ok("100n"))]
    #[case("vector", json!([{"metric": {}, "value": [1, "-2"]}]), Ok("-2"))]
    #[case("vector", json!([]), Err("no series"))]
    #[case("scalar", json!([1, "NaN"]), Err("NaN"))]
    fn values_and_no_data(#[case] kind: &str, #[case] result: Value, #[case] expected: Result<&str, &str>) {
        match (read(kind, &result).unwrap(), expected) {
            (Measured::Value(value), Ok(text)) => assert_eq!(value, text.parse::<Quantity>().unwrap()),
            (Measured::NoData(why), Err(text)) => assert!(why.contains(text), "{why}"),
            (answer, _) => panic!("{answer:?}"),
        }
    }

    #[rstest]
    #[case("vector", json!([{"value": [1, "1"]}, {"value": [1, "1"]}, {"value": [1, "2"]}]), "3 series")]
    #[case("vector", json!([{"metric": {}, "histogram": [1, {}]}]), "native histogram")]
    #[case("matrix", json!([]), "a matrix")]
    #[case("string", json!([1, "x"]), "a string")]
    #[case("scalar", json!([1, "+Inf"]), "+Inf")]
    #[case("scalar", json!([1, "-Inf"]), "-Inf")]
    #[case("scalar", json!([1, "few"]), "Malformed")]
    #[case("scalar", json!([1, "5m"]), "Malformed")]
    #[case("scalar", json!({"a": 1}), "Malformed")]
    #[case("vector", json!([{"value": [1]}]), "Malformed")]
    fn errors(#[case] kind: &str, #[case] result: Value, #[case] said: &str) {
        let error = format!("{:?}", read(kind, &result).unwrap_err());
        assert!(error.contains(said), "{error}");
    }

    #[rstest]
    #[case(json!([{"metric": {"pod": "web-0"}, "value": [1, "10.5"]}, {"metric": {"pod": "web-0", "container": "b"}, "value": [1, "2"]}]), "web-0=10500m web-0=2")]
    #[case(json!([{"metric": {"pod_name": "web-0"}, "value": [1, "1"]}, {"metric": {"pod": "web-1"}, "value": [1, "NaN"]}]), "web-0=1")]
    #[case(json!([]), "")]
    fn numbers_of_pods(#[case] result: Value, #[case] expected: &str) {
        let body =
            json!({"status": "success", "data": {"resultType": "vector", "result": result}}).to_string();
        let Ok(Told::Result { result, .. }) = told(body.as_bytes()) else {
            panic!("not a result")
        };
        let values = of_pods(&result).unwrap();
        let texts: Vec<_> = values
            .iter()
            .map(|(pod, value)| format!("{pod}={value}"))
            .collect();
        assert_eq!(texts.join(" "), expected);
    }

    #[rstest]
    #[case("scalar", json!([1, "1"]), "a scalar")]
    #[case("vector", json!([{"metric": {"job": "x"}, "value": [1, "1"]}]), "without such a label")]
    #[case("vector", json!([{"metric": {"pod": ""}, "value": [1, "1"]}]), "without such a label")]
    #[case("vector", json!([{"metric": {"pod": "a"}, "histogram": [1, {}]}]), "native histogram")]
    #[case("vector", json!([{"metric": {"pod": "a"}, "value": [1, "+Inf"]}]), "+Inf")]
    #[case("vector", json!([{"value": [1, "1"]}]), "Malformed")]
    fn what_is_not_about_pods(#[case] kind: &str, #[case] result: Value, #[case] said: &str) {
        let body = json!({"status": "success", "data": {"resultType": kind, "result": result}}).to_string();
        let Ok(Told::Result { result, .. }) = told(body.as_bytes()) else {
            panic!("not a result")
        };
        let error = format!("{:?}", of_pods(&result).unwrap_err());
        assert!(error.contains(said), "{error}");
    }

    #[test]
    fn failures_are_told_in_its_own_words_and_nonsense_is_malformed() {
        let body = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        assert!(matches!(told(body), Ok(Told::Failure(words)) if words == "bad_data: parse error"));
        for nonsense in [
            "",
            "<html>",
            "{}",
            r#"{"status":"success"}"#,
            r#"{"status":"odd","data":null}"#,
            "[]",
        ] {
            assert!(told(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
    }
}
