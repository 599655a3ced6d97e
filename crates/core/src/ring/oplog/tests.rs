use super::*;
use proptest::prelude::*;

type Plain = (u16, Kind, u64, Vec<u8>, Vec<u8>);

fn plain(log: &OpLog) -> Vec<Plain> {
    log.ops()
        .map(|op| (op.mapping, op.kind, op.hash, op.key.to_vec(), op.value.to_vec()))
        .collect()
}

fn set(log: &mut OpLog, mapping: u16, hash: u64, key: &[u8], value: &[u8]) {
    log.push_set(mapping, hash, key, value.len(), |out| {
        out.extend_from_slice(value)
    })
    .unwrap();
}

fn compact(log: &mut OpLog, mut from: Position) {
    let mark = from;
    assert!(log.compact(mark, [&mut from]));
}

#[test]
fn ops_read_back_in_order_with_a_small_header() {
    let mut log = OpLog::default();
    set(&mut log, 1, 5, b"a", b"x");
    log.push_del(2, 6, b"b").unwrap();
    assert_eq!(
        plain(&log),
        [
            (1, Kind::Set, 5, b"a".to_vec(), b"x".to_vec()),
            (2, Kind::Del, 6, b"b".to_vec(), Vec::new())
        ]
    );
    assert_eq!((log.count(), log.len_bytes()), (2, 2 * OP_HEADER + 3));
    const { assert!(OP_HEADER <= 24) };
}

#[test]
fn the_last_op_of_a_key_wins_and_keys_are_compared_exactly() {
    let mut log = OpLog::default();
    set(&mut log, 1, 5, b"a", b"1");
    set(&mut log, 1, 5, b"b", b"same hash");
    set(&mut log, 2, 5, b"a", b"other mapping");
    set(&mut log, 1, 5, b"a", b"2");
    let start = log.beginning();
    compact(&mut log, start);
    let values: Vec<Vec<u8>> = plain(&log).into_iter().map(|op| op.4).collect();
    assert_eq!(values, [&b"same hash"[..], b"other mapping", b"2"]);
    assert_eq!(log.count(), 3);
}

#[test]
fn the_newest_op_turns_into_a_delete_once_it_is_known() {
    let mut log = OpLog::default();
    assert!(!log.turn_last_into_del());
    set(&mut log, 1, 5, b"a", b"1");
    let place = log.position();
    set(&mut log, 1, 6, b"b", b"2");
    assert!(log.turn_last_into_del());
    assert_eq!(plain(&log)[1], (1, Kind::Del, 6, b"b".to_vec(), Vec::new()));
    assert!(log.truncate(place));
    assert!(!log.turn_last_into_del());
}

#[test]
fn a_place_moves_with_a_rewrite_or_is_stale() {
    let mut log = OpLog::default();
    set(&mut log, 1, 5, b"a", b"value");
    let (mut kept, stale) = (log.position(), log.position());
    set(&mut log, 1, 6, b"b", b"value");
    log.to_deletes(log.beginning(), [&mut kept], |_| true);
    assert!(!log.truncate(stale));
    assert!(log.ops_since(stale).is_none());
    assert!(log.contains_since(stale, 1, 7, b"never there"));
    assert!(!log.contains_since(kept, 1, 5, b"a"));
    assert!(log.contains_since(kept, 1, 6, b"b"));
    assert!(log.truncate(kept));
    assert_eq!(plain(&log), [(1, Kind::Del, 5, b"a".to_vec(), Vec::new())]);
}

#[test]
fn removing_a_mapping_leaves_the_others() {
    let mut log = OpLog::default();
    set(&mut log, 1, 5, b"a", b"x");
    set(&mut log, 2, 5, b"a", b"y");
    set(&mut log, 1, 6, b"b", b"z");
    log.remove([], |mapping| mapping == 1);
    assert_eq!(plain(&log), [(2, Kind::Set, 5, b"a".to_vec(), b"y".to_vec())]);
}

#[test]
fn clearing_gives_large_memory_back() {
    let mut log = OpLog::default();
    set(&mut log, 1, 5, b"a", &vec![0; 100_000]);
    log.clear(1000);
    assert!(log.is_empty() && log.bytes.capacity() <= 1000);
}

#[test]
fn what_cannot_be_stored_is_refused_and_changes_nothing() {
    let mut log = OpLog::default();
    set(&mut log, 1, 5, b"a", b"x");
    let before = plain(&log);
    let refused = log.push_set(1, 5, b"b", usize::MAX / 2, |_| ()).unwrap_err();
    assert_eq!(refused.required, usize::MAX / 2 + 1);
    assert_eq!(plain(&log), before);
    assert_eq!(log.count(), 1);
}

/// Keys of two hashes, three names and two mappings: every kind of collision is common.
fn op() -> impl Strategy<Value = Plain> {
    let kind = prop_oneof![Just(Kind::Set), Just(Kind::Del)];
    let key = prop::sample::select(vec![b"a".to_vec(), b"b".to_vec(), b"cc".to_vec()]);
    (0u16..2, kind, key, prop::collection::vec(any::<u8>(), 0..4)).prop_map(|(mapping, kind, key, value)| {
        let hash = if key == b"cc" { 2 } else { 1 };
        (
            mapping,
            kind,
            hash,
            key,
            if kind == Kind::Del { Vec::new() } else { value },
        )
    })
}

fn push_all(log: &mut OpLog, ops: &[Plain]) {
    for (mapping, kind, hash, key, value) in ops {
        match kind {
            Kind::Set => set(log, *mapping, *hash, key, value),
            Kind::Del => log.push_del(*mapping, *hash, key).unwrap(),
        }
    }
}

fn last_of_each(ops: &[Plain]) -> Vec<Plain> {
    let later = |at: usize, op: &Plain| ops[at + 1..].iter().any(|o| (o.0, &o.3) == (op.0, &op.3));
    ops.iter()
        .enumerate()
        .filter(|(at, op)| !later(*at, op))
        .map(|(_, op)| op.clone())
        .collect()
}

proptest! {
    #[test]
    fn compacting_keeps_the_last_op_of_each_key_behind_the_place(
        outer in prop::collection::vec(op(), 0..6), inner in prop::collection::vec(op(), 0..24)
    ) {
        let mut log = OpLog::default();
        push_all(&mut log, &outer);
        let from = log.position();
        push_all(&mut log, &inner);
        compact(&mut log, from);
        let expected = [outer, last_of_each(&inner)].concat();
        prop_assert_eq!(log.count() as usize, expected.len());
        prop_assert_eq!(plain(&log), expected);
    }

    #[test]
    fn deletes_keep_the_keys_and_the_places(
        outer in prop::collection::vec(op(), 0..6), inner in prop::collection::vec(op(), 0..24)
    ) {
        let mut log = OpLog::default();
        push_all(&mut log, &outer);
        let mut place = log.position();
        push_all(&mut log, &inner);
        log.to_deletes(log.beginning(), [&mut place], |mapping| mapping == 0);
        let to_del = |op: &Plain| match op.0 {
            0 => (0, Kind::Del, op.2, op.3.clone(), Vec::new()),
            _ => op.clone(),
        };
        prop_assert_eq!(plain(&log), outer.iter().chain(&inner).map(to_del).collect::<Vec<_>>());
        prop_assert!(log.truncate(place));
        prop_assert_eq!(plain(&log), outer.iter().map(to_del).collect::<Vec<_>>());
        prop_assert_eq!(log.count() as usize, outer.len());
    }
}
