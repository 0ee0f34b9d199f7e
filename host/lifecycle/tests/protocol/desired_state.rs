//! Desired states and what becomes of them.

use dormouse_lifecycle::{
    DesiredState, Refused, SleeperState, TrafficCheckPolicy, WakeFailure, request_observation, request_sleep,
    request_wake,
};
use dormouse_model::Phase;
use proptest::prelude::*;
use rstest::rstest;

use crate::fixture::*;

fn wake(state: &SleeperState) -> Result<SleeperState, Refused> {
    request_wake(state, now(), "a request", TrafficCheckPolicy::default(), 1)
}

#[rstest]
#[case(DesiredState::Awake, Phase::Awake, Err(Refused::Already))]
#[case(DesiredState::Awake, Phase::Waking, Err(Refused::Already))]
#[case(DesiredState::Awake, Phase::Ready, Err(Refused::Already))]
#[case(DesiredState::Asleep, Phase::Awake, Ok(()))]
#[case(DesiredState::Observed, Phase::Awake, Ok(()))]
#[case(DesiredState::Asleep, Phase::Diverting, Ok(()))]
#[case(DesiredState::Observed, Phase::Observing, Ok(()))]
#[case(DesiredState::Asleep, Phase::Draining, Ok(()))]
#[case(DesiredState::Asleep, Phase::Asleep, Ok(()))]
#[case(DesiredState::Asleep, Phase::Ready, Ok(()))]
#[case(DesiredState::Awake, Phase::Asleep, Ok(()))]
fn a_wake(#[case] desired: DesiredState, #[case] phase: Phase, #[case] expected: Result<(), Refused>) {
    let mut before = state(phase, desired);
    before.wake_failure = Some(WakeFailure {
        epoch: EPOCH,
        message: "then".into(),
        at: ago(9),
    });
    match (wake(&before), expected) {
        (Ok(after), Ok(())) => {
            assert_eq!(
                (after.phase, after.desired, after.epoch),
                (Phase::Waking, DesiredState::Awake, EPOCH + 1)
            );
            assert_eq!((after.wake_started, after.since), (Some(now()), Some(now())));
            assert_eq!(after.reason, "a request");
            assert_eq!(after.wake_failure, None);
            assert_eq!(after.replicas, before.replicas, "what to restore is kept");
        }
        (after, expected) => assert_eq!(after.map(|_| ()), expected),
    }
}

#[rstest]
#[case(DesiredState::Awake, Phase::Awake, Ok(()))]
#[case(DesiredState::Observed, Phase::Awake, Ok(()))]
#[case(DesiredState::Observed, Phase::Observing, Ok(()))]
#[case(DesiredState::Asleep, Phase::Awake, Err(Refused::Already))]
#[case(DesiredState::Asleep, Phase::Asleep, Err(Refused::Already))]
#[case(DesiredState::Awake, Phase::Waking, Err(Refused::Waking))]
#[case(DesiredState::Awake, Phase::Ready, Err(Refused::Waking))]
fn a_sleep(#[case] desired: DesiredState, #[case] phase: Phase, #[case] expected: Result<(), Refused>) {
    let before = state(phase, desired);
    let after = request_sleep(&before, "idle for 10m");
    if let Ok(after) = &after {
        let requested = SleeperState {
            desired: DesiredState::Asleep,
            reason: "idle for 10m".into(),
            ..before
        };
        assert_eq!(
            *after, requested,
            "only the desired state changes; the phase follows"
        );
    }
    assert_eq!(after.map(|_| ()), expected);
}

#[rstest]
#[case(DesiredState::Awake, Phase::Awake, Ok(()))]
#[case(DesiredState::Observed, Phase::Observing, Err(Refused::Already))]
#[case(DesiredState::Asleep, Phase::Diverting, Err(Refused::Already))]
#[case(DesiredState::Awake, Phase::Waking, Err(Refused::Waking))]
#[case(DesiredState::Awake, Phase::Ready, Err(Refused::Waking))]
fn a_look(#[case] desired: DesiredState, #[case] phase: Phase, #[case] expected: Result<(), Refused>) {
    let before = state(phase, desired);
    let after = request_observation(&before, "a look");
    if let Ok(after) = &after {
        assert_eq!(
            *after,
            SleeperState {
                desired: DesiredState::Observed,
                reason: "a look".into(),
                ..before
            }
        );
    }
    assert_eq!(after.map(|_| ()), expected);
}

#[rstest]
#[case(Phase::Awake, 10)]
#[case(Phase::Diverting, 11)]
#[case(Phase::Observing, 11)]
#[case(Phase::Draining, 11)]
#[case(Phase::Asleep, 11)]
#[case(Phase::Waking, 10)]
#[case(Phase::Ready, 10)]
fn generations_of_the_traffic(#[case] phase: Phase, #[case] generation: i64) {
    assert_eq!(state(phase, DesiredState::Awake).traffic_generation(), generation);
}

#[test]
fn what_is_remembered_survives_json() {
    let mut full = state(Phase::Waking, DesiredState::Awake);
    full.wake_failure = Some(WakeFailure {
        epoch: EPOCH,
        message: "no image".into(),
        at: now(),
    });
    let json = serde_json::to_value(&full).unwrap();
    assert_eq!(json["replicas"][0]["kind"], "Deployment");
    assert_eq!(json["ports"][0]["dlxPort"], 20_000);
    for name in ["wish", "atZero", "look"] {
        assert!(
            json.get(name).is_some(),
            "{name}: replicas of two versions share it"
        );
    }
    assert_eq!(serde_json::from_value::<SleeperState>(json).unwrap(), full);
    let nothing = serde_json::from_str::<SleeperState>("{}").unwrap();
    assert_eq!(
        (nothing.phase, nothing.desired),
        (Phase::Awake, DesiredState::Awake),
        "a new Sleeper is awake"
    );
}

proptest! {
    #[test]
    fn the_epoch_never_falls_and_only_a_wake_raises_it(
        phase in prop::sample::select(&PHASES[..]),
        desired in prop::sample::select(vec![DesiredState::Awake, DesiredState::Observed, DesiredState::Asleep]),
    ) {
        let before = state(phase, desired);
        if let Ok(after) = request_sleep(&before, "x") {
            prop_assert_eq!(after.epoch, before.epoch);
        }
        if let Ok(after) = request_observation(&before, "x") {
            prop_assert_eq!(after.epoch, before.epoch);
        }
        if let Ok(after) = wake(&before) {
            prop_assert_eq!(after.epoch, before.epoch + 1);
            prop_assert_eq!(wake(&after), Err(Refused::Already), "twice is once");
            prop_assert_eq!(request_sleep(&after, "x"), Err(Refused::Waking));
        }
    }
}
