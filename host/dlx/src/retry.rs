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
pub(crate) enum Pod {
    /// It has answered nothing since its wake.
    Young,
    /// It has served.
    Served,
}

/// What a repetition could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Changes nothing: GET, HEAD, OPTIONS, without body.
    Safe,
    /// Done twice is done once, though the second answer may differ: PUT, DELETE, without body.
    Idempotent,
    /// Any other method, without body.
    Other,
    /// With a body, which is not kept.
    Body,
}

impl Kind {
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
pub(crate) enum Again {
    /// Until the readiness timeout, with growing pauses.
    UntilReady,
    /// Once.
    Once,
    /// Never: 502.
    Never,
}

/// By what was lost and by the pod; one column for each [`Kind`].
pub(crate) const TABLE: [(Lost, Pod, [Again; 4]); 8] = {
    use Again::{Never, Once, UntilReady};
    [
        (
            Lost::Unsent,
            Pod::Young,
            [UntilReady, UntilReady, UntilReady, UntilReady],
        ),
        (
            Lost::Unsent,
            Pod::Served,
            [UntilReady, UntilReady, UntilReady, UntilReady],
        ),
        (
            Lost::Refused,
            Pod::Young,
            [UntilReady, UntilReady, UntilReady, Never],
        ),
        (Lost::Refused, Pod::Served, [Once, Once, Once, Never]),
        (Lost::Kept, Pod::Young, [UntilReady, Once, Never, Never]),
        (Lost::Kept, Pod::Served, [Once, Once, Never, Never]),
        (Lost::New, Pod::Young, [UntilReady, Once, Never, Never]),
        (Lost::New, Pod::Served, [Never, Never, Never, Never]),
    ]
};

/// How often a request is sent again.
pub(crate) fn again(lost: Lost, pod: Pod, kind: Kind) -> Again {
    TABLE
        .iter()
        .find(|(one, other, _)| *one == lost && *other == pod)
        .map_or(Again::Never, |(_, _, columns)| columns[kind as usize])
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
    const KINDS: [Kind; 4] = [Kind::Safe, Kind::Idempotent, Kind::Other, Kind::Body];

    #[test]
    fn f08_each_case_has_one_row() {
        for lost in LOST {
            for pod in [Pod::Young, Pod::Served] {
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
                    again(lost, Pod::Served, kind),
                    Again::UntilReady,
                    "{lost:?} {kind:?}"
                );
            }
        }
        for kind in KINDS {
            assert_eq!(
                again(Lost::New, Pod::Served, kind),
                Again::Never,
                "it may be the request's fault"
            );
        }
    }

    #[test]
    fn f08_what_may_have_been_carried_out_and_counts_twice_is_never_sent_again() {
        for lost in [Lost::Kept, Lost::New] {
            for pod in [Pod::Young, Pod::Served] {
                assert_eq!(again(lost, pod, Kind::Other), Again::Never);
                assert_eq!(again(lost, pod, Kind::Body), Again::Never);
                assert_ne!(again(lost, pod, Kind::Idempotent), Again::UntilReady);
            }
        }
    }

    #[test]
    fn kinds_are_those_of_the_methods() {
        assert_eq!(Kind::of(&Method::GET, false), Kind::Safe);
        assert_eq!(Kind::of(&Method::GET, true), Kind::Body);
        assert_eq!(Kind::of(&Method::DELETE, false), Kind::Idempotent);
        assert_eq!(Kind::of(&Method::POST, false), Kind::Other);
        assert_eq!(
            Kind::of(&Method::from_bytes(b"PURGE").unwrap(), false),
            Kind::Other
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
        let word = |again: &Again| match again {
            Again::UntilReady => "until the readiness timeout",
            Again::Once => "once",
            Again::Never => "never",
        };
        let expected: Vec<Vec<String>> = TABLE
            .iter()
            .map(|(lost, pod, columns)| {
                let pod = match pod {
                    Pod::Young => "young",
                    Pod::Served => "has served",
                };
                let reason = format!("`{}`", Lost::REASONS[lost.index()]);
                let cells = columns.iter().map(|again| word(again).to_owned());
                [reason, pod.to_owned()].into_iter().chain(cells).collect()
            })
            .collect();
        assert_eq!(documented(), expected);
    }
}
