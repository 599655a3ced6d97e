//! This machine's own address.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Somewhere else: an address kept for examples, to which nothing is ever sent.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 9);

/// The address by which other machines would know this one; 127.0.0.1 where it has none. Who connects to it comes from
/// it, too, and so is no local client to a Redis.
pub fn own_address() -> String {
    // A datagram's socket that connects only looks for the way.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    let address = socket.and_then(|socket| socket.connect(ELSEWHERE).and_then(|()| socket.local_addr()));
    address
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |own| own.ip())
        .to_string()
}
