//! Faults of PostgreSQL and of the worker.

use pg_redis_cache_tests::{Dice, Shutdown, World, eventually};

use crate::deployment::{Deployment, Fault, fault};
use crate::run::SOON;

/// They are the same whatever Redis is like.
pub fn faults<D: Deployment>() -> Vec<Fault<D>> {
    vec![
        fault("worker terminated", worker_terminated),
        fault("worker killed (kill -9)", worker_killed),
        fault("backend killed (kill -9)", backend_killed),
        fault("Postgres restarted, fast", postgres_fast),
        fault("Postgres restarted, immediate", postgres_immediate),
        fault("Postgres killed whole", postgres_killed),
    ]
}

fn end_worker(world: &World, signal: i32) {
    let pid = world.worker_pid();
    world.postgres.signal(pid, signal);
    eventually("the worker's end", SOON, || {
        (!world.postgres.has_process(pid)).then_some(())
    });
}

fn worker_terminated<D: Deployment>(here: &mut D, _: &mut Dice) {
    end_worker(here.world(), libc::SIGTERM);
}

fn worker_killed<D: Deployment>(here: &mut D, _: &mut Dice) {
    end_worker(here.world(), libc::SIGKILL);
}

fn backend_killed<D: Deployment>(here: &mut D, _: &mut Dice) {
    let world = here.world();
    let mut victim = world.connect();
    let row = victim.query_one("SELECT pg_backend_pid()", &[]);
    let pid: i32 = row.expect("the server answers").get(0);
    let half_done = "BEGIN; UPDATE doc SET version = version + 1000, doomed = true WHERE id = 1";
    victim.batch_execute(half_done).expect("an update works");
    world.postgres.signal(pid.unsigned_abs(), libc::SIGKILL);
}

fn postgres_fast<D: Deployment>(here: &mut D, _: &mut Dice) {
    here.world_mut().restart_postgres(Shutdown::Fast);
}

fn postgres_immediate<D: Deployment>(here: &mut D, _: &mut Dice) {
    here.world_mut().restart_postgres(Shutdown::Immediate);
}

fn postgres_killed<D: Deployment>(here: &mut D, _: &mut Dice) {
    let postgres = &mut here.world_mut().postgres;
    postgres.crash();
    postgres.start_again();
}
