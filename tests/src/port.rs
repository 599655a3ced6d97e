//! Ports that no other harness on this machine uses, also while the server behind them is down.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Below the range that the kernel gives to outgoing connections (32768 and up): a client that keeps
/// trying a port in that range while its server is down can, once in a while, connect to itself.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A TCP port on 127.0.0.1, kept until this value is dropped.
///
/// Other harnesses are kept away by a name in the abstract socket namespace, which vanishes with the
/// process; whatever else runs on the machine is found out by binding.
#[derive(Debug)]
pub struct Port {
    pub number: u16,
    _claim: UnixListener,
}

impl Port {
    /// Finds a free one.
    pub fn claim() -> Port {
        let start = RandomState::new().build_hasher().finish() % u64::from(COUNT);
        let candidates = (0..COUNT).map(|step| FIRST + (start as u16 + step) % COUNT);
        candidates
            .into_iter()
            .find_map(try_claim)
            .expect("no free port between 20000 and 32000")
    }
}

fn try_claim(number: u16) -> Option<Port> {
    let name = SocketAddr::from_abstract_name(format!("pg_redis_cache-port-{number}")).ok()?;
    let claim = UnixListener::bind_addr(&name).ok()?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
    Some(Port {
        number,
        _claim: claim,
    })
}
