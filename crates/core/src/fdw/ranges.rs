//! Ranges of a list's indexes or of a stream's ids: asked for many at a time, in their order.
//!
//! The ranges of one go share the elements that are asked for. Where one has more of them than its share the reading
//! goes on there, with that range alone, and what came of the ranges behind it is asked for again: so rows come in
//! the order of the ranges, and no go brings more than was asked for. Points never have more.
use super::{
    element::Element,
    filter::Within,
    resp::{Commands, Reply},
    step::{Step, Unexpected, Window, bulk, pairs},
};

/// Nothing is behind it, and XRANGE refuses to look there (t_stream.c, streamIncrID).
const LARGEST_ID: &[u8] = b"18446744073709551615-18446744073709551615";

/// A place within ranges.
pub trait Place: Clone + PartialEq {
    /// The range with that number, from its first place to its last.
    fn range(within: &Within, range: usize) -> Option<(Self, Self)>;

    /// Appends the command for at most `count` elements.
    fn ask(within: &Within, key: &[u8], from: &Self, last: &Self, count: usize, commands: &mut Commands);

    /// The element in a part of the answer, `offset` elements behind the first.
    fn element(from: &Self, offset: usize, part: Reply) -> Result<Element, Unexpected>;

    /// Where to go on behind the elements of a full answer; none if that was the last place.
    fn behind(within: &Within, from: &Self, last: &Self, elements: &[Element]) -> Option<Self>;

    /// The step that begins there.
    fn step(range: usize, from: Self) -> Step;
}

/// How many ranges are asked for in one go, and how many elements of each.
fn portion<P: Place>(within: &Within, range: usize, from: &P, count: usize) -> (usize, usize) {
    let begins = P::range(within, range).is_some_and(|(first, _)| first == *from);
    let left = match within {
        Within::Indexes(ranges) => ranges.len() - range,
        Within::Ids(ranges) | Within::IdsDown(ranges) => ranges.len() - range,
        _ => 1,
    };
    let ranges = if begins { left.min(count) } else { 1 };
    (ranges, count / ranges)
}

/// Appends the commands for about `count` elements from a place in a range on.
pub fn ask<P: Place>(
    key: &[u8],
    within: &Within,
    range: usize,
    from: &P,
    count: usize,
    commands: &mut Commands,
) {
    let (ranges, share) = portion(within, range, from, count);
    for number in range..range + ranges {
        if let Some((first, last)) = P::range(within, number) {
            let from = if number == range { from } else { &first };
            P::ask(within, key, from, &last, share, commands);
        }
    }
}

/// The elements in the answers to what [`ask`] has asked.
///
/// # Errors
/// They are none that the commands have.
pub fn take<P: Place>(
    within: &Within,
    range: usize,
    from: P,
    count: usize,
    replies: Vec<Reply>,
) -> Result<Window, Unexpected> {
    let (ranges, share) = portion(within, range, &from, count);
    let mut elements = Vec::new();
    for (number, reply) in (range..).zip(replies) {
        let (first, last) = P::range(within, number).ok_or(Unexpected)?;
        let from = if number == range { from.clone() } else { first };
        let Reply::Array(parts) = reply else {
            return Err(Unexpected);
        };
        let full = parts.len() >= share;
        let begin = elements.len();
        for (offset, part) in parts.into_iter().enumerate() {
            elements.push(P::element(&from, offset, part)?);
        }
        if full && let Some(behind) = P::behind(within, &from, &last, &elements[begin..]) {
            let next = Some(P::step(number, behind));
            return Ok(Window { elements, next });
        }
    }
    let next = P::range(within, range + ranges).map(|(first, _)| P::step(range + ranges, first));
    Ok(Window { elements, next })
}

/// An index.
impl Place for i64 {
    fn range(within: &Within, range: usize) -> Option<(i64, i64)> {
        match within {
            Within::Indexes(ranges) => ranges.get(range).copied(),
            _ => (range == 0).then_some((0, i64::MAX)),
        }
    }

    fn ask(_: &Within, key: &[u8], from: &i64, last: &i64, count: usize, commands: &mut Commands) {
        let last = (*last).min(from.saturating_add(count as i64 - 1));
        let (from, last) = (from.to_string(), last.to_string());
        commands.push(&[b"LRANGE", key, from.as_bytes(), last.as_bytes()]);
    }

    fn element(from: &i64, offset: usize, part: Reply) -> Result<Element, Unexpected> {
        Ok(Element::Item {
            index: from.saturating_add(offset as i64),
            element: bulk(part)?,
        })
    }

    fn behind(_: &Within, from: &i64, last: &i64, elements: &[Element]) -> Option<i64> {
        let behind = from.checked_add(elements.len() as i64)?;
        (behind <= *last).then_some(behind)
    }

    fn step(range: usize, from: i64) -> Step {
        Step::Items { range, from }
    }
}

/// An id, as XRANGE and XREVRANGE take it.
impl Place for Vec<u8> {
    fn range(within: &Within, range: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        match within {
            Within::Ids(ranges) | Within::IdsDown(ranges) => ranges.get(range).cloned(),
            _ => (range == 0).then(|| (b"-".to_vec(), b"+".to_vec())),
        }
    }

    fn ask(
        within: &Within,
        key: &[u8],
        from: &Vec<u8>,
        last: &Vec<u8>,
        count: usize,
        commands: &mut Commands,
    ) {
        let command: &[u8] = match within {
            Within::IdsDown(_) => b"XREVRANGE",
            _ => b"XRANGE",
        };
        commands.push(&[command, key, from, last, b"COUNT", count.to_string().as_bytes()]);
    }

    fn element(_: &Vec<u8>, _: usize, part: Reply) -> Result<Element, Unexpected> {
        let Reply::Array(part) = part else {
            return Err(Unexpected);
        };
        let [id, fields] = <[Reply; 2]>::try_from(part).map_err(|_| Unexpected)?;
        let Reply::Array(fields) = fields else {
            return Err(Unexpected);
        };
        Ok(Element::Entry {
            id: bulk(id)?,
            fields: pairs(fields)?,
        })
    }

    fn behind(within: &Within, _: &Vec<u8>, last: &Vec<u8>, elements: &[Element]) -> Option<Vec<u8>> {
        let ends_at = |id: &[u8]| id == last || id == LARGEST_ID && !matches!(within, Within::IdsDown(_));
        match elements.last() {
            Some(Element::Entry { id, .. }) if !ends_at(id) => Some([b"(", id.as_slice()].concat()),
            _ => None,
        }
    }

    fn step(range: usize, from: Vec<u8>) -> Step {
        Step::Entries { range, from }
    }
}
