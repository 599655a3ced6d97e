//! What the masters of a cluster say about it: who they are, who has which slots, and which slots are on their way.
//!
//! A view is what one node says. A chart is what follows from several: of the views the one with the highest
//! configuration epoch, which grows with each failover and with slots that find a new master (cluster.c,
//! `clusterBumpConfigEpochWithoutConsensus`), so that what a master says that was cut off does not count; and of each
//! view the slots on their way, which a node tells of itself alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use ::redis::Value;

use super::master::Seat;
use super::slots::{Node, SLOTS};
use super::table::Table;

/// A slot on its way, with the ids of the node that it leaves and of the one that it goes to.
type Move = (u16, String, String);

/// What one node says.
#[derive(Debug)]
pub(super) struct View {
    /// The id of the node that was asked.
    teller: Option<String>,
    nodes: Vec<Known>,
    moves: Vec<Move>,
}

/// A node as another one knows it.
#[derive(Debug)]
struct Known {
    seat: Seat,
    is_master: bool,
    epoch: u64,
    slots: Vec<RangeInclusive<u16>>,
}

/// What is known of a cluster at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chart {
    /// Those that have slots, or have some on their way to them; by their ids.
    pub masters: Vec<Seat>,
    /// By slot, the place among the masters.
    owners: Vec<Option<u16>>,
    /// Of all that were ever masters, by id.
    epochs: BTreeMap<String, u64>,
    moves: BTreeSet<Move>,
    /// Another node with the same epoch said of other slots that they are somebody's.
    is_contested: bool,
    /// Of all nodes that are known, replicas too, by id.
    ages: BTreeMap<String, u64>,
}

impl View {
    /// Reads the answers to CLUSTER SLOTS and CLUSTER NODES, given by the node at the host `asked`. The first tells by
    /// what name nodes want to be called.
    pub fn read(slots: &Value, nodes: &str, asked: &str) -> Option<Self> {
        let names = names(slots, asked)?;
        let mut view = Self {
            teller: None,
            nodes: Vec::new(),
            moves: Vec::new(),
        };
        for line in nodes.lines().filter(|line| !line.trim().is_empty()) {
            view.read_line(line, &names, asked)?;
        }
        Some(view)
    }

    /// `id ip:port@cport[,hostname…] flags master ping pong epoch link slot…` (cluster.c, `clusterGenNodeDescription`).
    fn read_line(&mut self, line: &str, names: &BTreeMap<String, Node>, asked: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let [id, place, flags, _, _, _, epoch, _, slots @ ..] = &words[..] else {
            return None;
        };
        let flags: Vec<&str> = flags.split(',').collect();
        let is_at = |flag: &str| flags.contains(&flag);
        if is_at("myself") {
            self.teller = Some((*id).to_owned());
        }
        let mut known = Vec::new();
        for text in slots.iter().filter(|text| !text.is_empty()) {
            match text.strip_prefix('[') {
                Some(text) => self.read_move(id, text.trim_end_matches(']')),
                None => known.push(range(text)?),
            }
        }
        let place = place.split(['@', ',']).next().unwrap_or_default();
        let node = match names.get(*id) {
            Some(node) => node.clone(),
            None => match Node::read(place, asked) {
                Some(node) => node,
                // Its address is not known (`:0@0`), so it cannot be reached either.
                None => return Some(()),
            },
        };
        self.nodes.push(Known {
            seat: Seat {
                id: (*id).to_owned(),
                node,
            },
            is_master: is_at("master") && !is_at("noaddr") && !is_at("handshake"),
            epoch: epoch.parse().ok()?,
            slots: known,
        });
        Some(())
    }

    /// `slot->-id` or `slot-<-id`, of the node with this id.
    fn read_move(&mut self, own: &str, text: &str) {
        let Some((slot, rest)) = text.split_once('-') else {
            return;
        };
        let Ok(slot) = slot.parse() else { return };
        if let Some(to) = rest.strip_prefix(">-") {
            self.moves.push((slot, own.to_owned(), to.to_owned()));
        } else if let Some(from) = rest.strip_prefix("<-") {
            self.moves.push((slot, from.to_owned(), own.to_owned()));
        }
    }

    /// Whether any node has slots in it. None has for one that has left its cluster, or was never in it.
    pub fn has_slots(&self) -> bool {
        self.nodes
            .iter()
            .any(|node| node.is_master && !node.slots.is_empty())
    }

