//! How connections are kept: given up for want of work, replaced at their age, and what is told of them.

mod redis_support;

use std::collections::BTreeSet;
use std::time::Duration;

use pg_redis_cache_core::redis::{
    ConnectionFigures, ConnectionState, Event, Expiry, Kind, Request, SlowPush, Tuning,
};
use redis_support::versions::{check_versions, kill_client, lanes, watch_versions, write_versions};
use redis_support::{Bench, Server, eventually, settings, target};

const BRIEF: Option<Duration> = Some(Duration::from_millis(50));

/// Ids of the engine's control connections.
fn controls(redis: &mut redis::Connection) -> Vec<u64> {
    let list: String = redis::cmd("CLIENT").arg("LIST").query(redis).unwrap();
    let controls = list.lines().filter(|line| line.contains("name=test/1:control"));
    let id = |line: &str| line.split_once("id=")?.1.split(' ').next()?.parse().ok();
    controls.filter_map(id).collect()
}

fn write(bench: &mut Bench, key: &[u8]) {
    bench.write_and_wait(|chunk| chunk.store_text(target(0, key), b"v", Expiry::Never, false));
}

fn tune(bench: &Bench, tuning: Tuning) {
    bench.send(Request::Tune(tuning));
}

/// Waits, from this place on, until the figures are as asked for.
fn until_told(bench: &mut Bench, from: usize, is_it: impl Fn(&[ConnectionFigures]) -> bool) -> usize {
    bench.wait_after(from, "figures", |event| match event {
        Event::Connections(figures) => is_it(figures),
        _ => false,
    })
}

fn is_trouble(event: &Event) -> bool {
    matches!(
        event,
        Event::Disconnected { .. } | Event::Lost { .. } | Event::Refusing { .. }
    )
}

#[test]
fn connections_are_replaced_at_their_age_and_no_key_goes_back() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(3, settings(&server.url("")));
    write(&mut bench, b"first");
    tune(
        &bench,
        Tuning {
            max_lifetime: BRIEF,
            ..Tuning::default()
        },
    );
    let watcher = watch_versions(&server, 20);
    let mut redis = server.client();
    let (mut seen, mut controlling) = (BTreeSet::new(), BTreeSet::new());
    let last = write_versions(&mut bench, 20, |_| {
        seen.extend(lanes(&mut redis));
        controlling.extend(controls(&mut redis));
        seen.len() < 20 || controlling.len() < 4
    });
    assert!(watcher() > 0);
    check_versions(&server, &last);
    // Nobody was told of any trouble, and nothing had to be sent again.
    let events = bench.stop();
    assert_eq!(
        events
            .iter()
            .find(|event| is_trouble(event))
            .map(|e| format!("{e:?}")),
        None
    );
}

/// Rule 5, where lines come and go for all reasons at once.
#[test]
fn with_connections_given_up_replaced_and_killed_no_key_goes_back() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(3, settings(&server.url("")));
    tune(
        &bench,
        Tuning {
            idle_timeout: Some(Duration::from_millis(1)),
            max_lifetime: Some(Duration::from_millis(20)),
            ..Tuning::default()
        },
    );
    let watcher = watch_versions(&server, 16);
    let mut redis = server.client();
    let (mut kills, mut pauses) = (0, 0u64);
    let last = write_versions(&mut bench, 16, |version| {
        if version % 1000 == 0 {
            // Now long enough for the lanes to rest, now not.
            pauses += 1;
            std::thread::sleep(Duration::from_millis(pauses % 5));
            if let Some(lane) = lanes(&mut redis).first() {
                kill_client(&mut redis, *lane);
                kills += 1;
            }
        }
        kills < 60
    });
    assert!(watcher() > 0);
    check_versions(&server, &last);
    let lost = |event: &&Event| matches!(event, Event::Lost { .. });
    assert!(bench.stop().iter().find(lost).is_none());
}

#[test]
fn a_lane_without_work_gives_its_connection_up_until_there_is_some() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(3, settings(&server.url("")));
    let mut redis = server.client();
    for key in 0..100u32 {
        write(&mut bench, &key.to_be_bytes());
    }
    assert_eq!(lanes(&mut redis).len(), 3);
    let control = controls(&mut redis);
    tune(
        &bench,
        Tuning {
            idle_timeout: BRIEF,
            ..Tuning::default()
        },
    );
    eventually("the lanes rest", || lanes(&mut redis).is_empty());
    let told = until_told(&mut bench, 0, |figures| {
        figures
            .iter()
            .filter(|of| of.state == ConnectionState::Idle)
            .count()
            == 3
    });
    for _ in 0..3 {
        write(&mut bench, b"key");
        eventually("the lane rests again", || lanes(&mut redis).is_empty());
    }
    // The control has stayed, and nothing counts as missing.
    assert_eq!(controls(&mut redis), control);
    let waiting = bench.events[told..].iter().any(|event| match event {
        Event::Pool(pool) => pool.waiting > 1,
        event => is_trouble(event),
    });
    assert!(!waiting, "{:#?}", &bench.events[told..]);
    // From now on they are kept.
    tune(&bench, Tuning::default());
    for key in 0..100u32 {
        write(&mut bench, &key.to_be_bytes());
    }
    std::thread::sleep(3 * BRIEF.unwrap());
    assert_eq!(lanes(&mut redis).len(), 3);
}

