//! Sleep of what an object of another kind scales, asked for by annotations on that object: those that a workload has, read by the same
//! parser.

use std::collections::BTreeMap;
use std::time::Duration;

use dormouse_autoscaler::triggers::{MetricSource, Rule, Subject};
use dormouse_model::{ObjectRef, PodScrape, Target, TargetState, Trigger};
use dormouse_sleepers::Sleeper;
use workloads::annotations::{Managed, Request, read_of_autoscaler};

pub(crate) use workloads::annotations::PREFIX;

use crate::sight::Sight;

/// How an object asks for sleep. None: it does not, or not now.
///
/// # Errors
/// Everything that is wrong with its annotations, in words for people.
pub(crate) fn asked(annotations: &BTreeMap<String, String>) -> Result<Option<Managed>, String> {
    match read_of_autoscaler(annotations) {
        Ok(Request::Managed(asked)) => Ok(Some(asked)),
        Ok(Request::None | Request::Paused) => Ok(None),
        Err(problems) => {
            let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Err(texts.join("; "))
        }
    }
}

/// A target that is only scaled, as one that also sleeps. Without its workload there is nothing to sleep, and it stays as it is.
///
/// `known` is its Sleeper, if it has one; `has_service` tells whether there is a Service of a name; `every` is how often it is decided whether
/// it is idle.
pub(crate) fn sleeping(
    target: Target,
    asked: &Managed,
    sight: Sight,
    known: Option<&Sleeper>,
    has_service: impl Fn(&str) -> bool,
    every: Duration,
) -> Target {
    let [workload] = target.workloads() else {
        return target;
    };
    let workload = workload.clone();
    let (state, last_event, found, unknown) = match sight {
        Sight::Gone => return target,
        Sight::There {
            state,
            updated,
            services,
        } => (state, updated, services, None),
        // What was known stays, and nothing puts it to sleep.
        Sight::Unknown(why) => {
            let services = known.map(|known| known.spec.services.clone());
            (TargetState::Awake, None, services.unwrap_or_default(), Some(why))
        }
    };
    let services = asked.services.clone().unwrap_or(found);
    let missing = services
        .iter()
        .find(|name| !has_service(name))
        .map(|name| format!("annotation {PREFIX}services names {name}, and there is no such Service"));
    let trouble = unknown.or(missing.filter(|_| asked.services.is_some()));
    let triggers = triggers(&target, &workload, &services, asked, trouble.as_deref());
    Target {
        has_sleeper: true,
        state,
        wake_on: services,
        triggers,
        every: target.every.min(every),
        last_event,
        readiness_timeout: asked.wake_timeout,
        restore_replicas: asked.replicas,
        ..target
    }
}

/// What has to be idle. With a trouble nothing can be asked, so that it never is.
fn triggers(
    target: &Target,
    workload: &ObjectRef,
    services: &[String],
    asked: &Managed,
    trouble: Option<&str>,
) -> Vec<Trigger> {
    let subject = Subject {
        key: &target.key,
        object: workload,
        workloads: target.workloads(),
        services,
        metrics_resource: None,
    };
    let triggers = asked.rules.iter().map(|written| {
        let trigger = subject.trigger(&rule(written));
        match trouble {
            Some(why) => Trigger {
                query: Err(why.to_owned()),
                ..trigger
            },
            None => trigger,
        }
    });
    triggers.collect()
}