    /// Whether it is this node's own word that a slot is not its own.
    pub fn disclaims(&self, id: &str, slot: u16) -> bool {
        let mut own = self.nodes.iter().filter(|node| node.seat.id == id);
        self.teller.as_deref() == Some(id)
            && !own.any(|node| node.slots.iter().any(|own| own.contains(&slot)))
    }

    /// Who has which slots. A node tells of slots that lie together as one range (cluster.c, `clusterGenNodesSlotsInfo`).
    fn ranges(&self) -> Vec<(u16, u16, &str)> {
        let of = |node: &'_ Known| -> Vec<(u16, u16)> {
            node.slots
                .iter()
                .map(|slots| (*slots.start(), *slots.end()))
                .collect()
        };
        let masters = self.nodes.iter().filter(|node| node.is_master);
        let ranges = masters.flat_map(|node| {
            let id = node.seat.id.as_str();
            of(node).into_iter().map(move |(first, last)| (first, last, id))
        });
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_unstable();
        ranges
    }

    fn epoch(&self) -> u64 {
        self.nodes.iter().map(|node| node.epoch).max().unwrap_or(0)
    }
}

/// By id, the name of each node that CLUSTER SLOTS knows.
fn names(slots: &Value, asked: &str) -> Option<BTreeMap<String, Node>> {
    let Value::Array(rows) = slots else { return None };
    let mut names = BTreeMap::new();
    for row in rows {
        let Value::Array(row) = row else { return None };
        for node in row.get(2..)? {
            let Value::Array(node) = node else { return None };
            let [host, Value::Int(port), id, ..] = &node[..] else {
                return None;
            };
            let host = match host {
                Value::Nil => String::new(),
                host => text(host)?,
            };
            let port = u16::try_from(*port).ok()?;
            names.insert(text(id)?, Node::of(&host, port, asked));
        }
    }
    Some(names)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
    (from <= to && to < SLOTS).then_some(from..=to)
}

impl Chart {
    /// What follows from these views, unless there is none in which anybody has slots.
    pub fn of(views: &[View]) -> Option<Self> {
        // Of several with the highest epoch the first.
        let best = views.iter().rev().filter(|view| view.has_slots());
        let best = best.max_by_key(|view| view.epoch())?;
        let moves: BTreeSet<Move> = views.iter().flat_map(|view| view.moves.iter().cloned()).collect();
        let is_meant = |id: &str| moves.iter().any(|(_, from, to)| from == id || to == id);
        let mut masters: Vec<&Known> = best
            .nodes
            .iter()
            .filter(|node| node.is_master && (!node.slots.is_empty() || is_meant(&node.seat.id)))
            .collect();
        masters.sort_by(|a, b| a.seat.id.cmp(&b.seat.id));
        let mut owners = vec![None; usize::from(SLOTS)];
        for (place, master) in masters.iter().enumerate() {
            for slots in &master.slots {
                owners[usize::from(*slots.start())..=usize::from(*slots.end())].fill(Some(place as u16));
            }
        }
        let ranges = best.ranges();
        let is_contested = views
            .iter()
            .any(|view| view.epoch() == best.epoch() && view.ranges() != ranges);
        let age = |node: &Known| (node.seat.id.clone(), node.epoch);
        let epochs = best.nodes.iter().filter(|node| node.is_master);
        Some(Self {
            masters: masters.iter().map(|master| master.seat.clone()).collect(),
            owners,
            epochs: epochs.map(age).collect(),
            ages: best.nodes.iter().map(age).collect(),
            moves,
            is_contested,
        })
    }

    /// The highest configuration epoch.
    pub fn epoch(&self) -> u64 {
        self.epochs.values().copied().max().unwrap_or(0)
    }

    /// Whether the nodes do not agree on who has which slots, though they have the same epoch.
    pub fn is_contested(&self) -> bool {
        self.is_contested
    }

