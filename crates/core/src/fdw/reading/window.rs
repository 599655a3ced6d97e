//! How many elements are asked for at a time: as many as come to [`WINDOW_BYTES`], from the sizes of those that came.
use super::Needs;

/// What a window should come to.
pub const WINDOW_BYTES: usize = 1 << 20;
/// How many elements are asked for before their size is known.
const FIRST: usize = 200;
/// No window has fewer elements, unless fewer are wanted.
pub const FEWEST: usize = 10;

/// See the module.
#[derive(Debug)]
pub struct Window {
    count: usize,
    most: usize,
    /// Of the present window: how many elements were asked for, how many came, and their bytes.
    asked: usize,
    came: usize,
    bytes: usize,
}

impl Window {
    /// The first one.
    pub fn first(needs: Needs) -> Self {
        Self {
            count: FIRST.min(needs.batch_size),
            most: needs.batch_size.max(FEWEST),
            asked: 0,
            came: 0,
            bytes: 0,
        }
    }

    /// How many elements it has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Makes it another size.
    pub fn set(&mut self, count: usize) {
        self.count = count.clamp(FEWEST, self.most);
    }

    /// Makes it no larger than that.
    pub fn limit(&mut self, count: usize) {
        self.count = self.count.min(count.max(1));
    }

    /// So many elements are asked for.
    pub fn ask(&mut self, count: usize) {
        self.asked += count;
    }

    /// So many elements have come, with so many bytes.
    pub fn came(&mut self, count: usize, bytes: usize) {
        self.came += count;
        self.bytes += bytes;
    }

    /// Makes the next window as large as elements of the last one's size allow. A pattern finds only some (`some`) of
    /// the elements that Redis looks at, about as many everywhere, for they lie in the order of their hashes: then it
    /// may be twice as large as the last one, as far as the bytes allow.
    pub fn adapt(&mut self, some: bool) {
        let fit = |count: usize| count.saturating_mul(WINDOW_BYTES) / self.bytes.max(1);
        if some && self.asked > 0 {
            self.set(fit(self.came).max(fit(self.asked).min(2 * self.asked)));
        } else if self.came > 0 {
            self.set(fit(self.came));
        }
        (self.asked, self.came, self.bytes) = (0, 0, 0);
    }
}
