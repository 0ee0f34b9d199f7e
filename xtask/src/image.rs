//! `cargo xtask image`: the container image, without a container engine.

mod binary;
mod check;
mod content;
pub mod dev;
mod origin;
mod sbom;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use self::binary::Program;
use self::origin::Origin;
use crate::guests;
use crate::tools;
use crate::workspace::Workspace;
use xtask_command::Steps;
use xtask_oci::{self as oci, Arch, Image, Layer, Reference, Written};

/// The image of the pods of the end-to-end tests; their manifests name it.
const WORKLOAD: &str = "dormouse.test/workload:1";

/// What `cargo xtask image` takes.
#[derive(clap::Args)]
pub struct Args {
    /// What the image runs on. Default: what this machine is
    #[arg(long, value_name = "ARCH")]
    arch: Option<Arch>,
    /// The archive to write. Default: NAME-VERSION-ARCH.tar in the folder image of cargo's target folder
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What the image is called. Default: dormouse with its version
    #[arg(long, value_name = "REF")]
    tag: Option<Reference>,
    /// Builds dormouse.test/workload:1 instead, which answers in the pods of the end-to-end tests
    #[arg(long)]
    workload: bool,
    /// Writes the image's files into a new folder instead of an archive, for the Dockerfile
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output", "tag", "workload", "check"])]
    rootfs: Option<PathBuf>,
    /// Packs the program as the tests build it, for this machine alone: minutes faster, larger, and slower
    #[arg(long, conflicts_with_all = ["arch", "output", "tag", "rootfs", "check"])]
    dev: bool,
    /// Builds it a second time, from a copy of the checkout at another path, and compares the digests
    #[arg(long, conflicts_with_all = ["output", "workload"])]
    check: bool,
}

/// Builds the image that was asked for and says what is in it.
pub fn command(workspace: &Workspace, args: Args) -> Result<()> {
    if args.dev {
        return dev::command(workspace, args.workload);
    }
    let arch = match args.arch {
        Some(arch) => arch,
        None => Arch::of_this_machine()?,
    };
    if args.check {
        return check::check(workspace, arch);
    }
    if let Some(folder) = args.rootfs {
        return rootfs(workspace, arch, &folder);
    }
    let (image, written) = if args.workload {
        workload(workspace, arch, args.tag, args.output)?
    } else {
        dormouse(workspace, arch, args.tag, args.output)?
    };
    report(workspace, &image, &written);
    Ok(())
}

/// Builds the image of Dormouse.
pub fn dormouse(
    workspace: &Workspace,
    arch: Arch,
    tag: Option<Reference>,
    output: Option<PathBuf>,
) -> Result<(Image, Written)> {
    let origin = Origin::of(workspace)?;
    let mut steps = Steps::new(4);
    let content = build(workspace, arch, &origin, &mut steps)?;
    let reference = match tag {
        Some(tag) => tag,
        None => format!("dormouse:{}", origin.version).parse()?,
    };
    steps.run("write the image", || {
        let image = assemble(reference, arch, &origin, &content)?;
        let file = output.unwrap_or_else(|| archive(workspace, "dormouse", &origin.version, arch));
        let written = oci::write_archive(&image, &file)?;
        let beside = file.with_extension("spdx.json");
        std::fs::write(&beside, &content.sbom)
            .with_context(|| format!("cannot write {}", beside.display()))?;
        Ok((image, written))
    })
}

/// Builds the image of the pods of the end-to-end tests.
pub fn workload(
    workspace: &Workspace,
    arch: Arch,
    tag: Option<Reference>,
    output: Option<PathBuf>,
) -> Result<(Image, Written)> {
    let origin = Origin::of(workspace)?;
    let mut steps = Steps::new(3);
    steps.run("check the tools", || tools::for_image(workspace, arch))?;
    let program = steps.run("build the workload of the end-to-end tests", || {
        binary::build(workspace, arch, Program::Workload)
    })?;
    let reference = match tag {
        Some(tag) => tag,
        None => WORKLOAD.parse()?,
    };
    steps.run("write the image", || {
        let file = output.unwrap_or_else(|| archive(workspace, "workload", reference.tag(), arch));
        let mut image = Image::new(reference, arch, origin.created);
        image.layers = vec![
            content::base()?,
            Layer::new("the workload of the end-to-end tests").file(
                Program::Workload.path(),
                0o755,
                program,
            )?,
        ];
        image.user = content::USER.to_owned();
        image.entrypoint = vec![Program::Workload.path().to_owned()];
        image.ports = Program::Workload.ports().to_vec();
        image.labels = origin.labels(
            "dormouse-workload",
            "Answers HTTP in the pods of Dormouse's end-to-end tests",
        );
        let written = oci::write_archive(&image, &file)?;
        Ok((image, written))
    })
}

