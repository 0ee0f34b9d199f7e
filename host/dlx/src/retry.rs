//! Which requests are sent again. The table in docs/retries.md is this one, and a test compares them.
//!
//! What decides is not the connection but the pod. A pod that has answered nothing since its wake is still starting, whatever
//! its readiness probe says, and a request that it drops tells nothing of the request. A pod that has served before and drops
//! a request may have dropped it *because* of the request: sending that again and again would end one pod after the other.

use http::Method;

/// What became of a request that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The connection ended before anything of it was written.
    Unsent,
    /// HTTP/2: the workload says that it has not looked at it (`REFUSED_STREAM`, or a graceful `GOAWAY`).
    Refused,
    /// A connection that had served before ended without a byte of an answer: the workload may have closed it while the
    /// request was on its way.
    Kept,
    /// A new connection ended without a byte of an answer.
    New,
}

/// What is known of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodHistory {
    /// It has answered nothing since its wake.
    Young,
    /// It has served.
    Served,
}

/// What a repetition could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// Changes nothing: GET, HEAD, OPTIONS, without body.
    Safe,
    /// Done twice is done once, though the second answer may differ: PUT, DELETE, without body.
    Idempotent,
    /// Any other method, without body.
    Other,
    /// With a body, which is not kept.
    Body,
}

impl RequestKind {
    pub(crate) fn of(method: &Method, has_body: bool) -> Self {
        match *method {
            _ if has_body => Self::Body,
            Method::GET | Method::HEAD | Method::OPTIONS => Self::Safe,
            Method::PUT | Method::DELETE => Self::Idempotent,
            _ => Self::Other,
        }
    }
}

/// How often it is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryLimit {
    /// Until the readiness timeout, with growing pauses.
    UntilReady,
    /// Once.
    Once,
    /// Never: 502.
    Never,
}

/// By what was lost and by the pod; one column for each [`RequestKind`].
pub(crate) const TABLE: [(Lost, PodHistory, [RetryLimit; 4]); 8] = {
    use RetryLimit::{Never, Once, UntilReady};
    [
        (
            Lost::Unsent,
            PodHistory::Young,
            [UntilReady, UntilReady, UntilReady, UntilReady],
        ),
        (
            Lost::Unsent,
            PodHistory::Served,
            [UntilReady, UntilReady, UntilReady, UntilReady],
        ),
        (
            Lost::Refused,
            PodHistory::Young,
            [UntilReady, UntilReady, UntilReady, Never],
        ),
        (Lost::Refused, PodHistory::Served, [Once, Once, Once, Never]),
        (Lost::Kept, PodHistory::Young, [UntilReady, Once, Never, Never]),
        (Lost::Kept, PodHistory::Served, [Once, Once, Never, Never]),
        (Lost::New, PodHistory::Young, [UntilReady, Once, Never, Never]),
        (Lost::New, PodHistory::Served, [Never, Never, Never, Never]),
    ]
};

/// How often a request is sent again.
pub(crate) fn again(lost: Lost, pod: PodHistory, kind: RequestKind) -> RetryLimit {
    TABLE
        .iter()
        .find(|(one, other, _)| *one == lost && *other == pod)
        .map_or(RetryLimit::Never, |(_, _, columns)| columns[kind as usize])
}

impl Lost {
    /// Every one, as the label `reason` of the metric of retries.
    pub(crate) const REASONS: [&str; 4] = ["unsent", "refused", "closed-kept", "closed-new"];

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: [Lost; 4] = [Lost::Unsent, Lost::Refused, Lost::Kept, Lost::New];
    const KINDS: [RequestKind; 4] = [
        RequestKind::Safe,
        RequestKind::Idempotent,
        RequestKind::Other,
        RequestKind::Body,
    ];

    #[test]
    fn f08_each_case_has_one_row() {
        for lost in LOST {
            for pod in [PodHistory::Young, PodHistory::Served] {
                let rows = TABLE
                    .iter()
                    .filter(|(one, other, _)| (*one, *other) == (lost, pod));
                assert_eq!(rows.count(), 1, "{lost:?} {pod:?}");
            }
        }
    }

    #[test]
    fn f08_a_pod_that_has_served_gets_a_request_at_most_twice() {
        for lost in [Lost::Refused, Lost::Kept, Lost::New] {
            for kind in KINDS {
                assert_ne!(
                    again(lost, PodHistory::Served, kind),
                    RetryLimit::UntilReady,
                    "{lost:?} {kind:?}"
                );
            }
        }
        for kind in KINDS {
            assert_eq!(
                again(Lost::New, PodHistory::Served, kind),
                RetryLimit::Never,
                "it may be the request's fault"
            );
        }
    }

    #[test]
    fn f08_what_may_have_been_carried_out_and_counts_twice_is_never_sent_again() {
        for lost in [Lost::Kept, Lost::New] {
            for pod in [PodHistory::Young, PodHistory::Served] {
                assert_eq!(again(lost, pod, RequestKind::Other), RetryLimit::Never);
                assert_eq!(again(lost, pod, RequestKind::Body), RetryLimit::Never);
                assert_ne!(again(lost, pod, RequestKind::Idempotent), RetryLimit::UntilReady);
            }
        }
    }

    #[test]
    fn kinds_are_those_of_the_methods() {
        assert_eq!(RequestKind::of(&Method::GET, false), RequestKind::Safe);
        assert_eq!(RequestKind::of(&Method::GET, true), RequestKind::Body);
        assert_eq!(RequestKind::of(&Method::DELETE, false), RequestKind::Idempotent);
        assert_eq!(RequestKind::of(&Method::POST, false), RequestKind::Other);
        assert_eq!(
            RequestKind::of(&Method::from_bytes(b"PURGE").unwrap(), false),
            RequestKind::Other
        );
    }

    /// The rows of the document's table, as words.
    fn documented() -> Vec<Vec<String>> {
        let text = include_str!("../../../docs/retries.md");
        let table = text.split("<!-- table: retries -->").nth(1).unwrap_or_default();
        let rows = table.lines().skip_while(|line| !line.starts_with('|'));
        rows.take_while(|line| line.starts_with('|'))
            .skip(2)
            .map(|line| {
                line.trim_matches('|')
                    .split('|')
                    .map(|cell| cell.trim().to_owned())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn f08_the_document_says_what_the_code_does() {
        let word = |again: &RetryLimit| match again {
            RetryLimit::UntilReady => "until the readiness timeout",
            RetryLimit::Once => "once",
            RetryLimit::Never => "never",
        };
        let expected: Vec<Vec<String>> = TABLE
            .iter()
            .map(|(lost, pod, columns)| {
                let pod = match pod {
                    PodHistory::Young => "young",
                    PodHistory::Served => "has served",
                };
                let reason = format!("`{}`", Lost::REASONS[lost.index()]);
                let cells = columns.iter().map(|again| word(again).to_owned());
                [reason, pod.to_owned()].into_iter().chain(cells).collect()
            })
            .collect();
        assert_eq!(documented(), expected);
    }
}
