//! A Redis collection as rows: the part of the foreign data wrapper that needs no PostgreSQL.
//!
//! [`options`] says which keys a table stands for and [`layout`] what its columns are; [`filter`] turns a query's
//! conditions into the shortest way to read them ([`Access`]), [`reading`] reads them that way, in windows and
//! pipelined; [`writing`] turns changed rows into commands. [`resp`] is the protocol. Another dialect of options
//! needs another reader of options, and nothing else.
//!
//! Nothing here does I/O: commands are appended to [`Commands`], answers are fed in, in their order.
pub mod cluster;
pub mod counting;
pub mod describe;
pub mod element;
pub mod exact;
pub mod filter;
pub mod glob;
pub mod interval;
pub mod layout;
pub mod lookups;
pub mod mapping;
pub mod options;
pub mod ranges;
pub mod reading;
pub mod record;
pub mod resp;
pub mod seen;
pub mod step;
pub mod writing;

pub use counting::Counting;
pub use element::{Element, Kind, Row};
pub use filter::{Access, Comparison, KeyAccess, Operand, Shape, Target, Within};
pub use layout::{Column, Layout, Role};
pub use lookups::Lookups;
pub use mapping::MappedKeys;
pub use options::{OptionProblem, Place, TableOptions};
pub use reading::{ReadProblem, Reading};
pub use resp::{Commands, Reply};
