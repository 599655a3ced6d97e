//! What becomes of single operations, where nothing happens by chance.

use super::*;

/// A lane where nothing happens by chance, two keys of different masters, and the number of the first one's.
fn quiet_lane() -> (Lane, [&'static str; 2], usize) {
    for mut lane in (1..).map(Lane::new) {
        let owner = |key: &str| lane.world.owners[&slot(key.as_bytes())];
        let at = owner(KEYS[0]);
        if let Some(other) = KEYS.into_iter().find(|key| owner(key) != at) {
            lane.world.is_quiet = true;
            return (lane, [KEYS[0], other], at);
        }
    }
    unreachable!("some seed spreads the keys")
}

#[test]
fn what_is_through_behind_a_chunk_that_is_held_up_is_told_too() {
    let (mut lane, [away, other], at) = quiet_lane();
    lane.world.is_away[at] = true;
    for round in 0..600 {
        lane.write(&[if round == 0 { away } else { other }]);
        while lane.step() || lane.world.lines.iter().flatten().count() < MASTERS - 1 {}
    }
    let mut told = Vec::new();
    while let Some(event) = lane.reader.try_recv() {
        match event {
            Event::HeldUp { chunk } => told.push(chunk),
            Event::Acknowledged { chunk, .. } => panic!("{chunk} is acknowledged"),
            _ => {}
        }
    }
    assert!(told.iter().copied().eq(1..=600), "{told:?}");
    // From now on the first one is merely slow.
    lane.reach(at);
    if lane.backlog.resume().is_none() {
        lane.gather();
    }
    lane.ledger.tell_held_up(&lane.events);
    let empty = Chunk::with_capacity(601, 0, 0);
    lane.ledger.enter(empty);
    lane.ledger.acknowledge(&lane.events);
    assert!(lane.reader.try_recv().is_none(), "nothing is told behind it");
}

#[test]
fn a_slot_that_nobody_has_waits_and_nothing_for_it() {
    let (mut lane, [orphan, other], _) = quiet_lane();
    let number = slot(orphan.as_bytes());
    let whole = lane.world.table.clone();
    let mut table = Table::new(MASTERS, whole.numbering());
    for slot in (0..SLOTS).filter(|slot| *slot != number) {
        table.give(slot, whole.owner(slot).unwrap());
    }
    lane.world.table = Rc::new(table);
    for _ in 0..20 {
        lane.write(&[other, orphan]);
        lane.step();
    }
    while lane.step() || lane.world.lines.contains(&None) {}
    assert_eq!(lane.world.keys.get(other), Some(&lane.wanted[other]));
    assert_eq!(lane.world.keys.get(orphan), None);
    lane.world.table = whole;
    while !lane.ledger.is_empty() {
        lane.step();
    }
    assert_eq!(lane.world.keys.get(orphan), Some(&lane.wanted[orphan]));
}

impl Lane {
    /// Until it has a line to this master.
    fn reach(&mut self, at: usize) {
        self.world.is_away[at] = false;
        while self.world.lines[at].is_none() {
            self.world.connect(&mut self.backlog);
        }
    }

    /// Without one to this master.
    fn go_on_without(&mut self, at: usize) {
        self.world.is_away[at] = true;
        self.world.lines[at] = None;
        while self.step() || self.world.lines.iter().flatten().count() < MASTERS - 1 {}
    }

    /// The chunks that were told to be held up since the last call.
    fn held_up(&self) -> Vec<u64> {
        let events = std::iter::from_fn(|| self.reader.try_recv());
        let told = events.filter_map(|event| match event {
            Event::HeldUp { chunk } => Some(chunk),
            _ => None,
        });
        told.collect()
    }
}

#[test]
fn a_master_that_is_there_for_moments_only_strands_nothing() {
    let (mut lane, [away, other], at) = quiet_lane();
    for _ in 0..20 {
        lane.write(&[away; 100]);
        lane.write(&[other]);
        lane.go_on_without(at);
        assert!(lane.backlog.stranded.is_empty());
        assert_eq!(lane.world.keys.get(other), Some(&lane.wanted[other]));
        lane.reach(at);
        lane.gather();
        assert!(!lane.next.is_empty());
    }
    while !lane.ledger.is_empty() {
        lane.step();
    }
    assert_eq!(lane.world.keys.get(away), Some(&lane.wanted[away]));
}

#[test]
fn what_comes_for_one_that_is_back_is_not_held() {
    let (mut lane, [away, _], at) = quiet_lane();
    for _ in 0..10 {
        lane.write(&[away; 100]);
    }
    lane.go_on_without(at);
    assert_eq!(lane.held_up().len(), 10);
    lane.reach(at);
    for _ in 0..10 {
        lane.write(&[away]);
        lane.gather();
    }
    assert!(!lane.next.has_room());
    assert!(lane.held_up().is_empty());
}

#[test]
fn nobody_wakes_for_a_time_that_has_passed() {
    let (mut lane, [away, _], at) = quiet_lane();
    lane.world.is_away[at] = true;
    lane.world.connect(&mut lane.backlog);
    lane.write(&[away]);
    lane.next.route_by(Some(&lane.world.table));
    lane.queue.gather(&mut lane.next);
    let next = std::mem::replace(&mut lane.next, Batch::new(|_, _| None));
    lane.backlog.strand(0, Work::new(next), &lane.ledger);
    for wait in [ASK_AGAIN * 1000, Duration::ZERO] {
        lane.backlog.stranded[0].not_before = Some(Instant::now() + wait);
        assert!(lane.backlog.resume().is_none());
        assert_eq!(lane.backlog.next_try().is_some(), !wait.is_zero());
    }
}

#[test]
fn what_can_be_reached_is_written_while_a_master_is_away() {
    let (mut lane, [away, other], at) = quiet_lane();
    for round in 0..20 {
        // In the middle of the first rounds something is sent there, and left behind.
        lane.world.is_away[at] = round > 0;
        lane.write(&[away, other, away]);
        while lane.step() || lane.world.lines.iter().filter(|line| line.is_some()).count() < MASTERS - 1 {}
        assert_eq!(
            lane.world.keys.get(other),
            Some(&lane.wanted[other]),
            "round {round}"
        );
    }
    assert!(lane.world.keys.get(away) < Some(&lane.wanted[away]));
    let events: Vec<Event> = std::iter::from_fn(|| lane.reader.try_recv()).collect();
    let told = |event: &&Event| matches!(event, Event::HeldUp { .. });
    assert_eq!(
        events.iter().filter(told).count(),
        19,
        "each chunk is told to be held up"
    );
    lane.world.is_away[at] = false;
    while !lane.ledger.is_empty() {
        lane.step();
    }
    assert_eq!(lane.world.keys.get(away), Some(&lane.wanted[away]));
}
