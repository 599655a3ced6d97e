//! The hash slots of a Redis Cluster: which one a key has, which node is a slot's master, and what a node says that is
//! not. Used by the worker and by foreign tables; does no I/O.

use std::ops::RangeInclusive;

/// How many hash slots a cluster has.
pub const SLOTS: u16 = 16384;
/// The CRC that keys are hashed by (cluster.c, `keyHashSlot`).
const CRC: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);

/// The hash slot of a key: that of what stands between the first `{` and the next `}`, if that is anything.
pub fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    CRC.checksum(tag.unwrap_or(key)) % SLOTS
}

/// A node as its cluster calls it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// Where it takes commands.
    pub port: u16,
}

impl Node {
    /// A node of which the cluster may not know the host: it is that of the node that was asked, then.
    pub fn of(host: &str, port: u16, asked: &str) -> Self {
        let host = if host.is_empty() || host == "?" {
            asked
        } else {
            host
        };
        let host = host.to_owned();
        Self { host, port }
    }

    /// Reads `host:port`, in which the host may be missing.
    pub(super) fn read(text: &str, asked: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self::of(host, port.parse().ok()?, asked))
    }
}

/// Which master has which slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Ascending.
    ranges: Vec<(RangeInclusive<u16>, Node)>,
    /// Each once, ascending.
    masters: Vec<Node>,
}

impl Slots {
    /// The slots that each of these masters has, as CLUSTER SLOTS tells it.
    pub fn new(mut ranges: Vec<(RangeInclusive<u16>, Node)>) -> Self {
        ranges.sort_by_key(|(range, _)| *range.start());
        let mut masters: Vec<Node> = ranges.iter().map(|(_, master)| master.clone()).collect();
        masters.sort();
        masters.dedup();
        Self { ranges, masters }
    }

    /// The master of a slot, if the slot has one.
    pub fn master(&self, slot: u16) -> Option<&Node> {
        let place = self.ranges.partition_point(|(range, _)| *range.end() < slot);
        let (range, master) = self.ranges.get(place)?;
        range.contains(&slot).then_some(master)
    }

    /// All masters that have slots, in an order of their names.
    pub fn masters(&self) -> &[Node] {
        &self.masters
    }
}

/// Where a command goes instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirection {
    /// The slot is that node's now.
    Moved(Node),
    /// The key is at that node, to which the slot is on its way; ASKING must go first.
    Ask(Node),
    /// Nobody can tell at this moment.
    Later,
}

impl Redirection {
    /// What an error means that `asked` has given (cluster.c, `clusterRedirectClient`).
    pub fn of(error: &str, asked: &str) -> Option<Self> {
        let mut words = error.split(' ');
        let code = words.next()?;
        let mut node = || Node::read(words.nth(1)?, asked);
        match code {
            "MOVED" => Some(Self::Moved(node()?)),
            "ASK" => Some(Self::Ask(node()?)),
            "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" => Some(Self::Later),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As CLUSTER KEYSLOT answers.
        assert_eq!(slot(b"123456789"), 12739);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b""), 0);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{}{bar}"), CRC.checksum(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
        assert_eq!(slot(b"foo{bar"), CRC.checksum(b"foo{bar") % SLOTS);
    }

    #[test]
    fn redirections_are_read() {
        let node = |host: &str, port| Node {
            host: host.to_owned(),
            port,
        };
        let of = |text| Redirection::of(text, "asked");
        assert_eq!(
            of("MOVED 3999 127.0.0.1:6381"),
            Some(Redirection::Moved(node("127.0.0.1", 6381)))
        );
        assert_eq!(
            of("MOVED 3999 :6381"),
            Some(Redirection::Moved(node("asked", 6381)))
        );
        assert_eq!(of("ASK 1 ::1:6381"), Some(Redirection::Ask(node("::1", 6381))));
        assert_eq!(of("TRYAGAIN Multiple keys request"), Some(Redirection::Later));
        assert_eq!(of("CLUSTERDOWN The cluster is down"), Some(Redirection::Later));
        assert_eq!(of("WRONGTYPE Operation"), None);
        assert_eq!(of("MOVED"), None);
        assert_eq!(of("MOVED 1 nowhere"), None);
    }
}
