//! Where Redis is, the engine that leads there, and what this process sleeps on.
use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use pg_redis_cache_core::{
    coherence::Reason,
    encode::value::Value,
    redis::{Address, Engine, Request, Secret, Settings, Setup, Tls, TlsSettings, Waker},
};
use pgrx::pg_sys;

use super::{Worker, marker};
use crate::{
    compat,
    files::{self, Readers},
    gucs,
    socket::PROGRAM,
    tls::TlsFiles,
};

/// The settings that the connections were made with.
#[derive(Clone, Default, PartialEq)]
pub struct Target {
    url: String,
    password_file: String,
    password: String,
    /// With the files that they name, where the url wants TLS.
    tls: Option<TlsSettings>,
    connect_timeout: Duration,
    command_timeout: Duration,
}

impl Target {
    fn configured() -> Result<Self, String> {
        let password_file = gucs::text(&gucs::PASSWORD_FILE);
        let url = gucs::url();
        let wants_tls = Address::parse(&url).is_ok_and(|address| address.is_tls());
        let tls = wants_tls.then(|| TlsFiles::configured().read()).transpose();
        Ok(Self {
            url,
            password: if password_file.is_empty() {
                String::new()
            } else {
                read_password(&password_file)?
            },
            password_file,
            tls: tls.map_err(|problem| format!("TLS: {problem}"))?,
            connect_timeout: gucs::connect_timeout(),
            command_timeout: gucs::command_timeout(),
        })
    }

    fn settings(&self) -> Result<Settings, String> {
        let tls = self.tls.as_ref().map(Tls::new).transpose();
        Ok(Settings {
            address: address(&self.url)?,
            password: (!self.password_file.is_empty()).then(|| Secret::new(self.password.clone())),
            tls: tls.map_err(|problem| format!("TLS: {problem}"))?,
            connect_timeout: self.connect_timeout,
            command_timeout: self.command_timeout,
        })
    }
}

fn address(url: &str) -> Result<Address, String> {
    Address::parse(url).map_err(|error| format!("the setting url is not valid: {error}"))
}

/// Where Redis is and with which password, by the settings; or what is wrong with them.
pub fn configured_address() -> Result<(Address, Option<Secret>), String> {
    let path = gucs::text(&gucs::PASSWORD_FILE);
    let password = if path.is_empty() {
        None
    } else {
        Some(Secret::new(read_password(&path)?))
    };
    Ok((address(&gucs::url())?, password))
}

/// The first line of the file.
fn read_password(path: &str) -> Result<String, String> {
    let bytes = files::read("password_file", path, Readers::Owner).map_err(|problem| problem.to_string())?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line)
        .map_err(|_| format!("the password_file \"{path}\" has a first line that is not UTF-8"))?;
    Ok(line.trim_end_matches('\r').to_string())
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
            name: PROGRAM.to_string(),
            label: gucs::cluster_name(),
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
