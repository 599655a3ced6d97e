//! The steps that a state allows, and the search through all of them.

use super::decisions::{Decisions, Mutant};
use super::state::{Command, KEYS, NOTHING, Purge, READERS, State, WRITERS, purge, reader, writer};
use crate::ring::batch::Kind;
use rustc_hash::FxHashSet;
use std::fmt::Write;

/// What a writer does to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Update,
    Delete,
    /// An INSERT where `insert = off`, after a DELETE: nobody is told.
    UncapturedInsert,
}

/// Who is there, and what may happen.
#[derive(Clone, Copy)]
pub(super) struct Case {
    pub writers: &'static [&'static [(u8, Change)]],
    /// The keys of the rows that each reader's scan finds.
    pub readers: &'static [&'static [u8]],
    /// Whether a writer's append may fail.
    pub lossy: bool,
    /// How often the worker may be restarted.
    pub restarts: u8,
    /// Whether others may come between the two stores of a write or a loss.
    pub torn: bool,
}

pub(super) struct Found {
    pub states: usize,
    /// What went wrong, and the steps that led there.
    pub violation: Option<String>,
}

/// One step, for the record.
#[expect(dead_code, reason = "the fields are read when a history is printed")]
#[derive(Debug, Clone, Copy)]
enum Step {
    GetXid(usize),
    Change(usize),
    PreCommit(usize),
    Visible(usize),
    Append(usize),
    HalfLose(usize),
    Lose(usize),
    Snapshot(usize),
    Note(usize),
    Test(usize),
    Fill(usize),
    HalfTake(u8),
    Take(u8),
    Run { key: u8, value: u8 },
    Acknowledge,
    Restart,
    BeginPurge,
    PurgeKey(u8),
    EndPurge,
}

struct Search<'a> {
    case: &'a Case,
    decisions: Decisions,
    next: Vec<(Step, State)>,
}

/// Walks through every state that can be reached, until one is wrong.
pub(super) fn search(case: &Case, mutant: Mutant) -> Found {
    let mut search = Search {
        case,
        decisions: Decisions::new(mutant),
        next: Vec::new(),
    };
    let mut seen = FxHashSet::default();
    // For each state met, the step that led to it and the index of the state before.
    let mut trail: Vec<(Option<Step>, u32)> = Vec::new();
    let mut stack = vec![(None, 0u32, State::first())];
    while let Some((step, before, state)) = stack.pop() {
        if !seen.insert(state.fingerprint()) {
            continue;
        }
        let at = trail.len() as u32;
        trail.push((step, before));
        let wrong = search.wrong(&state).or_else(|| {
            search.steps(&state);
            (search.next.is_empty() && !search.over(&state)).then(|| "nothing can go on".to_owned())
        });
        if let Some(wrong) = wrong {
            let violation = Some(format!("{wrong} after{}", steps_to(&trail, at)));
            return Found {
                states: seen.len(),
                violation,
            };
        }
        stack.extend(search.next.drain(..).map(|(step, next)| (Some(step), at, next)));
    }
    Found {
        states: seen.len(),
        violation: None,
    }
}

fn steps_to(trail: &[(Option<Step>, u32)], mut at: u32) -> String {
    let mut steps = Vec::new();
    while let (Some(step), before) = trail[at as usize] {
        steps.push(step);
        at = before;
    }
    let mut text = String::new();
    for step in steps.into_iter().rev() {
        let _ = write!(text, " {step:?}");
    }
    text
}

