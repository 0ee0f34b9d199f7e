//! Which targets there are: half of them asleep, and the others read by metrics of four kinds.

use std::time::Duration;

use dormouse_model::{MetricTarget, ObjectRef, Quantity};
use dormouse_plugin::types::{Goal, MetricSource, Resource, ResourceId, ResourceState, Rule, Scaling};
use serde::{Deserialize, Serialize};

/// Targets that differ in nothing but their names: each kind of metric once awake, and as many asleep.
const GROUP: u32 = 8;
/// How far back rules look.
const WINDOW: Duration = Duration::from_secs(600);
/// Replicas of what is awake, and pods.
pub const REPLICAS: u32 = 2;
/// What pods request of a processor.
pub const REQUESTED: &str = "500m";
/// What they use of it, which is what the goal asks for.
pub const USED: &str = "400m";
/// What every other metric says of a target, which is what the goal asks for.
pub const TOTAL: u64 = 100;

/// How a target is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// It sleeps: nothing is decided about it.
    Asleep,
    /// It is up, and a rule says whether it is idle.
    Ruled,
    /// The same, and a metric decides how many replicas it has.
    Scaled,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Asleep, Self::Ruled, Self::Scaled];

    fn name(self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Ruled => "ruled",
            Self::Scaled => "scaled",
        }
    }

    /// That of a target, by its name.
    pub fn of(target: &str) -> Option<Self> {
        let (class, _) = target.split_once('-')?;
        Self::ALL.into_iter().find(|known| known.name() == class)
    }
}

/// Where the metrics of a target are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What its pods use of the processors, by the resource metrics API.
    Resource,
    /// The custom metrics API: one answer for all targets of a namespace.
    Custom,
    /// The external metrics API: a question of its own for each target.
    External,
    /// A Prometheus server: a question of its own for each target.
    Prometheus,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Resource, Self::Custom, Self::External, Self::Prometheus];

    fn source(self, target: &str) -> MetricSource {
        match self {
            Self::Resource => MetricSource::Resource("cpu".to_owned()),
            Self::Custom => MetricSource::Custom {
                name: "requests_in_flight".to_owned(),
                selector: None,
            },
            Self::External => MetricSource::External {
                name: "queue_length".to_owned(),
                selector: Some(format!("queue={target}")),
            },
            Self::Prometheus => MetricSource::Prometheus {
                server: "main".to_owned(),
                query: r#"sum(jobs_waiting{namespace="{namespace}",queue="{name}"})"#.to_owned(),
            },
        }
    }

    /// More than this is in use: all of what is awake is.
    fn threshold(self) -> &'static str {
        match self {
            Self::Resource => "10m",
            Self::Custom | Self::External | Self::Prometheus => "0",
        }
    }

    /// What is there is as it should be.
    fn goal(self) -> MetricTarget {
        match self {
            Self::Resource => MetricTarget::Utilization(80),
            Self::Custom | Self::External | Self::Prometheus => {
                MetricTarget::AverageValue(Quantity::from(TOTAL / u64::from(REPLICAS)))
            }
        }
    }
}

/// All targets of a run.
#[derive(Clone, Copy, Debug)]
pub struct Population {
    pub targets: u32,
    pub namespaces: u32,
    /// How many of what is awake a metric scales, in percent.
    pub scaled: u32,
}

impl Population {
    pub fn class(self, target: u32) -> Class {
        if target.is_multiple_of(2) {
            return Class::Asleep;
        }
        // Spread evenly, and shifted in each namespace, so that each has both.
        let group = target / GROUP;
        let place = group + group / self.namespaces;
        let share = |groups: u32| groups * self.scaled / 100;
        if share(place + 1) > share(place) {
            Class::Scaled
        } else {
            Class::Ruled
        }
    }

    pub fn kind(self, target: u32) -> Kind {
        Kind::ALL[(target % GROUP / 2) as usize]
    }

