//! Which Sleepers a change of another object concerns.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dormouse_kubernetes::SelectorIndex;
use dormouse_lifecycle::DesiredState;
use dormouse_model::Phase;
use kube::ResourceExt;

use crate::api::Sleeper;
use crate::role::Role;

type Labels = BTreeMap<String, String>;

/// Namespace and object name of a Sleeper.
pub(crate) type Name = (String, String);

/// Sleepers by what they depend on.
#[derive(Default)]
pub(crate) struct Index {
    by_service: HashMap<(String, String), BTreeSet<String>>,
    services: HashMap<Name, Vec<String>>,
    /// By kind and name of the workload.
    by_workload: HashMap<(String, String, String), BTreeSet<String>>,
    workloads: HashMap<Name, Vec<(String, String)>>,
    /// Those that are not simply awake, by namespace.
    active: BTreeMap<String, BTreeSet<String>>,
    /// Those of them that have Services, by the pods that these select, or selected before they were parked.
    by_selector: SelectorIndex<Name>,
    /// Those of them that have none, by namespace: any pod may be theirs.
    any_pod: BTreeMap<String, BTreeSet<String>>,
}

impl Index {
    /// Replaces what is known of a Sleeper; none: it is gone.
    pub(crate) fn update(&mut self, name: &Name, sleeper: Option<&Sleeper>) {
        let (namespace, object) = name;
        for service in self.services.remove(name).unwrap_or_default() {
            let key = (namespace.clone(), service);
            if let Some(sleepers) = self.by_service.get_mut(&key) {
                sleepers.remove(object);
                if sleepers.is_empty() {
                    self.by_service.remove(&key);
                }
            }
        }
        for (kind, workload) in self.workloads.remove(name).unwrap_or_default() {
            let key = (namespace.clone(), kind, workload);
            if let Some(sleepers) = self.by_workload.get_mut(&key) {
                sleepers.remove(object);
                if sleepers.is_empty() {
                    self.by_workload.remove(&key);
                }
            }
        }
        if let Some(active) = self.active.get_mut(namespace) {
            active.remove(object);
            if active.is_empty() {
                self.active.remove(namespace);
            }
        }
        let Some(sleeper) = sleeper else { return };
        for service in &sleeper.spec.services {
            self.by_service
                .entry((namespace.clone(), service.clone()))
                .or_default()
                .insert(object.clone());
        }
        let workloads: Vec<_> = sleeper
            .spec
            .workloads
            .iter()
            .map(|workload| (workload.kind.clone(), workload.name.clone()))
            .collect();
        for (kind, workload) in &workloads {
            self.by_workload
                .entry((namespace.clone(), kind.clone(), workload.clone()))
                .or_default()
                .insert(object.clone());
        }
        self.workloads.insert(name.clone(), workloads);
        self.services.insert(name.clone(), sleeper.spec.services.clone());
        if wants(sleeper, Role::Leader) {
            self.active
                .entry(namespace.clone())
                .or_default()
                .insert(object.clone());
        }
    }

    /// Whether the Sleeper is indexed.
    pub(crate) fn knows(&self, name: &Name) -> bool {
        self.services.contains_key(name)
    }

    /// Those that name something that this one names, this one included.
    pub(crate) fn sharers(&self, name: &Name) -> BTreeSet<Name> {
        let (namespace, _) = name;
        let services = self.services.get(name).into_iter().flatten();
        let workloads = self.workloads.get(name).into_iter().flatten();
        let of_workload = |(kind, workload): &(String, String)| {
            self.by_workload
                .get(&(namespace.clone(), kind.clone(), workload.clone()))
        };
        workloads
            .filter_map(of_workload)
            .flatten()
            .map(|object| (namespace.clone(), object.clone()))
            .chain(services.flat_map(|service| self.of_service(namespace, service)))
            .collect()
    }

    pub(crate) fn of_service(&self, namespace: &str, service: &str) -> Vec<Name> {
        let key = (namespace.to_owned(), service.to_owned());
        self.by_service
            .get(&key)
            .into_iter()
            .flatten()
            .map(|name| (namespace.to_owned(), name.clone()))
            .collect()
    }

    fn active_in(&self, namespace: &str) -> Vec<Name> {
        self.active
            .get(namespace)
            .into_iter()
            .flatten()
            .map(|name| (namespace.to_owned(), name.clone()))
            .collect()
    }

