//! What stays right when connections are lost, the server stalls, restarts or refuses.

mod redis_support;

use std::time::{Duration, Instant};

use pg_redis_cache_core::redis::{Cause, Event, Expiry, LossReason, Request, Settings};
use redis::Commands;
use redis_support::detour::Detour;
use redis_support::versions::{check_versions, kill_client, lanes, watch_versions, write_versions};
use redis_support::{Bench, Server, encode_fields, eventually, settings, target, ttl};

#[test]
fn under_load_no_key_goes_back() {
    let server = Server::start(&[]);
    let stop = watch_versions(&server, 16);
    let mut bench = Bench::start(4, settings(&server.url("")));
    let last = write_versions(&mut bench, 16, |version| version < 200_000);
    assert!(stop() > 0);
    check_versions(&server, &last);
}

#[test]
fn with_connections_killed_at_random_no_key_goes_back_and_the_last_write_stays() {
    let server = Server::start(&[]);
    let stop = watch_versions(&server, 16);
    let mut bench = Bench::start(3, settings(&server.url("")));
    let (mut redis, mut kills, mut next_kill) = (server.client(), 0, Instant::now());
    let last = write_versions(&mut bench, 16, |version| {
        if Instant::now() >= next_kill {
            next_kill = Instant::now() + Duration::from_millis(7 + version % 13);
            let lanes = lanes(&mut redis);
            if !lanes.is_empty() {
                kill_client(&mut redis, lanes[version as usize / 20 % lanes.len()]);
                kills += 1;
            }
        }
        kills < 60
    });
    assert!(stop() > 0);
    check_versions(&server, &last);
    assert_eq!(bench.lost(), []);
    assert!(
        bench
            .events
            .iter()
            .any(|e| matches!(e, Event::Disconnected { .. }))
    );
}

#[test]
fn what_a_frozen_server_has_read_does_not_run_after_newer_writes() {
    let mut server = Server::start(&[]);
    let url = server.url("");
    let impatient = Settings {
        connect_timeout: Duration::from_millis(100),
        command_timeout: Duration::from_millis(100),
        ..settings(&url)
    };
    let stop = watch_versions(&server, 8);
    let mut bench = Bench::start(2, impatient);
    bench.wait_for(
        "connection",
        |e| matches!(e, Event::Pool(state) if state.waiting == 0),
    );
    let mut expected = vec![0; 8];
    for round in 0..5 {
        let version = |key: usize, step: u64| 1000 * round + 100 + step * 10 + key as u64;
        server.freeze();
        let mark = bench.events.len();
        for step in 0..3 {
            bench.write(|chunk| {
                for (key, last) in expected.iter_mut().enumerate() {
                    *last = version(key, step);
                    let name = format!("v:{key}");
                    chunk.store_text(
                        target(0, name.as_bytes()),
                        last.to_string().as_bytes(),
                        Expiry::Never,
                        false,
                    );
                }
            });
        }
        bench.wait_after(
            mark,
            "timeout",
            |e| matches!(e, Event::Disconnected { fault } if matches!(fault.cause, Cause::Timeout { .. })),
        );
        // Newer writes come while the old ones lie in the frozen server's sockets.
        let newest = bench.write(|chunk| {
            for (key, last) in expected.iter_mut().enumerate() {
                *last = version(key, 5);
                let name = format!("v:{key}");
                chunk.store_text(
                    target(0, name.as_bytes()),
                    last.to_string().as_bytes(),
                    Expiry::Never,
                    false,
                );
            }
        });
        server.thaw();
        bench.wait_for_chunk(newest);
        check_versions(&server, &expected);
    }
    assert!(stop() > 0);
    assert_eq!(bench.lost(), []);
}

#[test]
fn commands_that_arrive_late_over_a_lost_connection_do_not_run() {
    let server = Server::start(&[]);
    let detour = Detour::to(&server.socket());
    let impatient = Settings {
        command_timeout: Duration::from_millis(100),
        ..settings(&detour.url())
    };
    let mut bench = Bench::start(1, impatient);
    let write = |bench: &mut Bench, versions: &[&str]| {
        bench.write_and_wait(|chunk| {
            for version in versions {
                chunk.store_text(target(0, b"k"), version.as_bytes(), Expiry::Never, false);
            }
        });
    };
    write(&mut bench, &["0"]);
    detour.hold();
    // Sent over the old connection, where they stay, and after the timeout over a new one.
    write(&mut bench, &["1", "2", "3"]);
    write(&mut bench, &["4"]);
    detour.release();
    let mut redis = server.client();
    assert_eq!(redis.get::<_, u64>("k").unwrap(), 4);
    assert_eq!(bench.lost(), []);
    // Of what was sent again, only the last operation of the key: 0, 3 and 4.
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut redis).unwrap();
    let sets = stats
        .lines()
        .find(|line| line.starts_with("cmdstat_set:"))
        .unwrap();
    assert!(sets.contains("calls=3,"), "{sets}");
}

