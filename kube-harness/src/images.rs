//! The two images that every cluster has, made of Debian's static busybox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::requirements;
use xtask_oci::{Arch, Image, Layer, write_archive};

/// Holds a pod's namespaces open; named in e2e/cluster/config/containerd.toml.
const PAUSE: &str = "dormouse.test/pause:1";
/// A shell, wget and nslookup for tests.
pub const BUSYBOX: &str = "dormouse.test/busybox:1";

/// Writes both archives to a folder.
pub fn write(folder: &Path) -> Result<[PathBuf; 2]> {
    let program = requirements::find("busybox").context("busybox is not on the PATH")?;
    let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;

    let mut pause = Image::new(PAUSE.parse()?, Arch::of_this_machine()?, 0);
    pause.layers = vec![Layer::new("pause").file("/bin/busybox", 0o755, bytes.clone())?];
    pause.entrypoint = words(&["/bin/busybox", "sleep", "2147483647"]);
    pause.user = "65535:65535".to_owned();

    let mut layer = Layer::new("busybox")
        .file("/bin/busybox", 0o755, bytes)?
        .file(
            "/etc/passwd",
            0o644,
            "root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n",
        )?
        .file("/etc/group", 0o644, "root:x:0:\nnonroot:x:65532:\n")?
        .folder("/tmp", 0o1777)?;
    let applets = Command::new(&program)
        .arg("--list")
        .output()
        .context("cannot ask busybox for its applets")?;
    for applet in String::from_utf8_lossy(&applets.stdout).lines() {
        if applet != "busybox" {
            layer = layer.link(&format!("/bin/{applet}"), "busybox")?;
        }
    }
    let mut busybox = Image::new(BUSYBOX.parse()?, Arch::of_this_machine()?, 0);
    busybox.layers = vec![layer];
    busybox.cmd = words(&["/bin/sh"]);
    busybox.env.insert("PATH".to_owned(), "/bin".to_owned());

    let archives = [folder.join("pause.tar"), folder.join("busybox.tar")];
    write_archive(&pause, &archives[0])?;
    write_archive(&busybox, &archives[1])?;
    Ok(archives)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
