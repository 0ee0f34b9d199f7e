//! The bill of materials of the image: SPDX 2.3 in JSON.
//!
//! It names what is linked into each program, as cargo resolves it for that program's target and features, apart from
//! what only ran while it was built. Nothing in it depends on the machine or the hour.

mod packages;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use self::packages::{Facts, Graph, Id};
use super::content;
use super::origin::Origin;
use crate::guests;
use crate::tools::{self, GUEST_TARGET};
use crate::workspace::Workspace;
use xtask_command::Cmd;
use xtask_oci::{Arch, rfc3339};

const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-Image";
const ROOTS: &str = "webpki-root-certs";

/// A program in the image.
struct Program {
    package: Id,
    path: String,
    sha256: String,
    graph: Graph,
}

/// Writes the document.
pub fn write(
    workspace: &Workspace,
    arch: Arch,
    origin: &Origin,
    program: &[u8],
    plugins: &[(String, Vec<u8>)],
) -> Result<String> {
    let facts = packages::facts(workspace)?;
    let own = |name: &str| Id {
        name: name.to_owned(),
        version: origin.version.clone(),
    };
    let mut programs = vec![Program {
        package: own("dormouse"),
        path: content::PROGRAM.to_owned(),
        sha256: sha256(program),
        graph: packages::graph(workspace, "dormouse", tools::triple(arch))?,
    }];
    for (name, bytes) in plugins {
        let package = guests::package(workspace, name)?;
        programs.push(Program {
            path: format!("{}/{name}.wasm", content::PLUGINS),
            sha256: sha256(bytes),
            graph: packages::graph(workspace, &package, GUEST_TARGET)?,
            package: own(&package),
        });
    }
    let rust = Cmd::new("rustc")
        .arg("--version")
        .dir(workspace.root())
        .output()?;
    let rust = rust
        .split(' ')
        .nth(1)
        .context("`rustc --version` names no version")?;
    let document = document(arch, origin, &programs, &facts, rust)?;
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

fn document(
    arch: Arch,
    origin: &Origin,
    programs: &[Program],
    facts: &BTreeMap<Id, Facts>,
    rust: &str,
) -> Result<Value> {
    let roots = facts
        .keys()
        .find(|id| id.name == ROOTS)
        .context("Cargo.lock does not name the crate of the CA certificates")?;
    let mut relations = BTreeSet::from([relation(DOCUMENT, "DESCRIBES", IMAGE)]);
    let mut ids = BTreeSet::new();
    // The certificates are a file of the image, not a part of a program.
    ids.insert(roots);
    relations.insert(relation(IMAGE, "CONTAINS", &reference(roots)));
    for program in programs {
        let root = reference(&program.package);
        relations.insert(relation(IMAGE, "CONTAINS", &root));
        relations.insert(relation(&root, "STATIC_LINK", "SPDXRef-rust-std"));
        ids.extend(&program.graph.linked);
        ids.extend(&program.graph.tools);
        for (from, to) in &program.graph.edges {
            relations.insert(relation(&reference(from), "DEPENDS_ON", &reference(to)));
        }
        for tool in &program.graph.tools {
            relations.insert(relation(&reference(tool), "BUILD_DEPENDENCY_OF", &root));
        }
    }
    // Plugins bring the C library of WASI inside of the standard library; the host gets musl from there.
    if let Some(host) = programs.first() {
        relations.insert(relation(&reference(&host.package), "STATIC_LINK", "SPDXRef-musl"));
    }

    let mut listed = vec![
        json!({
            "SPDXID": IMAGE,
            "name": "dormouse",
            "versionInfo": origin.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "primaryPackagePurpose": "CONTAINER",
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": origin.licence,
            "copyrightText": "NOASSERTION",
            "summary": format!("Container image for linux/{}", arch.name()),
        }),
        shipped_with_rust(
            "rust-std",
            rust,
            "MIT OR Apache-2.0",
            "The standard library of Rust",
        ),
        shipped_with_rust(
            "musl",
            "NOASSERTION",
            "MIT",
            &format!("The C library that Rust {rust} links"),
        ),
    ];
    for id in ids {
        let facts = facts
            .get(id)
            .with_context(|| format!("`cargo metadata` does not know {} {}", id.name, id.version))?;
        let program = programs.iter().find(|program| program.package == *id);
        listed.push(package(id, facts, program));
    }
    let relations: Vec<Value> = relations
        .into_iter()
        .map(|(from, kind, to)| {
            json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
        })
        .collect();
    let content = serde_json::to_vec(&json!([listed, relations]))?;
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": format!("dormouse-{}-{}", origin.version, arch.name()),
        // Unique by what is in it, as the specification wants it, and still the same for the same image.
        "documentNamespace": format!(
            "https://dormouse.dev/spdx/dormouse-{}-{}-{}",
            origin.version,
            arch.name(),
            sha256(&content)
        ),
        "creationInfo": {
            "created": rfc3339(origin.created),
            "creators": [format!("Tool: dormouse-xtask-{}", origin.version)],
        },
        "packages": listed,
        "relationships": relations,
    }))
}

fn relation(from: &str, kind: &'static str, to: &str) -> (String, &'static str, String) {
    (from.to_owned(), kind, to.to_owned())
}

/// SPDX allows letters, digits, dots and dashes.
fn reference(id: &Id) -> String {
    let plain: String = format!("{}-{}", id.name, id.version)
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    format!("SPDXRef-Package-{plain}")
}

