//! When the API server was last away.
//!
//! After an outage the nodes' proxies lead where they led before, until their own watches come back. client-go, of which
//! they are made, pauses for up to a minute between attempts. Until then they still lead to what is scaled to zero.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::runtime::watcher;

/// On the Lease of the leader: when the API server was last known to be away.
const LAST_OUTAGE: &str = "dormouse.dev/last-outage";

/// What this process knows of outages, from its own watches and from others by way of the Lease.
#[derive(Clone, Debug, Default)]
pub struct Outages(Arc<Mutex<Option<Timestamp>>>);

impl Outages {
    /// When the API server was last known to be away. As watches are tried every few seconds, that is soon before it came back.
    pub fn last(&self) -> Option<Timestamp> {
        *self.known()
    }

    /// What those before us saw and noted on the Lease. A process cannot know from its own watches what was before its start.
    pub fn hear_from(&self, lease: &Lease) {
        let told = lease.annotations().get(LAST_OUTAGE);
        if let Some(last) = told.and_then(|last| last.parse().ok()) {
            self.heard(last, Timestamp::now());
        }
    }

    /// Notes it on the Lease, for those after us.
    pub(crate) fn note_on(&self, lease: &mut Lease) {
        if let Some(last) = self.last() {
            lease
                .annotations_mut()
                .insert(LAST_OUTAGE.to_owned(), last.to_string());
        }
    }

    /// For a process that reads no Lease: up to now there may have been one, for all it knows.
    pub fn assume_one_until(&self, now: Timestamp) {
        self.heard(now, now);
    }

    /// Clocks may differ, but nobody has seen the future.
    fn heard(&self, last: Timestamp, now: Timestamp) {
        let mut known = self.known();
        *known = known.max(Some(last.min(now)));
    }

    /// A watch failed.
    pub(crate) fn failed(&self, error: &watcher::Error, now: Timestamp) {
        if is_outage(error) {
            self.heard(now, now);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the API server could not be reached, or could not serve. A watch that is cut off is none yet, nor is a refusal.
fn is_outage(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => match error {
            kube::Error::Api(status) => status.code >= 500,
            _ => true,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use rstest::rstest;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn refused() -> kube::Error {
        kube::Error::Service(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into())
    }

    fn status(code: u16) -> Status {
        Status {
            code,
            ..Status::failure("no", "No")
        }
    }

    fn answered(code: u16) -> kube::Error {
        kube::Error::Api(Box::new(status(code)))
    }

    #[rstest]
    #[case(watcher::Error::WatchStartFailed(refused()), true)]
    #[case(watcher::Error::InitialListFailed(refused()), true)]
    #[case(watcher::Error::InitialListFailed(answered(503)), true)]
    #[case::forbidden(watcher::Error::InitialListFailed(answered(403)), false)]
    #[case::too_old(watcher::Error::WatchStartFailed(answered(410)), false)]
    #[case::cut_off(watcher::Error::WatchFailed(refused()), false)]
    #[case::too_old_while_watching(watcher::Error::WatchError(Box::new(status(410))), false)]
    fn only_a_server_that_cannot_be_reached_is_away(#[case] error: watcher::Error, #[case] away: bool) {
        let outages = Outages::default();
        outages.failed(&error, at(5));
        assert_eq!(outages.last(), away.then(|| at(5)));
    }

    #[test]
    fn who_reads_no_lease_assumes_one_before_its_start() {
        let outages = Outages::default();
        outages.assume_one_until(at(5));
        assert_eq!(outages.last(), Some(at(5)));
    }

    #[test]
    fn it_is_noted_on_the_lease_and_heard_from_there() {
        let (before, after) = (Outages::default(), Outages::default());
        let mut lease = Lease::default();
        before.note_on(&mut lease);
        assert_eq!(lease, Lease::default(), "there was none");
        before.heard(at(4), at(9));
        before.note_on(&mut lease);
        after.hear_from(&lease);
        assert_eq!(after.last(), Some(at(4)));
        lease
            .annotations_mut()
            .insert(LAST_OUTAGE.to_owned(), "yesterday".to_owned());
        after.hear_from(&lease);
        assert_eq!(after.last(), Some(at(4)), "what cannot be read is nothing new");
    }

    #[test]
    fn the_latest_that_anybody_knows_of_counts() {
        let outages = Outages::default();
        outages.heard(at(4), at(9));
        outages.heard(at(2), at(9));
        assert_eq!(outages.last(), Some(at(4)));
        outages.heard(at(100), at(9));
        assert_eq!(outages.last(), Some(at(9)), "but not the future");
    }
}
