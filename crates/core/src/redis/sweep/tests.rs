use super::*;
use crate::redis::chart::tests::{contested, three};

const MOVING: &str = "[99->-bbbb]";

/// Takes passes with these looks in each, the last of which ends it. Returns whether each was the last one.
fn passes(first: Chart, passes: &[&[Chart]]) -> Vec<bool> {
    let mut sweep = Sweep::begin(first);
    let ends = passes.iter().map(|looks| {
        let (last, between) = looks.split_last().unwrap();
        between.iter().for_each(|chart| sweep.see(chart));
        sweep.end_pass(last.clone()).is_some()
    });
    ends.collect()
}

#[test]
fn what_is_seen_between_the_ends_of_a_pass_counts() {
    let rest = || three(99, 9, "");
    let moving = || three(99, 9, MOVING);
    assert_eq!(passes(rest(), &[&[rest(), rest()]]), [true]);
    // Begun and given up: neither one pass nor the next one has seen all, unless nothing happens in that.
    let given_up: &[Chart] = &[moving(), rest()];
    assert_eq!(passes(rest(), &[given_up, given_up]), [false, false]);
    assert_eq!(passes(rest(), &[given_up, &[rest()]]), [false, true]);
    // After one with such a thing, one in which a slot sets out is not enough.
    assert_eq!(
        passes(rest(), &[given_up, &[moving()], &[moving()]]),
        [false, false, true]
    );
    // There and back without a look at the way itself.
    let there = || three(98, 9, "");
    assert_eq!(passes(rest(), &[&[there(), rest()], &[there()]]), [false, false]);
    // What goes one way all along takes two.
    assert_eq!(
        passes(rest(), &[&[moving(), moving()], &[moving(), there()]]),
        [false, true]
    );
}

#[test]
fn who_does_not_agree_yet_has_not_gone_back() {
    // A third node, which is asked first, hears of the slot's arrival later.
    let late = contested(99, 98, 9);
    let there = || three(98, 9, "");
    assert_eq!(
        passes(
            three(99, 9, ""),
            &[&[three(99, 9, MOVING), late, there()], &[there()]]
        ),
        [false, true]
    );
    assert_eq!(passes(there(), &[&[contested(98, 99, 9), there()]]), [false]);
}

#[test]
fn a_key_that_has_moved_without_being_seen_calls_for_another_pass() {
    let rest = || three(99, 9, "");
    let mut sweep = Sweep::begin(rest());
    sweep.scans[1].was_redirected = true;
    assert_eq!(sweep.end_pass(rest()), None);
    assert_eq!(sweep.end_pass(rest()), Some(0));
}

#[test]
fn a_slot_that_is_handed_over_in_one_step_calls_for_another_pass() {
    // No look shows it on its way. Who takes it takes the highest epoch, too.
    let before = || three(99, 9, "");
    for epoch in [9, 10] {
        let after = || three(98, epoch, "");
        assert_eq!(passes(before(), &[&[after()], &[after()]]), [false, true]);
    }
    // Two of them, one in each pass: the node had the highest epoch already, so none of them can have left it again.
    assert_eq!(
        passes(before(), &[&[three(98, 9, "")], &[three(97, 9, "")]]),
        [false, true]
    );
    // There are new epochs: between two looks either may have been elsewhere.
    assert_eq!(
        passes(
            before(),
            &[&[three(98, 10, "")], &[three(97, 11, "")], &[three(97, 11, "")]]
        ),
        [false, false, true]
    );
}
