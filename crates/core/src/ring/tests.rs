use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// A ring on the heap, whose fresh memory is full of what an earlier life left there.
pub(crate) struct OnHeap {
    mem: *mut u8,
    layout: Layout,
    ring: Ring,
}

impl OnHeap {
    pub(crate) fn new(capacity: usize) -> OnHeap {
        let layout = Ring::layout(capacity).unwrap();
        // SAFETY: the layout is not empty.
        let mem = unsafe { std::alloc::alloc(layout) };
        assert!(!mem.is_null());
        let leftover = entry_word(8, READY).to_le_bytes();
        for at in 0..layout.size() {
            // SAFETY: within the allocation.
            unsafe { mem.add(at).write(leftover[at % 8]) };
        }
        // SAFETY: of the layout asked for, and alive as long as the handle.
        let ring = unsafe { Ring::init_in_place(mem, capacity) }.unwrap();
        OnHeap { mem, layout, ring }
    }
}

impl std::ops::Deref for OnHeap {
    type Target = Ring;

    fn deref(&self) -> &Ring {
        &self.ring
    }
}

impl Drop for OnHeap {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.mem, self.layout) };
    }
}

/// Appends by one thread, which is as good as holding the lock.
fn append(ring: &Ring, bytes: &[u8]) -> Result<(), RingFull> {
    // SAFETY: no other thread reserves.
    let mut reservation = unsafe { ring.reserve_locked(bytes.len()) }?;
    let (head, tail) = bytes.split_at(bytes.len() / 3);
    reservation.write(head);
    reservation.write(tail);
    assert!(reservation.publish());
    Ok(())
}

fn read_one(ring: &Ring, pos: &mut u64) -> Option<Vec<u8>> {
    let mut out = b"replaced".to_vec();
    *pos = ring.read(*pos, &mut out)?;
    Some(out)
}

#[test]
fn entries_come_out_as_they_went_in_through_many_laps() {
    let ring = OnHeap::new(100);
    assert_eq!(ring.capacity(), 96);
    let mut pos = 0;
    for lap in 0..200u8 {
        let entry = vec![lap; lap as usize % 60];
        append(&ring, &entry).unwrap();
        assert_eq!(ring.used(), Ring::entry_size(entry.len()));
        assert_eq!(read_one(&ring, &mut pos), Some(entry));
        assert_eq!(read_one(&ring, &mut pos), None);
        ring.release(pos);
        assert_eq!((ring.used(), ring.tail()), (0, pos));
    }
}

#[test]
fn a_full_ring_says_how_full_until_something_is_released() {
    let ring = OnHeap::new(64);
    append(&ring, &[1; 20]).unwrap();
    append(&ring, &[2; 20]).unwrap();
    let full = RingFull {
        required: 32,
        available: 0,
        capacity: 64,
    };
    assert_eq!(append(&ring, &[3; 20]), Err(full));
    assert!(!full.never_fits());
    let mut pos = 0;
    read_one(&ring, &mut pos).unwrap();
    assert_eq!(append(&ring, &[3; 20]), Err(full));
    ring.release(pos);
    append(&ring, &[3; 20]).unwrap();
    assert_eq!(
        full.to_string(),
        "the ring has 0 of 64 bytes free, 32 are required"
    );
}

#[test]
fn an_entry_larger_than_the_ring_never_fits() {
    let ring = OnHeap::new(64);
    let refused = append(&ring, &[0; 64]).unwrap_err();
    assert_eq!(
        refused,
        RingFull {
            required: 72,
            available: 64,
            capacity: 64
        }
    );
    assert!(refused.never_fits());
    append(&ring, &[0; 56]).unwrap();
    // SAFETY: no other thread reserves.
    assert!(unsafe { ring.reserve_locked(usize::MAX) }.is_err_and(|full| full.never_fits()));
}

#[test]
fn the_consumer_stops_at_what_is_not_published_yet() {
    let ring = OnHeap::new(128);
    // SAFETY: no other thread reserves.
    let mut first = unsafe { ring.reserve_locked(3) }.unwrap();
    append(&ring, b"second").unwrap();
    let mut pos = 0;
    assert_eq!(read_one(&ring, &mut pos), None);
    first.write(b"one");
    assert_eq!(read_one(&ring, &mut pos), None);
    assert_eq!((first.position(), first.end()), (0, 16));
    assert!(first.publish());
    assert_eq!(read_one(&ring, &mut pos).as_deref(), Some(&b"one"[..]));
    assert_eq!(read_one(&ring, &mut pos).as_deref(), Some(&b"second"[..]));
}

