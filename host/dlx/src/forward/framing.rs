//! How a body is delimited and coded on the way: `Transfer-Encoding` and `Content-Length`.
//!
//! The body itself is read and written by hyper, which takes `chunked` off and puts it on. What is left to say is which other
//! codings the body still has, and that a length which the coding has overruled is not passed on as if it were true.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};

use crate::rescue::Rescue;

/// What `Transfer-Encoding` says, `chunked` left out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Codings {
    /// The body is as it was made.
    Plain,
    /// The body is coded: what to write so that whoever reads it knows.
    Coded(HeaderValue),
}

/// Reads the codings, and removes a length that they overrule (RFC 9112 6.3): a body is never cut to it.
pub(crate) fn take(headers: &mut HeaderMap) -> Result<Codings, Rescue> {
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(Codings::Plain);
    }
    headers.remove(CONTENT_LENGTH);
    let mut codings: Vec<&str> = Vec::new();
    for value in headers.get_all(TRANSFER_ENCODING) {
        let value = value
            .to_str()
            .map_err(|_| Rescue::Malformed("Transfer-Encoding is no text"))?;
        codings.extend(
            value
                .split(',')
                .map(str::trim)
                .filter(|coding| !coding.is_empty()),
        );
    }
    let chunked = |coding: &&str| coding.eq_ignore_ascii_case("chunked");
    let last = codings.len().saturating_sub(1);
    if codings.iter().position(chunked).is_some_and(|at| at < last) {
        return Err(Rescue::Malformed("chunked is not the last transfer coding"));
    }
    codings.retain(|coding| !chunked(coding) && !coding.eq_ignore_ascii_case("identity"));
    if codings.is_empty() {
        return Ok(Codings::Plain);
    }
    let label = format!("{}, chunked", codings.join(", "));
    HeaderValue::try_from(label)
        .map(Codings::Coded)
        .map_err(|_| Rescue::Malformed("Transfer-Encoding is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(values: &[&'static str]) -> (Result<Codings, Rescue>, bool) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("3"));
        for value in values {
            headers.append(TRANSFER_ENCODING, HeaderValue::from_static(value));
        }
        let codings = take(&mut headers);
        (codings, headers.contains_key(CONTENT_LENGTH))
    }

    #[test]
    fn f02_f15_a_coding_keeps_its_label_and_overrules_a_length() {
        let table: [(&[&'static str], Option<&'static str>); 7] = [
            (&["chunked"], None),
            (&["CHUNKED"], None),
            (&[",chunked"], None),
            (&["identity"], None),
            (&["gzip, chunked"], Some("gzip, chunked")),
            (&["gzip"], Some("gzip, chunked")),
            (&["deflate", "gzip , chunked"], Some("deflate, gzip, chunked")),
        ];
        for (values, label) in table {
            let expected = label.map_or(Codings::Plain, |label| {
                Codings::Coded(HeaderValue::from_static(label))
            });
            assert_eq!(taken(values), (Ok(expected), false), "{values:?}");
        }
    }

    #[test]
    fn chunked_comes_last_and_once() {
        for values in [&["chunked, gzip"][..], &["chunked", "chunked"]] {
            assert!(matches!(taken(values).0, Err(Rescue::Malformed(_))), "{values:?}");
        }
    }

    #[test]
    fn a_length_alone_stays() {
        assert_eq!(taken(&[]), (Ok(Codings::Plain), true));
    }
}
