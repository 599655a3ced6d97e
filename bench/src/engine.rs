//! The worker's asynchronous half alone, through its public interface: no PostgreSQL.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use pg_redis_cache_core::encode::key::key_hash;
use pg_redis_cache_core::redis::{
    Address, Chunk, Engine, EngineHandle, Event, Expiry, Request, Settings, Setup, Target, new_instance,
};
use pg_redis_cache_tests::Redis;

use crate::Effort;
use crate::load::redis_benchmark;
use crate::report::Section;
use crate::stats::percentile;

const OPS_IN_CHUNK: usize = 256;
/// How many chunks may be unacknowledged.
const AHEAD: u64 = 64;
const VALUE: [u8; 50] = [b'x'; 50];
const PATIENCE: Duration = Duration::from_secs(60);

/// Its rate and its round trip, beside those of bare clients.
pub fn measure(effort: Effort) -> Section {
    let (rounds, sets, trips) = effort.pick((3, 200_000, 1_000), (7, 1_000_000, 5_000));
    let mut section = Section::new(
        "The engine alone",
        "What lies between the queue and Redis, without PostgreSQL: SETs of 16-byte keys and 50-byte values in chunks \
         of 256, beside redis-benchmark on one connection with 128 commands in flight; and single SETs, each after \
         the answer to the one before, beside a plain client.",
    );
    let redis = Redis::start();
    let mut rates: [Vec<f64>; 3] = Default::default();
    for round in 0..=rounds {
        let found = [
            redis_benchmark(redis.port(), sets),
            rate(&redis, 1, sets),
            rate(&redis, 4, sets),
        ];
        if round > 0 {
            rates
                .iter_mut()
                .zip(found)
                .for_each(|(rates, rate)| rates.push(rate));
        }
    }
    let [bare, one, four] = rates;
    let bare = section.case("redis-benchmark", "SETs/s", bare);
    let one = section.case("one lane", "SETs/s", one);
    let four = section.case("four lanes", "SETs/s", four);
    section.ratio("one lane / redis-benchmark", one, bare, None);
    section.ratio("four lanes / redis-benchmark", four, bare, None);
    round_trips(&mut section, &redis, rounds, trips);
    section
}

fn round_trips(section: &mut Section, redis: &Redis, rounds: usize, trips: usize) {
    let mut engine = Running::start(4, redis);
    let mut quantiles: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds {
        let (through, direct) = times(&mut engine, redis, trips);
        let found = [(&through, 0.5), (&direct, 0.5), (&through, 0.99), (&direct, 0.99)];
        for (values, (times, p)) in quantiles.iter_mut().zip(found) {
            values.push(percentile(times, p));
        }
    }
    engine.stop();
    let [through_50, direct_50, through_99, direct_99] = quantiles;
    for (quantile, through, direct) in [("p50", through_50, direct_50), ("p99", through_99, direct_99)] {
        let through = section.case(format!("through the engine {quantile}"), "ms", through);
        let direct = section.case(format!("plain client {quantile}"), "ms", direct);
        section.ratio(format!("engine / plain client {quantile}"), through, direct, None);
    }
}

/// Milliseconds of single SETs, through the engine and through a plain connection.
fn times(engine: &mut Running, redis: &Redis, trips: usize) -> (Vec<f64>, Vec<f64>) {
    let client = redis::Client::open(redis.url()).expect("the url is well formed");
    let mut plain = client.get_connection().expect("Redis is there");
    let mut set = redis::cmd("SET");
    set.arg("key:000000000001").arg(&VALUE);
    let (mut through, mut direct) = (Vec::with_capacity(trips), Vec::with_capacity(trips));
    for _ in 0..trips {
        let start = Instant::now();
        set.query::<()>(&mut plain).expect("Redis answers");
        direct.push(1e3 * start.elapsed().as_secs_f64());
        let start = Instant::now();
        engine.set_one(b"key:000000000001");
        through.push(1e3 * start.elapsed().as_secs_f64());
    }
    (through, direct)
}

