//! A PostgreSQL server for one test.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use postgres::{Client, Config, NoTls};

use crate::folder::Folder;
use crate::installation::installation;
use crate::{eventually, process};

const LIMIT: Duration = Duration::from_secs(60);

/// How a server is stopped, as in `pg_ctl stop -m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Waits for sessions to end.
    Smart,
    /// Ends sessions, writes a checkpoint.
    Fast,
    /// Ends without a checkpoint; the next start recovers.
    Immediate,
}

/// What to write into postgresql.conf before the first start.
#[derive(Debug, Default)]
pub struct PostgresBuilder {
    conf: String,
}

impl PostgresBuilder {
    /// Adds one setting; the value is quoted.
    pub fn conf(mut self, name: &str, value: &str) -> Self {
        self.conf.push_str(&conf_line(name, value));
        self
    }

    /// Adds lines as they are.
    pub fn conf_text(mut self, lines: &str) -> Self {
        self.conf.push_str(lines);
        self.conf.push('\n');
        self
    }

    /// Makes the cluster and starts it.
    ///
    /// # Panics
    /// With the server's log, if it does not start.
    pub fn start(self) -> Postgres {
        match self.try_start() {
            Ok(server) => server,
            Err(log) => panic!("PostgreSQL did not start:\n{log}"),
        }
    }

    /// As [`start`](Self::start), for a server that may refuse to.
    ///
    /// # Errors
    /// The server's log, if it does not start.
    pub fn try_start(self) -> Result<Postgres, String> {
        let folder = Folder::new();
        let data = folder.path().join("data");
        installation().copy_cluster(&data);
        let mut server = Postgres {
            data,
            folder,
            postmaster: None,
        };
        server.append_conf(&(base_conf(server.socket_dir()) + &self.conf));
        server.try_start()?;
        Ok(server)
    }
}

fn conf_line(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\'', "''"))
}

/// A server that is reached by its socket alone needs no port, so two of them never meet. Data that does
/// not outlive the test need not be synced.
fn base_conf(socket_dir: &Path) -> String {
    format!(
        "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\nmax_connections = 60\n\
         shared_buffers = 32MB\nlog_line_prefix = '%m [%p] %b '\nmax_wal_size = 4GB\n",
        socket_dir.display()
    )
}

/// A PostgreSQL server; stopped and removed when dropped.
#[derive(Debug)]
pub struct Postgres {
    postmaster: Option<Child>,
    data: PathBuf,
    folder: Folder,
}

impl Postgres {
    /// The port in the name of the socket, the only place where it means anything here.
    pub const PORT: u16 = 5432;

