//! The private copy of PostgreSQL that the tests run on, with the extension in it.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::process::{as_server_user, server_user};

/// A PostgreSQL installation: the copy that `scripts/stage` makes.
#[derive(Debug)]
pub struct Installation {
    /// Where `postgres`, `initdb` and `psql` are.
    pub bindir: PathBuf,
    /// Where libraries are, and below it `pg_regress`.
    pub pkglibdir: PathBuf,
    /// The server's headers, for what the tests compile.
    pub headers: PathBuf,
    /// 15, 16, 18.
    pub major: u32,
}

/// The root of the source tree.
pub fn repository() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        tests
            .parent()
            .expect("the crate is a folder of the repository")
            .to_path_buf()
    })
}

/// The installation named by `PG_REDIS_CACHE_BINDIR`, as the Makefile sets it; without it `scripts/stage`
/// is run first, so that a plain `cargo test` tests the sources as they are.
pub fn installation() -> &'static Installation {
    static FOUND: OnceLock<Installation> = OnceLock::new();
    FOUND.get_or_init(|| {
        let named = std::env::var_os("PG_REDIS_CACHE_BINDIR").filter(|bindir| !bindir.is_empty());
        let bindir = named.map_or_else(stage, PathBuf::from);
        let pg_config = |option: &str| output(Command::new(bindir.join("pg_config")).arg(option));
        let pkglibdir = PathBuf::from(pg_config("--pkglibdir"));
        let version = pg_config("--version");
        let digits: String = version.chars().skip_while(|c| !c.is_ascii_digit()).collect();
        let major = digits
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .and_then(|major| major.parse().ok());
        let major = major.unwrap_or_else(|| panic!("pg_config --version says {version}"));
        Installation {
            headers: PathBuf::from(pg_config("--includedir-server")),
            bindir,
            pkglibdir,
            major,
        }
    })
}

fn stage() -> PathBuf {
    PathBuf::from(output(&mut Command::new(repository().join("scripts/stage"))))
}

fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?} cannot be run: {e}"));
    assert!(output.status.success(), "{command:?} failed: {}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Installation {
    /// A command of this installation.
    pub fn command(&self, name: &str) -> Command {
        Command::new(self.bindir.join(name))
    }

    /// Copies a new cluster to `data`. The first call makes one with initdb and keeps it beside the
    /// installation.
    pub fn copy_cluster(&self, data: &Path) {
        let template = self.template();
        let mut copy = Command::new("cp");
        copy.arg("-R")
            .arg("--reflink=auto")
            .arg("--preserve=mode")
            .arg(template)
            .arg(data);
        output(as_server_user(&mut copy));
    }

    fn template(&self) -> PathBuf {
        // SAFETY: geteuid has no preconditions.
        let uid = server_user().map_or_else(|| unsafe { libc::geteuid() }, |user| user.uid);
        let template = self.bindir.join(format!("../cluster-of-{uid}"));
        let lock = File::create(self.bindir.join(format!("../cluster-of-{uid}.lock")));
        lock.and_then(|lock| lock.lock().map(|()| lock)).map_or_else(
            |e| panic!("{} is not ours to write: {e}", self.bindir.display()),
            |_lock| {
                if !template.exists() {
                    self.make_template(&template);
                }
            },
        );
        template
    }

    fn make_template(&self, template: &Path) {
        let unfinished = template.with_extension("new");
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir(&unfinished).expect("the folder of the installation is writable");
        if let Some(user) = server_user() {
            chown(&unfinished, Some(user.uid), Some(user.gid)).expect("root may give a folder away");
        }
        let mut initdb = self.command("initdb");
        initdb.args([
            "--no-sync",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "-D",
        ]);
        output(as_server_user(initdb.arg(&unfinished)));
        fs::rename(&unfinished, template).expect("a folder can be renamed within its parent");
    }
}
