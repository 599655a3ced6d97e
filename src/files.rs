//! Files with secrets and certificates, read under the rules that PostgreSQL has for its own.
use std::{
    fmt, fs,
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
};

/// More than any certificate list has; no more is read.
const LARGEST: u64 = 16 << 20;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// The setting or option that names it.
    pub setting: &'static str,
    pub path: String,
    what: String,
    /// How to mend it; may be empty.
    pub hint: &'static str,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} \"{}\" {}", self.setting, self.path, self.what)
    }
}

/// Who may be able to read it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Nobody but its owner, this user or root; one of root's may be readable by a group (be-secure-common.c,
    /// check_ssl_key_file_permissions).
    Owner,
    Anyone,
}

/// Reads a file that a setting names.
///
/// # Errors
/// It cannot be read, is no regular file, or others can read it.
pub fn read(setting: &'static str, path: &str, readers: Readers) -> Result<Vec<u8>, FileProblem> {
    let problem = |what: String, hint: &'static str| FileProblem {
        setting,
        path: path.to_string(),
        what,
        hint,
    };
    let unreadable = |error: std::io::Error| problem(format!("cannot be read: {error}"), "");
    // What is no file, as a pipe, must not hold a process up.
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(problem("is not a regular file".to_string(), ""));
    }
    if readers == Readers::Owner {
        // SAFETY: a plain system call.
        let own = metadata.uid() == unsafe { libc::geteuid() };
        let forbidden = if own { 0o077 } else { 0o037 };
        if !own && metadata.uid() != 0 {
            let what = "must be owned by the server's user or by root";
            return Err(problem(what.to_string(), "Give it to the server's user (chown)."));
        }
        if metadata.permissions().mode() & forbidden != 0 {
            let what = "can be read by others: take that permission away (chmod 600)";
            return Err(problem(
                what.to_string(),
                "Take that permission away (chmod 600).",
            ));
        }
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}
