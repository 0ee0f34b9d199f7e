//! Compiling a component, in a process of its own where there is one.
//!
//! A compiler is large, its input is what somebody put into a directory, and what it needs of memory can only be bounded from
//! outside. So it runs in a child process with a limit, which leaves what it made in the cache: a component that panics it,
//! overflows its stack, or needs more memory than there is ends the child, and nobody else. Without a cache it runs in a thread
//! of this process, which only survives its panics.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::host::clip;
use crate::load::digest;
use crate::{EngineConfig, HostEngine, Metrics, PluginError};

/// Bytes of the compiler's stack. It recurses with the nesting of the code that it is given.
const STACK: usize = 16 << 20;
/// Exit status of a child that tells on stdout what is wrong with the component.
pub const REFUSED: u8 = 3;
/// Exit status of a child that needed more memory than it may use.
const TOO_MUCH: u8 = 4;
/// How often a child looks at its memory. Compiling takes some 50 MiB in that time at most.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of a child's words that are read.
const SAID: u64 = 16 << 10;

/// A program that compiles: this one, as a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompilerProcess {
    /// The program. It is called with `arguments`, the cache directory, and the most bytes of memory that it may use; the
    /// component is its standard input.
    pub program: PathBuf,
    /// What comes before the cache directory.
    pub arguments: Vec<String>,
    /// The most bytes of memory that it may use.
    pub memory: u64,
}

/// The component of `bytes`, from the cache or compiled now. Compiling takes a tenth of a second for a Rust guest, and 20 s for
/// an interpreter; one component is compiled at a time.
pub(crate) async fn component(
    engine: &HostEngine,
    digest: &str,
    bytes: Arc<Vec<u8>>,
) -> Result<Component, PluginError> {
    looks_like_a_component(&bytes)?;
    if let Some(component) = cached(engine, digest).await {
        return Ok(component);
    }
    let internal = |reason: String| PluginError::Internal { reason };
    let place = Arc::clone(engine.compiler()).acquire_owned().await;
    let place = place.map_err(|error| internal(error.to_string()))?;
    let limit = engine.config().compile_limit;
    let too_long = |_| PluginError::Malformed {
        reason: format!("compiling it took longer than {limit:?}"),
    };
    if let (Some(process), Some(directory)) = (&engine.config().compiler, engine.cache_parent()) {
        let compiled = in_child(process, directory, &bytes);
        tokio::time::timeout(limit, compiled).await.map_err(too_long)??;
        return cached(engine, digest)
            .await
            .ok_or_else(|| internal("what was compiled is not in the cache".into()));
    }
    let (compiler, digest) = (engine.clone(), digest.to_owned());
    let compiled = aside(move || {
        // Given back when the compiler ends, which may be after nobody waits any more.
        let _place = place;
        compile_and_keep(&compiler, &digest, &bytes)
    });
    tokio::time::timeout(limit, compiled).await.map_err(too_long)?
}

fn compile_and_keep(engine: &HostEngine, digest: &str, bytes: &[u8]) -> Result<Component, PluginError> {
    let component = compile(engine.engine(), bytes)?;
    if let Some(cache) = engine.cache()
        && let Err(error) = cache.store(engine.engine(), digest, &component)
    {
        tracing::warn!("a compiled plugin is not kept: {error}");
    }
    Ok(component)
}

/// What was compiled before.
async fn cached(engine: &HostEngine, digest: &str) -> Option<Component> {
    let cache = engine.cache()?.clone();
    let (engine, digest) = (engine.engine().clone(), digest.to_owned());
    let found = aside(move || {
        Ok(cache.load(&engine, &digest).unwrap_or_else(|error| {
            tracing::warn!("a compiled plugin is compiled anew: {error}");
            None
        }))
    });
    found.await.ok().flatten()
}

/// Has a child put it into the cache. Dropping the future ends the child.
async fn in_child(process: &CompilerProcess, directory: &Path, bytes: &[u8]) -> Result<(), PluginError> {
    let internal = |what: &str, error: std::io::Error| PluginError::Internal {
        reason: format!("{what} the compiler, {}: {error}", process.program.display()),
    };
    let mut child = tokio::process::Command::new(&process.program)
        .args(&process.arguments)
        .arg(directory)
        .arg(process.memory.to_string())
        // Not even what this process knows by its environment.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| internal("cannot start", error))?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut input) = input {
            // It may have ended already; its status says why.
            let _ = input.write_all(bytes).await;
        }
    };
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let listen = async {
        if let Some(output) = output {
            let _ = output.take(SAID).read_to_end(&mut said).await;
        }
    };
    let overhear = async {
        if let Some(errors) = errors {
            let _ = errors.take(SAID).read_to_end(&mut complained).await;
        }
    };
    let ((), (), (), status) = tokio::join!(feed, listen, overhear, child.wait());
    let status = status.map_err(|error| internal("cannot wait for", error))?;
    outcome(status, &said, &complained, process.memory)
}

/// What the end of a child means.
fn outcome(status: ExitStatus, said: &[u8], complained: &[u8], memory: u64) -> Result<(), PluginError> {
    if status.success() {
        return Ok(());
    }
    let text = |bytes: &[u8]| clip(String::from_utf8_lossy(bytes).trim().to_owned(), SAID as usize);
    let malformed = |reason: String| Err(PluginError::Malformed { reason });
    if status.code() == Some(i32::from(REFUSED)) {
        return malformed(text(said));
    }
    if status.code() == Some(i32::from(TOO_MUCH)) {
        return Err(PluginError::CompilerMemory { limit: memory });
    }
    let complained = text(complained);
    malformed(format!(
        "the compiler ended on it ({status}), which is a fault of the compiler: {complained}"
    ))
}

