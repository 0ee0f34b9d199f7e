//! The pods of a namespace, found by label.

use std::collections::HashMap;

use dormouse_kubernetes::WorkloadPod;
use dormouse_model::LabelSelector;

/// The pods of a namespace. Those of a workload are found by its rarest label, so that many workloads in one namespace do
/// not look at all pods each.
#[derive(Clone, Debug, Default)]
pub struct PodView {
    pods: Vec<WorkloadPod>,
    by_label: HashMap<(String, String), Vec<usize>>,
}

impl PodView {
    /// These pods.
    pub fn new(mut pods: Vec<WorkloadPod>) -> Self {
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        let mut by_label: HashMap<_, Vec<_>> = HashMap::new();
        for (position, pod) in pods.iter().enumerate() {
            for (key, value) in &pod.labels {
                by_label
                    .entry((key.clone(), value.clone()))
                    .or_default()
                    .push(position);
            }
        }
        Self { pods, by_label }
    }

    /// The pods that any of the selectors matches, each once, by name.
    pub fn matching(&self, selectors: &[&LabelSelector]) -> Vec<&WorkloadPod> {
        let mut found: Vec<usize> = Vec::new();
        for selector in selectors {
            let matches = |position: &usize| {
                let pod = self.pods.get(*position);
                pod.is_some_and(|pod| selector.match_labels(&pod.labels))
            };
            match self.candidates(selector) {
                Some(candidates) => found.extend(candidates.iter().copied().filter(matches)),
                None => found.extend((0..self.pods.len()).filter(matches)),
            }
        }
        found.sort_unstable();
        found.dedup();
        found
            .into_iter()
            .filter_map(|position| self.pods.get(position))
            .collect()
    }

    /// Where to look at most; None: everywhere.
    fn candidates(&self, selector: &LabelSelector) -> Option<&[usize]> {
        let labels = selector.as_labels().filter(|labels| !labels.is_empty())?;
        let lists = labels
            .into_iter()
            .map(|label| self.by_label.get(&label).map_or(&[][..], Vec::as_slice));
        lists.min_by_key(|list| list.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn pod(name: &str, labels: &[(&str, &str)]) -> WorkloadPod {
        WorkloadPod {
            name: name.into(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>(),
            ..WorkloadPod::default()
        }
    }

    #[test]
    fn each_workload_finds_its_own_pods() {
        let view = PodView::new(vec![
            pod("b", &[("app", "web"), ("tier", "front")]),
            pod("a", &[("app", "web"), ("tier", "back")]),
            pod("c", &[("app", "api"), ("tier", "front")]),
        ]);
        let names = |texts: &[&str]| {
            let selectors: Vec<LabelSelector> = texts.iter().filter_map(|text| text.parse().ok()).collect();
            let selectors: Vec<_> = selectors.iter().collect();
            let found = view.matching(&selectors);
            found.iter().map(|pod| pod.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&["app=web"]), ["a", "b"]);
        assert_eq!(names(&["app=web,tier=front"]), ["b"]);
        assert_eq!(names(&["app=web", "tier=front"]), ["a", "b", "c"], "each once");
        assert_eq!(names(&["app=web,tier=none"]), [""; 0]);
        assert_eq!(names(&["tier!=front"]), ["a"]);
        assert_eq!(names(&["app in (api,web)"]), ["a", "b", "c"]);
    }
}
