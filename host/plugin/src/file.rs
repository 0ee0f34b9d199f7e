//! Reading plugin files, whatever lies in the directory.
//!
//! A plugins directory is what other people put there: a named pipe, a directory, a device, a link to nowhere, a mount whose
//! server is away. Only regular files are opened, and each look at the file system is made by a thread of its own, which is left
//! behind when it does not come back. Neither the process nor another plugin waits for it.

use std::fs::{File, FileType, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::sync::oneshot;

use crate::PluginError;

/// How long one look at the file system may take: reading a directory, or a whole plugin file.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);
/// Plugin files of one directory. More are somebody's mistake, such as a directory of build results.
const FILES: usize = 1_000;

/// The bytes of a plugin file.
pub(crate) async fn read(path: &Path, limit: u64) -> Result<Vec<u8>, PluginError> {
    let file = path.to_owned();
    in_time(path, DEADLINE, move || read_now(&file, limit)).await
}

/// The plugin files of a directory, sorted; or the one file that is named.
///
/// A mounted ConfigMap or Secret holds links through a hidden `..data`, which is a link itself: what is hidden is
/// skipped, and links are followed when a file is read.
pub(crate) async fn scan(place: &Path) -> Result<Vec<PathBuf>, PluginError> {
    let directory = place.to_owned();
    in_time(place, DEADLINE, move || scan_now(&directory)).await
}

/// Runs `look` in a thread of its own. Not in the runtime's pool: a thread that hangs there would keep the process from ending.
async fn in_time<T: Send + 'static>(
    path: &Path,
    limit: Duration,
    look: impl FnOnce() -> Result<T, PluginError> + Send + 'static,
) -> Result<T, PluginError> {
    let (tell, told) = oneshot::channel();
    let failed = |reason: String| PluginError::Unreadable {
        path: path.display().to_string(),
        reason,
    };
    std::thread::Builder::new()
        .name("plugin-reader".into())
        .spawn(move || {
            // Nobody may be waiting any more.
            let _ = tell.send(look());
        })
        .map_err(|error| failed(format!("no thread to read it: {error}")))?;
    match tokio::time::timeout(limit, told).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(failed("reading it ended without an answer".into())),
        Err(_) => Err(failed(format!(
            "no answer within {limit:?}; is its file system mounted, and its server reachable?"
        ))),
    }
}

fn read_now(path: &Path, limit: u64) -> Result<Vec<u8>, PluginError> {
    let failed = |error: io::Error| unreadable(path, &error);
    // Before it is opened: merely opening a pipe or a device can block, or do something.
    regular(path, &std::fs::metadata(path).map_err(failed)?)?;
    let file = File::options()
        .read(true)
        // What it is may have changed since; then opening it must not block either.
        .custom_flags(i32::from_ne_bytes(
            (OFlags::NONBLOCK | OFlags::NOCTTY).bits().to_ne_bytes(),
        ))
        .open(path)
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    regular(path, &found)?;
    let too_large = Err(PluginError::TooLarge { limit });
    if found.len() > limit {
        return too_large;
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return too_large;
    }
    Ok(bytes)
}

fn regular(path: &Path, found: &Metadata) -> Result<(), PluginError> {
    if found.is_file() {
        return Ok(());
    }
    Err(PluginError::NotAFile {
        path: path.display().to_string(),
        what: what(found.file_type()),
    })
}

/// What something is that is not a file.
fn what(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something else"
    }
}

fn scan_now(place: &Path) -> Result<Vec<PathBuf>, PluginError> {
    let failed = |error: io::Error| unreadable(place, &error);
    let is_wasm = |path: &Path| path.extension().is_some_and(|extension| extension == "wasm");
    let entries = match std::fs::read_dir(place) {
        // One file. What it really is, is told when it is read.
        Err(error) if is_wasm(place) && error.kind() != ErrorKind::NotFound => {
            return Ok(vec![place.to_owned()]);
        }
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let path = entry.path();
        // Whatever is called like a plugin stays in the list: reading it says what is wrong.
        if hidden || !is_wasm(&path) {
            continue;
        }
        if files.len() == FILES {
            tracing::error!(place = %place.display(), "more than {FILES} plugin files; the others are not used");
            break;
        }
        files.push(path);
    }
    files.sort();
    Ok(files)
}

/// Says what is wrong, and what would mend it.
fn unreadable(path: &Path, error: &io::Error) -> PluginError {
    let link = std::fs::read_link(path).ok();
    let reason = match (error.kind(), link) {
        (ErrorKind::NotFound, Some(target)) => {
            format!("it is a link that leads to nothing, {}", target.display())
        }
        (ErrorKind::PermissionDenied, _) => format!(
            "{error}; make it readable for user {}",
            rustix::process::geteuid().as_raw()
        ),
        (_, Some(target)) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            format!("its links lead in a circle, first to {}", target.display())
        }
        _ => error.to_string(),
    };
    PluginError::Unreadable {
        path: path.display().to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn author_04_a_look_that_hangs_is_left_behind() {
        let (_keep, hang) = std::sync::mpsc::channel::<()>();
        let answer = in_time(Path::new("/mnt/x.wasm"), DEADLINE, move || {
            // As a read of a mount whose server is away.
            let _ = hang.recv();
            Ok(())
        });
        let text = answer.await.unwrap_err().to_string();
        assert!(text.contains("/mnt/x.wasm") && text.contains("15s"), "{text}");
    }
}
