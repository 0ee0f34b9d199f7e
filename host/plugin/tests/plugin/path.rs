//! The path of a call: admission, breaker, metrics.

use std::time::Duration;

use dormouse_plugin::{BreakerPolicy, BreakerState, Call, EngineConfig, PluginError};

use crate::support::{Both, House, LIMITS, granted, id};

fn quick_breaker() -> House {
    let breaker = BreakerPolicy {
        threshold: 2,
        base: Duration::from_millis(40),
        max: Duration::from_millis(40),
    };
    House::with(EngineConfig {
        breaker,
        ..EngineConfig::default()
    })
}

#[tokio::test]
async fn a_function_that_keeps_failing_is_left_alone_and_the_others_go_on() {
    let both = Both::with(quick_breaker(), granted(LIMITS)).await;
    let panic = || both.evil.set_scale(&[], 0, "panic");
    for _ in 0..2 {
        assert_eq!(panic().await.unwrap_err().code(), "panicked");
    }
    assert_eq!(both.evil.breaker(Call::SetScale), BreakerState::Open);
    assert_eq!(
        both.house
            .metric(r#"dormouse_plugin_breaker_state{plugin="evil",call="set-scale"}"#),
        2.0
    );
    let PluginError::CircuitOpen { retry_after } = panic().await.unwrap_err() else {
        panic!()
    };

    // Its other functions, and other plugins, are not affected.
    assert_eq!(both.evil.resources().await.unwrap().len(), 3);
    both.good.set_scale(&[id("a").into()], 0, "idle").await.unwrap();

    tokio::time::sleep(retry_after).await;
    both.evil.set_scale(&[], 0, "nothing").await.unwrap();
    assert_eq!(both.evil.breaker(Call::SetScale), BreakerState::Closed);
    assert_eq!(
        both.house
            .metric(r#"dormouse_plugin_breaker_state{plugin="evil",call="set-scale"}"#),
        0.0
    );
}

#[tokio::test]
async fn errors_that_a_guest_returns_do_not_open_the_breaker() {
    let both = Both::with(quick_breaker(), granted(LIMITS)).await;
    for _ in 0..10 {
        assert_eq!(
            both.evil.set_scale(&[], 0, "transient").await.unwrap_err().code(),
            "guest_transient"
        );
    }
    assert_eq!(both.evil.breaker(Call::SetScale), BreakerState::Closed);
}

#[tokio::test]
async fn calls_and_errors_are_counted() {
    let both = Both::new().await;
    both.good.resources().await.unwrap();
    both.good.resources().await.unwrap();
    both.evil.set_scale(&[], 0, "panic").await.unwrap_err();
    let metric = |sample: &str| both.house.metric(&format!("dormouse_plugin_{sample}"));
    assert_eq!(metric(r#"calls_total{plugin="good",call="resources"}"#), 2.0);
    assert_eq!(
        metric(r#"errors_total{plugin="evil",call="set-scale",code="panicked"}"#),
        1.0
    );
    assert_eq!(
        metric(r#"call_duration_seconds_count{plugin="good",call="resources"}"#),
        2.0
    );
    assert_eq!(metric(r#"instances_limit{plugin="good"}"#), 8.0);
    assert_eq!(metric("host_instances_limit"), 8.0);
    assert_eq!(metric("host_instances_in_use"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_wait_for_their_place() {
    let both = Both::new().await;
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let good = both.good.clone();
            tokio::spawn(async move { good.resources().await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().len(), 10);
    }
}
