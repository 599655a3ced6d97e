//! A look at masters that answer late, or not at all.

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::yield_now;

use super::*;
use crate::redis::doorman::{Doorman, beside_others, server};
use crate::redis::event::{EventReader, LossReason};
use crate::redis::routes::tests::{chart, nodes_of, shared};

/// Whether everything is lost since a master may have the values of before.
pub(super) fn is_taken_over(reader: &EventReader) -> bool {
    let is_told = |event: &Event| {
        matches!(
            event,
            Event::Lost {
                reason: LossReason::TakenOver,
                mapping: None,
                ..
            }
        )
    };
    std::iter::from_fn(|| reader.try_recv()).any(|event| is_told(&event))
}

/// Who has slots: the first of two masters those up to the first of these, the second one those from the other on.
#[derive(Clone, Copy)]
struct Border(u16, u16);

const BEFORE: Border = Border(8191, 8192);
const GIVEN_AWAY: Border = Border(9000, 9001);
const LACKING: Border = Border(8191, 8193);
/// One that is the second master's before, and the first one's once it is given away.
const MOVED: u16 = 8500;

/// Two masters, and what a test wants of them.
struct Pair {
    shared: Rc<Shared>,
    ports: [u16; 2],
    /// What each of the two answers next.
    says: [Option<UnboundedSender<String>>; 2],
}

impl Pair {
    /// Has one of the two answer a look.
    fn say(&self, at: usize, border: Border, epoch: u64) {
        let teller = ["a", "b"][at];
        let nodes = border.between(self.ports, |nodes| nodes_of(teller, epoch, nodes));
        self.says[at].as_ref().unwrap().send(nodes).unwrap();
    }

    /// Has both answer alike.
    fn agree(&self, border: Border, epoch: u64) {
        for at in 0..2 {
            self.say(at, border, epoch);
        }
    }

    /// Waits until this is the master by which a slot is written.
    async fn written_by(&self, at: usize) {
        while self
            .shared
            .routes()
            .table
            .as_ref()
            .and_then(|table| table.owner(MOVED))
            != Some(at)
        {
            yield_now().await;
        }
    }
}

impl Border {
    fn between<T>(self, [a, b]: [u16; 2], nodes: impl FnOnce(&[(&str, u16, &str)]) -> T) -> T {
        let [first, second] = [format!("0-{}", self.0), format!("{}-16383", self.1)];
        nodes(&[("a", a, &first), ("b", b, &second)])
    }
}

/// Runs a test with the control of two masters that have been looked at once, and their events.
async fn with_pair(test: impl AsyncFnOnce(&mut ClusterControl<'_>, &mut Pair, &EventReader)) {
    beside_others(async {
        let ((a, says_a), (b, says_b)) = (Doorman::new("process-a").await, Doorman::new("process-b").await);
        let (shared, reader) = shared();
        let shared = Rc::new(shared);
        let mut pair = Pair {
            shared: shared.clone(),
            ports: [a.port, b.port],
            says: [Some(says_a), Some(says_b)],
        };
        a.stand();
        b.stand();
        shared.apply(&BEFORE.between(pair.ports, chart)).unwrap();
        for (master, run_id) in shared.routes().masters.iter().zip(["process-a", "process-b"]) {
            master.became(Arc::new(server(run_id)));
        }
        let (_sender, mut errands) = unbounded_channel();
        let mut purges = VecDeque::new();
        let mut control = ClusterControl::new(&shared, &mut errands, &mut purges);
        control.connect_all().await;
        pair.agree(BEFORE, 1);
        assert!(control.look().await.is_some());
        assert!(!is_taken_over(&reader));
        test(&mut control, &mut pair, &reader).await;
    })
    .await;
}

impl ClusterControl<'_> {
    /// Until there is a line to each master.
    async fn connect_all(&mut self) {
        while self.lines.len() < self.shared.routes().masters.len() {
            self.openings
                .open_missing(&self.shared, &mut self.gauges, &self.lines);
            let (master, opened) = self.openings.next().await;
            self.take_line(master, opened.unwrap());
        }
    }

    /// Looks while the first master says that it was given slots, and the second one this once that is acted upon.
    async fn look_at_late(&mut self, pair: &Pair, said_late: Border, epoch: u64) -> Option<Chart> {
        pair.say(0, GIVEN_AWAY, 2);
        let late = async {
            pair.written_by(0).await;
            pair.say(1, said_late, epoch);
        };
        tokio::join!(self.look(), late).0
    }
}