#[test]
fn a_restarted_server_is_announced_before_anything_it_answered_is_acknowledged() {
    let mut server = Server::start(&[]);
    let mut bench = Bench::start(3, settings(&server.url("")));
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"k"), b"1", Expiry::Never, false));
    for round in 2..5_u64 {
        let mark = bench.events.len();
        server.kill();
        let first = bench.write(|chunk| {
            for n in 0..50 {
                chunk.store_text(target(0, format!("k{n}").as_bytes()), b"1", Expiry::Never, false);
            }
        });
        let last = bench.write(|chunk| {
            chunk.store_text(
                target(0, b"k"),
                round.to_string().as_bytes(),
                Expiry::Never,
                false,
            );
        });
        bench.wait_after(mark, "loss", |e| matches!(e, Event::Disconnected { .. }));
        server.restart();
        bench.wait_for_chunk(last);
        let announced = bench.wait_after(mark, "announcement", |e| {
            matches!(e, Event::Connected { changed: true, .. })
        });
        let acknowledged = bench.wait_after(
            mark,
            "chunk",
            |e| matches!(e, Event::Acknowledged { chunk, .. } if *chunk == first),
        );
        assert!(
            announced < acknowledged,
            "announced at {announced}, acknowledged at {acknowledged}"
        );
        assert_eq!(server.client().get::<_, u64>("k").unwrap(), round);
    }
    let mut processes: Vec<String> = Vec::new();
    for event in &bench.events {
        if let Event::Connected {
            server,
            changed: true,
            ..
        } = event
        {
            assert!(!processes.contains(&server.run_id), "announced twice");
            processes.push(server.run_id.clone());
        }
    }
    assert_eq!(processes.len(), 4);
}

#[test]
fn idle_lanes_notice_a_restart_by_the_watch() {
    let mut server = Server::start(&[]);
    let mut bench = Bench::start(2, settings(&server.url("")));
    let mark = bench.wait_for("connection", |e| {
        matches!(e, Event::Connected { changed: true, .. })
    });
    server.kill();
    server.restart();
    bench.wait_after(mark + 1, "announcement", |e| {
        matches!(e, Event::Connected { changed: true, .. })
    });
    bench.wait_after(
        mark + 1,
        "all connections",
        |e| matches!(e, Event::Pool(state) if state.waiting == 0),
    );
}

#[test]
fn an_absent_server_is_told_once_and_what_was_queued_is_written_when_it_comes() {
    let mut server = Server::start(&[]);
    server.kill();
    let mut bench = Bench::start(2, settings(&server.url("")));
    bench.wait_for("loss", |e| matches!(e, Event::Disconnected { .. }));
    let id = bench.write(|chunk| {
        for n in 0..100 {
            chunk.store_text(target(0, format!("k{n}").as_bytes()), b"1", Expiry::Never, false);
        }
    });
    bench.send(Request::Ping { ticket: 1 });
    bench.wait_for("pong", |e| {
        matches!(
            e,
            Event::Pong {
                ticket: 1,
                round_trip: Err(_)
            }
        )
    });
    std::thread::sleep(Duration::from_millis(300));
    // How the connections are is told each second.
    let news = std::iter::from_fn(|| bench.try_recv()).find(|e| !matches!(e, Event::Connections(_)));
    assert!(news.is_none(), "an event without news: {news:?}");
    server.restart();
    bench.wait_for_chunk(id);
    assert_eq!(
        redis::cmd("DBSIZE").query::<u64>(&mut server.client()).unwrap(),
        100
    );
    let troubles = bench
        .events
        .iter()
        .filter(|e| matches!(e, Event::Disconnected { .. }))
        .count();
    // The socket file may be there for a moment before anyone listens.
    assert!(troubles <= 2, "{troubles} times");
}

#[test]
fn a_stop_does_not_wait_for_an_absent_server() {
    let mut server = Server::start(&[]);
    server.kill();
    let mut bench = Bench::start(2, settings(&server.url("")));
    bench.write(|chunk| chunk.store_text(target(0, b"k"), b"1", Expiry::Never, false));
    let events = bench.stop();
    assert!(matches!(events.last(), Some(Event::Stopped { drained: false })));
}