fn rate(redis: &Redis, lanes: usize, sets: usize) -> f64 {
    let mut engine = Running::start(lanes, redis);
    // Connecting does not count.
    engine.set_one(b"warm");
    let chunks = chunks(engine.next, sets / OPS_IN_CHUNK);
    let start = Instant::now();
    for chunk in chunks {
        engine.next = chunk.id() + 1;
        engine.handle.send(Request::Write(chunk));
        engine.wait_for((engine.next - 1).saturating_sub(AHEAD));
    }
    engine.wait_for(engine.next - 1);
    let rate = (sets / OPS_IN_CHUNK * OPS_IN_CHUNK) as f64 / start.elapsed().as_secs_f64();
    engine.stop();
    rate
}

/// Chunks of SETs of random keys, of which there are a million.
fn chunks(first: u64, count: usize) -> Vec<Chunk> {
    let mut random = 1_u64;
    let mut key = || {
        // Knuth's MMIX generator; its upper bits are the random ones.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        format!("key:{:012}", (random >> 33) % 1_000_000)
    };
    let chunk = |id: u64, key: &mut dyn FnMut() -> String| {
        let mut chunk = Chunk::with_capacity(id, OPS_IN_CHUNK, OPS_IN_CHUNK * 66);
        for _ in 0..OPS_IN_CHUNK {
            chunk.store_text(target(key().as_bytes()), &VALUE, Expiry::Never, false);
        }
        chunk
    };
    (first..first + count as u64)
        .map(|id| chunk(id, &mut key))
        .collect()
}

fn target(key: &[u8]) -> Target<'_> {
    Target {
        mapping: 0,
        hash: key_hash(key),
        key,
    }
}

/// An engine and what it has acknowledged.
struct Running {
    handle: EngineHandle,
    woken: mpsc::Receiver<()>,
    /// The id of the next chunk.
    next: u64,
    acknowledged: u64,
    stopped: bool,
}

impl Running {
    fn start(lanes: usize, redis: &Redis) -> Running {
        let (wake, woken) = mpsc::channel();
        let setup = Setup {
            lanes,
            name: "bench".to_owned(),
            label: String::new(),
            owner: "bench".to_owned(),
            instance: new_instance(),
            // No hash is ever sent.
            hash_fields: |_, _| None,
            marker: None,
        };
        let settings = Settings {
            address: Address::parse(&redis.url()).expect("the url is well formed"),
            password: None,
            tls: None,
            connect_timeout: PATIENCE,
            command_timeout: PATIENCE,
        };
        // Once the receiver is gone nobody is left to be woken.
        let waker = Box::new(move || wake.send(()).unwrap_or_default());
        let handle = Engine::start(setup, settings, waker).expect("a thread can be started");
        Running {
            handle,
            woken,
            next: 1,
            acknowledged: 0,
            stopped: false,
        }
    }

    fn set_one(&mut self, key: &[u8]) {
        let mut chunk = Chunk::with_capacity(self.next, 1, 66);
        chunk.store_text(target(key), &VALUE, Expiry::Never, false);
        self.handle.send(Request::Write(chunk));
        self.next += 1;
        self.wait_for(self.next - 1);
    }

    /// Until that chunk is acknowledged.
    fn wait_for(&mut self, chunk: u64) {
        self.wait_until(|running| running.acknowledged >= chunk);
    }

    fn wait_until(&mut self, done: impl Fn(&Running) -> bool) {
        loop {
            while let Some(event) = self.handle.try_recv() {
                match event {
                    Event::Acknowledged { chunk, .. } => self.acknowledged = chunk,
                    Event::Stopped { .. } => self.stopped = true,
                    Event::Lost { reason, .. } => panic!("writes were lost: {reason}"),
                    _ => {}
                }
            }
            if done(self) {
                return;
            }
            self.woken.recv_timeout(PATIENCE).expect("the engine goes on");
        }
    }

    fn stop(mut self) {
        self.handle.send(Request::Shutdown { within: PATIENCE });
        self.wait_until(|running| running.stopped);
        self.handle.join().expect("the engine's thread ends");
    }
}
