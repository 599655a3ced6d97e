//! A Redis server of a test's own, and an engine that writes to it.
#![allow(dead_code, reason = "each test binary uses another part of it")]

pub mod detour;
pub mod versions;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use pg_redis_cache_core::redis::{
    Address, Chunk, Engine, EngineHandle, Event, Expiry, PurgeJob, Request, Settings, Setup, Target,
    new_instance,
};

/// How long anything may take before a test fails. Nothing is asserted about less.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis server on a socket in a folder of its own; both go with it.
pub struct Server {
    folder: PathBuf,
    options: Vec<String>,
    process: Child,
    frozen: bool,
}

impl Server {
    pub fn start(options: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("redis-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        let process = Self::spawn(&folder, &options);
        let server = Self {
            folder,
            options,
            process,
            frozen: false,
        };
        server.wait_until_it_answers();
        server
    }

    fn spawn(folder: &Path, options: &[String]) -> Child {
        // The same variable as that of tests/src/redisserver.rs.
        let program = std::env::var_os("PG_REDIS_CACHE_REDIS").unwrap_or_else(|| "redis-server".into());
        Command::new(&program)
            .args([
                "--port",
                "0",
                "--unixsocket",
                "s",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ])
            .arg(folder)
            .args(options)
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{program:?} cannot be run: {e}"))
    }

    fn wait_until_it_answers(&self) {
        eventually("the server answers", || {
            std::os::unix::net::UnixStream::connect(self.folder.join("s")).is_ok()
        });
    }

    /// The address, with these parameters (as `&pass=x`).
    pub fn url(&self, parameters: &str) -> String {
        format!(
            "redis+unix://{}?db=0{parameters}",
            self.folder.join("s").display()
        )
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }

    /// A connection beside the engine's.
    pub fn client(&self) -> redis::Connection {
        self.client_as("")
    }

    pub fn client_as(&self, parameters: &str) -> redis::Connection {
        self.client_at(&self.url(parameters))
    }

    pub fn client_at(&self, url: &str) -> redis::Connection {
        redis::Client::open(url).unwrap().get_connection().unwrap()
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again after `kill`, empty.
    pub fn restart(&mut self) {
        let _ = std::fs::remove_file(self.folder.join("s"));
        self.process = Self::spawn(&self.folder, &self.options);
        self.wait_until_it_answers();
    }

    /// Stops the process's clock; `thaw` lets it go on as if nothing had been.
    pub fn freeze(&mut self) {
        self.signal("-STOP");
        self.frozen = true;
    }

    pub fn thaw(&mut self) {
        self.signal("-CONT");
        self.frozen = false;
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What the tests store hashes as: whether complete, then each field's name and text behind their
/// lengths.
pub fn encode_fields(is_complete: bool, fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = vec![u8::from(is_complete)];
    for part in fields.iter().flat_map(|(name, text)| [name, text]) {
        bytes.extend((part.len() as u32).to_le_bytes());
        bytes.extend(*part);
    }
    bytes
}

pub fn hash_fields<'a>(bytes: &'a [u8], each: &mut dyn FnMut(&'a [u8], &'a [u8])) -> Option<bool> {
    fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let (part, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        *rest = tail;
        Some(part)
    }
    let (flag, mut rest) = bytes.split_first()?;
    while !rest.is_empty() {
        let name = part(&mut rest)?;
        each(name, part(&mut rest)?);
    }
    Some(*flag == 1)
}

/// FNV-1a, finished so that its upper half differs too.
pub fn hash(key: &[u8]) -> u64 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    });
    hash ^ hash.rotate_left(32)
}

pub fn target(mapping: u16, key: &[u8]) -> Target<'_> {
    Target {
        mapping,
        hash: hash(key),
        key,
    }
}

pub fn ttl(ms: u64) -> Expiry {
    Expiry::Milliseconds(NonZeroU64::new(ms).unwrap())
}

/// Of all keys that begin so.
pub fn purge(mapping: u16, epoch: u64, prefix: &'static str) -> Request {
    Request::Purge(PurgeJob {
        mapping,
        epoch,
        glob: format!("{prefix}*").into_bytes(),
        matches: Arc::new(|key| key.starts_with(prefix.as_bytes())),
    })
}

