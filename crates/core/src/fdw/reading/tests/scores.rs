use std::cell::RefCell;

use super::*;
use crate::fdw::element::format_score;

/// A sorted set, and what Redis answers about it.
struct Zset(Vec<(f64, String)>);

impl Zset {
    fn new(members: impl Iterator<Item = (f64, String)>) -> Self {
        let mut zset = Zset(members.collect());
        zset.sort();
        zset
    }

    fn sort(&mut self) {
        self.0
            .sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    }

    fn answer(&self, command: &[&str]) -> Reply {
        let number = |at: usize| command[at].parse::<usize>().unwrap();
        let mut all: Vec<&(f64, String)> = self.0.iter().collect();
        if command.contains(&"REV") || command[0] == "ZREVRANK" {
            all.reverse();
        }
        // An end of a range: the score, and whether it is left out.
        let end = |text: &str| {
            let open = text.strip_prefix('(');
            (open.unwrap_or(text).parse::<f64>().unwrap(), open.is_some())
        };
        let lies = |score: f64, low: &str, high: &str| {
            let ((low, above), (high, below)) = (end(low), end(high));
            (score > low || !above && score == low) && (score < high || !below && score == high)
        };
        let found: Vec<&(f64, String)> = match command {
            ["ZRANK" | "ZREVRANK", _, member] => {
                let rank = all.iter().position(|(_, name)| name == member);
                return rank.map_or(Reply::Nil, |rank| Reply::Integer(rank as i64));
            }
            ["ZCOUNT", _, low, high] => {
                let count = all.iter().filter(|(score, _)| lies(*score, low, high)).count();
                return Reply::Integer(count as i64);
            }
            ["ZRANGE", _, from, to, .., "LIMIT", "0", count, "WITHSCORES"] => {
                let (low, high) = if command.contains(&"REV") {
                    (to, from)
                } else {
                    (from, to)
                };
                let found = all.into_iter().filter(|(score, _)| lies(*score, low, high));
                found.take(count.parse().unwrap()).collect()
            }
            _ => {
                let end = (number(3) + 1).min(all.len());
                all[number(2).min(end)..end].to_vec()
            }
        };
        let flat = found
            .into_iter()
            .flat_map(|(score, name)| [bulk(name), bulk(&format_score(*score))]);
        Reply::Array(flat.collect())
    }
}

fn members(rows: All) -> (Vec<String>, Vec<String>) {
    let names = rows.1.into_iter().map(|(_, _, element)| match element {
        Element::Scored { member, .. } => String::from_utf8(member).unwrap(),
        other => panic!("{other:?}"),
    });
    (rows.0, names.collect())
}

fn few() -> Needs {
    Needs {
        batch_size: 100,
        ..needs(Kind::Zset, true)
    }
}

fn at_least(low: &str) -> Access {
    let shape = Shape {
        target: Target::Score,
        comparison: Comparison::GreaterEqual,
    };
    one_key(Kind::Zset, vec![(shape, Operand::One(low.into()))])
}

fn below(high: &str) -> (Shape, Operand) {
    let shape = Shape {
        target: Target::Score,
        comparison: Comparison::Less,
    };
    (shape, Operand::One(high.into()))
}

/// The first 300 of them with the score 1.
fn zset_of_450() -> Zset {
    Zset::new((0..450).map(|n| (if n < 300 { 1.0 } else { f64::from(n) }, format!("m{n:03}"))))
}

#[test]
fn scores_go_on_behind_the_last_one_by_rank() {
    let zset = zset_of_450();
    let (sent, names) = members(read(few(), at_least("0"), |command| zset.answer(command)).unwrap());
    assert!(names.iter().eq(zset.0.iter().map(|(_, name)| name)), "{names:?}");
    assert_eq!(
        sent,
        [
            "ZRANGE k 0 inf BYSCORE LIMIT 0 100 WITHSCORES",
            "ZRANK k m099",
            "ZCOUNT k -inf (1",
            "ZRANGE k 84 199 WITHSCORES",
            "ZRANGE k 184 299 WITHSCORES",
            "ZRANGE k 284 399 WITHSCORES",
            "ZRANGE k 384 499 WITHSCORES",
        ]
    );
}