#[test]
fn trouble_is_over_without_the_lanes_that_rest() {
    let mut server = Server::start(&[]);
    let mut bench = Bench::start(2, settings(&server.url("")));
    tune(
        &bench,
        Tuning {
            idle_timeout: BRIEF,
            backoff_max: Duration::from_millis(50),
            ..Tuning::default()
        },
    );
    let resting = until_told(&mut bench, 0, |figures| {
        figures
            .iter()
            .filter(|of| of.state == ConnectionState::Idle)
            .count()
            == 2
    });
    server.kill();
    let down = bench.wait_after(resting, "loss", |e| matches!(e, Event::Disconnected { .. }));
    server.restart();
    // Another server: a lane that wakes writes there only after it is announced.
    let up = bench.wait_after(down, "return", |e| {
        matches!(e, Event::Connected { changed: true, .. })
    });
    write(&mut bench, b"key");
    let figures = until_told(&mut bench, up, |figures| {
        figures.iter().all(|of| {
            of.role != "control"
                || of.state == ConnectionState::Connected && of.errors.iter().sum::<u64>() > 0
        })
    });
    let Event::Connections(figures) = &bench.events[figures] else {
        panic!()
    };
    let lanes_in_trouble = figures.iter().filter(|of| of.role != "control");
    assert!(
        lanes_in_trouble
            .clone()
            .all(|of| of.errors.iter().all(|n| *n == 0))
    );
}

#[test]
fn what_is_told_of_each_connection_is_so() {
    let mut server = Server::start(&[]);
    let mut bench = Bench::start(2, settings(&server.url("")));
    let written = 500u32;
    for key in 0..written {
        write(&mut bench, &key.to_be_bytes());
    }
    let mut redis = server.client();
    let ids: BTreeSet<u64> = lanes(&mut redis)
        .into_iter()
        .chain(controls(&mut redis))
        .collect();
    let told = until_told(&mut bench, 0, |figures| {
        let sent: u64 = figures
            .iter()
            .filter(|of| of.role != "control")
            .map(|of| of.sent)
            .sum();
        sent >= u64::from(written)
    });
    let Event::Connections(figures) = bench.events[told].clone() else {
        panic!()
    };
    let roles: Vec<_> = figures.iter().map(|of| of.role.as_str()).collect();
    assert_eq!(roles, ["lane-0", "lane-1", "control"]);
    assert_eq!(
        figures
            .iter()
            .filter_map(|of| of.client_id)
            .collect::<BTreeSet<_>>(),
        ids
    );
    for of in &figures {
        assert_eq!((of.state, of.errors), (ConnectionState::Connected, [0; 10]));
        let (mean, longest) = of.times.expect("it has been answered");
        assert!(mean > Duration::ZERO && mean <= longest && of.since.is_some());
    }
    // What is on its way, and what becomes of it.
    server.freeze();
    bench.write(|chunk| chunk.store_text(target(0, b"k"), b"v", Expiry::Never, false));
    let told = until_told(&mut bench, told + 1, |figures| {
        figures.iter().any(|of| of.role != "control" && of.in_flight == 1)
    });
    server.kill();
    until_told(&mut bench, told + 1, |figures| {
        let lost =
            |of: &ConnectionFigures| of.errors[Kind::Lost as usize] + of.errors[Kind::Refused as usize];
        let gone = |of: &ConnectionFigures| of.client_id.is_none() && of.in_flight == 0 && lost(of) > 0;
        // The other lane finds out when it has something to write.
        let (control, lanes): (Vec<_>, Vec<_>) = figures.iter().partition(|of| of.role == "control");
        control.into_iter().all(gone) && lanes.into_iter().any(gone)
    });
}

#[test]
fn a_batch_that_takes_long_is_told_without_what_is_in_it() {
    let mut server = Server::start(&[]);
    let mut bench = Bench::start(1, settings(&server.url("")));
    write(&mut bench, b"first");
    let slow = |bench: &mut Bench, server: &mut Server| {
        server.freeze();
        let id = bench.write(|chunk| {
            for key in [b"secret-a", b"secret-b"] {
                chunk.store_text(target(3, key), b"secret", Expiry::Never, false);
            }
            chunk.delete(target(5, b"secret-c"), None);
        });
        std::thread::sleep(Duration::from_millis(300));
        server.thaw();
        bench.wait_for_chunk(id);
    };
    slow(&mut bench, &mut server);
    assert!(!bench.events.iter().any(|e| matches!(e, Event::SlowPush(_))));
    tune(
        &bench,
        Tuning {
            slow_push: Some(Duration::from_millis(20)),
            ..Tuning::default()
        },
    );
    slow(&mut bench, &mut server);
    let told = bench.wait_for("slow batch", |e| matches!(e, Event::SlowPush(_)));
    let Event::SlowPush(push) = bench.events[told].clone() else {
        panic!()
    };
    assert!(push.took >= Duration::from_millis(20), "{push:?}");
    assert!(!format!("{push:?}").contains("secret"));
    let expected = SlowPush {
        took: push.took,
        bytes: 3 * 8 + 2 * 6,
        mappings: vec![(3, 2), (5, 1)],
        role: "lane-0".to_owned(),
        address: server.url(""),
    };
    assert_eq!(push, expected);
}
