//! A part of a batch: the commands that go to one server, and which operations each is for.

use std::num::NonZeroU64;

use ::redis::{Cmd, Pipeline};

use super::chunk::{Expiry, HashFields};

/// The most keys in one UNLINK.
const MOST_KEYS: u32 = 64;

/// A command, and the operations of the plan that it is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub first: u32,
    pub count: u32,
    /// An UNLINK that is all there is of its operations, so that others may join.
    is_deletion: bool,
}

/// See the module.
pub(super) struct Part {
    pub commands: Pipeline,
    /// One for each command.
    pub steps: Vec<Step>,
    /// Of keys and values in the commands.
    pub bytes: usize,
}

/// How an operation's commands are added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adding {
    /// The operation's place in the plan.
    pub place: u32,
    /// ASKING goes before each command: the slot is on its way to the server.
    pub asking: bool,
}

impl Part {
    pub fn new() -> Self {
        Self {
            commands: Pipeline::new(),
            steps: Vec::new(),
            bytes: 0,
        }
    }

    pub fn clear(&mut self) {
        self.commands.clear();
        self.steps.clear();
        self.bytes = 0;
    }

    /// Adds a command of an operation.
    pub fn add(&mut self, adding: Adding, command: Cmd) {
        self.add_asking(adding);
        self.commands.add_command(command);
        self.steps.push(Step {
            first: adding.place,
            count: 1,
            is_deletion: false,
        });
    }

    /// Adds the deletion of a key as all there is of an operation; to the UNLINK before it, if `may_join`.
    pub fn add_deletion(&mut self, adding: Adding, key: &[u8], may_join: bool) {
        self.bytes += key.len();
        match self.steps.last_mut() {
            Some(last) if may_join && last.is_deletion && last.count < MOST_KEYS => {
                self.commands.arg(key);
                last.count += 1;
            }
            _ => {
                self.add_asking(adding);
                self.commands.add_command(unlink(key));
                self.steps.push(Step {
                    first: adding.place,
                    count: 1,
                    is_deletion: may_join,
                });
            }
        }
    }

    fn add_asking(&mut self, adding: Adding) {
        if adding.asking {
            self.commands.cmd("ASKING");
            self.steps.push(Step {
                first: adding.place,
                count: 0,
                is_deletion: false,
            });
        }
    }
}

pub(super) fn set(key: &[u8], value: &[u8], expiry: Expiry) -> Cmd {
    let mut command = Cmd::with_capacity(5, 5 + key.len() + value.len() + 20);
    command.arg("SET").arg(key).arg(value);
    if let Expiry::Milliseconds(ms) = expiry {
        command.arg("PX").arg(ms.get());
    }
    command
}

pub(super) fn unlink(key: &[u8]) -> Cmd {
    let mut command = Cmd::with_capacity(2, 6 + key.len());
    command.arg("UNLINK").arg(key);
    command
}

pub(super) fn pexpire(key: &[u8], ms: NonZeroU64) -> Cmd {
    let mut command = Cmd::with_capacity(3, 7 + key.len() + 20);
    command.arg("PEXPIRE").arg(key).arg(ms.get());
    command
}

/// HSET with the fields of a stored hash, no command if there are none, and whether every column is
/// among them. `None`: the bytes are not a stored hash.
pub(super) fn hset(key: &[u8], stored: &[u8], fields: HashFields) -> Option<(Option<Cmd>, bool)> {
    let mut command = Cmd::with_capacity(8, 4 + key.len() + stored.len());
    command.arg("HSET").arg(key);
    let mut count = 0;
    let is_complete = fields(stored, &mut |name, text| {
        command.arg(name).arg(text);
        count += 1;
    })?;
    Some(((count > 0).then_some(command), is_complete))
}