#[test]
fn an_entry_that_was_not_filled_exactly_comes_out_empty() {
    let ring = OnHeap::new(256);
    // SAFETY: no other thread reserves.
    let [dropped, mut short, mut long] = [(); 3].map(|()| unsafe { ring.reserve_locked(4) }.unwrap());
    append(&ring, b"behind").unwrap();
    drop(dropped);
    short.write(b"abc");
    assert!(!short.publish());
    long.write(b"abc");
    long.write(b"de");
    assert!(!long.publish());
    let mut pos = 0;
    for _ in 0..3 {
        assert_eq!(read_one(&ring, &mut pos), Some(Vec::new()));
    }
    assert_eq!(read_one(&ring, &mut pos).as_deref(), Some(&b"behind"[..]));
}

#[test]
fn a_restarted_consumer_reads_again_what_was_not_released() {
    let ring = OnHeap::new(256);
    (1..=3).for_each(|n| append(&ring, &[n; 5]).unwrap());
    let mut pos = 0;
    read_one(&ring, &mut pos).unwrap();
    ring.release(pos);
    read_one(&ring, &mut pos).unwrap();
    // SAFETY: a ring was made there.
    let attached = unsafe { Ring::attach(ring.mem) };
    let mut pos = attached.tail();
    assert_eq!(read_one(&attached, &mut pos), Some(vec![2; 5]));
    assert_eq!(read_one(&attached, &mut pos), Some(vec![3; 5]));
}

#[test]
fn nothing_is_read_outside_of_what_is_held() {
    let ring = OnHeap::new(64);
    append(&ring, &[1; 8]).unwrap();
    let mut pos = 0;
    read_one(&ring, &mut pos).unwrap();
    ring.release(pos);
    ring.release(0);
    ring.release(1 << 40);
    assert_eq!(ring.tail(), pos);
    for outside in [0, pos, pos + 8] {
        assert_eq!(ring.read(outside, &mut Vec::new()), None);
    }
}

#[test]
fn a_reset_drops_what_is_published_and_leaves_what_is_being_written() {
    let ring = OnHeap::new(256);
    append(&ring, b"old").unwrap();
    append(&ring, b"older").unwrap();
    // SAFETY: no other thread reserves.
    let mut unfinished = unsafe { ring.reserve_locked(3) }.unwrap();
    append(&ring, b"behind").unwrap();
    assert_eq!(ring.reset(), 2);
    unfinished.write(b"new");
    assert!(unfinished.publish());
    let mut pos = ring.tail();
    assert_eq!(read_one(&ring, &mut pos).as_deref(), Some(&b"new"[..]));
    assert_eq!(ring.reset(), 2);
    assert_eq!(ring.used(), 0);
}

#[test]
fn producers_on_several_threads_lose_nothing_and_keep_their_order() {
    const PRODUCERS: u8 = 3;
    const ENTRIES: u32 = if cfg!(miri) { 40 } else { 20_000 };
    let ring = OnHeap::new(512);
    let (lock, stop) = (Mutex::new(()), AtomicBool::new(false));
    let produce = |producer: u8| {
        for n in 0..ENTRIES {
            let mut entry = vec![producer; 1 + n as usize % 70];
            entry.extend(n.to_le_bytes());
            let mut reservation = loop {
                let held = lock.lock().unwrap();
                // SAFETY: the lock is held.
                let reserved = unsafe { ring.ring.reserve_locked(entry.len()) };
                drop(held);
                match reserved {
                    Ok(reservation) => break reservation,
                    Err(_) if stop.load(Ordering::Relaxed) => return,
                    Err(_) => std::thread::yield_now(),
                }
            };
            reservation.write(&entry[..entry.len() / 2]);
            reservation.write(&entry[entry.len() / 2..]);
            assert!(reservation.publish());
        }
    };
    let (mut pos, mut read) = (0, [0u32; PRODUCERS as usize]);
    let mut take = |entry: &[u8]| {
        let (fill, n) = entry.split_last_chunk::<4>().unwrap();
        let n = u32::from_le_bytes(*n);
        assert_eq!(fill.len(), 1 + n as usize % 70);
        let producer = fill[0] as usize;
        assert!(fill.iter().all(|byte| *byte as usize == producer));
        assert_eq!(read[producer], n);
        read[producer] += 1;
        read.iter().sum::<u32>() == ENTRIES * u32::from(PRODUCERS)
    };
    std::thread::scope(|scope| {
        let produce = &produce;
        (0..PRODUCERS).for_each(|producer| {
            scope.spawn(move || produce(producer));
        });
        // So that a failed assertion ends the test instead of leaving the producers waiting.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        loop {
            match read_one(&ring, &mut pos) {
                Some(entry) if take(&entry) => break,
                Some(_) => ring.release(pos),
                None => std::thread::yield_now(),
            }
        }
    });
}