#[tokio::test]
async fn who_does_not_answer_keeps_nobody_from_what_the_other_knows() {
    with_pair(async |control, pair, _| {
        let chart = control.look_at_late(pair, GIVEN_AWAY, 2).await;
        assert!(chart.is_some(), "both have answered");
    })
    .await;
}

/// Whether the second master is not believed when it has its slots back, after it has said this late in the look by
/// which it had lost them.
async fn is_doubted_after(said_late: Border, epoch: u64) -> bool {
    let mut is_doubted = false;
    with_pair(async |control, pair, reader| {
        control.look_at_late(pair, said_late, epoch).await;
        assert!(!is_taken_over(reader));
        pair.agree(BEFORE, 3);
        control.look().await;
        is_doubted = is_taken_over(reader);
    })
    .await;
    is_doubted
}

#[tokio::test]
async fn who_says_late_that_slots_are_not_its_own_has_said_it() {
    assert!(!is_doubted_after(GIVEN_AWAY, 2).await);
}

#[tokio::test]
async fn who_has_not_heard_and_says_so_late_is_not_believed() {
    assert!(is_doubted_after(BEFORE, 1).await);
}

/// Between the two answers lanes may have written to the first master.
#[tokio::test]
async fn who_claims_slots_back_within_a_look_is_not_believed() {
    with_pair(async |control, pair, reader| {
        control.look_at_late(pair, BEFORE, 3).await;
        assert!(is_taken_over(reader));
        pair.written_by(1).await;
    })
    .await;
}

#[tokio::test]
async fn what_a_late_one_knew_before_is_not_gone_back_to() {
    with_pair(async |control, pair, _| {
        control.look_at_late(pair, BEFORE, 1).await;
        pair.written_by(0).await;
        assert_eq!(control.known.as_ref().map(Chart::epoch), Some(2));
    })
    .await;
}

#[tokio::test]
async fn what_an_early_one_knew_before_is_not_gone_back_to() {
    with_pair(async |control, pair, _| {
        pair.agree(GIVEN_AWAY, 2);
        control.look().await;
        let table = pair.shared.routes().table.clone();
        let gauge = control.lines[1].1.gauge().clone();
        let sent = gauge.figures().sent;
        pair.say(1, BEFORE, 1);
        let late = async {
            while gauge.figures().sent == sent || gauge.figures().in_flight > 0 {
                yield_now().await;
            }
            pair.say(0, GIVEN_AWAY, 2);
        };
        tokio::join!(control.look(), late);
        let tables = [table, pair.shared.routes().table.clone()].map(Option::unwrap);
        assert!(Rc::ptr_eq(&tables[0], &tables[1]), "nothing was sent by another");
    })
    .await;
}

/// What is told of slots without a master: one line each time that some have none, and each time that all have one.
async fn told_after(looks: &[[Border; 2]]) -> Vec<bool> {
    let mut told = Vec::new();
    with_pair(async |control, pair, reader| {
        for look in looks {
            for (at, border) in look.iter().enumerate() {
                pair.say(at, *border, 1);
            }
            control.look().await;
        }
        let lacks = |event: Event| match event {
            Event::Unserved { fault } => Some(fault.is_some()),
            _ => None,
        };
        told = std::iter::from_fn(|| reader.try_recv())
            .filter_map(lacks)
            .collect();
    })
    .await;
    told
}

#[tokio::test]
async fn slots_without_a_master_are_told_once_and_not_while_the_nodes_disagree() {
    let (whole, lacking) = ([BEFORE; 2], [LACKING; 2]);
    assert_eq!(told_after(&[lacking, lacking, whole, whole]).await, [true, false]);
    let disagree = [[LACKING, BEFORE], [BEFORE, LACKING], [LACKING, BEFORE]];
    assert!(told_after(&disagree).await.is_empty());
}

#[tokio::test]
async fn who_hangs_up_and_is_back_with_its_slots_is_not_believed() {
    with_pair(async |control, pair, reader| {
        pair.say(0, GIVEN_AWAY, 2);
        pair.says[1] = None;
        assert!(control.look().await.is_none(), "one has not answered");
        pair.written_by(0).await;
        assert_eq!(control.lines.len(), 1);
        assert!(!is_taken_over(reader));
        pair.say(0, BEFORE, 3);
        control.look().await;
        assert!(is_taken_over(reader));
    })
    .await;
}