impl Search<'_> {
    /// What must hold in every state.
    fn wrong(&self, state: &State) -> Option<String> {
        for key in 0..KEYS {
            let (cached, row) = (state.redis[key], state.rows[key]);
            if cached.value != 0 && cached.value < cached.highest {
                return Some(format!(
                    "key {key} went back from {} to {}",
                    cached.highest, cached.value
                ));
            }
            let is_row = row.alive != 0 && row.version == cached.value;
            if self.at_rest(state) && cached.value != 0 && !is_row {
                return Some(format!(
                    "key {key} is stale, {} for {}",
                    cached.value, row.version
                ));
            }
        }
        None
    }

    /// Nothing that was committed is still under way to Redis. Others may be about to commit.
    fn at_rest(&self, state: &State) -> bool {
        let committing = |at| at == writer::VISIBLE || at == writer::LOSING;
        state.ring.len() == 0
            && state.purge.at == purge::NONE
            && state.gate.purged == state.gate.epoch
            && !state.writers.iter().any(|writer| committing(writer.at))
    }

    fn over(&self, state: &State) -> bool {
        let writers = &state.writers[..self.case.writers.len()];
        let readers = &state.readers[..self.case.readers.len()];
        self.at_rest(state)
            && writers
                .iter()
                .all(|w| w.at == writer::DONE || w.at == writer::HAS_XID)
            && readers.iter().all(|r| r.at == reader::DONE)
    }

    fn go(&mut self, step: Step, next: State) {
        self.next.push((step, next));
    }

    fn steps(&mut self, state: &State) {
        debug_assert!(self.case.writers.len() <= WRITERS && self.case.readers.len() <= READERS);
        (0..self.case.writers.len()).for_each(|i| self.writer_steps(state, i));
        (0..self.case.readers.len()).for_each(|i| self.reader_steps(state, i));
        self.worker_steps(state);
        self.purge_steps(state);
    }

    fn writer_steps(&mut self, state: &State, i: usize) {
        let mut next = *state;
        match state.writers[i].at {
            writer::IDLE => {
                next.writers[i].xid = state.next_xid;
                next.writers[i].at = writer::HAS_XID;
                next.next_xid += 1;
                self.go(Step::GetXid(i), next);
            }
            writer::HAS_XID if self.may_change(state, i) => {
                for (key, _) in self.case.writers[i] {
                    next.writers[i].made[*key as usize] = state.rows[*key as usize].version + 1;
                }
                next.writers[i].at = writer::CHANGED;
                self.go(Step::Change(i), next);
            }
            // Without an op it takes no number.
            writer::CHANGED if !self.captured(i) => self.become_visible(next, i, writer::DONE),
            writer::CHANGED => {
                next.s += 1;
                next.writers[i].s = next.s;
                next.writers[i].epoch = self.decisions.epoch(state);
                next.writers[i].at = writer::NUMBERED;
                self.go(Step::PreCommit(i), next);
            }
            writer::NUMBERED => self.become_visible(next, i, writer::VISIBLE),
            writer::VISIBLE if !self.locked(state) => self.append_or_lose(state, i),
            writer::LOSING => {
                self.decisions.lose(&mut next, i, true);
                next.writers[i].at = writer::DONE;
                self.go(Step::Lose(i), next);
            }
            _ => {}
        }
    }

    fn captured(&self, i: usize) -> bool {
        self.case.writers[i]
            .iter()
            .any(|(_, change)| *change != Change::UncapturedInsert)
    }

    /// Row locks: nobody else is between changing a row of the same key and being visible. An
    /// insert needs the row gone.
    fn may_change(&self, state: &State, i: usize) -> bool {
        let locked = |key: u8| {
            state.writers.iter().any(|other| {
                (writer::CHANGED..=writer::NUMBERED).contains(&other.at) && other.made[key as usize] != 0
            })
        };
        self.case.writers[i].iter().all(|(key, change)| {
            let alive = state.rows[*key as usize].alive != 0;
            !locked(*key) && (*change != Change::UncapturedInsert || !alive)
        })
    }

    fn become_visible(&mut self, mut next: State, i: usize, at: u8) {
        for (key, change) in self.case.writers[i] {
            let row = &mut next.rows[*key as usize];
            row.version = next.writers[i].made[*key as usize];
            row.alive = u8::from(*change != Change::Delete);
        }
        next.completed = next.completed.max(next.writers[i].xid);
        next.writers[i].at = at;
        self.go(Step::Visible(i), next);
    }

    /// Whether somebody holds the ring's lock.
    fn locked(&self, state: &State) -> bool {
        state.writers.iter().any(|writer| writer.at == writer::LOSING)
    }

    fn append_or_lose(&mut self, state: &State, i: usize) {
        let mut next = *state;
        next.ring.push(i as u8);
        next.writers[i].at = writer::DONE;
        self.go(Step::Append(i), next);
        if !self.case.lossy {
            return;
        }
        let mut next = *state;
        if self.case.torn {
            self.decisions.half_lose(&mut next, i);
            next.writers[i].at = writer::LOSING;
            return self.go(Step::HalfLose(i), next);
        }
        self.decisions.lose(&mut next, i, false);
        next.writers[i].at = writer::DONE;
        self.go(Step::Lose(i), next);
    }

    fn reader_steps(&mut self, state: &State, i: usize) {
        let mut next = *state;
        match state.readers[i].at {
            reader::IDLE => {
                // As GetSnapshotData does: bounded by the latest xid that has ended, not the next.
                let xmax = state.completed + 1;
                let running =
                    |w: &&super::state::Writer| (writer::HAS_XID..=writer::NUMBERED).contains(&w.at);
                let oldest = state.writers.iter().filter(running).map(|w| w.xid).min();
                let next_reader = &mut next.readers[i];
                (next_reader.xmin, next_reader.xmax) = (oldest.map_or(xmax, |xid| xid.min(xmax)), xmax);
                for key in self.case.readers[i] {
                    let row = state.rows[*key as usize];
                    next_reader.found[*key as usize] = row.version * row.alive;
                }
                next_reader.at = reader::HAS_SNAPSHOT;
                self.go(Step::Snapshot(i), next);
            }
            reader::HAS_SNAPSHOT => {
                let goes_on = self.decisions.reader_first(&mut next, i);
                next.readers[i].at = if goes_on { reader::HALF } else { reader::DONE };
                self.go(Step::Note(i), next);
            }
            reader::HALF => {
                let fills = self.decisions.reader_second(&mut next, i);
                next.readers[i].at = if fills { reader::ADMITTED } else { reader::DONE };
                self.go(Step::Test(i), next);
            }
            reader::ADMITTED if !self.locked(state) => {
                next.ring.push((WRITERS + i) as u8);
                next.readers[i].at = reader::DONE;
                self.go(Step::Fill(i), next);
            }
            _ => {}
        }
    }

    fn worker_steps(&mut self, state: &State) {
        if let Some(entry) = state.ring.as_slice().get(state.taken as usize).copied() {
            let write = (entry as usize) < WRITERS;
            if self.case.torn && write && state.half_taken == 0 {
                let mut next = *state;
                self.decisions.half_take_write(&mut next, entry as usize);
                next.half_taken = 1;
                self.go(Step::HalfTake(entry), next);
            } else {
                let next = self.take(*state, entry);
                self.go(Step::Take(entry), next);
            }
        }
        // Without restarts it makes no difference when a command runs: it runs when it is taken.
        if self.case.restarts == 0 {
            return;
        }
        if let Some(command) = state.lane.as_slice().first() {
            let mut next = *state;
            run(&mut next);
            self.go(
                Step::Run {
                    key: command.key,
                    value: command.value,
                },
                next,
            );
        }
        if state.through > 0 {
            let mut next = *state;
            acknowledge(&mut next);
            self.go(Step::Acknowledge, next);
        }
        if state.restarts < self.case.restarts {
            let mut next = *state;
            next.restarts += 1;
            next.lane.clear();
            (next.taken, next.through, next.half_taken) = (0, 0, 0);
            next.purge = Purge::default();
            self.go(Step::Restart, next);
        }
    }

    fn take(&self, mut next: State, entry: u8) -> State {
        let before = next.lane.len();
        if (entry as usize) < WRITERS {
            for (key, change) in self.case.writers[entry as usize] {
                let kind = if *change == Change::Delete {
                    Kind::Del
                } else {
                    Kind::Set
                };
                let value = self
                    .decisions
                    .take_write(&mut next, entry as usize, *key as usize, kind);
                next.lane.push(Command {
                    key: *key,
                    value,
                    ends_entry: 0,
                });
            }
        } else {
            let reader = entry as usize - WRITERS;
            for (key, value) in self
                .decisions
                .take_fills(&mut next, reader, self.case.readers[reader])
            {
                next.lane.push(Command {
                    key,
                    value,
                    ends_entry: 0,
                });
            }
        }
        debug_assert!(next.lane.len() > before);
        next.lane.last_mut().ends_entry = 1;
        next.taken += 1;
        next.half_taken = 0;
        if self.decisions.mutant == Mutant::AcknowledgedEarly {
            next.lane.last_mut().ends_entry = 0;
            next.through += 1;
            acknowledge(&mut next);
        }
        while self.case.restarts == 0 && next.lane.len() > 0 {
            run(&mut next);
        }
        while self.case.restarts == 0 && next.through > 0 {
            acknowledge(&mut next);
        }
        next
    }

    fn purge_steps(&mut self, state: &State) {
        let mut next = *state;
        match state.purge {
            Purge { at: purge::NONE, .. } => {
                let Some(epoch) = self.decisions.purge_due(state) else {
                    return;
                };
                let barrier = self.decisions.mutant != Mutant::PurgeWithoutBarrier;
                let left = if barrier {
                    state.ring.len() - state.through
                } else {
                    0
                };
                next.purge = Purge {
                    at: purge::WAITING,
                    epoch,
                    left,
                };
                self.go(Step::BeginPurge, next);
            }
            Purge {
                at: purge::WAITING,
                left: 0,
                epoch,
            } => {
                next.purge = Purge {
                    at: purge::DELETING,
                    epoch,
                    left: 1,
                };
                next.redis[0].value = 0;
                self.go(Step::PurgeKey(0), next);
            }
            Purge {
                at: purge::DELETING,
                left,
                ..
            } if (left as usize) < KEYS => {
                next.redis[left as usize].value = 0;
                next.purge.left += 1;
                self.go(Step::PurgeKey(left), next);
            }
            Purge {
                at: purge::DELETING,
                epoch,
                ..
            } => {
                self.decisions.purged(&mut next, epoch);
                next.purge = Purge::default();
                self.go(Step::EndPurge, next);
            }
            _ => {}
        }
    }
}

/// Redis runs the lane's next command.
fn run(state: &mut State) {
    let Some(command) = state.lane.pop() else { return };
    if command.value != NOTHING {
        let cached = &mut state.redis[command.key as usize];
        cached.value = command.value;
        // A value that goes back stays below the highest, for the search to see.
        cached.highest = cached.highest.max(command.value);
    }
    if command.ends_entry != 0 {
        state.through += 1;
        if state.purge.at == purge::WAITING {
            state.purge.left = state.purge.left.saturating_sub(1);
        }
    }
}

/// The tail moves over the oldest entry that is through.
fn acknowledge(state: &mut State) {
    state.ring.pop();
    state.through -= 1;
    state.taken -= 1;
}
