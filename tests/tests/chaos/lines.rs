//! Faults of the network between PostgreSQL and a server.

use std::thread::sleep;
use std::time::Duration;

use pg_redis_cache_tests::{Dice, Proxy};

use crate::deployment::{Deployment, Fault, fault};
use crate::server_faults::pause;

/// A deployment whose servers are behind proxies.
pub trait Proxied: Deployment {
    /// What lies before one of the servers.
    fn line(&self, dice: &mut Dice) -> &Proxy;
}

/// Done to the line to one server.
pub fn faults<D: Proxied>() -> Vec<Fault<D>> {
    vec![
        fault("connections cut, five times", cut),
        fault("network slow: 10 to 50 ms each way", slow),
        fault("network slower than command_timeout", too_slow),
        fault("network keeps what it was given, hands it on late", late),
    ]
}

fn cut<D: Proxied>(here: &mut D, dice: &mut Dice) {
    for _ in 0..5 {
        here.line(dice).cut();
        pause(dice, 150);
    }
}

fn slow_for_a_second(line: &Proxy, delay: u64) {
    line.delay(Duration::from_millis(delay));
    sleep(Duration::from_secs(1));
    line.delay(Duration::ZERO);
}

fn slow<D: Proxied>(here: &mut D, dice: &mut Dice) {
    slow_for_a_second(here.line(dice), 10 + dice.below(40));
}

fn too_slow<D: Proxied>(here: &mut D, dice: &mut Dice) {
    slow_for_a_second(here.line(dice), 200);
}

fn late<D: Proxied>(here: &mut D, dice: &mut Dice) {
    let line = here.line(dice);
    line.hold();
    pause(dice, 1000);
    line.cut();
    pause(dice, 500);
    line.release();
}
