//! A sorted set in the order of scores: the first window by its score, each further one by its rank.
//!
//! Redis finds a rank as fast as a score, but skips what `LIMIT` leaves out element by element: among many members of
//! one score each window would take longer than the one before.
//!
//! A sorted set is in the order of scores, and of members' bytes where these are equal (t_zset.c, zslInsert). So each
//! element either stands behind the last one that was read or not, whatever has come or gone meanwhile. A window
//! begins a little before the rank at which the next element is expected, and of what it brings all up to the last one
//! is left out. If it brings nothing of that kind, more has gone than it begins before, and some might be missed: then
//! the rank is looked up anew, and the next window begins further before it.
use super::{
    element::{Element, format_score, parse_score},
    interval::Scores,
    resp::{Commands, Reply},
    step::{Step, Unexpected, Window, bulk, only},
};

/// Where the next window begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// At the beginning of the range.
    First,
    /// Behind that element, at a rank that is still to be looked up.
    Behind { last: Last, slack: u64 },
    /// Behind that element, which stood just before that rank.
    Rank { last: Last, rank: u64, slack: u64 },
}

/// The last element that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Last {
    pub score: f64,
    pub member: Vec<u8>,
}

/// How many elements before the expected rank a window begins at first.
const SLACK: u64 = 16;

impl Last {
    /// Whether an element stands behind this one.
    fn is_before(&self, element: &Element, descending: bool) -> bool {
        let Element::Scored { score, member } = element else {
            return false;
        };
        // No score is NaN (t_zset.c); 0 and -0 are one.
        let place = |score: f64| score + 0.0;
        let order = place(self.score)
            .total_cmp(&place(*score))
            .then_with(|| self.member.cmp(member));
        if descending { order.is_gt() } else { order.is_lt() }
    }
}

impl Place {
    /// Appends the commands for about `count` elements.
    pub fn ask(&self, key: &[u8], scores: Scores, count: usize, commands: &mut Commands) {
        let (from, to) = scores.from_to();
        match self {
            Self::First => {
                let (from, to, count) = (from.to_text(), to.to_text(), count.to_string());
                let mut words: Vec<&[u8]> = vec![b"ZRANGE", key, &from, &to, b"BYSCORE"];
                if scores.descending {
                    words.push(b"REV");
                }
                words.extend([b"LIMIT".as_slice(), b"0", count.as_bytes(), b"WITHSCORES"]);
                commands.push(&words);
            }
            Self::Behind { last, .. } => {
                // The second is the rank of the first element with this score, if the one itself is gone.
                let beyond = format!("({}", format_score(last.score)).into_bytes();
                if scores.descending {
                    commands.push(&[b"ZREVRANK", key, &last.member]);
                    commands.push(&[b"ZCOUNT", key, &beyond, b"inf"]);
                } else {
                    commands.push(&[b"ZRANK", key, &last.member]);
                    commands.push(&[b"ZCOUNT", key, b"-inf", &beyond]);
                }
            }
            Self::Rank { rank, slack, .. } => {
                let end = rank.saturating_add(count as u64).saturating_sub(1);
                let (begin, end) = (rank.saturating_sub(*slack).to_string(), end.to_string());
                let mut words: Vec<&[u8]> = vec![b"ZRANGE", key, begin.as_bytes(), end.as_bytes()];
                if scores.descending {
                    words.push(b"REV");
                }
                words.push(b"WITHSCORES");
                commands.push(&words);
            }
        }
    }

    /// The elements in the answers to what [`Self::ask`] asked with the same `count`.
    ///
    /// # Errors
    /// They are none that these commands have.
    pub fn take(self, scores: Scores, count: usize, replies: Vec<Reply>) -> Result<Window, Unexpected> {
        match self {
            Self::First => {
                let elements = elements(only(replies)?)?;
                let last = last(&elements).filter(|_| elements.len() >= count);
                let next = last.map(|last| Self::Behind { last, slack: SLACK });
                Ok(window(elements, next))
            }
            Self::Behind { last, slack } => {
                let rank = match <[Reply; 2]>::try_from(replies) {
                    Ok([Reply::Integer(rank), Reply::Integer(_)]) => rank.saturating_add(1),
                    Ok([Reply::Nil, Reply::Integer(before)]) => before,
                    _ => return Err(Unexpected),
                };
                let rank = u64::try_from(rank).map_err(|_| Unexpected)?;
                Ok(window(Vec::new(), Some(Self::Rank { last, rank, slack })))
            }
            Self::Rank { last, rank, slack } => {
                let found = elements(only(replies)?)?;
                Ok(behind(scores, count, found, last, rank, slack))
            }
        }
    }
}

/// Of a window by rank what stands behind the last element, up to the end of the range.
fn behind(
    scores: Scores,
    count: usize,
    mut found: Vec<Element>,
    before: Last,
    rank: u64,
    slack: u64,
) -> Window {
    let begin = rank.saturating_sub(slack);
    let is_new = |element: &Element| before.is_before(element, scores.descending);
    if begin > 0 && found.first().is_none_or(is_new) {
        let slack = slack.saturating_mul(2);
        return window(Vec::new(), Some(Place::Behind { last: before, slack }));
    }
    let asked = rank - begin + count as u64;
    let is_full = found.len() as u64 >= asked;
    let rank = begin + found.len() as u64;
    let last = last(&found);
    found.retain(is_new);
    let all = found.len();
    found.retain(|element| scores.has(score_of(element)));
    let next = (is_full && found.len() == all).then(|| Place::Rank {
        last: if all > 0 { last.unwrap_or(before) } else { before },
        rank,
        slack: SLACK,
    });
    window(found, next)
}

fn window(elements: Vec<Element>, next: Option<Place>) -> Window {
    Window {
        elements,
        next: next.map(Step::Scores),
    }
}

fn score_of(element: &Element) -> f64 {
    match element {
        Element::Scored { score, .. } => *score,
        _ => f64::NAN,
    }
}

fn last(elements: &[Element]) -> Option<Last> {
    match elements.last()? {
        Element::Scored { score, member } => Some(Last {
            score: *score,
            member: member.clone(),
        }),
        _ => None,
    }
}

/// Members and scores, which come by turns.
fn elements(parts: Vec<Reply>) -> Result<Vec<Element>, Unexpected> {
    let mut elements = Vec::with_capacity(parts.len() / 2);
    let mut parts = parts.into_iter();
    while let Some(member) = parts.next() {
        elements.push(Element::Scored {
            member: bulk(member)?,
            score: score(parts.next().ok_or(Unexpected)?)?,
        });
    }
    Ok(elements)
}

/// A score as Redis writes it.
pub(super) fn score(reply: Reply) -> Result<f64, Unexpected> {
    parse_score(&bulk(reply)?).ok_or(Unexpected)
}