#[test]
fn several_entries_of_one_reservation_appear_at_once_and_are_released_one_by_one() {
    let parts: [&[u8]; 4] = [b"the first", b"", b"12345678", b"last"];
    let ring = OnHeap::new(128);
    // Every place at which the ring may wrap.
    for lap in 0..20 {
        let (mut pos, start) = (ring.head(), ring.head());
        let len = Ring::reservation_len(parts.iter().map(|part| part.len()));
        // SAFETY: no other thread reserves.
        let mut reservation = unsafe { ring.reserve_locked(len) }.unwrap();
        for (n, part) in parts.iter().enumerate() {
            if n > 0 {
                reservation.end_entry();
            }
            reservation.write(part);
            assert_eq!(read_one(&ring, &mut pos), None);
        }
        let end = reservation.end();
        assert!(reservation.publish());
        for part in parts {
            assert_eq!(read_one(&ring, &mut pos).as_deref(), Some(part), "lap {lap}");
            ring.release(pos);
            assert_eq!(ring.tail(), pos);
        }
        assert_eq!((pos, ring.used()), (end, 0));
        assert_eq!(pos - start, Ring::entry_size(len));
        append(&ring, b"shifts the next lap by 24").unwrap();
        ring.reset();
    }
}

#[test]
fn several_entries_that_are_not_filled_exactly_come_out_as_one_empty_one() {
    let ring = OnHeap::new(128);
    let len = Ring::reservation_len([8, 8].into_iter());
    for written in [[8, 0].as_slice(), &[8, 7], &[8, 8, 0], &[8, 40], &[200, 8]] {
        let mut pos = ring.head();
        // SAFETY: no other thread reserves.
        let mut reservation = unsafe { ring.reserve_locked(len) }.unwrap();
        for (n, bytes) in written.iter().enumerate() {
            if n > 0 {
                reservation.end_entry();
            }
            reservation.write(&vec![1; *bytes]);
        }
        let end = reservation.end();
        assert!(!reservation.publish());
        assert_eq!(read_one(&ring, &mut pos).as_deref(), Some([].as_slice()));
        assert_eq!(pos, end);
        ring.release(pos);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 256 }))]

    /// Against a queue: any order of appending, reading ahead, releasing and starting over.
    #[test]
    fn the_ring_is_a_queue(steps in prop::collection::vec((0u8..5, 0usize..50), 1..200)) {
        let ring = OnHeap::new(128);
        let mut held: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        let (mut pos, mut ahead) = (0, 0);
        for (n, (what, len)) in steps.into_iter().enumerate() {
            match what {
                0 | 1 => {
                    let used: u64 = held.iter().map(|(_, entry)| Ring::entry_size(entry.len())).sum();
                    let (entry, at) = (vec![n as u8; len], ring.head());
                    let fits = used + Ring::entry_size(len) <= 128;
                    prop_assert_eq!(append(&ring, &entry).is_ok(), fits);
                    if fits {
                        held.push_back((at, entry));
                    }
                }
                2 | 3 => {
                    let read = read_one(&ring, &mut pos);
                    prop_assert_eq!(read.as_ref(), held.get(ahead).map(|(_, entry)| entry));
                    ahead += usize::from(read.is_some());
                }
                _ if len % 2 == 0 => {
                    ring.release(pos);
                    held.drain(..ahead);
                    ahead = 0;
                }
                _ => (pos, ahead) = (ring.tail(), 0),
            }
        }
    }
}
