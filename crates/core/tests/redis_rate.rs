//! How fast the engine is, next to what the server gives a bare client in the same run. Not asserted:
//! run it with `cargo test --release --test redis_rate -- --ignored --nocapture`.

mod redis_support;

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use pg_redis_cache_core::redis::{Chunk, Event, Expiry, Request};
use redis_support::{Bench, Server, settings, target};

const ROUNDS: usize = 5;
const SETS: usize = 1_000_000;
const OPS_IN_CHUNK: usize = 256;
/// How much the sender lets be unacknowledged.
const CHUNKS_AHEAD: u64 = 64;

fn median(mut numbers: Vec<f64>) -> (f64, f64, f64) {
    numbers.sort_by(f64::total_cmp);
    (numbers[numbers.len() / 2], numbers[0], numbers[numbers.len() - 1])
}

fn on_tcp() -> (Server, u16) {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    (Server::start(&["--port", &port.to_string()]), port)
}

/// `redis-benchmark`: one connection, 128 commands in flight, 16-byte keys, 50-byte values.
fn benchmark_rate(port: u16) -> f64 {
    let output = Command::new("redis-benchmark")
        .args([
            "-p",
            &port.to_string(),
            "-c",
            "1",
            "-P",
            "128",
            "-t",
            "set",
            "-r",
            "1000000",
            "-d",
            "50",
            "--csv",
        ])
        .args(["-n", &SETS.to_string()])
        .output()
        .expect("redis-benchmark is installed");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("\"SET\"")).unwrap();
    line.split(',').nth(1).unwrap().trim_matches('"').parse().unwrap()
}

fn newest_acknowledged(bench: &mut Bench) -> u64 {
    bench.events.clear();
    bench.wait_for("acknowledgement", |e| matches!(e, Event::Acknowledged { .. }));
    let id = |e: &Event| {
        if let Event::Acknowledged { chunk, .. } = e {
            Some(*chunk)
        } else {
            None
        }
    };
    bench.events.iter().rev().find_map(id).unwrap()
}

fn engine_rate(port: u16, lanes: usize) -> f64 {
    let mut bench = Bench::start(lanes, settings(&format!("redis://127.0.0.1:{port}")));
    bench.write_and_wait(|chunk| chunk.delete(target(0, b"warm"), None));
    let value = [b'x'; 50];
    let mut random = 1_u64;
    let chunks = SETS / OPS_IN_CHUNK;
    let prepared: Vec<Chunk> = (0..chunks)
        .map(|n| {
            let mut chunk = Chunk::with_capacity(n as u64 + 10, OPS_IN_CHUNK, OPS_IN_CHUNK * 66);
            for _ in 0..OPS_IN_CHUNK {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let key = format!("key:{:012}", (random >> 33) % 1_000_000);
                chunk.store_text(target(0, key.as_bytes()), &value, Expiry::Never, false);
            }
            chunk
        })
        .collect();
    let start = Instant::now();
    let mut acknowledged = 9;
    for chunk in prepared {
        let id = chunk.id();
        bench.send(Request::Write(chunk));
        while id > acknowledged + CHUNKS_AHEAD {
            acknowledged = newest_acknowledged(&mut bench);
        }
    }
    while acknowledged < chunks as u64 + 9 {
        acknowledged = newest_acknowledged(&mut bench);
    }
    let rate = (chunks * OPS_IN_CHUNK) as f64 / start.elapsed().as_secs_f64();
    bench.stop();
    rate
}

#[test]
#[ignore = "a measurement"]
fn rate_next_to_redis_benchmark() {
    let (_server, port) = on_tcp();
    let mut rates: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        rates[0].push(benchmark_rate(port));
        rates[1].push(engine_rate(port, 1));
        rates[2].push(engine_rate(port, 4));
    }
    for lanes in [1, 2] {
        let ratios = rates[lanes]
            .iter()
            .zip(&rates[0])
            .map(|(engine, bare)| engine / bare)
            .collect();
        let (ratio, least, most) = median(ratios);
        println!(
            "{} lane(s): {ratio:.2} of redis-benchmark ({least:.2} to {most:.2})",
            [0, 1, 4][lanes]
        );
    }
    let [bare, one, four] = rates.map(|rates| median(rates).0 / 1e3);
    println!("in 1000 SET/s: redis-benchmark {bare:.0}, 1 lane {one:.0}, 4 lanes {four:.0}");
}

#[test]
#[ignore = "a measurement"]
fn latency_next_to_a_bare_round_trip() {
    let (server, port) = on_tcp();
    let mut bench = Bench::start(4, settings(&format!("redis://127.0.0.1:{port}")));
    let mut bare = server.client_at(&format!("redis://127.0.0.1:{port}"));
    let (mut engine, mut direct) = (Vec::new(), Vec::new());
    let mut set = redis::cmd("SET");
    set.arg("key:000000000001").arg(&[b'x'; 50]);
    for _ in 0..5000 {
        let start = Instant::now();
        set.query::<()>(&mut bare).unwrap();
        direct.push(start.elapsed());
        let start = Instant::now();
        bench.write_and_wait(|chunk| {
            chunk.store_text(target(0, b"key:000000000001"), &[b'x'; 50], Expiry::Never, false);
        });
        engine.push(start.elapsed());
        bench.events.clear();
    }
    let percentile = |times: &mut Vec<Duration>, of: usize| {
        times.sort();
        times[times.len() * of / 100]
    };
    for of in [50, 99] {
        let (engine, direct) = (percentile(&mut engine, of), percentile(&mut direct, of));
        println!("p{of}: through the engine {engine:?}, bare {direct:?}");
    }
}
