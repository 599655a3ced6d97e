use super::*;
use crate::ring::batch::{Entry, Kind, decode};
use crate::ring::tests::OnHeap;
use proptest::prelude::*;
use std::collections::BTreeMap;

const LARGE: usize = 1 << 30;

fn set(buffer: &mut TransactionBuffer, nest: u32, mapping: u16, key: &str, value: &str) {
    let hash = crate::encode::key::key_hash(key.as_bytes());
    buffer.capture_set(nest, mapping, hash, key.as_bytes(), value.len(), |out| {
        out.extend(value.bytes())
    });
}

fn del(buffer: &mut TransactionBuffer, nest: u32, mapping: u16, key: &str) {
    buffer.capture_del(
        nest,
        mapping,
        crate::encode::key::key_hash(key.as_bytes()),
        key.as_bytes(),
    );
}

type Plain = BTreeMap<(u16, String), Option<String>>;

/// The entries that it makes.
fn entries(sealed: &mut Sealed) -> Vec<Vec<u8>> {
    let len = sealed.reservation_len();
    if len == 0 {
        return Vec::new();
    }
    let ring = OnHeap::new(len + 64);
    // SAFETY: no other thread reserves.
    let reservation = unsafe { ring.reserve_locked(len) }.unwrap();
    assert!(sealed.publish(reservation));
    let (mut entries, mut entry, mut pos) = (Vec::new(), Vec::new(), 0);
    while let Some(next) = ring.read(pos, &mut entry) {
        entries.push(entry.clone());
        pos = next;
    }
    entries
}

