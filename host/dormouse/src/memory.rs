//! How the memory of the container is divided, so that no limit of ours lets the kernel end the process.
//!
//! Three parts: the process itself with its caches and compiled plugins; the calls of all plugins together; and the compiler, which
//! is a child process. Each has a limit that holds by itself, and together they are what the container may have.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Result, bail};
use dormouse_plugin::PluginConfig;

const MIB: u64 = 1 << 20;
/// The process with its caches, and its compiled plugins.
const OWN: u64 = 160 * MIB;
/// The least that compiling a plugin in Rust needs, with a reserve.
const COMPILER: u64 = 96 * MIB;
/// The least that a plugin in Rust needs for its calls.
const CALLS: u64 = 32 * MIB;
/// What calls get before the compiler does: one call with the usual limit.
const USUAL_CALLS: u64 = 128 * MIB;

/// Who may have how much, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// The calls of all plugins together.
    pub calls: u64,
    /// Compiling.
    pub compiler: u64,
}

/// What the container may have, by its cgroup. None: there is no limit, or nobody knows.
pub fn of_container() -> Option<u64> {
    // Version 2, and version 1 as containers see it.
    [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .into_iter()
    .find_map(|path| fs::read_to_string(path).ok())
    .and_then(|text| parse(&text))
}

fn parse(text: &str) -> Option<u64> {
    // Version 1 writes a number near the end of the address space where there is no limit.
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 50)
}

/// Divides what the container has.
///
/// # Errors
/// It is not enough; the sum, and the keys that change it.
pub fn divide(container: u64, plugins: &BTreeMap<String, PluginConfig>) -> Result<Division> {
    let asked = plugins
        .iter()
        .filter_map(|(name, config)| Some((config.limits.memory_bytes? as u64, name)))
        .max();
    let (calls, of) = match asked {
        Some((bytes, name)) if bytes > CALLS => (bytes, format!("plugins.{name}.limits.memoryBytes")),
        _ => (CALLS, "the least for the calls of plugins".to_owned()),
    };
    let sum = OWN + COMPILER + calls;
    if sum > container {
        bail!(
            "the container has {} MiB of memory, but {} are needed: {} for the process, {} for compiling plugins, and {} for their calls \
             ({of}); raise resources.limits.memory of this process{}",
            container / MIB,
            sum.div_ceil(MIB),
            OWN / MIB,
            COMPILER / MIB,
            calls.div_ceil(MIB),
            if asked.is_some() {
                ", or lower that key"
            } else {
                ""
            },
        );
    }
    let free = container - OWN;
    // A quarter for calls, more where one plugin may have more; the rest is for the compiler.
    let usual = (free / 4).max(USUAL_CALLS.min(free - COMPILER));
    let calls = calls.max(usual);
    Ok(Division {
        calls,
        compiler: free - calls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugins(memory: Option<usize>) -> BTreeMap<String, PluginConfig> {
        let mut config = PluginConfig::default();
        config.limits.memory_bytes = memory;
        [("previews".to_owned(), config)].into()
    }

    #[test]
    fn author_11_the_parts_together_are_the_container() {
        for container in [288, 300, 512, 1024, 4096] {
            let parts = divide(container * MIB, &plugins(None)).unwrap();
            assert_eq!(OWN + parts.calls + parts.compiler, container * MIB);
            assert!(parts.calls >= CALLS && parts.compiler >= COMPILER, "{parts:?}");
        }
        let parts = divide(512 * MIB, &plugins(Some(200 << 20))).unwrap();
        assert_eq!(
            parts.calls,
            200 * MIB,
            "what one plugin may have, all together can"
        );
    }

    #[test]
    fn author_11_what_does_not_fit_is_refused_with_the_sum_and_the_keys() {
        let error = divide(512 * MIB, &plugins(Some(300 << 20)))
            .unwrap_err()
            .to_string();
        for said in [
            "512 MiB",
            "556 are needed",
            "plugins.previews.limits.memoryBytes",
            "resources.limits.memory",
        ] {
            assert!(error.contains(said), "{said}: {error}");
        }
        let error = divide(128 * MIB, &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("288 are needed"), "{error}");
    }

    #[test]
    fn a_cgroup_without_a_limit_says_so() {
        assert_eq!(parse("max\n"), None);
        assert_eq!(parse("9223372036854771712\n"), None);
        assert_eq!(parse("536870912\n"), Some(512 * MIB));
    }
}
