//! `Max-Forwards` and `TRACE` (RFC 9110 7.6.2, 9.3.8).

use http::header::{ALLOW, HeaderValue, MAX_FORWARDS};
use http::request::Parts;
use http::{Method, Response};

use crate::rescue::Rescue;

/// Counts `Max-Forwards` down; answers an `OPTIONS` that must go no further.
///
/// `TRACE` is refused, as nginx and most servers do: a workload that answers it would show the client what proxies have added,
/// and scripts could read with it what browsers keep from them.
///
/// # Errors
/// [`Rescue::MethodRefused`] for `TRACE`.
pub(crate) fn check(request: &mut Parts) -> Result<Option<Response<()>>, Rescue> {
    if request.method == Method::TRACE {
        return Err(Rescue::MethodRefused);
    }
    if request.method != Method::OPTIONS {
        return Ok(None);
    }
    let count = request.headers.get(MAX_FORWARDS).map(HeaderValue::as_bytes);
    // What is no number is no limit.
    let count = count.filter(|text| !text.is_empty() && text.iter().all(u8::is_ascii_digit));
    let Some(count) = count else { return Ok(None) };
    if count.iter().all(|digit| *digit == b'0') {
        let mut response = Response::new(());
        let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        response.headers_mut().insert(ALLOW, methods);
        return Ok(Some(response));
    }
    let count = std::str::from_utf8(count)
        .ok()
        .and_then(|text| text.parse::<u32>().ok());
    // More than fits is more than anybody forwards.
    let left = count.map_or(u32::MAX, |count| count - 1);
    request.headers.insert(MAX_FORWARDS, HeaderValue::from(left));
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn max_forwards_is_counted_down_and_ends_here() {
        let counted = |method: &str, count: &str| {
            let request = Request::builder().method(method).header("max-forwards", count);
            let mut parts = request.body(()).unwrap().into_parts().0;
            let answer = check(&mut parts).unwrap();
            let left = parts.headers["max-forwards"].to_str().unwrap().to_owned();
            (answer.is_some(), left)
        };
        assert_eq!(counted("OPTIONS", "1"), (false, "0".into()));
        assert_eq!(counted("OPTIONS", "010"), (false, "9".into()));
        assert!(counted("OPTIONS", "0").0);
        assert!(counted("OPTIONS", "000").0);
        assert_eq!(counted("OPTIONS", "-1"), (false, "-1".into()));
        assert_eq!(
            counted("OPTIONS", "99999999999999"),
            (false, u32::MAX.to_string())
        );
        assert_eq!(
            counted("GET", "0"),
            (false, "0".into()),
            "it means nothing to others"
        );
    }

    #[test]
    fn trace_is_refused() {
        let mut parts = Request::builder()
            .method("TRACE")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        assert_eq!(check(&mut parts).unwrap_err(), Rescue::MethodRefused);
    }
}
