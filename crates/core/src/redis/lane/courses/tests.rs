//! A lane between batches, with masters that are there, away, or gone.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::redis::batch::{Batch, InPart};
use crate::redis::doorman::{Doorman, beside_others, server};
use crate::redis::event::{Client, Event, EventReader};
use crate::redis::fault::Fault;
use crate::redis::queue::Queue;
use crate::redis::routes::tests::{chart, shared};

const LONG: Duration = Duration::from_secs(3600);

/// A lane of a cluster of two masters of which each has half of the slots.
struct Bench {
    lane: Lane,
    reader: EventReader,
}

impl Bench {
    fn new(ports: [u16; 2]) -> Self {
        let (shared, reader) = shared();
        let nodes = [("a", ports[0], "0-8191"), ("b", ports[1], "8192-16383")];
        shared.apply(&chart(&nodes)).unwrap();
        let mut lane = Lane::new(Rc::new(shared), Rc::new(Queue::default()), 0);
        lane.look_who_is_there();
        Self { lane, reader }
    }

    fn master(&self, at: usize) -> Rc<Master> {
        self.lane.routes.masters[at].clone()
    }

    /// Both were met by the control, which has a line to each.
    fn all_are_met(&self) {
        for (at, run_id) in ["process-a", "process-b"].into_iter().enumerate() {
            self.master(at).became(Arc::new(server(run_id)));
            self.master(at).open.set(1);
        }
        self.lane.shared.announce();
    }

    fn doubts(&mut self, run_id: &str) {
        let run_id = run_id.to_owned();
        self.lane
            .backlog
            .doubt(Client { run_id, id: 3 }, InPart::default());
    }

    fn events(&self) -> Vec<Event> {
        std::iter::from_fn(|| self.reader.try_recv()).collect()
    }
}

/// A lane that is about to open its lines to two masters that are there.
async fn with_masters() -> Bench {
    let [(a, _), (b, _)] = [Doorman::new("process-a").await, Doorman::new("process-b").await];
    let bench = Bench::new([a.port, b.port]);
    a.stand();
    b.stand();
    bench.all_are_met();
    bench
}

async fn rest_until_connected(lane: &mut Lane) {
    lane.connect().await;
    while !lane.has_all_lines() {
        lane.rest(&Batch::new(|_, _| None)).await;
    }
}

fn ends_trouble(events: &[Event]) -> bool {
    let ends = |event: &Event| matches!(event, Event::Connected { changed: false, .. });
    events.iter().any(ends)
}

fn begin_trouble(bench: &Bench) {
    let shared = &bench.lane.shared;
    shared.tell_trouble(Fault {
        cause: Cause::Timeout { after: LONG },
        address: String::new(),
    });
}

#[tokio::test]
async fn a_line_that_is_taken_at_rest_ends_the_trouble() {
    beside_others(async {
        let mut bench = with_masters().await;
        begin_trouble(&bench);
        rest_until_connected(&mut bench.lane).await;
        assert!(ends_trouble(&bench.events()));
    })
    .await;
}

#[tokio::test]
async fn a_line_that_is_taken_between_batches_ends_the_trouble() {
    beside_others(async {
        let mut bench = with_masters().await;
        begin_trouble(&bench);
        while !bench.lane.has_all_lines() {
            bench.lane.connect().await;
            tokio::task::yield_now().await;
        }
        assert!(ends_trouble(&bench.events()));
    })
    .await;
}

#[tokio::test]
async fn a_wait_that_is_over_is_acted_upon_once() {
    let mut bench = Bench::new([1, 2]);
    let master = bench.master(0);
    // The first wait is none.
    bench.lane.spare(&master);
    assert!(bench.lane.next_try().is_some());
    bench.lane.look_who_is_there();
    assert!(bench.lane.next_try().is_none());
}

/// What was sent to one that has lost its slots to another one since, while a third is away.
#[tokio::test]
async fn a_doubt_waits_for_nobody_but_its_own_process() {
    let mut bench = Bench::new([1, 2]);
    bench.doubts("process-gone");
    assert!(!bench.lane.bury().await, "it may be one that is not met yet");
    bench.all_are_met();
    bench.doubts("process-b");
    assert!(bench.lane.bury().await);
    let left = bench
        .lane
        .backlog
        .doubted(0)
        .map(|(client, _)| &client.run_id[..]);
    assert_eq!(left, Some("process-b"), "it may run its commands yet");
    assert!(!bench.lane.bury().await);
}

/// What ASK has said does not hold any longer then.
#[tokio::test]
async fn a_kill_that_fails_has_taken_time() {
    beside_others(async {
        let mut bench = with_masters().await;
        rest_until_connected(&mut bench.lane).await;
        bench.doubts("process-b");
        assert!(bench.lane.connect().await);
        assert!(!bench.lane.has_line(&bench.master(1)));
        assert!(bench.lane.backlog.doubted(0).is_some());
    })
    .await;
}

#[tokio::test]
async fn what_has_left_leaves_no_trouble_behind() {
    let bench = Bench::new([1, 2]);
    bench.all_are_met();
    for at in 0..2 {
        bench.master(at).open.set(2);
    }
    let stay = [("a", 1, "0-8191"), ("b", 2, "8192-16383")];
    let shared = &bench.lane.shared;
    shared
        .apply(&chart(&[stay[0], stay[1], ("c", 3, "[1->-a]")]))
        .unwrap();
    begin_trouble(&bench);
    assert!(!ends_trouble(&bench.events()));
    shared.apply(&chart(&stay)).unwrap();
    assert!(ends_trouble(&bench.events()));
}
