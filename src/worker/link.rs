//! Where Redis is, the engine that leads there, and what this process sleeps on.
use std::{
    fmt::Display,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use pg_redis_cache_core::{
    coherence::Reason,
    config::DEFAULT_SERVER,
    encode::value::Value,
    redis::{Address, Engine, Kind, Request, Secret, Settings, Setup, Tls, TlsSettings, Waker},
};
use pgrx::pg_sys;

use super::{Worker, marker};
use crate::{
    compat,
    files::{self, Readers},
    gucs::{self, servers},
    shared::StatusText,
    socket::PROGRAM,
    tls::TlsFiles,
};

/// The settings that the connections were made with.
#[derive(Clone, Default, PartialEq)]
pub struct Target {
    url: String,
    /// The same, if it can be read.
    address: Option<Address>,
    /// That of the `password_file`.
    password: Option<String>,
    /// With the files that they name, where the url wants TLS.
    tls: Option<TlsSettings>,
    connect_timeout: Duration,
    command_timeout: Duration,
}

impl Target {
    /// Of the server of that name.
    fn configured(server: &str) -> Result<Self, String> {
        let url = servers::url_of(server).ok_or(NOT_LISTED)?;
        let address = Address::parse(&url).ok();
        let wants_tls = address.as_ref().is_some_and(Address::is_tls);
        let tls = wants_tls.then(|| TlsFiles::configured().read()).transpose();
        let password = file_password(server, &url);
        Ok(Self {
            password: password.map_err(|problem| trouble(Kind::Auth, &problem, address.as_ref()))?,
            tls: tls.map_err(|problem| trouble(Kind::Tls, &problem, address.as_ref()))?,
            url,
            address,
            connect_timeout: gucs::connect_timeout(),
            command_timeout: gucs::command_timeout(),
        })
    }

    /// Where it is, if its url can be read.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// The number of the database there.
    pub fn database(&self) -> Option<u32> {
        Some(self.address()?.database())
    }

    fn settings(&self, server: &str) -> Result<Settings, String> {
        let tls = self.tls.as_ref().map(Tls::new).transpose();
        Ok(Settings {
            address: address(server, &self.url)?,
            password: self.password.clone().map(Secret::new),
            tls: tls.map_err(|problem| trouble(Kind::Tls, &problem, self.address()))?,
            connect_timeout: self.connect_timeout,
            command_timeout: self.command_timeout,
        })
    }
}

/// What keeps a connection from being made, as a [`Fault`](pg_redis_cache_core::redis::Fault) tells what ends one: `kind: message (address)`.
fn trouble(kind: Kind, problem: &impl Display, address: Option<&Address>) -> String {
    match address {
        Some(address) => format!("{kind}: {problem} ({})", address.masked()),
        None => format!("{kind}: {problem}"),
    }
}

fn address(server: &str, url: &str) -> Result<Address, String> {
    Address::parse(url).map_err(|error| match server {
        DEFAULT_SERVER => format!("the setting url is not valid: {error}"),
        _ => format!("the url of server \"{server}\" is not valid: {error}"),
    })
}

/// Said of a server beside its name.
const NOT_LISTED: &str =
    "it is not in pg_redis_cache.servers: what mappings have left there is purged when it is";

/// Where a server is and with which password, by the settings; or what is wrong with them.
pub fn configured_address(server: &str) -> Result<(Address, Option<Secret>), String> {
    let url = servers::url_of(server)
        .ok_or_else(|| format!("server \"{server}\" is not in pg_redis_cache.servers"))?;
    let password = file_password(server, &url)?;
    Ok((address(server, &url)?, password.map(Secret::new)))
}

/// The password of the `password_file`, if there is one. It goes before that of the setting `url`; of the others, which
/// share it, each may have one of its own.
fn file_password(server: &str, url: &str) -> Result<Option<String>, String> {
    let path = gucs::text(&gucs::PASSWORD_FILE);
    let has_own = server != DEFAULT_SERVER && Address::parse(url).is_ok_and(|address| address.has_password());
    let wanted = !path.is_empty() && !has_own;
    wanted.then(|| read_password(&path)).transpose()
}

/// The first line of the file.
fn read_password(path: &str) -> Result<String, String> {
    let bytes = files::read("password_file", path, Readers::Owner).map_err(|problem| problem.to_string())?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line)
        .map_err(|_| format!("the password_file \"{path}\" has a first line that is not UTF-8"))?;
    match line.trim_end_matches('\r') {
        "" => Err(format!("the password_file \"{path}\" has an empty first line")),
        password => Ok(password.to_string()),
    }
}

