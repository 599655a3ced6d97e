//! What shared memory says of each server, and who waits for which of them.
//!
//! A server has a place while a mapping has its keys there, also one that has left the list and is still to be purged.
//! The first place is always that of the setting `url`.
use std::sync::atomic::{AtomicU64, Ordering};

use pg_redis_cache_core::{
    coherence::MappingSet,
    config::{DEFAULT_SERVER, MAX_SERVERS},
};

use super::{
    Shared,
    blocks::{ServerPlace, StatusText, Waiter},
    lock,
};

/// The number of the server that the setting `url` names.
pub const DEFAULT: usize = 0;

/// Nothing is waited for where nothing goes.
const NOTHING_GOES_THERE: u64 = u64::MAX;

/// Some of the servers, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSet(u32);

const _: () = assert!(MAX_SERVERS <= u32::BITS as usize);

impl ServerSet {
    pub const NONE: Self = Self(0);

    pub fn insert(&mut self, server: usize) {
        self.0 |= 1 << server;
    }

    pub fn contains(self, server: usize) -> bool {
        self.0 & 1 << server != 0
    }

    pub fn one(server: usize) -> Self {
        let mut servers = Self::NONE;
        servers.insert(server);
        servers
    }

    /// All but those that nobody can reach, see [`Shared::is_gone`].
    pub fn reachable(shared: Shared) -> Self {
        let mut servers = Self::NONE;
        (0..MAX_SERVERS)
            .filter(|server| !shared.is_gone(*server))
            .for_each(|server| servers.insert(server));
        servers
    }

    /// Those that have the keys of these mappings.
    pub fn of(shared: Shared, mappings: &MappingSet) -> Self {
        let mut servers = Self::NONE;
        mappings
            .iter()
            .for_each(|mapping| servers.insert(shared.server_of(mapping)));
        servers
    }
}

impl Shared {
    /// What is known of a server; of the last one for a number that none has.
    pub fn server(&self, server: usize) -> &ServerPlace {
        // SAFETY: there are MAX_SERVERS of them; all that changes is atomic or under the text lock.
        unsafe { &*self.servers.add(server.min(MAX_SERVERS - 1)) }
    }

    /// What the settings call the server in that place, or called the last one there.
    pub fn server_name(&self, server: usize) -> String {
        if server == DEFAULT {
            return DEFAULT_SERVER.to_owned();
        }
        let _held = lock(self.text_lock);
        self.server(server).name.get()
    }

    /// The place of the server of that name, if a mapping has keys there.
    pub fn server_named(&self, name: &str) -> Option<usize> {
        if name == DEFAULT_SERVER {
            return Some(DEFAULT);
        }
        (1..MAX_SERVERS).find(|server| self.is_used(*server) && self.server_name(*server) == name)
    }

    /// Whether a mapping has keys there.
    pub fn is_used(self, server: usize) -> bool {
        self.occupied().any(|mapping| self.server_of(mapping) == server)
    }

    /// The place of the server of that name, a new one if need be; `None` if there is none left. The caller holds the
    /// ring's lock, and puts a mapping there before it lets go of it.
    pub(super) fn place_server_locked(&self, name: &str) -> Option<usize> {
        if let Some(server) = self.server_named(name) {
            return Some(server);
        }
        let free = || (1..MAX_SERVERS).filter(|server| !self.is_used(*server));
        if let Some(server) = free().find(|server| self.server_name(*server) == name) {
            // The worker may not have let go of it: what is known of it holds.
            self.server(server).position.store(0, Ordering::Relaxed);
            return Some(server);
        }
        let server = free().next()?;
        let _held = lock(self.text_lock);
        // SAFETY: the text lock is held, which every access to the texts takes.
        unsafe {
            let place = self.servers.add(server);
            (*place).name.set(name);
            (*place).texts.iter_mut().for_each(|text| text.set(""));
        }
        let place = self.server(server);
        place.position.store(0, Ordering::Relaxed);
        place.connected.store(false, Ordering::Relaxed);
        place.gone.store(false, Ordering::Relaxed);
        place.reconnects.store(0, Ordering::Relaxed);
        place.last_error_at.store(0, Ordering::Relaxed);
        place.oldest_unsent.store(0, Ordering::Relaxed);
        self.lags[server].reset();
        Some(server)
    }

