//! Between one and many: where a number of replicas may be written.

use dormouse_lifecycle::{DesiredState, NotNow, may_resize};
use dormouse_model::Phase;
use rstest::rstest;

use crate::fixture::state;

#[rstest]
fn zero_is_neither_left_nor_reached(
    #[values(DesiredState::Awake, DesiredState::Observed, DesiredState::Asleep)] desired: DesiredState,
    #[values(
        Phase::Awake,
        Phase::Diverting,
        Phase::Observing,
        Phase::Draining,
        Phase::Asleep,
        Phase::Waking,
        Phase::Ready
    )]
    phase: Phase,
) {
    let state = state(phase, desired);
    for known in [Some(&state), None] {
        assert_eq!(may_resize(known, 0, 3), Err(NotNow::AtZero));
        assert_eq!(may_resize(known, 3, 0), Err(NotNow::ToZero));
        assert_eq!(may_resize(known, -1, 3), Err(NotNow::AtZero));
        assert_eq!(may_resize(known, 3, -1), Err(NotNow::ToZero));
    }
    let moves = desired == DesiredState::Asleep || matches!(phase, Phase::Draining | Phase::Asleep);
    if moves {
        assert_eq!(may_resize(Some(&state), 3, 4), Err(NotNow::Moving(phase)));
        assert_eq!(may_resize(Some(&state), 3, 2), Err(NotNow::Moving(phase)));
    }
}

#[rstest]
#[case::awake(DesiredState::Awake, Phase::Awake, true, true)]
#[case::about_to_be_observed(DesiredState::Observed, Phase::Awake, true, true)]
#[case::stepped_in(DesiredState::Observed, Phase::Diverting, true, true)]
#[case::observed(DesiredState::Observed, Phase::Observing, true, true)]
#[case::waking(DesiredState::Awake, Phase::Waking, true, false)]
#[case::ready(DesiredState::Awake, Phase::Ready, true, false)]
#[case::on_its_way_back(DesiredState::Awake, Phase::Diverting, false, false)]
#[case::going_to_sleep(DesiredState::Asleep, Phase::Diverting, false, false)]
#[case::asleep(DesiredState::Asleep, Phase::Asleep, false, false)]
fn up_and_down(#[case] desired: DesiredState, #[case] phase: Phase, #[case] up: bool, #[case] down: bool) {
    let state = state(phase, desired);
    assert_eq!(may_resize(Some(&state), 3, 4).is_ok(), up);
    assert_eq!(may_resize(Some(&state), 3, 2).is_ok(), down);
}
