//! A ring driven by any sequence of steps, beside a queue that does the same: entries alone and several in a
//! reservation, abandoned ones, reading ahead, releasing, starting over.
#![no_main]

use std::collections::VecDeque;

use libfuzzer_sys::fuzz_target;
use pg_redis_cache_core::ring::Ring;

const CAPACITY: usize = 256;

fuzz_target!(|steps: &[u8]| {
    let layout = Ring::layout(CAPACITY).unwrap();
    // Words, for the alignment of 64 bytes: the ring begins at the first place that has it.
    let mut memory = vec![0x5245_4459_0000_0008u64; (layout.size() + 64) / 8];
    let start = memory.as_mut_ptr().cast::<u8>();
    // SAFETY: within the vector, of the layout asked for, and as long alive as the ring.
    let ring = unsafe {
        let start = start.add(start.align_offset(64));
        Ring::init_in_place(start, CAPACITY).unwrap()
    };
    let (mut held, mut ahead, mut pos) = (VecDeque::<Vec<u8>>::new(), 0, 0);
    let mut steps = steps.chunks_exact(2).enumerate();
    while let Some((n, &[what, len])) = steps
        .next()
        .map(|(n, step)| (n, step.try_into().unwrap_or(&[0, 0])))
    {
        match what % 6 {
            0..=2 => {
                let lens: Vec<usize> = (0..=usize::from(what / 6 % 4))
                    .map(|part| (usize::from(len) + part * 7) % 90)
                    .collect();
                let total = Ring::reservation_len(lens.iter().copied());
                // SAFETY: there is no other thread.
                let Ok(mut reservation) = (unsafe { ring.reserve_locked(total) }) else {
                    continue;
                };
                let abandoned = what >= 250;
                for (part, len) in lens
                    .iter()
                    .enumerate()
                    .take(if abandoned { 1 } else { lens.len() })
                {
                    if part > 0 {
                        reservation.end_entry();
                    }
                    reservation.write(&vec![n as u8; *len]);
                }
                if abandoned {
                    drop(reservation);
                    held.push_back(Vec::new());
                } else {
                    assert!(reservation.publish());
                    held.extend(lens.iter().map(|len| vec![n as u8; *len]));
                }
            }
            3 | 4 => {
                let mut entry = b"replaced".to_vec();
                let next = ring.read(pos, &mut entry);
                assert_eq!(next.map(|_| &entry), held.get(ahead));
                if let Some(next) = next {
                    (pos, ahead) = (next, ahead + 1);
                }
            }
            _ if len % 2 == 0 => {
                ring.release(pos);
                held.drain(..ahead);
                ahead = 0;
            }
            _ => (pos, ahead) = (ring.tail(), 0),
        }
    }
});
