//! The directory of compiled components.

use std::fs::{DirBuilder, File, Metadata};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::code::{OwnCode, component};

/// The first bytes of a file: what it is, and in which format.
const MAGIC: &[u8; 16] = b"dormouse-aot-01\n";
const HASH: usize = 32;
const HEADER: usize = MAGIC.len() + 2 * HASH;

/// Why a cache is not used, or an entry of it.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The directory or file.
        path: String,
        /// What it said.
        source: io::Error,
    },
    /// Somebody else could have written it.
    #[error("{path} is not used: {why}")]
    Untrusted {
        /// The directory or file.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// wasmtime does not take it.
    #[error("{path}: {reason}")]
    Code {
        /// The file.
        path: String,
        /// What wasmtime says.
        reason: String,
    },
}

/// Compiled components in a directory of their own.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
    limit: u64,
}

impl Cache {
    /// The cache below `parent`: a directory for our user alone (mode 0700), which is made when it is missing. `limit` is the
    /// most bytes that it may hold.
    ///
    /// # Errors
    ///
    /// [`CacheError::Io`] when it cannot be made, [`CacheError::Untrusted`] when it belongs to somebody else or somebody else
    /// may write it.
    pub fn open(parent: &Path, limit: u64) -> Result<Cache, CacheError> {
        let user = rustix::process::geteuid().as_raw();
        // A name for each user: a volume that outlives a change of the user is used all the same.
        let directory = parent.join(format!("compiled-{user}"));
        let failed = |source| CacheError::Io {
            path: directory.display().to_string(),
            source,
        };
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let found = std::fs::symlink_metadata(&directory).map_err(failed)?;
        let why = if !found.is_dir() {
            Some("it is no directory")
        } else if found.uid() != user {
            Some("it belongs to another user")
        } else if found.mode() & 0o077 != 0 {
            Some("others may enter it; its mode has to be 0700")
        } else {
            None
        };
        match why {
            Some(why) => Err(CacheError::Untrusted {
                path: directory.display().to_string(),
                why,
            }),
            None => Ok(Cache { directory, limit }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The component whose file has the SHA-256 `digest`, if it was compiled before by this version of wasmtime, with the
    /// configuration of `engine`, for this processor.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when there is an entry that is not what was written: it is deleted.
    pub fn load(&self, engine: &Engine, digest: &str) -> Result<Option<Component>, CacheError> {
        let key = key(engine, digest);
        let path = self.path(&key);
        let loaded = self.load_from(engine, &path, &key);
        if loaded.is_err() {
            // Whatever it is, it is of no use.
            let _ = std::fs::remove_file(&path);
        }
        loaded
    }

    fn load_from(&self, engine: &Engine, path: &Path, key: &[u8]) -> Result<Option<Component>, CacheError> {
        let Some(code) = self.own_code(path, key)? else {
            return Ok(None);
        };
        component(engine, &code)
            .map(Some)
            .map_err(|error| CacheError::Code {
                path: path.display().to_string(),
                reason: format!("{error:#}"),
            })
    }

    /// The code in a file of ours, if it is what was written.
    fn own_code(&self, path: &Path, key: &[u8]) -> Result<Option<OwnCode>, CacheError> {
        let failed = |source| CacheError::Io {
            path: path.display().to_string(),
            source,
        };
        let untrusted = |why| {
            Err(CacheError::Untrusted {
                path: path.display().to_string(),
                why,
            })
        };
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::options()
            .read(true)
            .custom_flags(i32::from_ne_bytes(flags.bits().to_ne_bytes()))
            .open(path);
        let mut file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let found = file.metadata().map_err(failed)?;
        if let Some(why) = not_ours(&found) {
            return untrusted(why);
        }
        if found.len() > self.limit || found.len() < HEADER as u64 {
            return untrusted("it has not the size of an entry");
        }
        let mut content = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default());
        Read::by_ref(&mut file)
            .take(self.limit)
            .read_to_end(&mut content)
            .map_err(failed)?;
        let header = content.get(..HEADER).unwrap_or_default();
        let (magic, rest) = header.split_at_checked(MAGIC.len()).unwrap_or_default();
        let (for_key, hash) = rest.split_at_checked(HASH).unwrap_or_default();
        if magic != MAGIC || for_key != key {
            return untrusted("it is something else");
        }
        if Sha256::digest(content.get(HEADER..).unwrap_or_default()).as_slice() != hash {
            return untrusted("its content is not what was written");
        }
        // So that what is used is deleted last.
        let _ = file.set_modified(jiff::Timestamp::now().into());
        Ok(Some(OwnCode(content.split_off(HEADER))))
    }

    /// Keeps what was compiled. What was used longest ago makes room.
    ///
    /// # Errors
    ///
    /// [`CacheError`]. The component can be used all the same.
    pub fn store(&self, engine: &Engine, digest: &str, component: &Component) -> Result<(), CacheError> {
        let key = key(engine, digest);
        let path = self.path(&key);
        let code = component.serialize().map_err(|error| CacheError::Code {
            path: path.display().to_string(),
            reason: format!("{error:#}"),
        })?;
        let size = (HEADER + code.len()) as u64;
        if size > self.limit {
            return Err(CacheError::Untrusted {
                path: path.display().to_string(),
                why: "it is larger than the whole cache may be",
            });
        }
        self.make_room(size);
        self.write(&path, &key, &code).map_err(|source| CacheError::Io {
            path: path.display().to_string(),
            source,
        })
    }

    /// Whole or not at all: a process that ends half-way leaves a file of another name.
    fn write(&self, path: &Path, key: &[u8], code: &[u8]) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let draft = self.directory.join(format!("{name}.{}", std::process::id()));
        let _ = std::fs::remove_file(&draft);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        let written = file
            .write_all(MAGIC)
            .and_then(|()| file.write_all(key))
            .and_then(|()| file.write_all(&Sha256::digest(code)))
            .and_then(|()| file.write_all(code))
            .and_then(|()| std::fs::rename(&draft, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
        written
    }

    /// Deletes what was used longest ago, until `size` more bytes fit.
    fn make_room(&self, size: u64) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return;
        };
        let mut files: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let found = entry.metadata().ok()?;
                Some((found.modified().ok()?, found.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut used: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, length, path) in files {
            if used.saturating_add(size) <= self.limit {
                return;
            }
            tracing::debug!(path = %path.display(), "a compiled component makes room");
            if std::fs::remove_file(&path).is_ok() {
                used = used.saturating_sub(length);
            }
        }
    }

    fn path(&self, key: &[u8]) -> PathBuf {
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(format!("{name}.cwasm"))
    }
}

/// Why a file may have been written by somebody else.
fn not_ours(found: &Metadata) -> Option<&'static str> {
    if !found.is_file() {
        Some("it is no file")
    } else if found.uid() != rustix::process::geteuid().as_raw() {
        Some("it belongs to another user")
    } else if found.mode() & 0o022 != 0 {
        Some("others may write it")
    } else if found.nlink() != 1 {
        Some("it has another name elsewhere")
    } else {
        None
    }
}

/// What compiled code depends on: the component, and wasmtime's version, configuration and target with its CPU features.
fn key(engine: &Engine, digest: &str) -> [u8; HASH] {
    /// Feeds what implements `Hash` into SHA-256: the standard hashers are too short for a name that must not collide.
    struct Long(Sha256);
    impl Hasher for Long {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut long = Long(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut long);
    long.write(digest.as_bytes());
    long.0.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn compiled(engine: &Engine) -> Component {
        Component::new(engine, "(component (core module (func (export \"f\"))))").unwrap()
    }

    /// The only file of the cache.
    fn entry(cache: &Cache) -> PathBuf {
        let mut files = std::fs::read_dir(cache.directory()).unwrap();
        let file = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none());
        file
    }

    #[test]
    fn author_05_what_was_compiled_is_found_again_by_digest_and_engine() {
        let parent = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = Cache::open(parent.path(), 1 << 20).unwrap();
        assert!(cache.load(&engine, "a").unwrap().is_none());
        cache.store(&engine, "a", &compiled(&engine)).unwrap();

        let again = Cache::open(parent.path(), 1 << 20).unwrap();
        assert!(again.load(&engine, "a").unwrap().is_some());
        assert!(again.load(&engine, "b").unwrap().is_none(), "another component");
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let other = Engine::new(&config).unwrap();
        assert!(
            again.load(&other, "a").unwrap().is_none(),
            "another configuration"
        );
        assert_eq!(
            std::fs::metadata(cache.directory()).unwrap().mode() & 0o777,
            0o700
        );
        assert_eq!(std::fs::metadata(entry(&cache)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn author_05_a_file_that_was_tampered_with_is_never_run() {
        let parent = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = Cache::open(parent.path(), 1 << 20).unwrap();
        let refused = |what: &str, spoil: &dyn Fn(&Path)| {
            cache.store(&engine, "a", &compiled(&engine)).unwrap();
            let file = entry(&cache);
            spoil(&file);
            assert!(cache.load(&engine, "a").is_err(), "{what}");
            assert!(!file.exists(), "{what} stays");
        };
        let change = |file: &Path, change: &dyn Fn(&mut Vec<u8>)| {
            let mut content = std::fs::read(file).unwrap();
            change(&mut content);
            std::fs::write(file, content).unwrap();
        };
        refused("one bit of the code", &|file| {
            change(file, &|content| *content.last_mut().unwrap() ^= 1);
        });
        refused("one bit of the key", &|file| {
            change(file, &|content| content[20] ^= 1)
        });
        refused("truncated", &|file| {
            change(file, &|content| content.truncate(content.len() / 2));
        });
        refused("empty", &|file| change(file, &Vec::clear));
        refused("others may write it", &|file| {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).unwrap();
        });
        refused("a link to the same bytes", &|file| {
            let elsewhere = parent.path().join("elsewhere");
            std::fs::rename(file, &elsewhere).unwrap();
            symlink(&elsewhere, file).unwrap();
        });
        refused("a second name", &|file| {
            let second = parent.path().join("second");
            let _ = std::fs::remove_file(&second);
            std::fs::hard_link(file, second).unwrap();
        });
    }

    #[test]
    fn author_05_a_directory_that_others_may_enter_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let cache = Cache::open(parent.path(), 1 << 20).unwrap();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(cache.directory(), open).unwrap();
        let error = Cache::open(parent.path(), 1 << 20).unwrap_err().to_string();
        assert!(error.contains("0700"), "{error}");

        std::fs::remove_dir(cache.directory()).unwrap();
        symlink("/tmp", cache.directory()).unwrap();
        assert!(Cache::open(parent.path(), 1 << 20).is_err(), "a link");
    }

    #[test]
    fn author_05_the_cache_stays_below_its_limit() {
        let parent = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let component = compiled(&engine);
        let size = (HEADER + component.serialize().unwrap().len()) as u64;
        let cache = Cache::open(parent.path(), 2 * size + 10).unwrap();
        for (age, digest) in ["a", "b", "c"].into_iter().enumerate() {
            cache.store(&engine, digest, &component).unwrap();
            let file = File::open(cache.path(&key(&engine, digest))).unwrap();
            let then = jiff::Timestamp::from_second(age as i64).unwrap();
            file.set_modified(then.into()).unwrap();
        }
        let there = ["a", "b", "c"].map(|digest| cache.load(&engine, digest).unwrap().is_some());
        assert_eq!(there, [false, true, true], "the oldest made room");
        let small = Cache::open(parent.path(), size - 1).unwrap();
        assert!(small.store(&engine, "d", &component).is_err());
    }
}
