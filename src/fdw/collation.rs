//! How collations order the texts of a stream's ids.
//!
//! An id is `milliseconds-number`. Most collations compare it digit by digit, so that `10-0` stands before `9-0`, and
//! within a millisecond `5-10` before `5-9`. An ICU collation that compares digits as numbers (`kn`) has the order that
//! the ids have in Redis. Which of them a collation does is tried out, on texts that show every difference: whatever
//! provider, locale and rules it has.
use std::{cell::RefCell, collections::HashMap};

use pgrx::pg_sys::{self, Oid};

/// Parts of ids, ascending: neighbours differ in the number of digits, share digits, or both.
const MILLISECONDS: [u64; 14] = [
    0,
    1,
    5,
    9,
    10,
    11,
    51,
    99,
    100,
    511,
    1_000,
    999_999_999_999,
    1_718_000_000_000,
    u64::MAX,
];
const NUMBERS: [u64; 12] = [0, 1, 5, 9, 10, 11, 50, 51, 99, 100, 101, u64::MAX];
/// Ids in the order of their digits, none of whose first parts begins with another's.
const BY_DIGITS: [&str; 16] = [
    "0-9", "100-5", "101-0", "12-9", "13-1", "199-0", "2-7", "30-0", "31-5", "4-9", "50-0", "59-9", "6-0",
    "70-5", "899-0", "9-0",
];

#[derive(Clone, Copy)]
struct Orders {
    numbers: bool,
    digits: bool,
}

thread_local! {
    static KNOWN: RefCell<HashMap<Oid, Orders>> = RefCell::default();
}

/// Whether a collation orders ids as Redis does.
pub fn has_order_of_ids(collation: Oid) -> bool {
    orders(collation).numbers
}

/// Whether a collation compares the ids' first parts digit by digit, as
/// [`pg_redis_cache_core::fdw::interval::ids_between_texts`] takes for granted.
pub fn has_order_of_digits(collation: Oid) -> bool {
    orders(collation).digits
}

fn orders(collation: Oid) -> Orders {
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&collation).copied()) {
        return known;
    }
    let ids = MILLISECONDS.iter().flat_map(|milliseconds| {
        NUMBERS
            .iter()
            .map(move |number| format!("{milliseconds}-{number}"))
    });
    let ids: Vec<String> = ids.collect();
    let found = Orders {
        numbers: ids.windows(2).all(|pair| is_below(&pair[0], &pair[1], collation)),
        digits: BY_DIGITS
            .windows(2)
            .all(|pair| is_below(pair[0], pair[1], collation)),
    };
    KNOWN.with_borrow_mut(|known| known.insert(collation, found));
    found
}

fn is_below(a: &str, b: &str, collation: Oid) -> bool {
    // SAFETY: two texts with their lengths, and a collation that an expression of the query has.
    unsafe {
        let (a_length, b_length) = (a.len() as i32, b.len() as i32);
        pg_sys::varstr_cmp(
            a.as_ptr().cast(),
            a_length,
            b.as_ptr().cast(),
            b_length,
            collation,
        ) < 0
    }
}
