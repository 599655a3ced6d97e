//! One Redis behind a proxy.

use std::thread::sleep;
use std::time::Duration;

use pg_redis_cache_tests::{Dice, Proxy, Redis, Trial, World, WorldBuilder};

use crate::deployment::{Deployment, Fault, fault};
use crate::lines::{self, Proxied};
use crate::server_faults::pause;
use crate::{postgres_faults, server_faults};

pub struct Single(World);

impl Single {
    pub fn begin(settings: fn(WorldBuilder) -> WorldBuilder) -> Single {
        Single(Trial::world(|world| settings(world.proxied())))
    }
}

impl Deployment for Single {
    fn faults() -> [Vec<Fault<Single>>; 2] {
        let own = [
            fault("Redis killed, back at once", killed),
            fault("Redis killed, away for a second", away),
            fault("Redis frozen for up to a second", frozen),
        ];
        let mut all = Vec::from(own);
        all.extend(server_faults::faults());
        all.extend(lines::faults());
        all.extend(postgres_faults::faults());
        [all, Vec::new()]
    }

    fn world(&self) -> &World {
        &self.0
    }

    fn world_mut(&mut self) -> &mut World {
        &mut self.0
    }

    fn masters(&self) -> Vec<&Redis> {
        vec![&self.0.redis]
    }
}

impl Proxied for Single {
    fn line(&self, _: &mut Dice) -> &Proxy {
        self.0.proxy()
    }
}

fn killed(here: &mut Single, _: &mut Dice) {
    here.0.redis.kill();
    here.0.redis.start_again();
}

fn away(here: &mut Single, _: &mut Dice) {
    here.0.redis.kill();
    sleep(Duration::from_secs(1));
    here.0.redis.start_again();
}

fn frozen(here: &mut Single, dice: &mut Dice) {
    here.0.redis.freeze();
    pause(dice, 1000);
    here.0.redis.thaw();
}