/// What the image of Dormouse is made of.
#[derive(Clone)]
struct Content {
    program: Vec<u8>,
    /// By name, without the extension.
    plugins: Vec<(String, Vec<u8>)>,
    sbom: String,
}

/// Builds everything that goes into it, in three steps.
fn build(workspace: &Workspace, arch: Arch, origin: &Origin, steps: &mut Steps) -> Result<Content> {
    steps.run("check the tools", || {
        tools::for_image(workspace, arch)?;
        tools::for_guests(workspace)
    })?;
    let plugins = steps.run(guests::WHAT, || {
        guests::build(workspace)?;
        guests::built(workspace)
    })?;
    let program = steps.run(
        "build dormouse statically, optimised (the first time compiles wasmtime too: about ten minutes)",
        || binary::build(workspace, arch, Program::Dormouse),
    )?;
    let sbom = sbom::write(workspace, arch, origin, &program, &plugins)?;
    Ok(Content {
        program,
        plugins,
        sbom,
    })
}

/// Cheap, and depends on nothing but its arguments.
fn assemble(reference: Reference, arch: Arch, origin: &Origin, content: &Content) -> Result<Image> {
    let mut image = Image::new(reference, arch, origin.created);
    image.layers = layers(content)?;
    image.user = content::USER.to_owned();
    image.entrypoint = vec![content::PROGRAM.to_owned()];
    image.env = content::env();
    image.ports = Program::Dormouse.ports().to_vec();
    image.labels = origin.labels(
        "dormouse",
        "Puts idle Kubernetes workloads to sleep and wakes them by their traffic",
    );
    Ok(image)
}

/// What changes least comes first: a node that has the last version fetches only what is new.
fn layers(content: &Content) -> Result<Vec<Layer>> {
    let plugins = plugins(&content.plugins)?;
    let program = Layer::new("dormouse and its bill of materials")
        .file(content::PROGRAM, 0o755, content.program.clone())?
        .file(content::SBOM, 0o644, content.sbom.clone())?;
    Ok(vec![content::base()?, plugins, program])
}

fn plugins(plugins: &[(String, Vec<u8>)]) -> Result<Layer> {
    let mut layer = Layer::new("the bundled resource-scalers").folder(content::PLUGINS, 0o755)?;
    for (name, bytes) in plugins {
        layer = layer.file(&format!("{}/{name}.wasm", content::PLUGINS), 0o644, bytes.clone())?;
    }
    Ok(layer)
}

/// The same files in a folder: what the Dockerfile copies.
fn rootfs(workspace: &Workspace, arch: Arch, folder: &Path) -> Result<()> {
    if folder.exists() {
        bail!("{} exists already: name a folder that does not", folder.display());
    }
    let origin = Origin::of(workspace)?;
    let mut steps = Steps::new(4);
    let content = build(workspace, arch, &origin, &mut steps)?;
    steps.run("write the files", || {
        for layer in layers(&content)? {
            layer.unpack(folder)?;
        }
        Ok(())
    })
}

fn archive(workspace: &Workspace, name: &str, version: &str, arch: Arch) -> PathBuf {
    workspace
        .target()
        .join("image")
        .join(format!("{name}-{version}-{}.tar", arch.name()))
}

