//! Compiling in a process of its own.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::support::dormouse;

/// A component with nothing in it.
const EMPTY: [u8; 8] = [0, b'a', b's', b'm', 13, 0, 1, 0];

/// Exit status and stdout of the compiler.
fn compile(memory: &str, bytes: Option<&[u8]>) -> (Option<i32>, String) {
    let kept = tempfile::tempdir().unwrap();
    let mut child = dormouse(&["plugin", "compile", kept.path().to_str().unwrap(), memory])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take();
    if let (Some(bytes), Some(mut input)) = (bytes, input.take_if(|_| bytes.is_some())) {
        input.write_all(bytes).unwrap();
    }
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said)
}

#[test]
fn author_05_a_compiler_that_needs_more_memory_than_there_is_ends_by_itself() {
    // It has nothing to read yet, and has more than a megabyte already.
    assert_eq!(compile("1048576", None).0, Some(4));
}

#[test]
fn author_03_what_cannot_be_compiled_is_told() {
    let (code, said) = compile("1073741824", Some(b"\0asm\x0d\0\x01\0garbage"));
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("was it copied whole") || said.contains("parse"),
        "{said}"
    );
    assert_eq!(compile("1073741824", Some(&EMPTY)).0, Some(0));
}

#[test]
fn author_06_inspect_compiles_as_the_processes_do_and_keeps_it() {
    let kept = tempfile::tempdir().unwrap();
    let file = kept.path().join("empty.wasm");
    std::fs::write(&file, EMPTY).unwrap();
    let cache = kept.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    for _ in 0..2 {
        let output = dormouse(&["plugin", "inspect", "--plugins-cache-dir"])
            .args([&cache, &file])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("failed (missing_export)"), "{said}");
    }
    let own = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap();
    assert_eq!(std::fs::read_dir(own.path()).unwrap().count(), 1);
}
