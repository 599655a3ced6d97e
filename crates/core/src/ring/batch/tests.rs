use super::*;
use proptest::prelude::*;

fn transaction(ops: &[Op<'_>], epochs: &[(u16, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    let header = TransactionHeader {
        xid: 1 << 40,
        s: 7,
        ops: ops.len() as u32,
        epochs: epochs.len() as u16,
    };
    assert!(header.encode(&mut out, epochs.iter().copied()));
    set_committed_at(&mut out, -5);
    for Op {
        mapping,
        kind,
        hash,
        key,
        value,
    } in ops
    {
        out.extend(op_header(
            *mapping,
            *kind,
            *hash,
            key.len() as u32,
            value.len() as u32,
        ));
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    out
}

fn op<'a>(mapping: u16, kind: Kind, hash: u64, key: &'a [u8], value: &'a [u8]) -> Op<'a> {
    Op {
        mapping,
        kind,
        hash,
        key,
        value,
    }
}

fn fill<'a>(key: &'a [u8], value: &'a [u8]) -> Fill<'a> {
    Fill {
        mapping: 3,
        hash: 11,
        version: 5,
        epoch: 2,
        key,
        value,
    }
}

#[test]
fn a_transaction_reads_back() {
    let bytes = transaction(
        &[
            op(1, Kind::Set, 9, b"user:1", b"v"),
            op(2, Kind::Del, 8, b"", b""),
        ],
        &[(1, 4), (2, u64::MAX)],
    );
    let Ok(Entry::Transaction(read)) = decode(&bytes) else {
        panic!()
    };
    assert_eq!((read.xid, read.s, read.committed_at_us), (1 << 40, 7, -5));
    assert_eq!(read.epochs().collect::<Vec<_>>(), [(1, 4), (2, u64::MAX)]);
    assert_eq!((read.epoch_of(2), read.epoch_of(3)), (Some(u64::MAX), None));
    let ops: Vec<Op<'_>> = read.ops().collect();
    assert_eq!(
        ops[0],
        Op {
            mapping: 1,
            kind: Kind::Set,
            hash: 9,
            key: b"user:1",
            value: b"v"
        }
    );
    assert_eq!(
        ops[1],
        Op {
            mapping: 2,
            kind: Kind::Del,
            hash: 8,
            key: b"",
            value: b""
        }
    );
    assert_eq!(ops.len(), 2);
}

#[test]
fn fills_read_back() {
    let mut log = FillLog::default();
    assert!(log.is_empty() && log.seal(1, 2, 3).is_empty());
    assert!(log.push(&fill(b"k", b"v")) && log.push(&fill(b"", b"")));
    assert_eq!(log.len(), 2);
    let Ok(Entry::Fills(read)) = decode(log.seal(1, 2, 3)) else {
        panic!()
    };
    assert_eq!((read.s, read.xmin, read.xmax), (1, 2, 3));
    assert_eq!(
        read.fills().collect::<Vec<_>>(),
        [fill(b"k", b"v"), fill(b"", b"")]
    );
    log.clear(0);
    assert_eq!((log.len(), log.len_bytes()), (0, 0));
}

#[test]
fn an_invalidation_reads_back() {
    let sent = Invalidate {
        mapping: 3,
        hash: 4,
        key: b"user:9",
        reply: 12,
        ticket: 1 << 50,
    };
    let mut bytes = Vec::new();
    sent.encode(&mut bytes);
    let Ok(Entry::Invalidate(read)) = decode(&bytes) else {
        panic!()
    };
    assert_eq!(read, sent);
}

#[test]
fn each_error_says_where() {
    assert_eq!(decode(&[]).unwrap_err(), DecodeError::Empty);
    assert_eq!(decode(&[9]).unwrap_err(), DecodeError::UnknownEntry(9));
    assert_eq!(
        decode(&[TRANSACTION]).unwrap_err(),
        DecodeError::Truncated {
            offset: 1,
            required: 8,
            available: 0
        }
    );
    let mut bytes = transaction(&[op(1, Kind::Set, 9, b"k", b"v")], &[]);
    bytes.push(0);
    assert_eq!(
        decode(&bytes).unwrap_err(),
        DecodeError::Trailing {
            offset: bytes.len() - 1,
            bytes: 1
        }
    );
    let kind = TRANSACTION_HEADER + OP_HEADER - 1;
    bytes[kind] = 3;
    assert_eq!(
        decode(&bytes).unwrap_err(),
        DecodeError::UnknownKind {
            kind: 3,
            offset: kind
        }
    );
}

#[test]
fn an_entry_cut_short_anywhere_is_refused_whole() {
    let mut log = FillLog::default();
    assert!(log.push(&fill(b"key", b"value")));
    let transaction = transaction(&[op(1, Kind::Set, 9, b"key", b"value")], &[(1, 1)]);
    for entry in [&transaction[..], log.seal(1, 2, 3)] {
        assert!(decode(entry).is_ok());
        for len in 0..entry.len() {
            assert!(decode(&entry[..len]).is_err(), "{len} of {} bytes", entry.len());
        }
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..120), tag in 0u8..5) {
        if let Some(first) = bytes.first_mut() {
            *first = tag;
        }
        match decode(&bytes) {
            Ok(Entry::Transaction(read)) => { read.ops().count(); read.epoch_of(0); }
            Ok(Entry::Fills(read)) => { read.fills().count(); }
            Ok(Entry::Invalidate(_)) | Err(_) => {}
        }
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0usize..200, byte in any::<u8>()) {
        let ops = [op(1, Kind::Set, 9, b"key", b"value"), op(2, Kind::Del, 1, b"k", b"")];
        let mut bytes = transaction(&ops, &[(1, 1), (2, 2)]);
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(Entry::Transaction(read)) = decode(&bytes) {
            prop_assert!(read.ops().count() <= 2);
        }
    }
}
