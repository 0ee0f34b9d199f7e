//! Every vector of the corpus: one input and what Kubernetes or MemHpa makes of it.
//!
//! A part of the corpus is in `tests/corpus` and always runs. The whole of it runs where it is found: in the folder that
//! `DORMOUSE_CORPUS` names, or `../shared/corpus` beside the repository.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

mod behavior;
mod compare;
mod memory;
mod pods;
mod reconcile;
mod replicas;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

/// How many differences are shown.
const SHOWN: usize = 20;

/// One line of `hpa/*.jsonl`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    id: String,
    #[serde(rename = "fn")]
    function: String,
    /// Informative, but for those that say that integers wrap around.
    #[serde(default)]
    tags: Vec<String>,
    /// Outputs that are another number on another processor.
    #[serde(default)]
    platform_dependent: Vec<String>,
    #[serde(rename = "in")]
    input: Value,
    out: Map<String, Value>,
}

/// One line of `memhpa/vectors.jsonl`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryVector {
    id: String,
    #[serde(rename = "in")]
    input: memory::Input,
    out: memory::Output,
}

/// How many vectors of each function ran, and what was wrong.
#[derive(Default)]
struct Results {
    ran: BTreeMap<String, usize>,
    wrong: Vec<String>,
    /// Outputs that depend on the processor: not compared.
    platform_dependent: usize,
    /// Vectors in which Go's integers wrap around: only compared with that.
    wrapped_around: usize,
}

impl Results {
    fn add(&mut self, family: &str, id: &str, differences: Vec<String>) {
        *self.ran.entry(family.to_owned()).or_default() += 1;
        let differences = differences.into_iter();
        self.wrong
            .extend(differences.map(|difference| format!("{id} ({family}): {difference}")));
    }

    fn report(&self, corpus: &Path) {
        let total: usize = self.ran.values().sum();
        println!("{total} vectors of {}", corpus.display());
        for (family, count) in &self.ran {
            println!("{count:6} {family}");
        }
        println!(
            "{} outputs depend on the processor and are not compared; integers wrap around in {} vectors",
            self.platform_dependent, self.wrapped_around
        );
        let shown: Vec<_> = self.wrong.iter().take(SHOWN).cloned().collect();
        assert!(
            self.wrong.is_empty(),
            "{} differences, the first of them:\n{}",
            self.wrong.len(),
            shown.join("\n")
        );
    }
}

impl Vector {
    /// What the kernel makes of it, in the form of `out`.
    fn actual(&self) -> Value {
        let input = &self.input;
        match self.function.as_str() {
            "resource_utilization"
            | "resource_raw"
            | "pods_metric"
            | "object_value"
            | "object_average"
            | "external_value"
            | "external_average" => replicas::run(&self.function, input),
            "rules" | "normalize" | "rate" | "normalize_behavior" | "store_event" | "tolerances" => {
                behavior::run(&self.function, input)
            }
            "reconcile" => reconcile::run_once(input),
            "sequence" if input.get("metrics").is_some() || input.get("spec_replicas").is_some() => {
                reconcile::run_sequence(input)
            }
            "sequence" => behavior::run_sequence(input),
            other => panic!("{} has the unknown function {other}", self.id),
        }
    }

    /// Whether Go's integers wrap around in it, where ours stop at the end of their type.
    fn wraps_around(&self) -> bool {
        self.tags.iter().any(|tag| tag.ends_with("_wraparound"))
    }

    fn differences(&self) -> Vec<String> {
        let actual = self.actual();
        if self.wraps_around() {
            return compare::saturated(&self.out, &actual);
        }
        let expected = Value::Object(self.out.clone());
        compare::differences(&expected, &actual, &self.platform_dependent)
    }
}

fn lines(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("the file can be read");
    text.lines().map(str::to_owned).collect()
}

/// The files of vectors in a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    assert!(!files.is_empty(), "{} has no vectors", folder.display());
    files
}

/// Runs every vector of a corpus.
fn run(corpus: &Path) -> Results {
    let mut results = Results::default();
    for file in files(&corpus.join("hpa")) {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        for line in lines(&file) {
            let vector: Vector =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
            let family = format!("hpa/{name} {}", vector.function);
            results.platform_dependent += vector.platform_dependent.len();
            results.wrapped_around += usize::from(vector.wraps_around());
            results.add(&family, &vector.id, vector.differences());
        }
    }
    for file in files(&corpus.join("memhpa")) {
        for line in lines(&file) {
            let vector: MemoryVector =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("memhpa: {error}: {line}"));
            let actual = memory::run(&vector.input);
            results.add("memhpa", &vector.id, memory::differences(&vector.out, &actual));
        }
    }
    results
}

#[test]
fn the_vectors_of_the_repository_come_out_as_recorded() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    run(&corpus).report(&corpus);
}

#[test]
fn the_vectors_of_the_whole_corpus_come_out_as_recorded() {
    let named = std::env::var_os("DORMOUSE_CORPUS").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    if named.is_none() && !beside.join("hpa").is_dir() {
        println!("only the vectors of the repository ran: there is no corpus (DORMOUSE_CORPUS)");
        return;
    }
    let corpus = named.unwrap_or(beside);
    run(&corpus).report(&corpus);
}