/// What a [`CompilerProcess`] does: compiles its standard input into the cache below `directory`, with at most `memory` bytes.
///
/// # Errors
/// What it has to say on stdout, to end with [`REFUSED`].
pub fn compile_into(directory: &Path, memory: u64) -> Result<(), String> {
    let compiled = (|| {
        let config = EngineConfig {
            cache: Some(directory.to_owned()),
            ..EngineConfig::default()
        };
        let limit = config.file_limit;
        let engine = HostEngine::new(config, Metrics::default())?;
        let internal = |reason: String| PluginError::Internal { reason };
        std::thread::Builder::new()
            .name("memory-watch".into())
            .spawn(move || watch(memory))
            .map_err(|error| internal(format!("no thread that watches memory: {error}")))?;
        // Traffic comes first.
        let _ = rustix::process::nice(10);
        let mut bytes = Vec::new();
        std::io::stdin()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| internal(format!("nothing to compile: {error}")))?;
        let cache = engine
            .cache()
            .ok_or_else(|| internal("the cache cannot be used".into()))?;
        let work = || -> Result<(), PluginError> {
            let component = compile(engine.engine(), &bytes)?;
            cache
                .store(engine.engine(), &digest(&bytes), &component)
                .map_err(|error| internal(error.to_string()))
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, || caught(work));
            match thread {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|_| Err(internal("the compiler ended".into()))),
                Err(error) => Err(internal(format!("no thread for the compiler: {error}"))),
            }
        })
    })();
    compiled.map_err(|error: PluginError| match error {
        PluginError::Malformed { reason } => reason,
        error => error.to_string(),
    })
}

/// Ends this process when it has more private memory than `most`. Limits of the kernel do not do that: they count what is set aside
/// (`RLIMIT_AS`, `RLIMIT_DATA`), of which an allocator and the pool have gigabytes that nobody touches.
fn watch(most: u64) {
    while used() <= most {
        std::thread::park_timeout(LOOK);
    }
    std::process::exit(i32::from(TOO_MUCH));
}

/// Bytes of private memory in use.
fn used() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or_default().saturating_mul(1024)
}

/// Runs `work` in a thread of its own with a deep stack, and makes an error of a panic.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PluginError> + Send + 'static,
) -> Result<T, PluginError> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let internal = |reason: String| PluginError::Internal { reason };
    std::thread::Builder::new()
        .name("plugin-compiler".into())
        .stack_size(STACK)
        .spawn(move || {
            // Nobody may be waiting any more.
            let _ = tell.send(caught(work));
        })
        .map_err(|error| internal(format!("no thread for the compiler: {error}")))?;
    told.await
        .unwrap_or_else(|_| Err(internal("the compiler ended without an answer".into())))
}

fn caught<T>(work: impl FnOnce() -> Result<T, PluginError>) -> Result<T, PluginError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("without a message");
        Err(PluginError::Malformed {
            reason: format!("the compiler failed on it, which is a fault of the compiler: {said}"),
        })
    })
}

fn looks_like_a_component(bytes: &[u8]) -> Result<(), PluginError> {
    let not = |reason: &str| {
        Err(PluginError::NotAComponent {
            reason: reason.to_owned(),
        })
    };
    match bytes {
        [] => not("the file is empty"),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            not("it is a core module; build for the target wasm32-wasip2")
        }
        [0, b'a', b's', b'm', ..] => Ok(()),
        _ => not("it does not begin like WebAssembly"),
    }
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, PluginError> {
    Component::from_binary(engine, bytes).map_err(|error| PluginError::Malformed {
        reason: match cut_off_at(bytes) {
            Some(wanted) => format!(
                "it ends after {} bytes, in the middle of a section that goes on until {wanted}; was it copied whole?",
                bytes.len()
            ),
            None => format!("{error:#}"),
        },
    })
}

/// Where the section ends that the file breaks off in, if it does.
fn cut_off_at(bytes: &[u8]) -> Option<usize> {
    let mut at = 8;
    while at < bytes.len() {
        let (mut size, mut shift) = (0_usize, 0);
        at += 1;
        loop {
            let Some(byte) = bytes.get(at) else {
                return Some(at + 1);
            };
            at += 1;
            size |= usize::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        at = at.checked_add(size)?;
    }
    (at > bytes.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn author_05_the_end_of_a_child_tells_what_was_wrong() {
        use std::os::unix::process::ExitStatusExt;
        let ended =
            |code: i32, said: &str| outcome(ExitStatus::from_raw(code << 8), said.as_bytes(), b"", 1 << 20);
        assert!(ended(0, "").is_ok());
        let error = ended(i32::from(TOO_MUCH), "").unwrap_err();
        assert!(error.to_string().contains("resources.limits.memory"), "{error}");
        let error = ended(i32::from(REFUSED), "failed to parse").unwrap_err();
        assert_eq!(error.to_string().matches("failed to parse").count(), 1, "{error}");
        let killed = outcome(ExitStatus::from_raw(11), b"", b"stack overflow", 1 << 20).unwrap_err();
        assert!(killed.to_string().contains("stack overflow"), "{killed}");
    }

    #[test]
    fn a_panic_of_the_compiler_is_an_error() {
        let error = caught(|| -> Result<(), _> { panic!("invalid adapter module generated") }).unwrap_err();
        assert_eq!(error.code(), "malformed");
        assert!(error.to_string().contains("invalid adapter module"), "{error}");
    }

    #[test]
    fn a_file_that_breaks_off_says_where() {
        let whole = [0, b'a', b's', b'm', 13, 0, 1, 0, 0, 4, 1, b'a', 0, 0];
        assert_eq!(cut_off_at(&whole), None);
        assert_eq!(cut_off_at(&whole[..12]), Some(14));
    }
}
