//! What a plan keeps for its execution, as a list of integers: a node that PostgreSQL copies with the plan, so that a
//! cached plan holds no pointer of ours. Options are not kept: they are read anew when the plan runs.
use pg_redis_cache_core::fdw::Comparison;
use pgrx::pg_sys;

use crate::nodes;

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub struct Private {
    /// The column's place and the comparison of each pushed condition, in the order of the plan's `fdw_exprs`.
    pub conditions: Vec<(usize, Comparison)>,
    /// The order of scores in which rows are wanted.
    pub order: Order,
    /// The places of the columns whose values are needed.
    pub needed: Vec<usize>,
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

    /// As a path holds it.
    pub fn to_list(self) -> *mut pg_sys::List {
        // SAFETY: a list of one integer, in the current memory context.
        unsafe { pg_sys::lappend_int(std::ptr::null_mut(), self as i32) }
    }

    /// Reads it back.
    ///
    /// # Safety
    /// `list` must be null or what [`Self::to_list`] has made.
    pub unsafe fn from_list(list: *mut pg_sys::List) -> Self {
        // SAFETY: as the caller promises.
        let number = unsafe { nodes::integers(list) }.next();
        let order = Self::ALL.into_iter().find(|known| Some(*known as i32) == number);
        order.unwrap_or(Self::None)
    }
}

impl Private {
    /// As the plan holds it: the order, how many conditions, each with place and comparison, then the needed places.
    pub fn to_list(&self) -> *mut pg_sys::List {
        let conditions = self
            .conditions
            .iter()
            .flat_map(|(place, comparison)| [*place as i32, comparison.number()]);
        let numbers = [self.order as i32, self.conditions.len() as i32]
            .into_iter()
            .chain(conditions)
            .chain(self.needed.iter().map(|place| *place as i32));
        numbers.fold(std::ptr::null_mut(), |list, number| {
            // SAFETY: a list of integers, in the current memory context.
            unsafe { pg_sys::lappend_int(list, number) }
        })
    }

    /// Reads it back.
    ///
    /// # Safety
    /// `list` must be what [`Self::to_list`] has made, or a copy.
    pub unsafe fn from_list(list: *mut pg_sys::List) -> Self {
        // SAFETY: as the caller promises.
        let mut numbers = unsafe { nodes::integers(list) };
        let order = numbers.next().unwrap_or(0);
        let order = Order::ALL.into_iter().find(|known| *known as i32 == order);
        let count = numbers.next().unwrap_or(0);
        let conditions = (0..count)
            .filter_map(|_| {
                let place = numbers.next()? as usize;
                Some((place, Comparison::numbered(numbers.next()?)?))
            })
            .collect();
        Self {
            conditions,
            order: order.unwrap_or(Order::None),
            needed: numbers.map(|place| place as usize).collect(),
        }
    }
}
