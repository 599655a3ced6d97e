//! Ports that no other harness on this machine uses, also while the server behind them is down.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use socket2::{Domain, Socket, Type};

/// Below the range that the kernel gives to outgoing connections (32768 and up): a client that keeps
/// trying a port in that range while its server is down can, once in a while, connect to itself.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
/// How far the bus of a cluster's node is above its port, where it cannot be told (cluster.c, CLUSTER_PORT_INCR).
const BUS: u16 = 10_000;

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
        find(COUNT, try_claim)
    }

    /// Finds one with the port 10,000 above it free as well, which is the bus of a cluster's node in Redis 6.2.
    pub(crate) fn claim_with_bus() -> [Port; 2] {
        find(COUNT - BUS, |number| {
            Some([try_claim(number)?, try_claim(number + BUS)?])
        })
    }
}

/// The first of so many numbers that can be claimed, begun with anywhere.
fn find<T>(count: u16, claim: impl FnMut(u16) -> Option<T>) -> T {
    let start = RandomState::new().build_hasher().finish() % u64::from(count);
    (0..count)
        .map(|step| FIRST + (start as u16 + step) % count)
        .find_map(claim)
        .expect("no free port between 20000 and 32000")
}

fn try_claim(number: u16) -> Option<Port> {
    let name = SocketAddr::from_abstract_name(format!("pg_redis_cache-port-{number}")).ok()?;
    let claim = UnixListener::bind_addr(&name).ok()?;
    try_bind(number).ok()?;
    Some(Port {
        number,
        _claim: claim,
    })
}

/// Finds out whether something listens at a port of 127.0.0.1. What is bound for that does not listen itself: a child that
/// another test forks just then has it too until it runs its program, and would keep others from listening.
fn try_bind(number: u16) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, number).into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_child_that_is_being_forked_keeps_nobody_from_a_port() {
        let is_over = AtomicBool::new(false);
        let listened: Vec<io::Result<TcpListener>> = thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    fork_slowly();
                }
            });
            let listened = (0..300).map(|_| {
                let port = Port::claim();
                TcpListener::bind((Ipv4Addr::LOCALHOST, port.number))
            });
            let listened = listened.collect();
            is_over.store(true, Ordering::Relaxed);
            listened
        });
        for listener in listened {
            listener.expect("a claimed port can be listened at");
        }
    }

    fn fork_slowly() {
        let mut command = Command::new("true");
        // SAFETY: the closure only sleeps, which is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                thread::sleep(Duration::from_millis(5));
                Ok(())
            });
        }
        command.status().expect("true can be run");
    }
}
