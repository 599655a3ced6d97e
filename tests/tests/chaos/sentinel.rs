//! A Redis with two replicas that three sentinels watch.

use std::thread::sleep;
use std::time::Duration;

use pg_redis_cache_tests::{Dice, Redis, RedisSentinel, Trial, World, eventually};

use crate::deployment::{Deployment, Fault, failover, fault};
use crate::run::SOON;
use crate::server_faults::pause;
use crate::{postgres_faults, server_faults};

const SENTINELS: usize = 3;

pub struct Sentinel {
    /// Its Redis is the master.
    world: World,
    watch: RedisSentinel,
}

impl Sentinel {
    pub fn begin() -> Sentinel {
        // Without a password nobody could be cut off.
        let world = Trial::world(|world| world.redis_args(&["--requirepass", "friends"]));
        let watch = RedisSentinel::of(&world);
        let here = Sentinel { world, watch };
        here.hasten();
        here
    }

    /// Has the sentinels look and tell more often than every ten and two seconds, so that an old master becomes a replica
    /// a little sooner, and has them wait for less than thirty seconds when the machine has stood still. Redis before 7
    /// knows no such command, and takes its time.
    fn hasten(&self) {
        let times = [
            "INFO-PERIOD",
            "1000",
            "PUBLISH-PERIOD",
            "500",
            "TILT-PERIOD",
            "3000",
        ];
        self.watch.cli(&[&["SENTINEL", "DEBUG"], &times[..]].concat());
    }
}

impl Deployment for Sentinel {
    fn faults() -> [Vec<Fault<Sentinel>>; 2] {
        let own = [
            failover("failover asked for (SENTINEL FAILOVER)", asked_for),
            failover("master killed, replaced, back as a replica", master_killed),
            failover("master frozen, replaced, awake again", master_frozen),
            failover(
                "master cut off from sentinels and replicas, replaced",
                master_cut_off,
            ),
            fault("replica killed, back within a second", replica_killed),
            fault("sentinel killed, back within a second", sentinel_killed),
            fault("all sentinels away for up to two seconds", sentinels_away),
        ];
        let mut shared = server_faults::faults();
        shared.extend(postgres_faults::faults());
        [Vec::from(own), shared]
    }

    fn world(&self) -> &World {
        &self.world
    }

    fn world_mut(&mut self) -> &mut World {
        &mut self.world
    }

    fn servers(&self) -> Vec<&Redis> {
        std::iter::once(&self.world.redis)
            .chain(&self.watch.replicas)
            .collect()
    }

    fn masters(&self) -> Vec<&Redis> {
        vec![&self.world.redis]
    }

    fn restore(&mut self) {
        for redis in &mut self.watch.replicas {
            if !redis.is_running() {
                redis.start_again();
            }
            redis.thaw();
        }
        for redis in &self.watch.replicas {
            self.watch.let_in(redis);
        }
        self.hasten();
        self.watch.await_ready();
        eventually("sentinels that agree", SOON, || {
            let named = self.watch.cli(&["SENTINEL", "get-master-addr-by-name", "main"]);
            named.iter().all(|one| *one == named[0]).then_some(())
        });
        if self.watch.master() != self.world.redis.port() {
            // Nobody has asked for it: the machine stood still.
            self.watch.follow(&mut self.world.redis);
        }
    }
}

fn asked_for(here: &mut Sentinel, _: &mut Dice) {
    here.watch.fail_over();
    here.watch.follow(&mut here.world.redis);
}

fn master_killed(here: &mut Sentinel, _: &mut Dice) {
    here.world.redis.kill();
    here.watch.follow(&mut here.world.redis);
}

fn master_frozen(here: &mut Sentinel, _: &mut Dice) {
    here.world.redis.freeze();
    here.watch.follow(&mut here.world.redis);
}

/// It goes on taking what it is sent.
fn master_cut_off(here: &mut Sentinel, _: &mut Dice) {
    here.watch.cut_off(&here.world.redis);
    here.watch.follow(&mut here.world.redis);
}

fn replica_killed(here: &mut Sentinel, dice: &mut Dice) {
    let number = dice.below(here.watch.replicas.len() as u64) as usize;
    here.watch.replicas[number].kill();
    pause(dice, 1000);
    here.watch.replicas[number].start_again();
    let replica = &here.watch.replicas[number];
    here.watch.let_in(replica);
    // As its configuration file would say.
    let master = here.world.redis.port().to_string();
    assert_eq!(replica.cli(&["REPLICAOF", "127.0.0.1", &master]), "OK");
}

fn sentinel_killed(here: &mut Sentinel, dice: &mut Dice) {
    let number = dice.below(SENTINELS as u64) as usize;
    here.watch.kill_sentinel(number);
    pause(dice, 1000);
    here.watch.start_sentinel_again(number);
}

fn sentinels_away(here: &mut Sentinel, dice: &mut Dice) {
    for number in 0..SENTINELS {
        here.watch.kill_sentinel(number);
    }
    sleep(Duration::from_secs(1));
    pause(dice, 1000);
    for number in 0..SENTINELS {
        here.watch.start_sentinel_again(number);
    }
}
