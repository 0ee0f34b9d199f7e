//! One layer: a few files, packed in the one way that does not depend on who packs them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

/// Files that are added on top of the layers below.
#[derive(Clone, Debug)]
pub struct Layer {
    title: String,
    /// By their path without a leading slash: sorted, and no path twice.
    nodes: BTreeMap<String, Node>,
}

#[derive(Clone, Debug)]
struct Node {
    mode: u32,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Folder,
    File(Vec<u8>),
    Link(String),
}

/// A layer as it is stored.
pub struct Packed {
    /// Gzip of the tar.
    pub bytes: Vec<u8>,
    /// Of those bytes: names the blob.
    pub digest: String,
    /// Of the tar: names the content, whatever compressed it.
    pub diff_id: String,
    /// Length of the tar.
    pub unpacked: u64,
}

impl Layer {
    /// An empty layer; the title says what is in it and is shown by `docker history`.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            nodes: BTreeMap::new(),
        }
    }

    /// What is in it.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Adds a regular file; the folders above it come by themselves with mode 755.
    pub fn file(self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Result<Self> {
        self.add(path, mode, Content::File(bytes.into()))
    }

    /// Adds a folder.
    pub fn folder(self, path: &str, mode: u32) -> Result<Self> {
        self.add(path, mode, Content::Folder)
    }

    /// Adds a symbolic link.
    pub fn link(self, path: &str, target: &str) -> Result<Self> {
        self.add(path, 0o777, Content::Link(target.to_owned()))
    }

    fn add(mut self, path: &str, mode: u32, content: Content) -> Result<Self> {
        let inside = path
            .strip_prefix('/')
            .with_context(|| format!("`{path}` in an image must be an absolute path"))?;
        if inside
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
        {
            bail!("`{path}` in an image must be a plain path without `.`, `..` or an empty part");
        }
        for (end, _) in inside.match_indices('/') {
            let above = self.nodes.entry(inside[..end].to_owned()).or_insert(Node {
                mode: 0o755,
                content: Content::Folder,
            });
            if above.content != Content::Folder {
                bail!(
                    "`{path}` in an image is below /{}, which is no folder",
                    &inside[..end]
                );
            }
        }
        let folder = content == Content::Folder;
        let old = self.nodes.insert(inside.to_owned(), Node { mode, content });
        // A folder that came by itself may be named later, with its mode.
        if old.is_some_and(|old| !(folder && old.content == Content::Folder)) {
            bail!("`{path}` is in the image layer `{}` twice", self.title);
        }
        Ok(self)
    }

    /// Everything in it, by absolute path.
    pub fn paths(&self) -> impl Iterator<Item = String> {
        self.nodes.keys().map(|path| format!("/{path}"))
    }

    /// Puts its files into a folder, owned by whoever runs this.
    pub fn unpack(&self, folder: &Path) -> Result<()> {
        for (path, node) in &self.nodes {
            let to = folder.join(path);
            let made = match &node.content {
                Content::Folder => fs::create_dir_all(&to),
                Content::File(bytes) => fs::write(&to, bytes),
                Content::Link(target) => symlink(target, &to),
            };
            made.with_context(|| format!("cannot write {}", to.display()))?;
            if !matches!(node.content, Content::Link(_)) {
                fs::set_permissions(&to, fs::Permissions::from_mode(node.mode))
                    .with_context(|| format!("cannot set the mode of {}", to.display()))?;
            }
        }
        Ok(())
    }

    /// Tar and gzip. Every file is of 1970: a layer whose files stayed the same keeps its digest, whatever the image's
    /// time, and a node that has it need not fetch it again.
    pub fn pack(&self) -> Result<Packed> {
        let tar = self.tar()?;
        // No file name and no time in the gzip header. Level 6: one percent larger than 9 in a third of the time.
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::new(6));
        gzip.write_all(&tar)?;
        let bytes = gzip.finish()?;
        Ok(Packed {
            digest: digest(&bytes),
            diff_id: digest(&tar),
            unpacked: tar.len() as u64,
            bytes,
        })
    }

    fn tar(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, node) in &self.nodes {
            let mut header = tar::Header::new_ustar();
            header.set_mode(node.mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            let (path, bytes): (String, &[u8]) = match &node.content {
                Content::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    (format!("{path}/"), &[])
                }
                Content::File(bytes) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(bytes.len() as u64);
                    (path.clone(), bytes)
                }
                Content::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header
                        .set_link_name(target)
                        .with_context(|| format!("the target of the link /{path} in an image"))?;
                    (path.clone(), &[])
                }
            };
            header
                .set_path(&path)
                .with_context(|| format!("the path /{path} in an image"))?;
            header.set_cksum();
            tar.append(&header, bytes)?;
        }
        Ok(tar.into_inner()?)
    }
}

/// As OCI spells it.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn listing(layer: &Layer) -> Vec<String> {
        let packed = layer.pack().unwrap();
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(packed.bytes.as_slice())
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(packed.diff_id, digest(&tar));
        assert_eq!(packed.unpacked, tar.len() as u64);
        tar::Archive::new(tar.as_slice())
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!(header.mtime().unwrap(), 0);
                assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
                format!(
                    "{:?} {:o} {}",
                    header.entry_type(),
                    header.mode().unwrap(),
                    entry.path().unwrap().display()
                )
            })
            .collect()
    }

    #[test]
    fn entries_are_sorted_owned_by_root_and_have_their_folders() {
        let layer = Layer::new("test")
            .file("/usr/local/bin/b", 0o755, "b")
            .unwrap()
            .folder("/tmp", 0o1777)
            .unwrap()
            .file("/etc/a", 0o644, "a")
            .unwrap()
            .link("/bin", "usr/local/bin")
            .unwrap()
            .folder("/etc", 0o750)
            .unwrap();
        assert_eq!(
            listing(&layer),
            [
                "Symlink 777 bin",
                "Directory 750 etc/",
                "Regular 644 etc/a",
                "Directory 1777 tmp/",
                "Directory 755 usr/",
                "Directory 755 usr/local/",
                "Directory 755 usr/local/bin/",
                "Regular 755 usr/local/bin/b",
            ]
        );
    }

    #[test]
    fn the_order_of_adding_changes_nothing() {
        let one = Layer::new("one")
            .file("/a", 0o644, "1")
            .unwrap()
            .file("/b", 0o644, "2")
            .unwrap();
        let other = Layer::new("other")
            .file("/b", 0o644, "2")
            .unwrap()
            .file("/a", 0o644, "1")
            .unwrap();
        assert_eq!(one.pack().unwrap().digest, other.pack().unwrap().digest);
    }

    #[test]
    fn a_path_must_be_plain_and_new() {
        for path in ["relative", "/a/../b", "/a//b", "/a/", "/"] {
            assert!(Layer::new("x").file(path, 0o644, "").is_err(), "{path}");
        }
        let layer = Layer::new("x").file("/a", 0o644, "1").unwrap();
        assert!(layer.clone().file("/a", 0o644, "2").is_err());
        assert!(layer.clone().folder("/a", 0o755).is_err());
        assert!(layer.file("/a/b", 0o644, "2").is_err());
    }
}