pub fn settings(url: &str) -> Settings {
    Settings {
        address: Address::parse(url).unwrap(),
        password: None,
        tls: None,
        connect_timeout: Duration::from_secs(10),
        command_timeout: Duration::from_secs(10),
    }
}

/// An engine with what it has reported so far.
pub struct Bench {
    handle: EngineHandle,
    woken: mpsc::Receiver<()>,
    pub events: Vec<Event>,
    next_chunk: u64,
}

impl Bench {
    pub fn start(lanes: usize, settings: Settings) -> Self {
        Self::start_with(lanes, settings, None)
    }

    pub fn start_with(lanes: usize, settings: Settings, marker: Option<&[u8]>) -> Self {
        let (wake, woken) = mpsc::channel();
        let setup = Setup {
            lanes,
            name: "test/1".to_owned(),
            label: String::new(),
            owner: "me".to_owned(),
            instance: new_instance(),
            hash_fields,
            marker: marker.map(<[u8]>::to_vec),
        };
        let waker = Box::new(move || wake.send(()).unwrap_or_default());
        let handle = Engine::start(setup, settings, waker).unwrap();
        Self {
            handle,
            woken,
            events: Vec::new(),
            next_chunk: 1,
        }
    }

    pub fn send(&self, request: Request) {
        self.handle.send(request);
    }

    /// Sends a chunk that `fill` fills, and returns its id.
    pub fn write(&mut self, fill: impl FnOnce(&mut Chunk)) -> u64 {
        let id = self.next_chunk;
        self.next_chunk += 1;
        let mut chunk = Chunk::with_capacity(id, 0, 0);
        fill(&mut chunk);
        self.send(Request::Write(chunk));
        id
    }

    /// Sends a chunk and waits until it is acknowledged.
    pub fn write_and_wait(&mut self, fill: impl FnOnce(&mut Chunk)) -> u64 {
        let id = self.write(fill);
        self.wait_for_chunk(id);
        id
    }

    pub fn wait_for_chunk(&mut self, id: u64) {
        self.wait_for(
            "acknowledgement",
            |e| matches!(e, Event::Acknowledged { chunk, .. } if *chunk == id),
        );
    }

    /// Reads events until one is as asked for, and returns its place. Earlier ones count too.
    pub fn wait_for(&mut self, what: &str, is_it: impl Fn(&Event) -> bool) -> usize {
        self.wait_after(0, what, is_it)
    }

    /// The same, from this place on.
    pub fn wait_after(&mut self, place: usize, what: &str, is_it: impl Fn(&Event) -> bool) -> usize {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = place;
        loop {
            while let Some(event) = self.handle.try_recv() {
                self.events.push(event);
            }
            if let Some(index) = self.events[seen..].iter().position(&is_it) {
                return seen + index;
            }
            seen = self.events.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if self.woken.recv_timeout(left).is_err() {
                let tail = &self.events[self.events.len().saturating_sub(20)..];
                panic!("no {what} within {PATIENCE:?}; the last events: {tail:#?}");
            }
        }
    }

    pub fn try_recv(&mut self) -> Option<Event> {
        self.handle.try_recv()
    }

    /// Has the engine stop, and returns all events. The engine may take longer than is waited for here: one that waits
    /// for its time to be over is noticed.
    pub fn stop(mut self) -> Vec<Event> {
        let within = PATIENCE * 10;
        self.send(Request::Shutdown { within });
        self.wait_for("stop", |e| matches!(e, Event::Stopped { .. }));
        self.handle.join().unwrap();
        self.events
    }

    /// Of which mappings something was lost; `None` is all.
    pub fn lost(&self) -> Vec<Option<u16>> {
        let lost = |event: &Event| match event {
            Event::Lost { mapping, .. } => Some(*mapping),
            _ => None,
        };
        self.events.iter().filter_map(lost).collect()
    }

    /// Counts of everything acknowledged, for one mapping: sets, fills, fills dropped, deletes, errors.
    pub fn counts(&self, mapping: u16) -> [u64; 5] {
        let mut sum = [0; 5];
        for event in &self.events {
            if let Event::Acknowledged { counts, .. } = event {
                for (_, c) in counts.iter().filter(|(of, _)| *of == mapping) {
                    for (sum, n) in
                        sum.iter_mut()
                            .zip([c.sets, c.fills, c.fills_dropped, c.deletes, c.errors])
                    {
                        *sum += n;
                    }
                }
            }
        }
        sum
    }
}
