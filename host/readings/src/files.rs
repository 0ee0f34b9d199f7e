//! Small files that change while we run: tokens, passwords, certificates.

use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::io::AsyncReadExt;

/// A bundle of certificates is a few hundred kilobytes at most.
const LIMIT: u64 = 1 << 20;

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("file {} {problem}", path.display())]
pub struct FileError {
    /// Which.
    pub path: PathBuf,
    /// What is wrong with it. Never what it says.
    pub problem: String,
}

pub(crate) fn wrong(path: &Path, problem: impl Into<String>) -> FileError {
    FileError {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

/// All of a file.
pub(crate) async fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let unread = |error: std::io::Error| wrong(path, format!("cannot be read: {error}"));
    let file = tokio::fs::File::open(path).await.map_err(unread)?;
    let mut content = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut content)
        .await
        .map_err(unread)?;
    if content.len() as u64 > LIMIT {
        return Err(wrong(path, format!("is larger than {LIMIT} bytes")));
    }
    if content.iter().all(u8::is_ascii_whitespace) {
        return Err(wrong(path, "is empty"));
    }
    Ok(content)
}

/// The single line of a secret, without the line end that editors leave.
pub(crate) fn line<'a>(path: &Path, content: &'a [u8]) -> Result<&'a str, FileError> {
    let text = std::str::from_utf8(content).map_err(|_| wrong(path, "is not text"))?;
    let text = text.trim();
    if text.chars().any(char::is_control) {
        return Err(wrong(path, "has more than one line"));
    }
    Ok(text)
}