#[test]
fn without_the_right_to_kill_what_was_in_flight_is_lost() {
    let mut server = Server::start(&[]);
    let mut redis = server.client();
    redis::cmd("ACL")
        .arg("SETUSER")
        .arg(&["bob", "on", ">pw", "~*", "+@all"])
        .arg(client_rights_without("kill"))
        .query::<()>(&mut redis)
        .unwrap();
    let impatient = Settings {
        command_timeout: Duration::from_millis(100),
        ..settings(&server.url("&user=bob&pass=pw"))
    };
    let mut bench = Bench::start(1, impatient);
    bench.write_and_wait(|chunk| chunk.store_text(target(1, b"a"), b"1", Expiry::Never, false));
    server.freeze();
    let id = bench.write(|chunk| chunk.store_text(target(2, b"k"), b"1", Expiry::Never, false));
    bench.wait_for("timeout", |e| matches!(e, Event::Disconnected { .. }));
    server.thaw();
    bench.wait_for_chunk(id);
    assert_eq!(bench.lost(), [Some(2)]);
    let place = bench.wait_for("loss", |e| matches!(e, Event::Lost { .. }));
    let Event::Lost { reason, .. } = &bench.events[place] else {
        unreachable!()
    };
    assert!(matches!(reason, LossReason::Unkillable { .. }), "{reason:?}");
    let acknowledged = bench.wait_for(
        "chunk",
        |e| matches!(e, Event::Acknowledged { chunk, .. } if *chunk == id),
    );
    assert!(place < acknowledged);
}

#[test]
fn the_clients_of_an_earlier_engine_are_killed_before_anything_is_written() {
    let server = Server::start(&[]);
    let named = |name: &str| {
        let mut client = server.client();
        let set = redis::cmd("CLIENT")
            .arg("SETNAME")
            .arg(name)
            .query::<()>(&mut client);
        set.unwrap();
        client
    };
    let earlier = [
        "test/1:lane-0:me:x",
        "test/2.1-dev:lane-7:me:y",
        "test/1:control:me:x",
    ];
    let others = [
        "test/1:lane-0:you:x",
        "else/1:lane-0:me:x",
        "test/1:lane-0:me",
        "me",
        "",
    ];
    let (earlier, others) = (earlier.map(named), others.map(named));
    let mut bench = Bench::start(2, settings(&server.url("")));
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"k"), b"1", Expiry::Never, false));
    for mut client in earlier {
        assert!(redis::cmd("PING").query::<()>(&mut client).is_err());
    }
    for mut client in others {
        assert!(redis::cmd("PING").query::<()>(&mut client).is_ok());
    }
    assert!(bench.lost().is_empty());
}

/// All keys of a mapping that is called `k`.
fn purge(bench: &mut Bench, epoch: u64) {
    bench.send(redis_support::purge(0, epoch, "k"));
    bench.wait_for(
        "purge",
        |e| matches!(e, Event::Purged { epoch: purged, .. } if *purged == epoch),
    );
}

#[test]
fn no_purge_is_over_before_the_clients_of_an_earlier_engine_are_killed() {
    let server = Server::start(&[]);
    let mut earlier = server.client();
    let name = redis::cmd("CLIENT")
        .arg("SETNAME")
        .arg("test/1:lane-0:me:x")
        .query::<()>(&mut earlier);
    name.unwrap();
    let detour = Detour::to(&server.socket());
    // Only the control connection comes up.
    detour.refuse(b":lane-");
    let mut bench = Bench::start(2, settings(&detour.url()));
    purge(&mut bench, 1);
    assert!(earlier.set::<_, _, ()>("k", 1).is_err());
    assert!(!server.client().exists::<_, bool>("k").unwrap());
}

#[test]
fn what_was_sent_to_a_server_that_was_left_does_not_run_once_it_is_met_again() {
    let (first, second) = (Server::start(&[]), Server::start(&[]));
    let detour = Detour::to(&first.socket());
    let mut bench = Bench::start(1, settings(&detour.url()));
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"k"), b"1", Expiry::Never, false));
    bench.wait_for(
        "all connections",
        |e| matches!(e, Event::Pool(state) if state.waiting == 0),
    );
    detour.hold();
    let kept = bench.write(|chunk| chunk.store_text(target(0, b"k"), b"2", Expiry::Never, false));
    eventually("the write to be on its way", || detour.keeps_something());
    bench.send(Request::Reconfigure(settings(&second.url(""))));
    bench.wait_for_chunk(kept);
    let mark = bench.events.len();
    bench.send(Request::Reconfigure(settings(&detour.url())));
    bench.wait_after(mark, "the first server", |e| {
        matches!(e, Event::Connected { changed: true, .. })
    });
    purge(&mut bench, 1);
    detour.release();
    assert!(!first.client().exists::<_, bool>("k").unwrap());
    assert_eq!(bench.lost(), []);
}

