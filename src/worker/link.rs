//! Where Redis is, the engine that leads there, and what this process sleeps on.
use std::{
    fs,
    io::{BufRead, BufReader},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    time::{Duration, Instant},
};

use pg_redis_cache_core::{
    coherence::Reason,
    encode::value::Value,
    redis::{Address, Engine, Request, Secret, Settings, Setup, Waker},
};
use pgrx::pg_sys;

use super::{Worker, marker};
use crate::{compat, gucs};

/// The settings that the connections were made with.
#[derive(Clone, Default, PartialEq)]
pub struct Target {
    url: String,
    password_file: String,
    password: String,
    connect_timeout: Duration,
    command_timeout: Duration,
}

impl Target {
    fn configured() -> Result<Self, String> {
        let password_file = gucs::text(&gucs::PASSWORD_FILE);
        Ok(Self {
            url: gucs::url(),
            password: if password_file.is_empty() {
                String::new()
            } else {
                read_password(&password_file)?
            },
            password_file,
            connect_timeout: gucs::connect_timeout(),
            command_timeout: gucs::command_timeout(),
        })
    }

    fn settings(&self) -> Result<Settings, String> {
        Ok(Settings {
            address: Address::parse(&self.url)
                .map_err(|error| format!("the setting url is not valid: {error}"))?,
            password: (!self.password_file.is_empty()).then(|| Secret::new(self.password.clone())),
            connect_timeout: self.connect_timeout,
            command_timeout: self.command_timeout,
        })
    }
}

/// Where Redis is and with which password, by the settings; or what is wrong with them.
pub fn configured_address() -> Result<(Address, Option<Secret>), String> {
    let settings = Target::configured()?.settings()?;
    Ok((settings.address, settings.password))
}

/// The first line of a file that nobody but its owner (this user or root) can read.
fn read_password(path: &str) -> Result<String, String> {
    let problem = |what: &str| format!("the password_file \"{path}\" {what}");
    let file = fs::File::open(path).map_err(|error| problem(&format!("cannot be read: {error}")))?;
    let metadata = file
        .metadata()
        .map_err(|error| problem(&format!("cannot be read: {error}")))?;
    // SAFETY: a plain system call.
    let own = metadata.uid() == unsafe { libc::geteuid() };
    // As for Postgres's own key files (be-secure-common.c): one of root's may be readable by a group.
    let forbidden = if own { 0o077 } else { 0o027 };
    if !own && metadata.uid() != 0 {
        return Err(problem("must be owned by the server's user or by root"));
    }
    if metadata.permissions().mode() & forbidden != 0 {
        return Err(problem(
            "can be read by others: take that permission away (chmod 600)",
        ));
    }
    let mut line = String::new();
    BufReader::new(file)
        .read_line(&mut line)
        .map_err(|error| problem(&format!("cannot be read: {error}")))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_string())
}

impl Worker {
    /// Connects, or connects anew if a setting of the connection has changed.
    pub(super) fn connect(&mut self) {
        self.looked_at_settings = Instant::now();
        let configured = Target::configured().and_then(|target| Ok((target.settings()?, target)));
        let (settings, target) = match configured {
            Ok(configured) => configured,
            Err(problem) => return self.settings_in_trouble(problem),
        };
        self.settings_in_order();
        if self.engine.is_some() && target == self.settings {
            return;
        }
        if self.engine.is_some() && target.url != self.settings.url {
            self.lose_everything(Reason::Server);
        }
        self.settings = target;
        match &self.engine {
            Some(engine) => engine.send(Request::Reconfigure(settings)),
            None => self.start_engine(settings),
        }
    }

    fn start_engine(&mut self, settings: Settings) {
        let setup = Setup {
            lanes: gucs::pool_size(),
            name: format!("pg_redis_cache/{}", env!("CARGO_PKG_VERSION")),
            // SAFETY: from pg_control, which the postmaster has read.
            owner: unsafe { pg_sys::GetSystemIdentifier() }.to_string(),
            hash_fields,
            marker: Some(marker::key()),
        };
        let waker = self.wait_set.waker();
        match with_signals_blocked(|| Engine::start(setup, settings, waker)) {
            Ok(engine) => self.engine = Some(engine),
            Err(error) => self.settings_in_trouble(error.to_string()),
        }
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
