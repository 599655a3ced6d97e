//! Temporary folders that are gone when the test is, however it ends.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::server_user;

const PREFIX: &str = "prc-";
const LOCK: &str = "lock";
/// What the file is called until it is locked: who sweeps takes a lock that is free for an abandoned one.
const UNLOCKED: &str = "unlocked";
/// A unix socket's path has at most 107 bytes, and PostgreSQL adds `/.s.PGSQL.5432`.
const MAX_BASE: usize = 70;

/// A folder that belongs to the user that servers run as, and is removed when this value is dropped.
///
/// It holds a locked file. A folder whose lock is free is what a killed process left, and the next process
/// removes it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes a new one.
    pub fn new() -> Folder {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_abandoned);
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = base().join(format!("{PREFIX}{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o755).create(&path) {
                Ok(()) => return Folder::claim(path),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(e) => panic!("no temporary folder {}: {e}", path.display()),
            }
        }
    }

    fn claim(path: PathBuf) -> Folder {
        let lock = File::create(path.join(UNLOCKED)).expect("a new folder takes a file");
        lock.lock().expect("a new file can be locked");
        fs::rename(path.join(UNLOCKED), path.join(LOCK)).expect("a new file can be renamed");
        if let Some(user) = server_user() {
            chown(&path, Some(user.uid), Some(user.gid)).expect("root may give a folder away");
        }
        Folder { path, _lock: lock }
    }

    /// Makes a file that belongs to the user that servers run as, with this mode.
    ///
    /// # Panics
    /// If that cannot be done.
    pub fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, text).expect("the folder takes a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is our file");
        if let Some(user) = server_user() {
            chown(&path, Some(user.uid), Some(user.gid)).expect("root may give a file away");
        }
        path
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Folder::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn base() -> PathBuf {
    let base = std::env::temp_dir();
    if base.as_os_str().len() > MAX_BASE {
        PathBuf::from("/tmp")
    } else {
        base
    }
}

fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(base()) else { return };
    for entry in entries
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX))
    {
        // A folder without a lock file is being made this moment, or is somebody else's.
        let Ok(lock) = File::open(entry.path().join(LOCK)) else {
            continue;
        };
        if lock.try_lock().is_ok() {
            remove(&entry.path());
        }
    }
}

/// The lock goes last: what cannot be removed now (a dying server may still be writing) is found by it, and
/// removed, by the next process.
fn remove(folder: &Path) {
    for entry in fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_name() != LOCK)
    {
        let path = entry.path();
        if fs::remove_dir_all(&path)
            .or_else(|_| fs::remove_file(&path))
            .is_err()
        {
            return;
        }
    }
    let _ = fs::remove_dir_all(folder);
}

/// A path as settings take it.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}
