//! Settings of the whole machine that the kubelet changes when it starts, kept so that they can be put back.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::layout::Layout;
use super::process::write_atomically;

/// pkg/kubelet/cm `setupKernelTunables`, and what the kubelet wants there.
const CHANGED: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Keeps the values that the kubelet is about to change.
pub fn record(layout: &Layout) -> Result<()> {
    let mut text = String::new();
    for (name, wanted) in CHANGED {
        if let Some(value) = read(name)
            && value != *wanted
        {
            text.push_str(&format!("{name} {value}\n"));
        }
    }
    write_atomically(&file(layout), text.as_bytes())
}

/// Puts them back. While another cluster runs that is no harm: the kubelet looks only when it starts.
pub fn restore(layout: &Layout) -> Result<()> {
    let Ok(text) = fs::read_to_string(file(layout)) else {
        return Ok(());
    };
    for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        // Somebody else may have set it meanwhile: then it is theirs.
        let ours = CHANGED.iter().find(|(changed, _)| *changed == name);
        if ours.is_some_and(|(_, wanted)| read(name).as_deref() == Some(wanted)) {
            let path = path(name);
            fs::write(&path, value).with_context(|| format!("cannot put {} back", path.display()))?;
        }
    }
    Ok(())
}

fn file(layout: &Layout) -> PathBuf {
    layout.state().join("sysctls")
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn read(name: &str) -> Option<String> {
    fs::read_to_string(path(name))
        .ok()
        .map(|value| value.trim().to_owned())
}
