//! Ranges: of scores, of a list's indexes, of a stream's ids.
use std::ops::RangeInclusive;

/// One end of a range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreEnd {
    pub score: f64,
    /// Whether the score itself belongs to the range.
    pub inclusive: bool,
}

impl ScoreEnd {
    /// As ZRANGE … BYSCORE takes it.
    pub fn to_text(self) -> Vec<u8> {
        let score = super::element::format_score(self.score);
        let open = if self.inclusive { "" } else { "(" };
        format!("{open}{score}").into_bytes()
    }
}

/// A range of scores: what several conditions leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    pub low: ScoreEnd,
    pub high: ScoreEnd,
    /// Whether they are read from the highest down.
    pub descending: bool,
}

impl Scores {
    /// All of them.
    pub const ALL: Scores = Scores {
        low: ScoreEnd {
            score: f64::NEG_INFINITY,
            inclusive: true,
        },
        high: ScoreEnd {
            score: f64::INFINITY,
            inclusive: true,
        },
        descending: false,
    };

    /// The end at which reading begins, and the one at which it ends.
    pub fn from_to(&self) -> (ScoreEnd, ScoreEnd) {
        if self.descending {
            (self.high, self.low)
        } else {
            (self.low, self.high)
        }
    }

    /// Whether a score lies in it.
    pub fn has(&self, score: f64) -> bool {
        let above = score > self.low.score || self.low.inclusive && score == self.low.score;
        let below = score < self.high.score || self.high.inclusive && score == self.high.score;
        above && below
    }

    /// Leaves what is at or above a score, too.
    pub fn at_least(&mut self, end: ScoreEnd) {
        let tighter = end.score > self.low.score || (end.score == self.low.score && !end.inclusive);
        if tighter {
            self.low = end;
        }
    }

    /// Leaves what is at or below a score, too.
    pub fn at_most(&mut self, end: ScoreEnd) {
        let tighter = end.score < self.high.score || (end.score == self.high.score && !end.inclusive);
        if tighter {
            self.high = end;
        }
    }
}

/// Points as ranges, ascending: neighbours are one range.
pub fn of_points(mut points: Vec<i64>) -> Vec<(i64, i64)> {
    points.sort_unstable();
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for point in points {
        match ranges.last_mut() {
            Some((_, last)) if last.saturating_add(1) >= point => *last = point,
            _ => ranges.push((point, point)),
        }
    }
    ranges
}

/// Whether a text is a stream's id as Redis writes it: XADD takes others too, and makes them that.
pub fn is_canonical(text: &[u8]) -> bool {
    id(text).is_some()
}

fn id(text: &[u8]) -> Option<(u64, u64)> {
    let (milliseconds, sequence) = std::str::from_utf8(text).ok()?.split_once('-')?;
    let id = (milliseconds.parse().ok()?, sequence.parse().ok()?);
    (format!("{}-{}", id.0, id.1).as_bytes() == text).then_some(id)
}

/// Those of the texts that are a stream's ids as Redis writes them, ascending. Any other text is nobody's id, though
/// XRANGE may take it for one.
pub fn ids(texts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut ids: Vec<(u64, u64)> = texts.iter().filter_map(|text| id(text)).collect();
    ids.sort_unstable();
    let text = |(milliseconds, sequence)| format!("{milliseconds}-{sequence}").into_bytes();
    ids.into_iter().map(text).collect()
}

/// The first part of a stream's ids goes from 0 to the largest u64, which has 20 digits.
const MOST_DIGITS: u32 = 20;