impl Worker {
    /// Connects, or connects anew if a setting of the connection has changed.
    pub(super) fn connect(&mut self, at: usize) {
        let destination = &mut self.destinations[at];
        destination.looked_at_settings = Instant::now();
        let name = &destination.name.clone();
        destination.is_listed = servers::url_of(name).is_some();
        if !destination.is_listed && destination.engine.is_none() {
            destination.disbelieve();
        }
        destination.show_gone();
        let configured = Target::configured(name).and_then(|target| Ok((target.settings(name)?, target)));
        let (settings, target) = match configured {
            Ok(configured) => configured,
            Err(problem) => return destination.settings_in_trouble(problem),
        };
        if destination.engine.is_some() && target == destination.settings {
            return destination.settings_in_order();
        }
        let moves = destination.engine.is_some() && target.url != destination.settings.url;
        destination.settings = target;
        if moves {
            self.lose_server(at, Reason::Server);
        }
        match &self.destinations[at].engine {
            Some(engine) => {
                engine.send(Request::Reconfigure(settings));
                self.destinations[at].settings_in_order();
            }
            None => self.start_engine(at, settings),
        }
        self.destinations[at].connects_otherwise();
    }

    fn start_engine(&mut self, at: usize, settings: Settings) {
        let setup = Setup {
            lanes: gucs::pool_size(),
            name: PROGRAM.to_string(),
            label: gucs::cluster_name(),
            // SAFETY: from pg_control, which the postmaster has read.
            owner: unsafe { pg_sys::GetSystemIdentifier() }.to_string(),
            instance: self.instance.clone(),
            hash_fields,
            marker: Some(marker::key()),
        };
        // What an earlier worker has left there.
        self.destinations[at].show_text(StatusText::Master, "");
        let waker = self.wait_set.waker();
        match with_signals_blocked(|| Engine::start(setup, settings, waker)) {
            Ok(engine) => {
                self.destinations[at].engine = Some(engine);
                self.destinations[at].settings_in_order();
                self.tune(at);
            }
            Err(error) => self.destinations[at].settings_in_trouble(error.to_string()),
        }
    }

    /// Has the engine go by the settings that cost no connection.
    pub(super) fn tune(&self, at: usize) {
        self.destinations[at].send(Request::Tune(gucs::pool::tuning()));
    }
}

/// Takes a stored hash apart for the engine.
fn hash_fields<'a>(bytes: &'a [u8], each: &mut dyn FnMut(&'a [u8], &'a [u8])) -> Option<bool> {
    let Ok(Value::Hash(hash)) = Value::decode(bytes) else {
        return None;
    };
    hash.fields().for_each(|(name, value)| each(name, value));
    Some(hash.complete())
}

/// Threads started in `work` never run a signal handler of the server's.
fn with_signals_blocked<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: plain system calls on sets of this frame.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        let mut before = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let result = work();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        result
    }
}

/// What the main thread sleeps on: its latch, the engine's eventfd, the postmaster's death.
pub struct WaitSet {
    set: *mut pg_sys::WaitEventSet,
    bell: OwnedFd,
}

impl WaitSet {
    pub fn new() -> Self {
        // SAFETY: a plain system call; on failure the descriptor is negative.
        let bell = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if bell < 0 {
            pgrx::error!("pg_redis_cache: no eventfd: {}", std::io::Error::last_os_error());
        }
        // SAFETY: the descriptor is ours alone; the set lives as long as the process.
        unsafe {
            let bell = OwnedFd::from_raw_fd(bell);
            let set = compat::create_wait_event_set(3);
            let none = std::ptr::null_mut();
            let closed = pg_sys::PGINVALID_SOCKET;
            pg_sys::AddWaitEventToSet(set, pg_sys::WL_LATCH_SET, closed, pg_sys::MyLatch, none);
            pg_sys::AddWaitEventToSet(
                set,
                pg_sys::WL_EXIT_ON_PM_DEATH,
                closed,
                std::ptr::null_mut(),
                none,
            );
            pg_sys::AddWaitEventToSet(
                set,
                pg_sys::WL_SOCKET_READABLE,
                bell.as_raw_fd(),
                std::ptr::null_mut(),
                none,
            );
            Self { set, bell }
        }
    }

    /// Sleeps until something happens or the time is over.
    pub fn wait(&self, longest: Duration) {
        let mut event = pg_sys::WaitEvent::default();
        let mut rung = 0u64;
        // SAFETY: one event is asked for and there is room for one; the read empties the eventfd if it rang.
        unsafe {
            pg_sys::WaitEventSetWait(
                self.set,
                longest.as_millis().max(1) as i64,
                &raw mut event,
                1,
                pg_sys::PG_WAIT_EXTENSION,
            );
            pg_sys::ResetLatch(pg_sys::MyLatch);
            if event.events & pg_sys::WL_SOCKET_READABLE != 0 {
                libc::read(self.bell.as_raw_fd(), (&raw mut rung).cast(), size_of::<u64>());
            }
        }
    }

    /// What the engine calls when it has events.
    fn waker(&self) -> Waker {
        let bell = self.bell.as_raw_fd();
        Box::new(move || {
            let one = 1u64;
            // SAFETY: the descriptor is closed only when the process ends, after the engine's thread.
            unsafe { libc::write(bell, (&raw const one).cast(), size_of::<u64>()) };
        })
    }
}
