//! What each pod of a simulated target requests, and what it may use.

use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use dormouse_model::Quantity;
use dormouse_scaling::hpa::{Container, Pod, PodPhase, Resources};

/// How much of a resource a pod, or one container of it, requests or may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Amount {
    pub container: Option<String>,
    pub resource: String,
    pub amount: Quantity,
}

impl FromStr for Amount {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, amount) = text.split_once('=').context("it needs a `=`, as in cpu=500m")?;
        let (container, resource) = match name.rsplit_once('/') {
            Some((container, resource)) => (Some(container.to_owned()), resource),
            None => (None, name),
        };
        let amount: Quantity = amount
            .parse()
            .with_context(|| format!("{amount:?} is no quantity"))?;
        ensure!(!resource.is_empty(), "it names no resource");
        ensure!(amount > Quantity::ZERO, "{amount} is not above zero");
        Ok(Self {
            container,
            resource: resource.to_owned(),
            amount,
        })
    }
}

/// What each pod is: what the target says, with these requests and limits over it.
pub(super) fn template(declared: Option<&Pod>, requests: &[Amount], limits: &[Amount]) -> Pod {
    let mut pod = declared.cloned().unwrap_or_else(empty);
    for request in requests {
        let (resource, amount) = (request.resource.clone(), request.amount);
        match &request.container {
            Some(name) => change(&mut pod, name, |container| {
                container.requests.insert(resource, amount);
            }),
            None => {
                pod.requests.insert(resource, amount);
            }
        }
    }
    for limit in limits {
        if let Some(name) = &limit.container {
            change(&mut pod, name, |container| {
                container.limits.insert(limit.resource.clone(), limit.amount);
            });
        }
    }
    if pod.containers.is_empty() {
        change(&mut pod, "pod", |_| {});
    }
    for limit in limits.iter().filter(|limit| limit.container.is_none()) {
        // Limits are those of containers, and added up.
        let shares = std::iter::once(limit.amount).chain(std::iter::repeat(Quantity::ZERO));
        for (container, share) in pod.containers.iter_mut().zip(shares) {
            container.limits.insert(limit.resource.clone(), share);
        }
    }
    pod
}

/// Changes the container of this name, which is added if it is not there.
fn change(pod: &mut Pod, name: &str, change: impl FnOnce(&mut Container)) {
    let sidecars = pod.init_containers.iter_mut().filter(|init| init.sidecar);
    let sidecars = sidecars.map(|init| &mut init.container);
    let mut all = pod.containers.iter_mut().chain(sidecars);
    if let Some(container) = all.find(|container| container.name == name) {
        change(container);
        return;
    }
    let mut container = Container {
        name: name.to_owned(),
        ..Container::default()
    };
    change(&mut container);
    pod.containers.push(container);
}

fn empty() -> Pod {
    Pod {
        name: String::new(),
        phase: PodPhase::Running,
        started: None,
        deleting: false,
        ready: None,
        containers: Vec::new(),
        init_containers: Vec::new(),
        requests: Resources::new(),
        overhead: Resources::new(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn amounts(texts: &[&str]) -> Vec<Amount> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Name, requests and limits of each container.
    fn containers(pod: &Pod) -> Vec<String> {
        let text = |resources: &Resources| {
            let all = resources.iter().map(|(name, amount)| format!("{name}={amount}"));
            all.collect::<Vec<_>>().join(",")
        };
        let containers = pod.containers.iter();
        containers
            .map(|one| format!("{} {} {}", one.name, text(&one.requests), text(&one.limits)))
            .collect()
    }

    #[rstest]
    #[case(&["cpu=500m"], &[], &["pod  "])]
    #[case(&["app/cpu=500m"], &[], &["app cpu=500m "])]
    #[case(&[], &["memory=1Gi"], &["pod  memory=1Gi"])]
    #[case(&["app/cpu=1"], &["app/memory=1Gi", "proxy/memory=64Mi"], &["app cpu=1 memory=1Gi", "proxy  memory=64Mi"])]
    #[case(&["app/cpu=1", "proxy/cpu=100m"], &["memory=1Gi"], &["app cpu=1 memory=1Gi", "proxy cpu=100m memory=0"])]
    fn a_pod_is_made_of_what_is_said_of_it(
        #[case] requests: &[&str],
        #[case] limits: &[&str],
        #[case] expected: &[&str],
    ) {
        let pod = template(None, &amounts(requests), &amounts(limits));
        assert_eq!(containers(&pod), expected);
    }

    #[test]
    fn what_is_said_comes_over_what_is_declared() {
        let declared = template(
            None,
            &amounts(&["app/cpu=1", "proxy/cpu=100m"]),
            &amounts(&["app/memory=1Gi"]),
        );
        let pod = template(Some(&declared), &amounts(&["proxy/cpu=200m", "cpu=2"]), &[]);
        assert_eq!(containers(&pod), ["app cpu=1 memory=1Gi", "proxy cpu=200m "]);
        assert_eq!(pod.requests["cpu"], Quantity::from(2));
    }

    #[test]
    fn an_amount_that_is_none_is_refused() {
        for text in ["cpu", "cpu=much", "=1", "cpu=0", "cpu=-1"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
        let amount: Amount = "app/cpu=250m".parse().unwrap();
        assert_eq!(
            (amount.container.as_deref(), amount.resource.as_str()),
            (Some("app"), "cpu")
        );
    }
}