/// The ids that may lie between two texts by the order of texts, as ranges of the ids' first part, ascending; none if
/// an end is no id. An end is `milliseconds`, with or without `-number` behind it.
///
/// The texts of ids with equally many digits before the `-` are in the order of their numbers, so there is one range
/// for each number of digits. Where the digits are the same the number behind `-` decides, which collations order
/// differently: all such ids belong to the range. (PostgreSQL looks at each row again.)
pub fn ids_between_texts(low: Option<&[u8]>, high: Option<&[u8]>) -> Option<Vec<RangeInclusive<u64>>> {
    let low = low.map(leading_digits);
    let high = high.map(leading_digits);
    if matches!(low, Some(None)) || matches!(high, Some(None)) {
        return None;
    }
    let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
    for digits in 1..=MOST_DIGITS {
        let first = if digits == 1 { 0 } else { 10u128.pow(digits - 1) };
        let last = 10u128.pow(digits) - 1;
        let from = low
            .flatten()
            .map_or(first, |text| fitted(text, digits, b'0').max(first));
        let to = high
            .flatten()
            .map_or(last, |text| fitted(text, digits, b'9').min(last));
        let Ok(from) = u64::try_from(from) else { continue };
        let to = u64::try_from(to).unwrap_or(u64::MAX);
        if from > to {
            continue;
        }
        match ranges.last_mut() {
            Some(before) if before.end().checked_add(1) == Some(from) => *before = *before.start()..=to,
            _ => ranges.push(from..=to),
        }
    }
    Some(ranges)
}

/// The digits before `-`, if the text looks like an id.
fn leading_digits(id: &[u8]) -> Option<&[u8]> {
    let end = id
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(id.len());
    let tail = &id[end..];
    let plain = tail.is_empty() || (tail[0] == b'-' && tail[1..].iter().all(u8::is_ascii_digit));
    (end > 0 && plain).then_some(&id[..end])
}

/// The first `digits` digits of a text, filled up with `filler`.
fn fitted(text: &[u8], digits: u32, filler: u8) -> u128 {
    let text = text.iter().copied().chain(std::iter::repeat(filler));
    text.take(digits as usize)
        .fold(0, |number, digit| number * 10 + u128::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_tightest_ends_are_left() {
        let end = |score, inclusive| ScoreEnd { score, inclusive };
        let mut scores = Scores::ALL;
        scores.at_least(end(1.0, true));
        scores.at_least(end(1.0, false));
        scores.at_least(end(0.5, true));
        scores.at_most(end(2.0, false));
        scores.at_most(end(2.0, true));
        assert_eq!(scores.low.to_text(), b"(1");
        assert_eq!(scores.high.to_text(), b"(2");
        assert_eq!(Scores::ALL.low.to_text(), b"-inf");
    }

    #[test]
    fn neighbouring_points_are_one_range() {
        assert_eq!(of_points(vec![7, 1, 3, 2, 9]), [(1, 3), (7, 7), (9, 9)]);
        assert_eq!(
            of_points(vec![i64::MAX, 5, 5, i64::MAX - 1]),
            [(5, 5), (i64::MAX - 1, i64::MAX)]
        );
        assert_eq!(of_points(vec![]), []);
    }

    #[test]
    fn ids_are_those_that_redis_writes() {
        let texts = [
            "10-0",
            "9-10",
            "9-9",
            "5",
            "05-1",
            "5-+1",
            "5-",
            "x",
            "5-1-1",
            "18446744073709551616-0",
        ];
        let found = ids(&texts.map(|text| text.as_bytes().to_vec()));
        assert_eq!(found, [&b"9-9"[..], b"9-10", b"10-0"]);
    }

    #[test]
    fn ids_of_today_are_one_range_and_others_by_their_digits() {
        let ranges = ids_between_texts(Some(b"1640995200000-0"), None).unwrap();
        assert!(ranges.contains(&(1_640_995_200_000..=9_999_999_999_999)));
        assert!(ranges.contains(&(2..=9)) || ranges.contains(&(1..=9)));
        let all = ids_between_texts(None, None).unwrap();
        assert_eq!(all, [0..=u64::MAX]);
        assert_eq!(ids_between_texts(Some(b"x"), None), None);
        assert_eq!(ids_between_texts(None, Some(b"1-x")), None);
    }

    proptest! {
        #[test]
        fn no_id_between_the_texts_is_missed(
            id in 0u64..100_000, sequence in 0u64..20, low in "[0-9]{1,6}(-[0-9]{1,2})?", high in "[0-9]{1,6}(-[0-9]{1,2})?"
        ) {
            let text = format!("{id}-{sequence}");
            let ranges = ids_between_texts(Some(low.as_bytes()), Some(high.as_bytes())).unwrap();
            if text >= low && text <= high {
                prop_assert!(ranges.iter().any(|range| range.contains(&id)), "{} {:?}", text, ranges);
            }
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end() < pair[1].start()));
        }
    }
}