/// What the worker would read of it.
fn sent(sealed: &mut Sealed) -> Plain {
    let mut plain = Plain::new();
    for entry in entries(sealed) {
        let Ok(Entry::Transaction(read)) = decode(&entry) else {
            panic!("{:?}", decode(&entry))
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        for op in read.ops() {
            assert!(read.epoch_of(op.mapping).is_some());
            let value = (op.kind == Kind::Set).then(|| text(op.value));
            assert_eq!(
                plain.insert((op.mapping, text(op.key)), value),
                None,
                "one op per key"
            );
        }
    }
    plain
}

fn seal(buffer: &mut TransactionBuffer) -> (Plain, Vec<u16>) {
    let mut sealed = buffer.seal(7, 3, |mapping| u64::from(mapping) + 100);
    assert!(buffer.is_empty() && buffer.len_bytes() == 0);
    (sent(&mut sealed), sealed.purges().iter().collect())
}

fn plain<const N: usize>(ops: [(u16, &str, Option<&str>); N]) -> Plain {
    ops.into_iter()
        .map(|(m, key, value)| ((m, key.to_owned()), value.map(str::to_owned)))
        .collect()
}

#[test]
fn a_commit_sends_the_last_op_of_each_key_with_its_epochs() {
    let mut buffer = TransactionBuffer::new(LARGE);
    set(&mut buffer, 1, 1, "a", "1");
    set(&mut buffer, 1, 2, "a", "other");
    del(&mut buffer, 1, 1, "b");
    set(&mut buffer, 1, 1, "a", "2");
    let mut sealed = buffer.seal(7, 3, |mapping| u64::from(mapping) + 100);
    sealed.set_committed_at(99);
    let entries = entries(&mut sealed);
    let Ok(Entry::Transaction(read)) = decode(&entries[0]) else {
        panic!()
    };
    assert_eq!((read.xid, read.s, read.committed_at_us), (7, 3, 99));
    assert_eq!(read.epochs().collect::<Vec<_>>(), [(1, 101), (2, 102)]);
    assert_eq!(sealed.touched().iter().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        sent(&mut sealed),
        plain([(1, "a", Some("2")), (2, "a", Some("other")), (1, "b", None)])
    );
}

#[test]
fn an_aborted_subtransaction_takes_its_ops_and_purges_with_it() {
    let mut buffer = TransactionBuffer::new(LARGE);
    set(&mut buffer, 1, 1, "a", "1");
    set(&mut buffer, 2, 1, "a", "2");
    set(&mut buffer, 4, 1, "b", "3");
    buffer.purge(4, 5);
    buffer.commit_sub(4);
    buffer.commit_sub(3);
    buffer.abort_sub(2);
    assert!(buffer.touches(5) && !buffer.touches(6));
    assert_eq!(seal(&mut buffer), (plain([(1, "a", Some("1"))]), vec![]));
}

#[test]
fn a_committed_subtransaction_belongs_to_a_parent_that_captured_nothing() {
    let mut buffer = TransactionBuffer::new(LARGE);
    set(&mut buffer, 3, 1, "a", "1");
    buffer.commit_sub(3);
    let mut other = TransactionBuffer::new(LARGE);
    set(&mut other, 3, 1, "a", "1");
    other.purge(3, 9);
    other.commit_sub(3);
    other.commit_sub(2);
    buffer.abort_sub(2);
    assert!(buffer.is_empty());
    assert_eq!(seal(&mut other), (plain([(1, "a", Some("1"))]), vec![9]));
}

#[test]
fn an_abort_leaves_nothing() {
    let mut buffer = TransactionBuffer::new(LARGE);
    set(&mut buffer, 2, 1, "a", "1");
    buffer.purge(1, 3);
    buffer.purge_for_good(4);
    buffer.abort();
    assert!(buffer.is_empty() && !buffer.touches(1));
    assert_eq!(seal(&mut buffer), (Plain::new(), vec![]));
}

#[test]
fn a_purged_mapping_keeps_no_ops_and_the_others_do() {
    let mut buffer = TransactionBuffer::new(LARGE);
    set(&mut buffer, 1, 1, "a", "1");
    set(&mut buffer, 1, 2, "a", "1");
    buffer.purge(1, 1);
    let before = buffer.len_bytes();
    set(&mut buffer, 1, 1, "b", "1");
    buffer.turn_last_into_del(1);
    assert_eq!(buffer.len_bytes(), before);
    assert_eq!(seal(&mut buffer), (plain([(2, "a", Some("1"))]), vec![1]));
}

#[test]
fn the_ladder_goes_from_values_to_deletes_to_a_purge_of_the_largest_mapping() {
    let mut buffer = TransactionBuffer::new(2000);
    set(&mut buffer, 1, 2, "small", "kept");
    for n in 0..20 {
        set(&mut buffer, 1, 1, &format!("key{n}"), &"x".repeat(100));
    }
    let (ops, purges) = seal(&mut buffer);
    assert!(purges.is_empty());
    assert_eq!(ops[&(2, "small".to_owned())].as_deref(), Some("kept"));
    assert!((0..20).all(|n| ops[&(1, format!("key{n}"))].is_none()));

    set(&mut buffer, 1, 2, "small", "kept");
    for n in 0..200 {
        set(&mut buffer, 1, 1, &format!("key{n}"), &"x".repeat(100));
        assert!(buffer.len_bytes() <= 2000);
    }
    assert_eq!(seal(&mut buffer), (plain([(2, "small", Some("kept"))]), vec![1]));
}

#[test]
fn one_key_written_over_and_over_stays_within_the_limit() {
    let mut buffer = TransactionBuffer::new(4000);
    for n in 0..1000 {
        set(&mut buffer, 1, 1, "hot", &format!("{n:0100}"));
    }
    assert_eq!(
        seal(&mut buffer),
        (plain([(1, "hot", Some(&format!("{:0100}", 999)))]), vec![])
    );
}

#[test]
fn a_purge_for_dropped_ops_outlives_the_subtransaction_that_dropped_them() {
    let mut buffer = TransactionBuffer::new(500);
    set(&mut buffer, 1, 1, "outer", "1");
    (0..50).for_each(|n| set(&mut buffer, 2, 1, &format!("key{n}"), "1"));
    buffer.abort_sub(2);
    assert_eq!(seal(&mut buffer), (Plain::new(), vec![1]));
}

#[test]
fn a_value_beyond_the_limit_becomes_a_delete_of_its_key_alone() {
    let mut buffer = TransactionBuffer::new(100);
    set(&mut buffer, 1, 1, "a", "1");
    let never = |_: &mut Vec<u8>| panic!("not to be encoded");
    buffer.capture_set(1, 1, 5, b"b", usize::MAX, never);
    assert_eq!(
        seal(&mut buffer),
        (plain([(1, "a", Some("1")), (1, "b", None)]), vec![])
    );
}

#[test]
fn memory_that_cannot_be_had_ends_in_a_delete() {
    let mut buffer = TransactionBuffer::new(usize::MAX);
    buffer.capture_set(1, 1, 5, b"b", usize::MAX, |_| panic!("not to be encoded"));
    assert_eq!(seal(&mut buffer), (plain([(1, "b", None)]), vec![]));
}

#[test]
fn an_op_of_a_key_that_changed_meanwhile_becomes_a_delete() {
    let mut buffer = TransactionBuffer::new(LARGE);
    let before = buffer.position();
    set(&mut buffer, 1, 1, "a", "1");
    let hash = crate::encode::key::key_hash(b"a");
    assert!(buffer.contains_since(before, 1, hash, b"a"));
    assert!(!buffer.contains_since(buffer.position(), 1, hash, b"a"));
    set(&mut buffer, 1, 1, "a", "2");
    buffer.turn_last_into_del(1);
    assert_eq!(seal(&mut buffer), (plain([(1, "a", None)]), vec![]));
}

#[test]
fn a_subtransaction_that_ended_unheard_of_leaves_deletes() {
    let mut buffer = TransactionBuffer::new(LARGE);
    set(&mut buffer, 1, 1, "a", "1");
    set(&mut buffer, 3, 1, "b", "2");
    buffer.purge(3, 8);
    set(&mut buffer, 2, 1, "c", "3");
    buffer.commit_sub(2);
    let expected = plain([(1, "a", Some("1")), (1, "b", None), (1, "c", Some("3"))]);
    assert_eq!(seal(&mut buffer), (expected, vec![8]));
}

#[test]
fn what_the_ring_refuses_goes_down_the_ladder_too() {
    let mut buffer = TransactionBuffer::new(LARGE);
    set(&mut buffer, 1, 1, "a", "a long value");
    del(&mut buffer, 1, 2, "b");
    buffer.purge(1, 3);
    let mut sealed = buffer.seal(7, 3, |_| 0);
    assert!(sealed.to_deletes());
    assert_eq!(sent(&mut sealed), plain([(1, "a", None), (2, "b", None)]));
    assert!(!sealed.to_deletes());
    let mut only_one = MappingSet::EMPTY;
    only_one.insert(1);
    sealed.purge(&only_one);
    assert_eq!(sent(&mut sealed), plain([(2, "b", None)]));
    sealed.give_up();
    assert_eq!((sealed.reservation_len(), sealed.is_empty()), (0, false));
    assert_eq!(sealed.purges().iter().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(sealed.touched().is_empty());
}

#[test]
fn a_large_transaction_goes_in_entries_of_limited_size() {
    let mut buffer = TransactionBuffer::new(64 << 20);
    let mut expected = Plain::new();
    for n in 0..20_000 {
        // Every now and then one that is larger than an entry is meant to be.
        let length = if n % 5000 == 7 { PART + 1 } else { n % 90 };
        let (key, value) = (n.to_string(), "x".repeat(length));
        set(&mut buffer, 1, (n % 3) as u16, &key, &value);
        expected.insert(((n % 3) as u16, key), Some(value));
    }
    let mut sealed = buffer.seal(7, 3, |mapping| u64::from(mapping) + 100);
    sealed.set_committed_at(99);
    let entries = entries(&mut sealed);
    assert!(entries.len() > 6, "{}", entries.len());
    for entry in &entries {
        assert!(entry.len() < 2 * PART + 200, "{}", entry.len());
        let Ok(Entry::Transaction(read)) = decode(entry) else {
            panic!()
        };
        assert_eq!((read.xid, read.s, read.committed_at_us), (7, 3, 99));
        assert_eq!(read.epochs().collect::<Vec<_>>(), [(0, 100), (1, 101), (2, 102)]);
    }
    assert_eq!(sent(&mut sealed), expected);
}

#[test]
fn a_large_transaction_of_any_length_goes_out() {
    for longer in 0..8 {
        for ops in 1..4 {
            let mut buffer = TransactionBuffer::new(64 << 20);
            let mut expected = Plain::new();
            for key in (0..ops).map(|n: u32| n.to_string()) {
                let value = "x".repeat(PART + longer);
                set(&mut buffer, 1, 0, &key, &value);
                expected.insert((0, key), Some(value));
            }
            let mut sealed = buffer.seal(7, 3, |_| 1);
            assert_eq!(entries(&mut sealed).len(), ops as usize);
            assert!(sent(&mut sealed) == expected, "{ops} ops, {longer} bytes longer");
        }
    }
}

/// What a backend may do; keys and mappings are few, so that everything meets.
#[derive(Debug, Clone)]
enum Step {
    Set { mapping: u16, key: u8, value: u8 },
    Del { mapping: u16, key: u8 },
    Purge { mapping: u16 },
    Begin,
    CommitSub,
    AbortSub,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u16..3, 0u8..6, any::<u8>()).prop_map(|(mapping, key, value)| Step::Set { mapping, key, value }),
        2 => (0u16..3, 0u8..6).prop_map(|(mapping, key)| Step::Del { mapping, key }),
        1 => (0u16..3).prop_map(|mapping| Step::Purge { mapping }),
        3 => Just(Step::Begin),
        2 => Just(Step::CommitSub),
        2 => Just(Step::AbortSub),
    ]
}

