//! A Redis server for one test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::folder::Folder;
use crate::port::Port;
use crate::{eventually, process};

const LIMIT: Duration = Duration::from_secs(20);

/// The server's program: `redis-server` of the PATH, unless `PG_REDIS_CACHE_REDIS` names one of another brand or
/// version, as those that `scripts/setup redis-servers` fetches. redis-cli is always that of the PATH: it prints what
/// any server answers, and the same whoever does.
pub(crate) fn redis_server() -> &'static OsString {
    static PROGRAM: OnceLock<OsString> = OnceLock::new();
    PROGRAM.get_or_init(|| std::env::var_os("PG_REDIS_CACHE_REDIS").unwrap_or_else(|| "redis-server".into()))
}

/// What the server's program says of itself: `Redis server v=7.0.15 …`.
///
/// # Panics
/// If it cannot be run.
pub fn redis_version() -> String {
    let printed = Command::new(redis_server()).arg("--version").output();
    let printed = printed.unwrap_or_else(|e| panic!("{:?} cannot be run: {e}", redis_server()));
    String::from_utf8_lossy(&printed.stdout).into_owned()
}

/// A Redis server on 127.0.0.1 and on a unix socket; stopped and removed when dropped.
///
/// It saves nothing unless told to by its arguments. Its port stays its own while it is down.
#[derive(Debug)]
pub struct Redis {
    child: Option<Child>,
    args: Vec<String>,
    password: Option<String>,
    /// It speaks nothing else at its port.
    speaks_tls: bool,
    port: Port,
    socket: PathBuf,
    folder: Folder,
}

impl Redis {
    /// A server with the defaults.
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// A server with arguments, as `["--maxmemory", "2mb"]`. A `--requirepass` is used by
    /// [`connection`](Self::connection) and [`url`](Self::url) too, and a `--unixsocket` by the first. With
    /// `--tls-cert-file` and no `--tls-port` it speaks TLS at its port, and nothing else.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with(args: &[&str]) -> Redis {
        Redis::start_at(Port::claim(), args)
    }

    /// The same at this port.
    pub(crate) fn start_at(port: Port, args: &[&str]) -> Redis {
        let value = |name: &str| {
            let at = args.iter().position(|arg| *arg == name)?;
            Some(args[at + 1].to_owned())
        };
        let folder = Folder::new();
        let mut server = Redis {
            child: None,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            password: value("--requirepass"),
            speaks_tls: args.contains(&"--tls-cert-file") && !args.contains(&"--tls-port"),
            port,
            socket: value("--unixsocket").map_or_else(|| folder.path().join("redis.sock"), PathBuf::from),
            folder,
        };
        server.start_again();
        server
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// What `--requirepass` was given.
    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// Its working folder, where it would put an RDB file.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `redis[s]://[:password@]127.0.0.1:port/0`
    pub fn url(&self) -> String {
        let scheme = if self.speaks_tls { "rediss" } else { "redis" };
        let password = self
            .password
            .as_ref()
            .map(|password| format!(":{password}@"))
            .unwrap_or_default();
        format!("{scheme}://{password}127.0.0.1:{}/0", self.port())
    }

    /// A connection that waits for answers as long as it takes.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn connection(&self) -> redis::Connection {
        self.try_connection()
            .unwrap_or_else(|e| panic!("no connection to Redis: {e}\n{}", self.log()))
    }

    /// What makes connections, also after the server was down.
    pub fn client(&self) -> redis::Client {
        let pass = self
            .password
            .as_ref()
            .map(|password| format!("?pass={password}"))
            .unwrap_or_default();
        let url = format!("redis+unix://{}{pass}", self.socket().display());
        redis::Client::open(url).expect("the url is well formed")
    }

    fn try_connection(&self) -> redis::RedisResult<redis::Connection> {
        self.client().get_connection()
    }

    /// What Redis answers to one command.
    ///
    /// # Errors
    /// It refuses, or does not run.
    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut self.try_connection()?)
    }

    /// What redis-cli prints for one command, quoted so that every byte shows.
    pub fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command
            .arg("-s")
            .arg(self.socket())
            .arg("--no-raw")
            .args(args)
            .stdin(Stdio::null());
        if let Some(password) = &self.password {
            command.env("REDISCLI_AUTH", password);
        }
        let output = command.output().expect("redis-cli can be run");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// The process id.
    ///
    /// # Panics
    /// While the server is down.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("Redis is down").id()
    }

    /// Whether it has been started and not ended.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL: gone at once, connections reset.
    pub fn kill(&mut self) {
        self.end(libc::SIGKILL);
    }

    /// SIGTERM: an orderly end, with a save if it was told to save.
    pub fn stop(&mut self) {
        self.end(libc::SIGTERM);
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn freeze(&self) {
        process::signal(self.pid(), libc::SIGSTOP);
    }

    /// SIGCONT: goes on with what has piled up.
    pub fn thaw(&self) {
        process::signal(self.pid(), libc::SIGCONT);
    }

    /// From its next start on it has these arguments too.
    pub fn add_args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
    }

    /// Starts it again on the same port, after [`kill`](Self::kill) or [`stop`](Self::stop). It is empty
    /// unless it was told to save.
    ///
    /// # Panics
    /// With its log, if it does not start.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "Redis runs already");
        let mut child = process::spawn_server(self.server_command(), libc::SIGKILL).unwrap_or_else(|e| {
            panic!(
                "{redis_server:?} cannot be run: {e}",
                redis_server = redis_server()
            )
        });
        let ready = eventually("Redis to be ready", LIMIT, || {
            if child.try_wait().expect("it is our child").is_some() {
                return Some(false);
            }
            self.answers().then_some(true)
        });
        assert!(ready, "Redis did not start:\n{}", self.log());
        self.child = Some(child);
    }

    /// The server's log since it was made.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn server_command(&self) -> Command {
        let mut command = Command::new(redis_server());
        let port = self.port().to_string();
        if self.speaks_tls {
            command.args(["--port", "0", "--tls-port", &port]);
        } else {
            command.args(["--port", &port]);
        }
        command.args(["--bind", "127.0.0.1"]);
        command
            .arg("--unixsocket")
            .arg(self.socket())
            .args(["--unixsocketperm", "777"]);
        command
            .arg("--dir")
            .arg(self.folder.path())
            .arg("--logfile")
            .arg(self.folder.path().join("log"));
        command
            .args(["--save", "", "--appendonly", "no"])
            // A replica would keep its master's file, and load it when it is started again, long after.
            .args(["--rdb-del-sync-files", "yes"])
            .args(&self.args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// That it wants to know who asks, where only its own users may, is an answer too.
    fn answers(&self) -> bool {
        let ping = |mut c: redis::Connection| redis::cmd("PING").query::<String>(&mut c);
        match self.try_connection().and_then(ping) {
            Ok(_) => true,
            Err(error) => error.code() == Some("NOAUTH"),
        }
    }

    fn end(&mut self, signal: libc::c_int) {
        process::signal(self.pid(), signal);
        let mut child = self.child.take().expect("pid() has looked");
        child.wait().expect("it is our child");
        // A killed server leaves its socket, and the next one would seem to be ready before it is.
        let _ = std::fs::remove_file(self.socket());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}