    /// Whether this is how the cluster was before: of the nodes that both know the highest epoch is lower here. A node
    /// that the cluster has forgotten takes its epoch with it.
    pub fn is_older_than(&self, known: &Self) -> bool {
        let newest = |of: &Self, other: &Self| {
            let shared = of.ages.iter().filter(|(id, _)| other.ages.contains_key(*id));
            shared.map(|(_, epoch)| *epoch).max()
        };
        match newest(self, known) {
            Some(epoch) => Some(epoch) < newest(known, self),
            // They know none in common: then it is told by all of them.
            None => self.epoch() < known.epoch(),
        }
    }

    /// The slots, with the masters numbered by their places.
    pub fn table(&self, numbering: u64) -> Table {
        let mut table = Table::new(self.masters.len(), numbering);
        for (slot, owner) in self.owners.iter().enumerate() {
            if let Some(owner) = owner {
                table.give(slot as u16, usize::from(*owner));
            }
        }
        table
    }

    /// The id of the master that has a slot.
    pub fn owner(&self, slot: u16) -> Option<&str> {
        let owner = (*self.owners.get(usize::from(slot))?)?;
        Some(&self.masters[usize::from(owner)].id)
    }

    /// The first slot that no master has, and how many there are.
    pub fn unserved(&self) -> Option<(u16, usize)> {
        let mut without = (0..SLOTS).filter(|slot| self.owner(*slot).is_none());
        let first = without.next()?;
        Some((first, 1 + without.count()))
    }

    /// Whether this master has a slot that was another's before.
    pub fn gives_more_to(&self, id: &str, before: &Self) -> bool {
        (0..SLOTS)
            .any(|slot| self.owner(slot) == Some(id) && before.owner(slot).is_some_and(|owner| owner != id))
    }

    /// The slots that were a master's before and are not now, each with that master's id.
    pub fn lost_since<'c>(&'c self, before: &'c Self) -> impl Iterator<Item = (&'c str, u16)> {
        let slots = (0..SLOTS).filter_map(|slot| Some((before.owner(slot)?, slot)));
        slots.filter(|(id, slot)| self.owner(*slot) != Some(*id))
    }

    /// Whether no key can have gone from one master to another between this chart and a later one.
    ///
    /// A slot that finds another master, and back, gives one of the two a new epoch: a node that takes a slot over takes
    /// the highest one, unless it has it already. Such a one, and one whose nodes do not agree yet, is told by a look
    /// in between at best: see `sweep`.
    pub fn is_still(&self, later: &Self) -> bool {
        self.moves.is_empty() && !self.is_contested && self == later
    }

    /// Whether each key can have gone from one master to another once at most between the first and the last of these
    /// charts: so of two scans of all masters, one before the middle chart and one after it, one has seen it.
    ///
    /// With the same epochs all along, only the one node that has the highest can have been given slots, and none of
    /// them can have left it again. Of slots that are on their way, each chart has to show the same two nodes, and
    /// nothing that goes back.
    pub fn go_one_way(charts: &[&Self]) -> bool {
        let Some((first, rest)) = charts.split_first() else {
            return false;
        };
        let is_alike = |chart: &&&Self| chart.masters == first.masters && chart.epochs == first.epochs;
        if !rest.iter().all(|chart| is_alike(&chart)) {
            return false;
        }
        let mut moves: BTreeMap<u16, (&str, &str)> = BTreeMap::new();
        for (slot, from, to) in charts.iter().flat_map(|chart| &chart.moves) {
            if *moves.entry(*slot).or_insert((from, to)) != (from.as_str(), to.as_str()) {
                return false;
            }
        }
        let goes_back = |slot: usize| {
            let mut owners: Vec<_> = charts.iter().map(|chart| chart.owners[slot]).collect();
            owners.dedup();
            owners.len() > 2
        };
        if (0..usize::from(SLOTS)).any(goes_back) {
            return false;
        }
        moves.iter().all(|(slot, (from, to))| {
            let stages: Option<Vec<u8>> = charts.iter().map(|chart| chart.stage(*slot, from, to)).collect();
            stages.is_some_and(|stages| stages.is_sorted())
        })
    }

    /// How far a slot is on its way: not begun, going, there.
    fn stage(&self, slot: u16, from: &str, to: &str) -> Option<u8> {
        if self
            .moves
            .range((slot, String::new(), String::new())..)
            .next()
            .is_some_and(|(other, _, _)| *other == slot)
        {
            return Some(1);
        }
        match self.owner(slot) {
            Some(owner) if owner == from => Some(0),
            Some(owner) if owner == to => Some(2),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
