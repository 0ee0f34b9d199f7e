//! Which endpoint, and whose turn it is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ReleaseRamp;
use crate::pool::Endpoint;

/// The less loaded of two endpoints that are chosen by chance ("the power of two choices"). `avoid` is taken only when there is
/// no other: a connection to it has just failed.
pub(crate) fn pick<'a>(
    endpoints: &'a [Arc<Endpoint>],
    avoid: Option<&Arc<Endpoint>>,
) -> Option<&'a Arc<Endpoint>> {
    let fresh = |endpoint: &Arc<Endpoint>| avoid.is_none_or(|avoid| !Arc::ptr_eq(avoid, endpoint));
    match endpoints {
        [] => None,
        [only] => Some(only),
        many => {
            let first = rand::random_range(0..many.len());
            let second = (first + rand::random_range(1..many.len())) % many.len();
            let (first, second) = (&many[first], &many[second]);
            match (fresh(first), fresh(second)) {
                (true, false) => Some(first),
                (false, true) => Some(second),
                _ if second.load() < first.load() => Some(second),
                _ => Some(first),
            }
        }
    }
}

/// Lets held requests go in the order of their arrival, a few at a time and then more and more.
///
/// Whoever waits queues for a turn; only those who have one watch for an endpoint and dial. A turn ends when the response
/// begins or after a pause. Each response that begins adds another turn, so the number of turns doubles with every round
/// as in TCP's slow start; a pause adds none, because a workload that says nothing may not even have accepted.
#[derive(Debug)]
pub(crate) struct Ramp {
    turns: Arc<Semaphore>,
    width: AtomicUsize,
    settings: ReleaseRamp,
}

impl Ramp {
    pub(crate) fn new(settings: ReleaseRamp) -> Self {
        let initial = settings.initial.max(1);
        Self {
            turns: Arc::new(Semaphore::new(initial)),
            width: AtomicUsize::new(initial),
            settings,
        }
    }

    /// Waits for a turn, first come, first served.
    pub(crate) async fn turn(self: Arc<Self>) -> Turn {
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok();
        Turn {
            ramp: self,
            _permit: permit,
        }
    }

    fn widen(&self) {
        let wider = self
            .width
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |width| {
                (width < self.settings.maximum).then_some(width + 1)
            })
            .is_ok();
        if wider {
            self.turns.add_permits(1);
        }
    }
}

/// The right to go. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    ramp: Arc<Ramp>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// How long it may last.
    pub(crate) fn pause(&self) -> Duration {
        self.ramp.settings.pause
    }

    /// Ends the turn after a response: two may follow.
    pub(crate) fn answered(self) {
        self.ramp.widen();
    }

    /// Ends the turn while the response is still to come: one may follow.
    pub(crate) fn pass_on(self) -> Passed {
        Passed(Arc::downgrade(&self.ramp))
    }
}

/// A turn that ended before its response began. Does not keep the ramp: the burst may be over by then.
#[derive(Debug)]
pub(crate) struct Passed(Weak<Ramp>);

impl Passed {
    /// The response has begun: one more may go.
    pub(crate) fn answered(self) {
        if let Some(ramp) = self.0.upgrade() {
            ramp.widen();
        }
    }

    /// There will be no response. Whoever had a turn need not queue for another one to try again.
    pub(crate) fn back(self) -> Option<Turn> {
        self.0.upgrade().map(|ramp| Turn { ramp, _permit: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(initial: usize, maximum: usize) -> Arc<Ramp> {
        Arc::new(Ramp::new(ReleaseRamp {
            initial,
            maximum,
            pause: Duration::ZERO,
        }))
    }

    #[tokio::test]
    async fn turns_double_with_every_round_up_to_the_maximum() {
        let ramp = ramp(2, 5);
        let mut rounds = Vec::new();
        for _ in 0..4 {
            let turns: Vec<_> = (0..ramp.turns.available_permits())
                .map(|_| futures::FutureExt::now_or_never(Arc::clone(&ramp).turn()))
                .collect();
            rounds.push(turns.len());
            turns.into_iter().flatten().for_each(Turn::answered);
        }
        assert_eq!(rounds, [2, 4, 5, 5]);
    }

    #[tokio::test]
    async fn a_turn_that_came_to_nothing_adds_none() {
        let ramp = ramp(1, 8);
        drop(Arc::clone(&ramp).turn().await);
        assert_eq!(ramp.turns.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_turn_that_is_passed_on_adds_one_only_when_its_response_begins() {
        let ramp = ramp(1, 8);
        let first = Arc::clone(&ramp).turn().await.pass_on();
        let second = Arc::clone(&ramp).turn().await.pass_on();
        assert_eq!(ramp.turns.available_permits(), 1, "nobody has answered");
        first.answered();
        assert_eq!(ramp.turns.available_permits(), 2);
        drop(ramp);
        second.answered();
    }

    #[test]
    fn the_less_loaded_endpoint_is_picked() {
        let endpoints: Vec<_> = (1..=2)
            .map(|n| Endpoint::for_test(([127, 0, 0, n], 80).into()))
            .collect();
        let _load = endpoints[0].begin();
        for _ in 0..20 {
            assert!(Arc::ptr_eq(pick(&endpoints, None).unwrap(), &endpoints[1]));
        }
    }

    #[test]
    fn an_endpoint_that_has_just_failed_is_avoided_even_if_it_is_idle() {
        let endpoints: Vec<_> = (1..=2)
            .map(|n| Endpoint::for_test(([127, 0, 0, n], 80).into()))
            .collect();
        let _load = endpoints[0].begin();
        for _ in 0..20 {
            assert!(Arc::ptr_eq(
                pick(&endpoints, Some(&endpoints[1])).unwrap(),
                &endpoints[0]
            ));
        }
        assert!(
            pick(&endpoints[..1], Some(&endpoints[0])).is_some(),
            "better than nobody"
        );
        assert!(pick(&[], None).is_none());
    }
}
