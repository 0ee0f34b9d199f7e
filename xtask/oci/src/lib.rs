//! Container images written without a container engine: an OCI image layout in one tar archive.
//!
//! The same input gives the same bytes on every machine: entries are sorted, owned by root and of one time; the compressor
//! is ours. What reads the archive is told its name in each way that is in use
//! (see `archive`), so that containerd, Docker, Podman and skopeo need no further arguments.

mod archive;
mod layer;
mod reference;
mod time;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};

pub use self::archive::{Written, WrittenLayer};
pub use self::layer::Layer;
pub use self::reference::Reference;
pub use self::time::rfc3339;

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arch {
    /// x86-64
    Amd64,
    /// AArch64
    Arm64,
}

impl Arch {
    /// As images and Go spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// That of this machine.
    pub fn of_this_machine() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("images are made for amd64 and arm64, and this machine is {other}: say --arch"),
        }
    }
}

/// One image for one architecture.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it is called, such as `dormouse:0.1.0`.
    pub reference: Reference,
    /// What it runs on.
    pub arch: Arch,
    /// When it was made, in seconds since 1970, as its configuration says. Files carry no time.
    pub created: u64,
    /// From the bottom to the top: what changes least comes first, so that a node fetches less of the next version.
    pub layers: Vec<Layer>,
    /// Numeric, `uid:gid`: Kubernetes cannot verify `runAsNonRoot` of a name. Empty: root.
    pub user: String,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that a pod replaces by its `args`.
    pub cmd: Vec<String>,
    /// Variables, by name.
    pub env: BTreeMap<String, String>,
    /// Where the program starts. Empty: the root folder.
    pub working_dir: String,
    /// TCP ports, for people only.
    pub ports: Vec<u16>,
    /// Written as labels of the image (`docker inspect`) and as annotations of the manifest (registries).
    pub labels: BTreeMap<String, String>,
}

impl Image {
    /// An image without anything in it that runs as root.
    pub fn new(reference: Reference, arch: Arch, created: u64) -> Self {
        Self {
            reference,
            arch,
            created,
            layers: Vec::new(),
            user: String::new(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: BTreeMap::new(),
            working_dir: String::new(),
            ports: Vec::new(),
            labels: BTreeMap::new(),
        }
    }
}

/// Writes the image as one tar archive. The file appears complete or not at all.
pub fn write_archive(image: &Image, file: &Path) -> Result<Written> {
    archive::write(image, file)
}