#[test]
fn scores_are_read_downwards_too() {
    let zset = zset_of_450();
    let access = one_key(Kind::Zset, vec![]).by_score(true);
    let (sent, names) = members(read(few(), access, |command| zset.answer(command)).unwrap());
    assert!(
        names.iter().eq(zset.0.iter().rev().map(|(_, name)| name)),
        "{names:?}"
    );
    assert_eq!(
        sent[..4],
        [
            "ZRANGE k inf -inf BYSCORE REV LIMIT 0 100 WITHSCORES",
            "ZREVRANK k m350",
            "ZCOUNT k (350 inf",
            "ZRANGE k 84 199 REV WITHSCORES",
        ]
    );
}

#[test]
fn a_range_of_scores_ends_where_it_should() {
    let zset = zset_of_450();
    for (high, expected) in [("1", 0), ("2", 300), ("310", 310), ("349", 349), ("10000", 450)] {
        let access = one_key(Kind::Zset, vec![below(high)]);
        let (_, names) = members(read(few(), access, |command| zset.answer(command)).unwrap());
        assert_eq!(names.len(), expected, "< {high}");
    }
}

#[test]
fn what_stays_comes_once_whatever_else_comes_and_goes() {
    for seed in 0..200u64 {
        // A linear congruential generator (Knuth, MMIX).
        let state = RefCell::new(seed);
        let dice = |below: usize| {
            let mut state = state.borrow_mut();
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (*state >> 33) as usize % below
        };
        let scores = 1 + dice(4);
        let zset = Zset::new((0..900).map(|n| ((n % scores) as f64, format!("{:03}", n * 7 % 900))));
        let zset = RefCell::new(zset);
        let stays = |name: &str| name.ends_with('3') || name.ends_with('8');
        let redis = |command: &[&str]| {
            let reply = zset.borrow().answer(command);
            let mut zset = zset.borrow_mut();
            for _ in 0..dice(120) {
                match dice(3) {
                    0 => zset
                        .0
                        .push((dice(scores) as f64, format!("new {}", dice(1_000_000)))),
                    _ if zset.0.is_empty() => {}
                    // Others take from the front, or anywhere.
                    1 => {
                        let first = zset.0.iter().position(|(_, name)| !stays(name));
                        first.map(|at| zset.0.remove(at));
                    }
                    _ => {
                        let at = dice(zset.0.len());
                        if !stays(&zset.0[at].1) {
                            zset.0.remove(at);
                        }
                    }
                }
            }
            zset.0.dedup_by(|a, b| a.1 == b.1);
            zset.sort();
            reply
        };
        let access = one_key(Kind::Zset, vec![]).by_score(seed % 2 == 0);
        let (_, mut names) = members(read(few(), access, redis).unwrap());
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "seed {seed}");
        let stayed = names
            .iter()
            .filter(|name| !name.starts_with('n') && stays(name))
            .count();
        assert_eq!(stayed, 180, "seed {seed}");
    }
}

#[test]
fn a_place_that_is_gone_is_found_again_among_more_of_one_score_than_are_remembered() {
    const MEMBERS: usize = 400_000;
    const READ: usize = 300_000;
    let zset = RefCell::new(Zset::new((0..MEMBERS).map(|n| (7.0, format!("{n:06}")))));
    let redis = |command: &[&str]| {
        let is_far = command[0] == "ZRANGE" && command[2].parse().is_ok_and(|rank: usize| rank > READ);
        // The last one that was read goes, and so many that the next window begins too late.
        if is_far && zset.borrow().0.len() == MEMBERS {
            let last = command[2].parse::<usize>().unwrap() + 16;
            zset.borrow_mut().0.drain(last - 100..last);
        }
        zset.borrow().answer(command)
    };
    let mut needs = needs(Kind::Zset, true);
    needs.batch_size = 100_000;
    let (sent, mut names) = members(read(needs, one_key(Kind::Zset, vec![]).by_score(false), redis).unwrap());
    assert!(
        sent.iter().filter(|sent| sent.starts_with("ZCOUNT")).count() == 2,
        "the place was not lost"
    );
    names.dedup();
    assert_eq!(names.len(), MEMBERS);
    assert!(names.is_sorted());
}
