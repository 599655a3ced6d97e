//! What a plan keeps for its execution, as a list of integers: a node that PostgreSQL copies with the plan, so that a
//! cached plan holds no pointer of ours. Options are not kept: they are read anew when the plan runs.
use pg_redis_cache_core::fdw::Comparison;
use pgrx::pg_sys;

use super::ahead::Number;
use crate::nodes;

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub struct Private {
    /// The pushed conditions, in the order of the plan's `fdw_exprs`.
    pub conditions: Vec<Planned>,
    /// The order of scores, or of a stream's ids, in which rows are wanted.
    pub order: Order,
    /// The look-ahead that the scan follows; 0: none.
    pub ahead: Number,
    /// Whether the pushed conditions are not among the plan's own: then the scan sees to it that they hold.
    pub trusted: bool,
    /// The places of the columns whose values are needed.
    pub needed: Vec<usize>,
}

/// A pushed condition without its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The column's place, from 0.
    pub place: usize,
    pub comparison: Comparison,
    /// Whether the operand comes from another table.
    pub joins: bool,
}

/// An order of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    None,
    Ascending,
    Descending,
}

impl Order {
    const ALL: [Order; 3] = [Self::None, Self::Ascending, Self::Descending];

    fn numbered(number: i32) -> Self {
        let order = Self::ALL.into_iter().find(|known| *known as i32 == number);
        order.unwrap_or(Self::None)
    }
}

/// What a path keeps for its plan: the order, and the number of the look-ahead that it follows.
pub fn of_path(order: Order, ahead: Number) -> *mut pg_sys::List {
    integers([order as i32, ahead])
}

/// Reads it back.
///
/// # Safety
/// `list` must be null or what [`of_path`] has made.
pub unsafe fn from_path(list: *mut pg_sys::List) -> (Order, Number) {
    // SAFETY: as the caller promises.
    let mut numbers = unsafe { nodes::integers(list) };
    let order = Order::numbered(numbers.next().unwrap_or(0));
    (order, numbers.next().unwrap_or(0))
}

/// A list of integers, in the current memory context.
pub fn integers(numbers: impl IntoIterator<Item = i32>) -> *mut pg_sys::List {
    numbers.into_iter().fold(std::ptr::null_mut(), |list, number| {
        // SAFETY: a list of integers.
        unsafe { pg_sys::lappend_int(list, number) }
    })
}

impl Private {
    /// As the plan holds it: the order, the look-ahead's number, whether conditions are trusted, how many, each with
    /// place, comparison and whether it joins, then the needed places.
    pub fn to_list(&self) -> *mut pg_sys::List {
        let conditions = self.conditions.iter();
        let conditions =
            conditions.flat_map(|one| [one.place as i32, one.comparison.number(), i32::from(one.joins)]);
        let numbers = [
            self.order as i32,
            self.ahead,
            i32::from(self.trusted),
            self.conditions.len() as i32,
        ]
        .into_iter()
        .chain(conditions)
        .chain(self.needed.iter().map(|place| *place as i32));
        integers(numbers)
    }

    /// Reads it back.
    ///
    /// # Safety
    /// `list` must be what [`Self::to_list`] has made, or a copy.
    pub unsafe fn from_list(list: *mut pg_sys::List) -> Self {
        // SAFETY: as the caller promises.
        let mut numbers = unsafe { nodes::integers(list) };
        let mut next = || numbers.next().unwrap_or(0);
        let (order, ahead, trusted, count) = (Order::numbered(next()), next(), next() != 0, next());
        let conditions = (0..count).filter_map(|_| {
            let (place, comparison, joins) = (next() as usize, next(), next() != 0);
            let comparison = Comparison::numbered(comparison)?;
            Some(Planned {
                place,
                comparison,
                joins,
            })
        });
        Self {
            conditions: conditions.collect(),
            order,
            ahead,
            trusted,
            needed: numbers.map(|place| place as usize).collect(),
        }
    }
}