/// Rules of an ACL for the CLIENT commands that the engine uses, but for one. (Redis 6.2 can give a subcommand and not
/// take it away.)
fn client_rights_without(forbidden: &str) -> Vec<String> {
    let others = ["id", "setname", "list", "kill"]
        .iter()
        .filter(|command| **command != forbidden)
        .map(|command| format!("+client|{command}"));
    ["-client".to_owned()].into_iter().chain(others).collect()
}

#[test]
fn who_may_not_see_earlier_clients_loses_everything_once() {
    for forbidden in ["list", "setname"] {
        let server = Server::start(&[]);
        let mut redis = server.client();
        redis::cmd("ACL")
            .arg(&["SETUSER", "u", "on", ">secret", "~*", "+@all"])
            .arg(client_rights_without(forbidden))
            .query::<()>(&mut redis)
            .unwrap();
        let mut bench = Bench::start(1, settings(&server.url("&user=u&pass=secret")));
        bench.write_and_wait(|chunk| chunk.store_text(target(0, b"k"), b"1", Expiry::Never, false));
        assert_eq!(bench.lost(), [None], "{forbidden}");
    }
}

#[test]
fn a_fill_whose_connection_is_lost_ends_without_a_key() {
    let mut server = Server::start(&[]);
    let impatient = Settings {
        command_timeout: Duration::from_millis(100),
        ..settings(&server.url(""))
    };
    let mut bench = Bench::start(1, impatient);
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"other"), b"1", Expiry::Never, false));
    server.freeze();
    let fields = encode_fields(true, &[(b"a", b"1")]);
    let id = bench.write(|chunk| {
        chunk.store_hash(target(0, b"fill"), &fields, ttl(100_000), true);
        chunk.store_text(target(0, b"write"), b"1", Expiry::Never, false);
        chunk.store_text(target(0, b"write"), b"2", Expiry::Never, false);
        chunk.delete(target(0, b"gone"), Some(1));
        chunk.store_text(target(0, b"gone"), b"3", Expiry::Never, true);
    });
    bench.wait_for("timeout", |e| matches!(e, Event::Disconnected { .. }));
    server.thaw();
    bench.wait_for_chunk(id);
    let mut keys: Vec<String> = server.client().keys("*").unwrap();
    keys.sort();
    assert_eq!(keys, ["other", "write"]);
    assert_eq!(server.client().get::<_, u64>("write").unwrap(), 2);
    assert!(
        bench
            .events
            .iter()
            .any(|e| matches!(e, Event::Answer { ticket: 1, .. }))
    );
    assert_eq!(bench.counts(0), [3, 0, 2, 1, 0]);
}

#[test]
fn a_purge_begins_again_on_another_connection() {
    let server = Server::start(&[]);
    let mut redis = server.client();
    redis::cmd("EVAL")
        .arg("for i = 1, 200000 do redis.call('SET', 'user:' .. i, i) end")
        .arg(0)
        .query::<()>(&mut redis)
        .unwrap();
    let mut bench = Bench::start(1, settings(&server.url("")));
    bench.send(redis_support::purge(1, 2, "user:"));
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut redis).unwrap();
    if let Some(control) = list.lines().find(|line| line.contains("name=test/1:control")) {
        let id = control
            .split_once("id=")
            .unwrap()
            .1
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        kill_client(&mut redis, id);
    }
    bench.wait_for("purge", |e| {
        matches!(
            e,
            Event::Purged {
                mapping: 1,
                epoch: 2,
                ..
            }
        )
    });
    assert_eq!(redis::cmd("DBSIZE").query::<u64>(&mut redis).unwrap(), 0);
}

#[test]
fn new_settings_lead_to_another_server_and_everything_unacknowledged_goes_there() {
    let mut first = Server::start(&[]);
    let second = Server::start(&[]);
    let mut bench = Bench::start(2, settings(&first.url("")));
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"a"), b"1", Expiry::Never, false));
    first.freeze();
    let id = bench.write(|chunk| {
        for n in 0..100 {
            chunk.store_text(target(0, format!("k{n}").as_bytes()), b"1", Expiry::Never, false);
        }
    });
    bench.send(Request::Reconfigure(settings(&second.url(""))));
    bench.wait_for_chunk(id);
    assert_eq!(
        redis::cmd("DBSIZE").query::<u64>(&mut second.client()).unwrap(),
        100
    );
    eventually("the second server is announced", || {
        bench
            .events
            .iter()
            .filter(|e| matches!(e, Event::Connected { changed: true, .. }))
            .count()
            == 2
    });
}