/// A rule in the host's words.
fn rule(written: &dormouse_sdk::Rule) -> Rule {
    use dormouse_sdk::MetricSource as Written;
    let source = match written.source.clone() {
        Written::ObservedTraffic => MetricSource::ObservedTraffic,
        Written::Custom { name, selector } => MetricSource::Custom { name, selector },
        Written::External { name, selector } => MetricSource::External { name, selector },
        Written::Resource(name) => MetricSource::Resource(name),
        Written::Prometheus { server, query } => MetricSource::Prometheus { server, query },
        Written::Pods(scrape) => MetricSource::Pods(PodScrape {
            port: scrape.port,
            path: scrape.path,
            metric: scrape.metric,
            labels: scrape.labels,
        }),
        Written::DlxConcurrency => MetricSource::DlxConcurrency,
        Written::DlxRate => MetricSource::DlxRate,
        Written::Given { name, value } => MetricSource::Given {
            name,
            value: value.to_string(),
        },
        Written::Other { kind, parameters } => MetricSource::Other {
            kind,
            parameters: parameters.to_string(),
        },
    };
    Rule {
        source,
        window: written.window,
        threshold: written.threshold.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dormouse_model::{
        MemoryPolicy, Owner, OwnerKind, Policy, Query, ScaleEvent, ScaleEventKind, TargetKey,
    };
    use rstest::rstest;

    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    fn target() -> Target {
        let reference = |api_version: &str, kind: &str, name: &str| ObjectRef {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let key = TargetKey {
            owner: Owner {
                kind: OwnerKind::MemHpa,
                name: "by-memory".to_owned(),
                uid: Some("1".to_owned()),
            },
            namespace: "shop".to_owned(),
            name: "by-memory".to_owned(),
        };
        let policy = Policy::Memory(Arc::new(MemoryPolicy {
            min_replicas: 1,
            max_replicas: 5,
            target_utilization: 50,
            usage: Err("nobody asks".to_owned()),
            last_scale: None,
        }));
        let itself = reference("xinhuang.com/v1", "MemHpa", "by-memory");
        let workload = reference("apps/v1", "Deployment", "web");
        Target::only_scaled(key, itself, workload, policy, Duration::from_secs(30))
    }

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned()))
            .collect()
    }

    fn asking(pairs: &[(&str, &str)]) -> Managed {
        asked(&annotations(pairs)).unwrap().unwrap()
    }

    fn there(services: &[&str]) -> Sight {
        Sight::There {
            state: TargetState::Awake,
            updated: Some(ScaleEvent {
                kind: ScaleEventKind::ResourceUpdated,
                at: None,
            }),
            services: services.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn of(asked: &Managed, sight: Sight) -> Target {
        sleeping(target(), asked, sight, None, |name| name == "web", EVERY)
    }

    #[test]
    fn one_that_asks_sleeps_by_its_traffic_and_is_scaled_as_before() {
        let asked = asking(&[("sleep-after", "15m"), ("wake-timeout", "2m"), ("replicas", "3")]);
        let sleeping = of(&asked, there(&["web"]));
        assert!(sleeping.has_sleeper && sleeping.is_observed());
        assert_eq!(sleeping.triggers[0].window, Duration::from_secs(900));
        let Ok(query) = &sleeping.triggers[0].query else {
            panic!("{:?}", sleeping.triggers)
        };
        let Query::Traffic { sleeper, .. } = &**query else {
            panic!("{query:?}")
        };
        assert_eq!(sleeper, "by-memory.memhpa");
        let expected = Target {
            has_sleeper: true,
            wake_on: vec!["web".to_owned()],
            triggers: sleeping.triggers.clone(),
            every: EVERY,
            last_event: sleeping.last_event,
            readiness_timeout: Some(Duration::from_secs(120)),
            restore_replicas: Some(3),
            ..target()
        };
        assert_eq!(sleeping, expected);
    }

    #[test]
    fn rules_are_about_the_workload() {
        let rules = r#"[{"metric": "requests", "window": "5m"}, {"source": "resource", "resource": "cpu", "window": "5m"}]"#;
        let sleeping = of(&asking(&[("rules", rules)]), there(&[]));
        let queries: Vec<_> = sleeping
            .triggers
            .iter()
            .map(|trigger| trigger.query.clone().unwrap())
            .collect();
        let Query::Custom { kind, object, .. } = &*queries[0] else {
            panic!("{queries:?}")
        };
        assert_eq!((&**kind, &**object), ("Deployment", "web"));
        let Query::Usage { workloads, .. } = &*queries[1] else {
            panic!("{queries:?}")
        };
        assert_eq!(workloads[0].name, "web");
    }

    #[rstest]
    #[case::no_service(&[("sleep-after", "15m")], there(&[]), "it has no Service whose traffic could be observed")]
    #[case::one_that_is_not_there(&[("sleep-after", "15m"), ("services", "web,gone")], there(&["web"]), "names gone")]
    #[case::not_looked_at(&[("sleep-after", "15m")], Sight::Unknown("forbidden".to_owned()), "forbidden")]
    fn what_stands_in_the_way_is_said_by_a_reading_that_fails(
        #[case] annotations: &[(&str, &str)],
        #[case] sight: Sight,
        #[case] expected: &str,
    ) {
        let sleeping = of(&asking(annotations), sight);
        let why = sleeping.triggers[0].query.clone().unwrap_err();
        assert!(why.contains(expected), "{why}");
        assert!(sleeping.has_sleeper, "its Sleeper says so");
    }

    #[test]
    fn what_was_known_stays_while_its_workload_cannot_be_looked_at() {
        let mut known = Sleeper::new("by-memory.memhpa", Default::default());
        known.spec.services = vec!["web".to_owned()];
        let asked = asking(&[("sleep-after", "15m")]);
        let sight = Sight::Unknown("forbidden".to_owned());
        let sleeping = sleeping(target(), &asked, sight, Some(&known), |_| true, EVERY);
        assert_eq!(sleeping.wake_on, ["web"]);
    }

    #[test]
    fn without_its_workload_it_is_only_scaled() {
        assert_eq!(of(&asking(&[("sleep-after", "15m")]), Sight::Gone), target());
    }

    #[test]
    fn everything_that_is_wrong_is_said() {
        let wrong = asked(&annotations(&[("sleep-after", "soon"), ("targets", "[]")])).unwrap_err();
        assert!(
            wrong.contains("dormouse.dev/sleep-after is `soon`") && wrong.contains("dormouse.dev/targets"),
            "{wrong}"
        );
        assert_eq!(asked(&annotations(&[("paused", "true")])), Ok(None));
    }
}
