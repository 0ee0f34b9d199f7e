//! The archive: an OCI image layout that older readers understand too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::Image;
use super::layer::digest;
use super::time::rfc3339;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The archive.
    pub file: PathBuf,
    /// Bytes of the archive.
    pub size: u64,
    /// Digest of the manifest: what a registry calls the image's digest.
    pub digest: String,
    /// From the bottom to the top.
    pub layers: Vec<WrittenLayer>,
}

/// One layer of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenLayer {
    /// What is in it.
    pub title: String,
    /// Digest of the compressed bytes.
    pub digest: String,
    /// Compressed bytes.
    pub size: u64,
    /// Bytes before that.
    pub unpacked: u64,
}

pub fn write(image: &Image, file: &Path) -> Result<Written> {
    let (bytes, digest, layers) = assemble(image)?;
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let name = file
        .file_name()
        .with_context(|| format!("{} names no file", file.display()))?
        .to_string_lossy();
    // Written aside and renamed: whoever imports it never sees half an archive.
    let aside = folder.join(format!(".{name}.{}", std::process::id()));
    fs::write(&aside, &bytes).with_context(|| format!("cannot write {}", aside.display()))?;
    fs::rename(&aside, file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Written {
        file: file.to_owned(),
        size: bytes.len() as u64,
        digest,
        layers,
    })
}

fn assemble(image: &Image) -> Result<(Vec<u8>, String, Vec<WrittenLayer>)> {
    let created = rfc3339(image.created);
    // The files of the archive by their path: sorted, and a layer that two images share is stored once.
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut layers = Vec::new();
    let mut layer_descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    let mut history = Vec::new();
    for layer in &image.layers {
        let packed = layer.pack()?;
        layer_descriptors.push(descriptor(LAYER, &packed.digest, packed.bytes.len()));
        diff_ids.push(packed.diff_id);
        history.push(json!({ "created": created, "created_by": layer.title() }));
        layers.push(WrittenLayer {
            title: layer.title().to_owned(),
            digest: packed.digest.clone(),
            size: packed.bytes.len() as u64,
            unpacked: packed.unpacked,
        });
        files.insert(blob(&packed.digest), packed.bytes);
    }

    let config = bytes(&json!({
        "architecture": image.arch.name(),
        "os": "linux",
        "created": created,
        "config": settings(image),
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    }))?;
    let config_digest = digest(&config);
    let manifest = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config_digest, config.len()),
        "layers": layer_descriptors,
        "annotations": image.labels,
    }))?;
    let manifest_digest = digest(&manifest);

    let mut described = descriptor(MANIFEST, &manifest_digest, manifest.len());
    described["platform"] = json!({ "architecture": image.arch.name(), "os": "linux" });
    described["annotations"] = json!({
        // What containerd and Podman call it: `ctr images import` stores it under exactly this name.
        "io.containerd.image.name": image.reference.in_full(),
        // What the layout itself calls it: `skopeo copy oci-archive:FILE:TAG`.
        "org.opencontainers.image.ref.name": image.reference.tag(),
    });
    let index = bytes(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [described] }))?;
    // What `docker load` reads, and the only thing that Docker before 25 understands.
    let docker = bytes(&json!([{
        "Config": blob(&config_digest),
        "RepoTags": [image.reference.to_string()],
        "Layers": layers.iter().map(|layer| blob(&layer.digest)).collect::<Vec<_>>(),
    }]))?;
    files.insert(blob(&config_digest), config);
    files.insert(blob(&manifest_digest), manifest);
    files.insert("index.json".to_owned(), index);
    files.insert("manifest.json".to_owned(), docker);
    files.insert(
        "oci-layout".to_owned(),
        bytes(&json!({ "imageLayoutVersion": "1.0.0" }))?,
    );
    Ok((tar(&files)?, manifest_digest, layers))
}