    /// Its name says what it is, and ends with its number.
    pub fn name(self, target: u32) -> String {
        format!("{}-{target}", self.class(target).name())
    }

    /// The number of a target by its name.
    pub fn number(name: &str) -> Option<usize> {
        name.rsplit_once('-')?.1.parse().ok()
    }

    /// The targets of a namespace, by its name.
    pub fn in_namespace(self, namespace: &str) -> impl Iterator<Item = u32> {
        let first = Self::number(namespace).and_then(|number| u32::try_from(number).ok());
        let groups =
            (first.unwrap_or(u32::MAX)..self.targets.div_ceil(GROUP)).step_by(self.namespaces as usize);
        groups
            .flat_map(|group| group * GROUP..(group + 1) * GROUP)
            .take_while(move |target| *target < self.targets)
    }

    /// All of them, as a plugin would list them.
    pub fn resources(self) -> Vec<Resource> {
        (0..self.targets).map(|target| self.resource(target)).collect()
    }

    fn resource(self, target: u32) -> Resource {
        let (class, kind, name) = (self.class(target), self.kind(target), self.name(target));
        let object = ObjectRef {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: name.clone(),
        };
        let rule = Rule {
            source: kind.source(&name),
            window: WINDOW,
            threshold: kind.threshold().to_owned(),
        };
        let scaling = (class == Class::Scaled).then(|| Scaling {
            min_replicas: 1,
            max_replicas: 10,
            goals: vec![Goal {
                source: kind.source(&name),
                window: None,
                target: kind.goal(),
            }],
            behavior: None,
        });
        Resource {
            id: ResourceId::new(format!("team-{}", target / GROUP % self.namespaces), &name),
            state: match class {
                Class::Asleep => ResourceState::Asleep,
                Class::Ruled | Class::Scaled => ResourceState::Awake,
            },
            rules: vec![rule],
            scaling,
            last_event: None,
            workloads: vec![object.clone()],
            object,
            services: vec![name],
            readiness_timeout: None,
            restore_replicas: None,
            wake_at: None,
            reason: None,
            cookie: None,
            problem: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const THOUSAND: Population = Population {
        targets: 1000,
        namespaces: 10,
        scaled: 50,
    };

    fn count(class: Class, scaled: u32) -> usize {
        let population = Population { scaled, ..THOUSAND };
        (0..1000)
            .filter(|target| population.class(*target) == class)
            .count()
    }

    #[test]
    fn half_of_all_sleep_and_the_share_that_is_asked_for_is_scaled() {
        assert_eq!(count(Class::Asleep, 50), 500);
        assert!((240..=260).contains(&count(Class::Scaled, 50)));
        assert_eq!((count(Class::Scaled, 0), count(Class::Scaled, 100)), (0, 500));
    }

    #[test]
    fn every_namespace_has_targets_of_every_class_and_kind() {
        let all: BTreeSet<_> = THOUSAND
            .resources()
            .into_iter()
            .map(|resource| {
                let target = Population::number(&resource.id.name).unwrap() as u32;
                let class = THOUSAND.class(target);
                (
                    resource.id.namespace,
                    class,
                    format!("{:?}", THOUSAND.kind(target)),
                )
            })
            .collect();
        assert_eq!(all.len(), 10 * 3 * 4);
    }

    #[test]
    fn a_namespace_knows_its_targets() {
        for resource in THOUSAND.resources() {
            let target = Population::number(&resource.id.name).unwrap() as u32;
            let mut listed = THOUSAND.in_namespace(&resource.id.namespace);
            assert!(listed.any(|known| known == target), "{}", resource.id);
            assert_eq!(Class::of(&resource.id.name), Some(THOUSAND.class(target)));
        }
        let listed: usize = (0..10)
            .map(|number| THOUSAND.in_namespace(&format!("team-{number}")).count())
            .sum();
        assert_eq!(listed, 1000);
    }
}
