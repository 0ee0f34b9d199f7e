//! Who uses whom on one level of a crate, and the cycles in it.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::{Crate, ModulePath};

/// Modules of one level, each of which uses the others, directly or through others of them.
pub struct Cycle {
    /// The crate and the module above them, such as `dormouse_dlx::forward`.
    above: String,
    modules: Vec<String>,
    /// One example for each use within the cycle.
    pub why: Vec<String>,
}

impl Cycle {
    /// As the list of known cycles has it.
    pub fn line(&self) -> String {
        format!("{}: {}", self.above, self.modules.join(" "))
    }

    /// Whether a line names all of its modules, and others.
    pub fn is_part_of(&self, line: &str) -> bool {
        line.split_once(": ").is_some_and(|(above, modules)| {
            let modules: Vec<&str> = modules.split(' ').collect();
            above == self.above
                && self
                    .modules
                    .iter()
                    .all(|module| modules.contains(&module.as_str()))
        })
    }
}

/// Uses among siblings: who, whom, and one example.
type Uses = BTreeMap<(String, String), String>;

/// All cycles, those at the top first.
pub fn cycles(found: &Crate) -> Vec<Cycle> {
    let mut levels: BTreeMap<ModulePath, Uses> = BTreeMap::new();
    for (from, module) in &found.modules {
        for path in &module.paths {
            let Some(target) = found.target(from, path) else {
                continue;
            };
            let common = from
                .iter()
                .zip(&target)
                .take_while(|(one, other)| one == other)
                .count();
            // One is inside of the other, or they are the same.
            let (Some(who), Some(whom)) = (from.get(common), target.get(common)) else {
                continue;
            };
            levels
                .entry(from[..common].to_vec())
                .or_default()
                .entry((who.clone(), whom.clone()))
                .or_insert_with(|| {
                    let file = module.file.file_name().unwrap_or_default().to_string_lossy();
                    format!("{who} uses {whom}: {} in {file}", path.join("::"))
                });
        }
    }
    levels
        .iter()
        .flat_map(|(above, uses)| of_level(&found.name, above, uses))
        .collect()
}

fn of_level(name: &str, above: &[String], uses: &Uses) -> Vec<Cycle> {
    let modules: BTreeSet<&str> = uses
        .keys()
        .flat_map(|(who, whom)| [who.as_str(), whom.as_str()])
        .collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> = modules
        .iter()
        .map(|module| (*module, reached(module, uses)))
        .collect();
    let mut cycles = Vec::new();
    let mut seen = BTreeSet::new();
    for module in &modules {
        // Those that are reached from here and from which one comes back.
        let together: Vec<&str> = reached[module]
            .iter()
            .copied()
            .filter(|other| reached[other].contains(module))
            .collect();
        if together.is_empty() || !seen.insert(together.clone()) {
            continue;
        }
        let inside = |module: &String| together.contains(&module.as_str());
        cycles.push(Cycle {
            above: std::iter::once(name)
                .chain(above.iter().map(String::as_str))
                .collect::<Vec<_>>()
                .join("::"),
            why: uses
                .iter()
                .filter(|((who, whom), _)| inside(who) && inside(whom))
                .map(|(_, why)| why.clone())
                .collect(),
            modules: together.into_iter().map(str::to_owned).collect(),
        });
    }
    cycles
}

/// Every module that one uses, directly or not; itself only if it comes back to it.
fn reached<'a>(from: &str, uses: &'a Uses) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for (who, whom) in uses.keys() {
            if who == module && reached.insert(whom.as_str()) {
                open.push(whom);
            }
        }
    }
    reached
}