/// How the container runs, in the spelling of the configuration of an image. What is empty is left out.
fn settings(image: &Image) -> Value {
    let mut settings = Map::new();
    let mut set = |name: &str, value: Value, empty: bool| {
        if !empty {
            settings.insert(name.to_owned(), value);
        }
    };
    let env: Vec<_> = image
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let ports: Map<String, Value> = image
        .ports
        .iter()
        .map(|port| (format!("{port}/tcp"), json!({})))
        .collect();
    set("User", json!(image.user), image.user.is_empty());
    set("ExposedPorts", json!(ports), ports.is_empty());
    set("Env", json!(env), env.is_empty());
    set("Entrypoint", json!(image.entrypoint), image.entrypoint.is_empty());
    set("Cmd", json!(image.cmd), image.cmd.is_empty());
    set(
        "WorkingDir",
        json!(image.working_dir),
        image.working_dir.is_empty(),
    );
    set("Labels", json!(image.labels), image.labels.is_empty());
    Value::Object(settings)
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

/// Path of a blob in the layout.
fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// Keys of objects are sorted by serde_json.
fn bytes(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

fn tar(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, bytes: &[u8]| -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(path)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        Ok(tar.append(&header, bytes)?)
    };
    add("blobs/", tar::EntryType::Directory, 0o755, &[])?;
    add("blobs/sha256/", tar::EntryType::Directory, 0o755, &[])?;
    for (path, bytes) in files {
        add(path, tar::EntryType::Regular, 0o644, bytes)?;
    }
    Ok(tar.into_inner()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::{Arch, Layer};
    use super::*;

    fn image() -> Image {
        let mut image = Image::new("dormouse.test/x:1".parse().unwrap(), Arch::Amd64, 1_700_000_000);
        image.layers = vec![
            Layer::new("base").folder("/tmp", 0o1777).unwrap(),
            Layer::new("program")
                .file("/bin/x", 0o755, vec![7; 100_000])
                .unwrap(),
        ];
        image.user = "65532:65532".to_owned();
        image.entrypoint = vec!["/bin/x".to_owned()];
        image.env = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
        image.ports = vec![8080];
        image.labels = BTreeMap::from([("org.opencontainers.image.title".to_owned(), "x".to_owned())]);
        image
    }

    fn unpack(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        tar::Archive::new(archive)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (entry.path().unwrap().display().to_string(), bytes)
            })
            .collect()
    }

    #[test]
    fn assembling_twice_gives_the_same_bytes() {
        let (one, digest, _) = assemble(&image()).unwrap();
        let (other, ..) = assemble(&image()).unwrap();
        assert!(one == other, "two archives of one image differ");
        let mut renamed = image();
        renamed.reference = "other:2".parse().unwrap();
        assert_eq!(
            assemble(&renamed).unwrap().1,
            digest,
            "the digest of an image does not depend on what the archive calls it"
        );
    }

    #[test]
    fn every_blob_is_what_its_name_and_its_descriptor_say() {
        let (archive, manifest_digest, layers) = assemble(&image()).unwrap();
        let files = unpack(&archive);
        for (path, bytes) in &files {
            if let Some(name) = path.strip_prefix("blobs/sha256/").filter(|name| !name.is_empty()) {
                assert_eq!(format!("sha256:{name}"), digest(bytes));
            }
        }
        let read = |path: &str| -> Value { serde_json::from_slice(&files[path]).unwrap() };
        let follow = |descriptor: &Value| -> Vec<u8> {
            let bytes = files[&blob(descriptor["digest"].as_str().unwrap())].clone();
            assert_eq!(descriptor["size"], bytes.len());
            bytes
        };
        assert_eq!(read("oci-layout")["imageLayoutVersion"], "1.0.0");
        let index = read("index.json");
        assert_eq!(index["manifests"][0]["digest"], manifest_digest.as_str());
        assert_eq!(
            index["manifests"][0]["annotations"]["io.containerd.image.name"],
            "dormouse.test/x:1"
        );
        let manifest: Value = serde_json::from_slice(&follow(&index["manifests"][0])).unwrap();
        assert_eq!(manifest["annotations"]["org.opencontainers.image.title"], "x");
        for (descriptor, layer) in manifest["layers"].as_array().unwrap().iter().zip(&layers) {
            assert_eq!(descriptor["digest"], layer.digest.as_str());
            follow(descriptor);
        }
        let config: Value = serde_json::from_slice(&follow(&manifest["config"])).unwrap();
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
        assert_eq!(
            config["config"],
            json!({
                "User": "65532:65532",
                "ExposedPorts": { "8080/tcp": {} },
                "Env": ["A=b"],
                "Entrypoint": ["/bin/x"],
                "Labels": { "org.opencontainers.image.title": "x" },
            })
        );
        let docker = read("manifest.json");
        assert_eq!(docker[0]["RepoTags"], json!(["dormouse.test/x:1"]));
        assert!(files.contains_key(docker[0]["Config"].as_str().unwrap()));
        assert!(files.contains_key(docker[0]["Layers"][1].as_str().unwrap()));
    }
}