    /// Replaces the selectors of a Sleeper's Services. None: pods do not matter to it now.
    pub(crate) fn select(&mut self, name: &Name, selectors: Option<Vec<Labels>>) {
        let (namespace, object) = name;
        let any = selectors.is_some() && self.services.get(name).is_none_or(Vec::is_empty);
        if any {
            self.any_pod
                .entry(namespace.clone())
                .or_default()
                .insert(object.clone());
        } else if let Some(names) = self.any_pod.get_mut(namespace) {
            names.remove(object);
            if names.is_empty() {
                self.any_pod.remove(namespace);
            }
        }
        let selectors = selectors.unwrap_or_default().into_iter();
        let selectors = selectors.map(|labels| (namespace.clone(), labels)).collect();
        self.by_selector.set(name, selectors);
    }

    /// Those to which a pod with these labels may matter.
    pub(crate) fn of_pod(&self, namespace: &str, labels: &Labels) -> BTreeSet<Name> {
        let any = self.any_pod.get(namespace).into_iter().flatten();
        let mut names = self.by_selector.selecting(namespace, labels);
        names.extend(any.map(|name| (namespace.to_owned(), name.clone())));
        names
    }

    /// All that are not simply awake.
    pub(crate) fn active(&self) -> Vec<Name> {
        self.active
            .keys()
            .flat_map(|namespace| self.active_in(namespace))
            .collect()
    }
}

/// Whether a process of this role reconciles a Sleeper, as the cache shows it. It is read anew before anything is decided.
pub(crate) fn wants(sleeper: &Sleeper, role: Role) -> bool {
    let deleting = sleeper.metadata.deletion_timestamp.is_some();
    if sleeper.spec.scales_itself() {
        return deleting && role == Role::Leader;
    }
    let (desired, phase) = sleeper
        .status
        .as_ref()
        .map(|status| (status.state.desired, status.state.phase))
        .unwrap_or_default();
    match role {
        // Ports are given back some time after a wake.
        Role::Leader => {
            deleting || desired != DesiredState::Awake || phase != Phase::Awake || has_ports(sleeper)
        }
        Role::Waker => !deleting && desired == DesiredState::Awake && phase != Phase::Awake,
    }
}

fn has_ports(sleeper: &Sleeper) -> bool {
    sleeper
        .status
        .as_ref()
        .is_some_and(|status| !status.state.ports.is_empty())
}

/// Whether traffic may be waiting for it.
pub(crate) fn is_urgent(sleeper: &Sleeper) -> bool {
    wants(sleeper, Role::Waker)
}

/// Its name in the controller.
pub(crate) fn name_of(sleeper: &Sleeper) -> Name {
    (sleeper.namespace().unwrap_or_default(), sleeper.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{SleeperSpec, SleeperStatus};
    use dormouse_lifecycle::SleeperState;

    fn sleeper(services: &[&str], desired: DesiredState, phase: Phase) -> Sleeper {
        let spec = SleeperSpec {
            services: services.iter().map(|name| (*name).to_owned()).collect(),
            ..SleeperSpec::default()
        };
        let mut sleeper = Sleeper::new("s", spec);
        sleeper.metadata.namespace = Some("a".into());
        let state = SleeperState {
            desired,
            phase,
            ..SleeperState::default()
        };
        sleeper.status = Some(SleeperStatus {
            state,
            ..SleeperStatus::default()
        });
        sleeper
    }

    #[test]
    fn the_index_follows_the_sleeper() {
        let mut index = Index::default();
        let name = ("a".to_owned(), "s".to_owned());
        index.update(
            &name,
            Some(&sleeper(&["web", "api"], DesiredState::Asleep, Phase::Asleep)),
        );
        assert_eq!(index.of_service("a", "api"), vec![name.clone()]);
        assert_eq!(index.of_service("b", "api"), []);
        assert_eq!(index.active(), vec![name.clone()]);
        index.update(&name, Some(&sleeper(&["web"], DesiredState::Awake, Phase::Awake)));
        assert_eq!(index.of_service("a", "api"), []);
        assert_eq!(index.of_service("a", "web"), vec![name.clone()]);
        assert_eq!(index.active(), []);
        index.update(&name, None);
        assert!(index.by_service.is_empty() && index.services.is_empty() && index.active.is_empty());
    }

    #[test]
    fn a_waker_minds_wakes_only() {
        assert!(wants(
            &sleeper(&["web"], DesiredState::Awake, Phase::Waking),
            Role::Waker
        ));
        assert!(!wants(
            &sleeper(&["web"], DesiredState::Asleep, Phase::Draining),
            Role::Waker
        ));
        assert!(!wants(
            &sleeper(&["web"], DesiredState::Awake, Phase::Awake),
            Role::Waker
        ));
        assert!(wants(
            &sleeper(&["web"], DesiredState::Asleep, Phase::Awake),
            Role::Leader
        ));
        assert!(
            !wants(&sleeper(&[], DesiredState::Asleep, Phase::Asleep), Role::Leader),
            "scaled by its platform"
        );
    }
}