    pub fn status_text(&self, server: usize, which: StatusText) -> String {
        let _held = lock(self.text_lock);
        self.server(server).texts[which as usize].get()
    }

    pub fn set_status_text(&self, server: usize, which: StatusText, text: &str) {
        let _held = lock(self.text_lock);
        // SAFETY: the text lock is held, which every access to the texts takes.
        unsafe { (*self.servers.add(server.min(MAX_SERVERS - 1))).texts[which as usize].set(text) };
    }

    /// Whether the worker is connected to a server.
    pub fn connected(&self, server: usize) -> bool {
        self.server(server).connected.load(Ordering::Relaxed)
    }

    /// Whether the worker does not know where a server is, and is not connected to it: nobody can write or purge there.
    pub fn is_gone(&self, server: usize) -> bool {
        self.server(server).gone.load(Ordering::Relaxed)
    }

    pub fn set_gone(&self, server: usize, gone: bool) {
        self.server(server).gone.store(gone, Ordering::Relaxed);
    }

    /// Whether the worker is connected to any server.
    pub fn connected_anywhere(&self) -> bool {
        (0..MAX_SERVERS).any(|server| self.connected(server))
    }

    pub fn set_connected(&self, server: usize, connected: bool) {
        self.server(server).connected.store(connected, Ordering::Relaxed);
    }

    /// Up to where in the ring a server has everything, or has been purged of what it lacks. Called by the worker.
    pub fn set_position(&self, server: usize, position: u64) {
        self.server(server).position.store(position, Ordering::SeqCst);
    }

    /// See [`Self::set_position`].
    pub fn position(&self, server: usize) -> u64 {
        self.server(server).position.load(Ordering::SeqCst)
    }

    /// Nothing of the ring goes to that server. Called by the worker.
    pub fn set_nothing_goes_to(&self, server: usize) {
        self.set_position(server, NOTHING_GOES_THERE);
    }

    /// Whether these servers have everything that was in the ring before `position`.
    pub fn has_reached(&self, position: u64, servers: ServerSet) -> bool {
        (0..MAX_SERVERS).all(|server| !servers.contains(server) || self.position(server) >= position)
    }

    fn waiters(&self) -> &[Waiter] {
        // SAFETY: there is one for each backend, zeroed by the startup hook.
        unsafe { std::slice::from_raw_parts(self.waiters, self.control().max_backends as usize) }
    }

    /// A backend waits until these servers reach that position, which is above 0.
    pub fn set_waiter(&self, backend: usize, position: u64, servers: ServerSet) {
        let Some(waiter) = self.waiters().get(backend) else {
            return;
        };
        waiter.servers.store(servers.0, Ordering::Relaxed);
        // After the servers: the worker that finds the position finds them, too.
        if waiter.position.swap(position.max(1), Ordering::SeqCst) == 0 {
            self.control().waiting.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub fn clear_waiter(&self, backend: usize) {
        let cleared = |position: &AtomicU64| {
            position.load(Ordering::Relaxed) != 0 && position.swap(0, Ordering::SeqCst) != 0
        };
        if let Some(waiter) = self.waiters().get(backend)
            && cleared(&waiter.position)
        {
            self.control().waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether a backend waits for a server.
    pub fn somebody_waits(&self) -> bool {
        self.control().waiting.load(Ordering::Relaxed) != 0
    }

    /// Wakes the backends whose servers have come to where they waited for. Called by the worker, once it has stored
    /// the positions.
    pub fn wake_waiters(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.control().waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        for (backend, waiter) in self.waiters().iter().enumerate() {
            let position = waiter.position.load(Ordering::SeqCst);
            if (1..u64::MAX).contains(&position)
                && self.has_reached(position, ServerSet(waiter.servers.load(Ordering::Relaxed)))
            {
                self.set_latch_of(backend);
            }
        }
    }
}
