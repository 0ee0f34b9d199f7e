//! Objects as people have them: each is read as it is, and nothing of it gets lost. Those of the repository always run; those of the whole corpus
//! where there is one, in the folder that `DORMOUSE_CORPUS` names or in `../shared/corpus` beside the repository.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};

use dormouse_sources::memhpa::MemHpa;

fn read_all(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let object: MemHpa =
            serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let written: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let spec = serde_json::to_value(&object.spec).unwrap();
        for (key, value) in written["spec"].as_object().unwrap() {
            assert_eq!(&spec[key], value, "{}: {key}", path.display());
        }
        count += 1;
    }
    count
}

#[test]
fn objects_of_the_repository_are_read_as_they_are() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/memhpa");
    assert!(read_all(&here) >= 10);
}

#[test]
fn objects_of_the_whole_corpus_are_read_as_they_are() {
    let named = std::env::var_os("DORMOUSE_CORPUS").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let corpus = named.unwrap_or(beside).join("memhpa");
    if !corpus.is_dir() {
        println!("only the objects of the repository were read: there is no corpus (DORMOUSE_CORPUS)");
        return;
    }
    assert!(read_all(&corpus) > 0, "no object in {}", corpus.display());
}
