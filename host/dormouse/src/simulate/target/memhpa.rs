//! A MemHpa.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use dormouse_model::Policy;
use dormouse_sources::memhpa::{MemHpa, MemHpaConfig, USAGE, corrections, targets};

use super::{Declared, File, Target};

pub(super) const KIND: &str = "MemHpa";
pub(super) const API_VERSION: &str = "xinhuang.com/v1";

pub(super) fn read(file: &File<'_>, index: usize) -> Result<Target> {
    let mut object: MemHpa = file.document(index)?;
    // One that is on its way out is simulated as it was.
    object.metadata.deletion_timestamp = None;
    let name = object.metadata.name.clone().context("metadata.name is missing")?;
    let corrections = corrections(&object);
    let workload = object.spec.scale_target_ref.clone();
    // Which server is asked does not matter here: nobody is.
    let config = MemHpaConfig {
        server: KIND.to_owned(),
        query: USAGE.to_owned(),
        scale_interval: std::time::Duration::from_secs(60),
    };
    let declared = targets(&[Arc::new(object)], &config).into_iter().next();
    let target = declared.context("nothing is to be scaled")?.target;
    if let Some(problem) = &target.problem {
        bail!("{problem}");
    }
    let Policy::Memory(policy) = &target.policy else {
        bail!("it is not scaled by memory");
    };
    let (replicas, pod) = file.pods_of(&workload.kind, &workload.name)?;
    Ok(Target {
        name,
        min_replicas: policy.min_replicas,
        max_replicas: Some(policy.max_replicas),
        declared: Declared::Target(Box::new(target)),
        pod,
        replicas,
        corrections: corrections.iter().map(ToString::to_string).collect(),
    })
}