fn shipped_with_rust(name: &str, version: &str, licence: &str, summary: &str) -> Value {
    let mut package = json!({
        "SPDXID": format!("SPDXRef-{name}"),
        "name": name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": licence,
        "copyrightText": "NOASSERTION",
        "summary": summary,
    });
    if version != "NOASSERTION" {
        package["versionInfo"] = json!(version);
    }
    package
}

fn package(id: &Id, facts: &Facts, program: Option<&Program>) -> Value {
    let mut package = json!({
        "SPDXID": reference(id),
        "name": id.name,
        "versionInfo": id.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "LIBRARY",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": licence(facts.licence.as_deref()),
        "copyrightText": "NOASSERTION",
    });
    // A package without a checksum is our own, and in no registry that a package URL could name.
    if let Some(checksum) = &facts.checksum {
        package["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": checksum }]);
        package["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl(id),
        }]);
    }
    if let Some(program) = program {
        package["primaryPackagePurpose"] = json!("APPLICATION");
        package["packageFileName"] = json!(program.path);
        package["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": program.sha256 }]);
    }
    if let Some(description) = &facts.description {
        // One line: manifests wrap theirs as they like.
        let line: Vec<_> = description.split_whitespace().collect();
        package["summary"] = json!(line.join(" "));
    }
    if let Some(homepage) = facts.homepage.as_ref().filter(|url| url.starts_with("http")) {
        package["homepage"] = json!(homepage);
    }
    package
}

/// `+` begins the build part of a version and has to be escaped in a package URL.
fn purl(id: &Id) -> String {
    format!("pkg:cargo/{}@{}", id.name, id.version.replace('+', "%2B"))
}

/// Old manifests separate alternatives by a slash, which is no SPDX expression.
fn licence(said: Option<&str>) -> String {
    said.map_or_else(
        || "NOASSERTION".to_owned(),
        |said| said.split('/').map(str::trim).collect::<Vec<_>>().join(" OR "),
    )
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, version: &str) -> Id {
        Id {
            name: name.to_owned(),
            version: version.to_owned(),
        }
    }

    fn sample() -> Value {
        let dormouse = id("dormouse", "0.1.0");
        let used = id("used_lib", "1.0.0+build");
        let tool = id("tool", "2.0.0");
        let facts = |licence: &str, checksum: Option<&str>| Facts {
            licence: Some(licence.to_owned()),
            description: Some("Some\n  words".to_owned()),
            homepage: None,
            checksum: checksum.map(str::to_owned),
        };
        let all = BTreeMap::from([
            (dormouse.clone(), facts("Apache-2.0", None)),
            (used.clone(), facts("MIT/Apache-2.0", Some("00ff"))),
            (tool.clone(), facts("MIT", Some("11ff"))),
            (id(ROOTS, "1.0.1"), facts("CDLA-Permissive-2.0", Some("22ff"))),
        ]);
        let program = Program {
            package: dormouse.clone(),
            path: content::PROGRAM.to_owned(),
            sha256: sha256(b"program"),
            graph: Graph {
                linked: BTreeSet::from([dormouse.clone(), used.clone()]),
                edges: BTreeSet::from([(dormouse, used)]),
                tools: BTreeSet::from([tool]),
            },
        };
        let origin = Origin {
            version: "0.1.0".to_owned(),
            licence: "Apache-2.0".to_owned(),
            created: 0,
            revision: None,
        };
        document(Arch::Amd64, &origin, &[program], &all, "1.95.0").unwrap()
    }

    fn find<'a>(document: &'a Value, name: &str) -> &'a Value {
        let packages = document["packages"].as_array().unwrap();
        packages
            .iter()
            .find(|package| package["name"] == name && package["SPDXID"] != IMAGE)
            .unwrap()
    }

    #[test]
    fn a_linked_crate_has_licence_checksum_and_package_url() {
        let document = sample();
        let used = find(&document, "used_lib");
        assert_eq!(used["SPDXID"], "SPDXRef-Package-used-lib-1.0.0-build");
        assert_eq!(used["licenseDeclared"], "MIT OR Apache-2.0");
        assert_eq!(used["checksums"][0]["checksumValue"], "00ff");
        assert_eq!(
            used["externalRefs"][0]["referenceLocator"],
            "pkg:cargo/used_lib@1.0.0%2Bbuild"
        );
        assert_eq!(used["summary"], "Some words");
    }

    #[test]
    fn the_program_is_known_by_its_own_digest() {
        let document = sample();
        let program = find(&document, "dormouse");
        assert_eq!(program["checksums"][0]["checksumValue"], sha256(b"program"));
        assert_eq!(program["packageFileName"], content::PROGRAM);
    }

    #[test]
    fn every_relationship_leads_to_something_in_the_document() {
        let document = sample();
        let known: BTreeSet<&str> = document["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|package| package["SPDXID"].as_str().unwrap())
            .chain([DOCUMENT])
            .collect();
        let relations = document["relationships"].as_array().unwrap();
        for relation in relations {
            for end in ["spdxElementId", "relatedSpdxElement"] {
                assert!(known.contains(relation[end].as_str().unwrap()), "{relation}");
            }
        }
        let has = |from: &str, kind: &str, to: &str| {
            relations.contains(
                &json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to }),
            )
        };
        let root = "SPDXRef-Package-dormouse-0.1.0";
        assert!(has(root, "DEPENDS_ON", "SPDXRef-Package-used-lib-1.0.0-build"));
        assert!(has("SPDXRef-Package-tool-2.0.0", "BUILD_DEPENDENCY_OF", root));
        assert!(has(IMAGE, "CONTAINS", "SPDXRef-Package-webpki-root-certs-1.0.1"));
        assert!(!has(root, "DEPENDS_ON", "SPDXRef-Package-tool-2.0.0"));
    }
}
