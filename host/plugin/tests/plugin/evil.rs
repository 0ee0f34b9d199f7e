//! Whatever a guest does costs the host one typed error. [`Both::attack`] checks that the host and both plugins live on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_plugin::types::PathBackend;
use dormouse_plugin::{EngineConfig, GuestError, PluginError};

use crate::support::{Both, House, LIMITS, SHORT, config, granted, id};

#[tokio::test]
async fn looping_for_ever_ends_with_the_cpu_budget() {
    let both = Both::with(House::new(), granted(SHORT)).await;
    assert_eq!(
        both.attack("loop").await,
        PluginError::CpuBudget {
            budget: Duration::from_millis(100)
        }
    );
    let seconds = both
        .house
        .metric(r#"dormouse_plugin_cpu_seconds_total{plugin="evil"}"#);
    assert!((0.1..10.0).contains(&seconds), "{seconds} s of CPU");
}

#[tokio::test]
async fn short_waits_are_not_charged_as_computing() {
    // Twenty waits of 15 ms: 300 ms, more than the budget, and each longer than a tick.
    let both = Both::with(House::new(), granted(SHORT)).await;
    both.evil.set_scale(&[], 0, "naps").await.unwrap();
}

#[tokio::test]
async fn sleeping_for_ever_ends_with_the_wall_limit() {
    let limits = "limits: {wall: 1s}";
    let both = Both::with(House::new(), granted(limits)).await;
    assert_eq!(
        both.attack("sleep").await,
        PluginError::WallTimeout {
            limit: Duration::from_secs(1)
        }
    );
}

#[tokio::test]
async fn a_panic_says_what_the_guest_said() {
    let both = Both::new().await;
    for how in ["panic", "panic-after-noise"] {
        let PluginError::Panicked { message } = both.attack(how).await else {
            panic!("{how}")
        };
        assert!(
            message.contains("the cheese is gone") && message.contains("src/lib.rs"),
            "{message}"
        );
        assert!(message.len() <= 4096, "{} bytes", message.len());
    }
}

#[tokio::test]
async fn an_exit_or_a_silent_abort_is_a_panic_too() {
    let both = Both::new().await;
    let PluginError::Panicked { message } = both.attack("exit").await else {
        panic!()
    };
    assert!(message.contains("exit"), "{message}");
    let PluginError::Panicked { message } = both.attack("trap").await else {
        panic!()
    };
    assert!(message.contains("without a message"), "{message}");
}

#[tokio::test]
async fn allocating_without_end_ends_with_the_memory_limit() {
    let both = Both::new().await;
    assert_eq!(
        both.attack("allocate").await,
        PluginError::Memory { limit: 32 << 20 }
    );
}

#[tokio::test]
async fn recursing_without_end_ends_with_the_stack() {
    let both = Both::new().await;
    let PluginError::Trapped { reason } = both.attack("recurse").await else {
        panic!()
    };
    assert!(reason.contains("stack"), "{reason}");
    // Large frames run out of the guest's own stack first, which has no guard but the end of memory.
    assert_eq!(both.attack("recurse-widely").await.code(), "trapped");
}

#[tokio::test]
async fn calling_the_host_for_ever_ends_with_the_number_of_calls() {
    let both = Both::new().await;
    assert_eq!(
        both.attack("calls").await,
        PluginError::HostCalls { limit: 10_000 }
    );
    let counted = both
        .house
        .metric(r#"dormouse_plugin_host_calls_total{plugin="evil",import="config.get"}"#);
    assert!(counted >= 10_000.0, "{counted}");
}

#[tokio::test]
async fn answers_that_the_contract_does_not_allow_are_garbage() {
    let both = Both::new().await;
    let PluginError::Garbage { what } = both.attack("three-outcomes").await else {
        panic!()
    };
    assert!(what.contains("3 outcomes for 0 resources"), "{what}");
}

#[tokio::test]
async fn more_resources_than_the_limit_cost_the_surplus_only() {
    let limits = "limits: {cpu: 20s, wall: 60s, memoryBytes: 268435456, resources: 10000}";
    let mut evil = granted(limits);
    evil.config.insert("resources".into(), "too-many".into());
    let both = Both::with(House::new(), evil).await;
    assert_eq!(both.evil.resources().await.unwrap().len(), 10_000);
    let dropped = both
        .house
        .metric(r#"dormouse_plugin_resources_left_out{plugin="evil"}"#);
    assert_eq!(dropped, 1000.0);
}

#[tokio::test]
async fn author_evil_a_huge_answer_names_the_limit_and_its_key() {
    // Memory as far as it goes: the answer has to reach the host to be refused there.
    let limits = "limits: {cpu: 20s, wall: 60s, memoryBytes: 268435456, returnedBytes: 16777216}";
    let mut evil = granted(limits);
    evil.config.insert("resources".into(), "huge-answer".into());
    let both = Both::with(House::new(), evil).await;
    let error = both.evil.resources().await.unwrap_err();
    assert_eq!(error, PluginError::Returned { limit: 16 << 20 });
    assert!(error.to_string().contains("limits.returnedBytes"), "{error}");
}

#[tokio::test]
async fn author_evil_a_bad_name_and_a_double_one_spoil_no_other() {
    for (how, said) in [("invalid-name", "DNS subdomain"), ("twice", "twice")] {
        let mut evil = granted(LIMITS);
        evil.config.insert("resources".into(), how.into());
        let both = Both::with(House::new(), evil).await;
        let resources = both.evil.resources().await.unwrap();
        let dropped = both
            .house
            .metric(r#"dormouse_plugin_resources_left_out{plugin="evil"}"#);
        assert_eq!(dropped, 1.0, "{how}: {resources:?}");
        let told = resources
            .iter()
            .filter_map(|one| one.problem.clone())
            .collect::<String>();
        assert!(how == "invalid-name" || told.contains(said), "{how}: {told}");
    }
}

#[tokio::test]
async fn millions_of_resources_end_with_the_guests_own_memory() {
    let mut evil = granted("limits: {cpu: 20s, wall: 60s, memoryBytes: 33554432}");
    evil.config.insert("resources".into(), "millions".into());
    let both = Both::with(House::new(), evil).await;
    assert_eq!(
        both.evil.resources().await.unwrap_err(),
        PluginError::Memory { limit: 32 << 20 }
    );
}

#[tokio::test]
async fn a_huge_argument_of_a_host_call_is_refused_before_it_is_copied() {
    let limits = "limits: {cpu: 20s, wall: 60s, returnedBytes: 16777216}";
    let both = Both::with(House::new(), granted(limits)).await;
    let error = both.attack("huge-argument").await;
    assert_eq!(error, PluginError::Returned { limit: 16 << 20 });
    assert!(error.to_string().contains("limits.returnedBytes"), "{error}");
    assert!(both.house.services.asked().is_empty());
}

#[tokio::test]
async fn one_bad_resource_spoils_no_other() {
    let mut evil = granted(LIMITS);
    evil.config.insert("resources".into(), "one-bad-service".into());
    let both = Both::with(House::new(), evil).await;
    let resources = both.evil.resources().await.unwrap();
    assert!(
        resources[0].problem.as_ref().unwrap().contains("Not A Service"),
        "{resources:?}"
    );
    assert!(resources[0].services.is_empty());
    assert_eq!(resources[1].problem, None);
}

#[tokio::test]
async fn settings_that_name_an_impossible_header_are_garbage() {
    let mut evil = granted(LIMITS);
    evil.config.insert("header".into(), "X-Name: injected\r\n".into());
    let both = Both::with(House::new(), evil).await;
    assert_eq!(both.evil.settings().await.unwrap_err().code(), "garbage");
    assert_eq!(
        both.good.settings().await.unwrap().target_name_header.as_deref(),
        Some("X-Bench")
    );
}

#[tokio::test]
async fn more_than_two_targets_of_a_path_are_garbage() {
    let both = Both::new().await;
    let backend = |service: &str| PathBackend {
        namespace: "shop".into(),
        service: service.into(),
        ..PathBackend::default()
    };
    assert_eq!(
        both.evil.ingress_targets(&backend("web")).await,
        Ok(Some(vec![id("web")]))
    );
    assert_eq!(
        both.evil
            .ingress_targets(&backend("three"))
            .await
            .unwrap_err()
            .code(),
        "garbage"
    );
    assert_eq!(
        both.good.ingress_targets(&backend("web")).await,
        Ok(None),
        "it leaves paths to the host"
    );
}

#[tokio::test]
async fn nothing_of_the_outside_world_is_there() {
    let both = Both::new().await;
    assert_eq!(both.told("outside").await, "found: ");
}

#[tokio::test]
async fn nothing_survives_a_call() {
    let both = Both::new().await;
    for _ in 0..3 {
        assert_eq!(both.evil.service(&id("a").into()).await.unwrap().name, "call-0");
    }
}

#[tokio::test]
async fn an_error_of_the_guest_keeps_its_type() {
    let both = Both::new().await;
    let error = both.attack("transient").await;
    assert_eq!(
        error,
        PluginError::Guest(GuestError::Transient("the platform does not answer".into()))
    );
    assert_eq!(error.code(), "guest_transient");
}

/// One worker thread, so that a guest that does not make room would stop everything.
#[tokio::test(flavor = "current_thread")]
async fn the_other_plugin_keeps_its_cadence_while_guests_loop() {
    let evil = config("{limits: {cpu: 400ms, wall: 60s, concurrentCalls: 2}}");
    let mut evil = evil;
    evil.grants = granted("{}").grants;
    let both = Both::with(House::new(), evil).await;

    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::new(Mutex::new(Vec::new()));
    let attacks: Vec<_> = (0..2)
        .map(|_| {
            let (evil, ends) = (both.evil.clone(), ends.clone());
            tokio::spawn(async move {
                let end = evil.set_scale(&[], 0, "loop").await.unwrap_err();
                ends.lock().unwrap().push(end.code());
            })
        })
        .collect();
    let good = {
        let (good, over) = (both.good.clone(), over.clone());
        tokio::spawn(async move {
            let mut calls = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(good.resources().await.unwrap().len(), 10);
                calls += 1;
                tokio::task::yield_now().await;
            }
            calls
        })
    };
    for attack in attacks {
        attack.await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let calls = good.await.unwrap();

    assert_eq!(*ends.lock().unwrap(), ["cpu_budget", "cpu_budget"]);
    // Each looping guest makes room about forty times before its 400 ms are over. A guest that never did would leave
    // room once, between the two.
    assert!(calls >= 20, "only {calls} good calls while two guests looped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_fills_its_places_leaves_the_others_theirs() {
    let house = House::with(EngineConfig {
        admission_wait: Duration::from_millis(50),
        ..EngineConfig::default()
    });
    let both = Both::with(house, granted("limits: {concurrentCalls: 2, wall: 30s}")).await;
    let sleepers: Vec<_> = (0..2)
        .map(|_| {
            let evil = both.evil.clone();
            tokio::spawn(async move { evil.set_scale(&[], 0, "sleep").await })
        })
        .collect();
    let in_use = r#"dormouse_plugin_instances_in_use{plugin="evil"}"#;
    while both.house.metric(in_use) < 2.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(both.evil.resources().await.unwrap_err().code(), "overloaded");
    for _ in 0..50 {
        both.good.resources().await.unwrap();
    }
    // Whoever asked goes away: the places are free again at once.
    for sleeper in sleepers {
        sleeper.abort();
        assert!(sleeper.await.unwrap_err().is_cancelled());
    }
    assert_eq!(both.house.metric(in_use), 0.0);
    both.evil.resources().await.unwrap();
}