/// The naive way: a copy of everything for each savepoint.
#[derive(Debug, Clone, Default)]
struct Naive {
    ops: Plain,
    purges: Vec<u16>,
}

fn run(steps: &[Step], buffer: &mut TransactionBuffer) -> Naive {
    let mut saved = Vec::new();
    let mut now = Naive::default();
    for step in steps {
        let nest = saved.len() as u32 + 1;
        match step {
            Step::Set { mapping, key, value } => {
                let value = format!("{value}").repeat(*value as usize % 7);
                set(buffer, nest, *mapping, &key.to_string(), &value);
                now.ops.insert((*mapping, key.to_string()), Some(value));
            }
            Step::Del { mapping, key } => {
                del(buffer, nest, *mapping, &key.to_string());
                now.ops.insert((*mapping, key.to_string()), None);
            }
            Step::Purge { mapping } => {
                buffer.purge(nest, *mapping);
                now.purges.push(*mapping);
            }
            Step::Begin => saved.push(now.clone()),
            Step::CommitSub => {
                if saved.pop().is_some() {
                    buffer.commit_sub(nest);
                }
            }
            Step::AbortSub => {
                if let Some(before) = saved.pop() {
                    now = before;
                    buffer.abort_sub(nest);
                }
            }
        }
    }
    while !saved.is_empty() {
        buffer.commit_sub(saved.len() as u32 + 1);
        saved.pop();
    }
    now.purges.sort_unstable();
    now.purges.dedup();
    now.ops.retain(|(mapping, _), _| !now.purges.contains(mapping));
    now
}