    /// A cluster to be started.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::default()
    }

    /// A server without the extension.
    pub fn start() -> Postgres {
        Postgres::builder().start()
    }

    /// A streaming replica of this server, with its settings but for the socket; it reads only what it is
    /// sent, until it is promoted.
    ///
    /// # Panics
    /// If it cannot be made or does not start.
    pub fn standby(&self) -> Postgres {
        let folder = Folder::new();
        let data = folder.path().join("data");
        let mut backup = self.command("pg_basebackup");
        backup.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "-D"]);
        let made = process::as_server_user(backup.arg(&data).current_dir("/")).output();
        let made = made.expect("pg_basebackup can be run");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut standby = Postgres {
            data,
            folder,
            postmaster: None,
        };
        let socket_dir = standby.socket_dir().display().to_string();
        standby.append_conf(&conf_line("unix_socket_directories", &socket_dir));
        standby.start_again();
        standby
    }

    /// The folder of the socket: libpq's `PGHOST`.
    pub fn socket_dir(&self) -> &Path {
        self.folder.path()
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The postmaster's process id.
    ///
    /// # Panics
    /// While the server is down.
    pub fn pid(&self) -> u32 {
        self.postmaster.as_ref().expect("the server is down").id()
    }

    /// Whether the postmaster is there.
    pub fn is_running(&mut self) -> bool {
        self.postmaster
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// How to connect as the superuser to database `postgres`; change what is to be different.
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config
            .host_path(self.socket_dir())
            .port(Self::PORT)
            .user("postgres")
            .dbname("postgres");
        config.connect_timeout(LIMIT);
        config
    }

    /// A session of the superuser in database `postgres`.
    pub fn connect(&self) -> Client {
        self.connect_to("postgres")
    }

    /// A session of the superuser in `database`.
    pub fn connect_to(&self, database: &str) -> Client {
        let result = self.config().dbname(database).connect(NoTls);
        result.unwrap_or_else(|e| panic!("no connection to {database}: {e}\n{}", self.log_tail()))
    }

    /// A command of the installation (psql, pgbench, pg_dump …) with the environment that leads it here.
    pub fn command(&self, name: &str) -> Command {
        let mut command = installation().command(name);
        command
            .env("PGHOST", self.socket_dir())
            .env("PGPORT", Self::PORT.to_string());
        command
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .env_remove("PGSERVICE");
        command
    }

    /// What psql prints (unaligned, tuples only) for a script, which may hold backslash commands.
    ///
    /// # Panics
    /// If a statement fails.
    pub fn psql(&self, script: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        psql.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = psql.spawn().expect("psql can be run");
        let mut stdin = child.stdin.take().expect("its input is a pipe");
        std::io::Write::write_all(&mut stdin, script.as_bytes()).expect("psql reads its input");
        drop(stdin);
        let output = child.wait_with_output().expect("psql ends");
        assert!(
            output.status.success(),
            "psql failed: {}\n{script}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Adds lines to postgresql.conf; they count from the next reload or start.
    pub fn append_conf(&self, lines: &str) {
        let path = self.data.join("postgresql.conf");
        let mut file = OpenOptions::new()
            .append(true)
            .open(path)
            .expect("postgresql.conf can be opened");
        std::io::Write::write_all(&mut file, lines.as_bytes()).expect("postgresql.conf can be written");
    }

    /// Sets one parameter in postgresql.conf and has it read; sessions see it at their next statement or
    /// somewhat later.
    pub fn set_conf(&self, name: &str, value: &str) {
        self.append_conf(&conf_line(name, value));
        self.reload();
    }

    /// Has postgresql.conf read.
    pub fn reload(&self) {
        process::signal(self.pid(), libc::SIGHUP);
    }

    /// Starts a server that was stopped or has crashed.
    pub fn start_again(&mut self) {
        if let Err(log) = self.try_start() {
            panic!("PostgreSQL did not start:\n{log}");
        }
    }

    /// Stops the server and waits for its end.
    pub fn stop(&mut self, how: Shutdown) {
        let signal = match how {
            Shutdown::Smart => libc::SIGTERM,
            Shutdown::Fast => libc::SIGINT,
            Shutdown::Immediate => libc::SIGQUIT,
        };
        process::signal(self.pid(), signal);
        let child = self.postmaster.as_mut().expect("pid() has looked");
        let ended = |child: &mut Child| child.try_wait().expect("it is our child");
        eventually("PostgreSQL to stop", LIMIT, || ended(child));
        self.postmaster = None;
    }

    /// Stops and starts.
    pub fn restart(&mut self, how: Shutdown) {
        self.stop(how);
        self.start_again();
    }

    /// Kills the postmaster and all its children at once, as a power cut would (what the kernel has in its
    /// buffers survives).
    pub fn crash(&mut self) {
        let mut postmaster = self.postmaster.take().expect("the server is down");
        // A stopped postmaster starts no child while they are being counted.
        process::signal(postmaster.id(), libc::SIGSTOP);
        eventually("the postmaster to stand still", LIMIT, || {
            process::is_stopped(postmaster.id()).then_some(())
        });
        let children = process::children(postmaster.id());
        process::signal(postmaster.id(), libc::SIGKILL);
        children
            .iter()
            .for_each(|pid| process::signal(*pid, libc::SIGKILL));
        postmaster.wait().expect("it is our child");
        let gone = || {
            children
                .iter()
                .all(|pid| !process::is_running(*pid))
                .then_some(())
        };
        eventually("the backends to die", LIMIT, gone);
    }

    /// The server process whose title, as `ps` shows it, contains `words`.
    pub fn child(&self, words: &str) -> Option<u32> {
        process::children(self.pid())
            .into_iter()
            .find(|pid| process::title(*pid).contains(words))
    }

    /// Whether that process of this server has not ended.
    pub fn has_process(&self, pid: u32) -> bool {
        process::children(self.pid()).contains(&pid) && process::is_running(pid)
    }

    /// Sends a signal (`libc::SIGSTOP`, …) to a process of this server.
    pub fn signal(&self, pid: u32, signal: i32) {
        assert!(
            process::children(self.pid()).contains(&pid),
            "{pid} is not a process of this server"
        );
        process::signal(pid, signal);
    }

    /// The server's log since it was made.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn try_start(&mut self) -> Result<(), String> {
        assert!(self.postmaster.is_none(), "the server runs already");
        // Left by a crash, and it would say "ready" before the new postmaster does.
        let _ = fs::remove_file(self.data.join("postmaster.pid"));
        let log = || -> std::io::Result<File> {
            OpenOptions::new().create(true).append(true).open(self.log_path())
        };
        let log = log().unwrap_or_else(|e| panic!("{}: {e}", self.log_path().display()));
        let mut command = installation().command("postgres");
        command.arg("-D").arg(&self.data).stdin(Stdio::null());
        command
            .stdout(log.try_clone().expect("a file can be opened twice"))
            .stderr(log);
        // SIGQUIT is an immediate shutdown: the postmaster takes its children and its shared memory along.
        let mut child = process::spawn_server(command, libc::SIGQUIT).map_err(|e| e.to_string())?;
        let ready = eventually("PostgreSQL to be ready", LIMIT, || {
            if child.try_wait().expect("it is our child").is_some() {
                return Some(false);
            }
            self.is_ready(child.id()).then_some(true)
        });
        if !ready {
            return Err(self.log_tail());
        }
        self.postmaster = Some(child);
        Ok(())
    }

    /// The first line of postmaster.pid is the process id, the eighth the state.
    fn is_ready(&self, pid: u32) -> bool {
        let state = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let mut lines = state.lines();
        lines.next() == Some(&pid.to_string()) && lines.nth(6).is_some_and(|line| line.trim() == "ready")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the end of PostgreSQL's log ----\n{}\n----", self.log_tail());
        }
        if let Some(mut child) = self.postmaster.take() {
            process::signal(child.id(), libc::SIGQUIT);
            let _ = child.wait();
        }
    }
}