fn report(workspace: &Workspace, image: &Image, written: &Written) {
    let mib = |bytes: u64| format!("{:.2}", bytes as f64 / (1024.0 * 1024.0));
    println!("\n{}  linux/{}", image.reference, image.arch.name());
    println!("{:36}  {:>8}  {:>8}  digest", "layer", "MiB", "unpacked");
    println!("{:-<36}  {:->8}  {:->8}  {:-<71}", "", "", "", "");
    for layer in &written.layers {
        println!(
            "{:36}  {:>8}  {:>8}  {}",
            layer.title,
            mib(layer.size),
            mib(layer.unpacked),
            layer.digest
        );
    }
    let sum = |field: fn(&oci::WrittenLayer) -> u64| mib(written.layers.iter().map(field).sum());
    println!(
        "{:36}  {:>8}  {:>8}  {}",
        "image",
        sum(|layer| layer.size),
        sum(|layer| layer.unpacked),
        written.digest
    );
    println!("\n{}  {} MiB", workspace.shown(&written.file), mib(written.size));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        Content {
            program: (0..200_000_u32).flat_map(u32::to_le_bytes).collect(),
            plugins: vec![("workloads".to_owned(), b"\0asm".to_vec())],
            sbom: "{}".to_owned(),
        }
    }

    fn origin() -> Origin {
        Origin {
            version: "1.2.3".to_owned(),
            licence: "Apache-2.0".to_owned(),
            created: 1_700_000_000,
            revision: Some("0123abc".to_owned()),
        }
    }

    fn assembled() -> Image {
        assemble(
            "dormouse:1.2.3".parse().unwrap(),
            Arch::Amd64,
            &origin(),
            &content(),
        )
        .unwrap()
    }

    #[test]
    fn the_same_program_gives_the_same_archive() {
        let folder = std::env::temp_dir().join(format!("dormouse-xtask-image-{}", std::process::id()));
        let write = |name: &str| {
            let file = folder.join(name);
            let written = oci::write_archive(&assembled(), &file).unwrap();
            (std::fs::read(file).unwrap(), written.digest, written.layers)
        };
        let (one, other) = (write("one.tar"), write("other.tar"));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(one == other, "two archives of one program differ");
    }

    #[test]
    fn only_the_layer_of_the_program_changes_with_the_program() {
        let digests = |image: &Image| -> Vec<String> {
            let layers = image.layers.iter();
            layers.map(|layer| layer.pack().unwrap().digest).collect()
        };
        let before = digests(&assembled());
        let mut changed = content();
        changed.program.push(1);
        let later = Origin {
            created: 1_800_000_000,
            revision: Some("4567def".to_owned()),
            ..origin()
        };
        let image = assemble("dormouse:1".parse().unwrap(), Arch::Amd64, &later, &changed).unwrap();
        let after = digests(&image);
        assert_eq!(before[..2], after[..2]);
        assert_ne!(before[2], after[2]);
    }

    #[test]
    fn nothing_runs_as_root_and_there_is_no_shell() {
        let image = assembled();
        assert_eq!(image.user, "65532:65532");
        let paths: Vec<_> = image.layers.iter().flat_map(Layer::paths).collect();
        assert!(paths.contains(&content::PROGRAM.to_owned()), "{paths:?}");
        assert!(paths.contains(&"/plugins/workloads.wasm".to_owned()), "{paths:?}");
        assert!(!paths.iter().any(|path| path.ends_with("/sh")), "{paths:?}");
    }

    #[test]
    fn the_dockerfile_starts_the_same_program_as_the_same_user() {
        let workspace = Workspace::locate().unwrap();
        let dockerfile = std::fs::read_to_string(workspace.path("Dockerfile")).unwrap();
        let image = assembled();
        for line in [
            format!("USER {}", image.user),
            format!("ENTRYPOINT [\"{}\"]", content::PROGRAM),
            format!("EXPOSE {} {}", image.ports[0], image.ports[1]),
        ] {
            assert!(dockerfile.lines().any(|found| found == line), "no line `{line}`");
        }
        let channel = format!("FROM rust:{}", env!("CARGO_PKG_RUST_VERSION"));
        assert!(dockerfile.contains(&channel), "{channel}");
        assert!(image.env.is_empty(), "the Dockerfile sets no variables");
    }
}