proptest! {
    #[test]
    fn what_is_sent_is_what_the_naive_way_has(steps in prop::collection::vec(step(), 0..80)) {
        let mut buffer = TransactionBuffer::new(LARGE);
        let naive = run(&steps, &mut buffer);
        let (ops, purges) = seal(&mut buffer);
        prop_assert_eq!(ops, naive.ops);
        prop_assert_eq!(purges, naive.purges);
    }

    /// With a limit: every change of the naive way is sent as it is, or deleted, or purged for, and
    /// nothing is sent with a value that the naive way does not have.
    #[test]
    fn the_ladder_forgets_no_change(steps in prop::collection::vec(step(), 0..120), limit in 20usize..400) {
        let mut buffer = TransactionBuffer::new(limit);
        let naive = run(&steps, &mut buffer);
        prop_assert!(buffer.len_bytes() <= limit.max(60));
        let (ops, purges) = seal(&mut buffer);
        for (key, value) in &naive.ops {
            let weaker = purges.contains(&key.0) || ops.get(key).is_some_and(|sent| sent.is_none() || sent == value);
            prop_assert!(weaker, "{:?} of {:?}", key, value);
        }
        for purge in &naive.purges {
            prop_assert!(purges.contains(purge));
        }
        for (key, value) in &ops {
            prop_assert!(value.is_none() || naive.ops.get(key) == Some(value), "{:?} {:?}", key, value);
        }
    }
}
