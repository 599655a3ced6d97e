//! Whether a reading brings just the rows that meet its conditions, so that nobody has to look at each of them again.
//!
//! What stands here follows what [`super::filter`] does with conditions; the property tests hold the two together.
use super::{
    Kind,
    element::{format_score, parse_score},
    filter::{Comparison, Operand, Shape, Target, index},
    glob,
    options::Keys,
};

/// Whether conditions of these shapes can all be asked by. Of some that stand together one is left out, and which ids
/// lie between two texts depends on the collation.
pub fn can_be(kind: Kind, shapes: &[Shape]) -> bool {
    let within = || shapes.iter().filter(|shape| shape.target != Target::Key);
    let is_name = |shape: &&Shape| shape.target == Target::Name && shape.comparison.is_point();
    let is_score = |shape: &&Shape| shape.target == Target::Score;
    shapes.iter().all(|shape| shape.narrows(kind))
        && match kind {
            _ if within().any(|shape| is_name(&shape)) => within().all(|shape| is_name(&shape)),
            Kind::Stream => within().next().is_none(),
            Kind::Zset if within().any(|shape| is_score(&shape)) => within().all(|shape| is_score(&shape)),
            Kind::Hash | Kind::Set | Kind::Zset => {
                within().filter(|shape| shape.target == Target::Name).count() <= 1
            }
            Kind::String | Kind::List => true,
        }
}

/// Whether [`super::Access::new`] reads just the rows that meet the conditions.
pub(super) fn is(kind: Kind, keys: &Keys, conditions: &[(Shape, Operand)]) -> bool {
    let shapes: Vec<Shape> = conditions.iter().map(|(shape, _)| *shape).collect();
    let one_key = matches!(keys, Keys::One(_));
    can_be(kind, &shapes)
        && !(one_key && shapes.iter().any(|shape| shape.target == Target::Key))
        && conditions
            .iter()
            .all(|(shape, operand)| is_operand(*shape, operand))
}

/// Whether the operand is asked by as it is.
fn is_operand(shape: Shape, operand: &Operand) -> bool {
    match (shape.target, operand) {
        (_, Operand::Null) => true,
        (Target::Score, Operand::One(text)) => is_score(text),
        (Target::Score, Operand::Many(_)) => false,
        (Target::Index, Operand::One(text)) => index(text).is_some(),
        (Target::Index, Operand::Many(texts)) => texts.iter().all(|text| index(text).is_some()),
        (_, Operand::One(like)) if shape.comparison == Comparison::Like => glob::is_exact_like(like),
        _ => true,
    }
}

/// Whether a text is that of a double, as PostgreSQL or Redis shortens it: then a column shows that number for that
/// score, and numbers of both compare as the doubles compare.
pub fn is_score(text: &[u8]) -> bool {
    match parse_score(text) {
        Some(score) if score.is_finite() => decimal(text) == decimal(format_score(score).as_bytes()),
        // Not one that is too large for a double.
        Some(_) => !text.iter().any(u8::is_ascii_digit),
        None => false,
    }
}

/// A decimal number as its sign, its digits without zeros at either end, and the power of ten of the last.
fn decimal(text: &[u8]) -> Option<(bool, Vec<u8>, i64)> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let unsigned = whole.trim_start_matches(['-', '+']);
    let digits = format!("{unsigned}{fraction}");
    let significant = digits.trim_end_matches('0');
    let dropped = digits.len() - significant.len();
    let power = exponent.parse::<i64>().ok()? - fraction.len() as i64 + dropped as i64;
    let significant = significant.trim_start_matches('0').as_bytes().to_vec();
    Some(match significant.is_empty() {
        true => (false, significant, 0),
        false => (whole.starts_with('-'), significant, power),
    })
}

#[cfg(test)]
mod tests;
