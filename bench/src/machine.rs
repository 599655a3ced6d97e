//! What the figures were measured on, and what Linux says of processes.

use std::fs;
use std::process::Command;
use std::time::Duration;

use pg_redis_cache_tests::{eventually, installation, repository};

use crate::Effort;

/// Names and values, for the head of a report. What cannot be found out is said to be unknown.
pub fn facts(effort: Effort) -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or_else(|_| unknown(), |n| n.to_string());
    let postgres = first_line(installation().command("postgres").arg("--version"));
    let commit = first_line(
        Command::new("git")
            .current_dir(repository())
            .args(["describe", "--always", "--dirty"]),
    );
    vec![
        (
            "run",
            effort.pick("quick: only to see that it works", "full").to_owned(),
        ),
        ("commit", commit),
        ("processor", field("/proc/cpuinfo", "model name")),
        ("cores", cores),
        ("memory", field("/proc/meminfo", "MemTotal")),
        ("Linux", read("/proc/sys/kernel/osrelease")),
        ("PostgreSQL", postgres),
        ("Redis", first_line(Command::new("redis-server").arg("--version"))),
        ("load before (1, 5, 15 minutes)", load()),
    ]
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| unknown(), |text| text.trim().to_owned())
}

/// The first `name : value` of a file in /proc.
fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let value = text.lines().find_map(|line| {
        let (before, after) = line.split_once(':')?;
        (before.trim() == name).then(|| after.trim().to_owned())
    });
    value.unwrap_or_else(unknown)
}

fn load() -> String {
    let text = read("/proc/loadavg");
    text.split(' ').take(3).collect::<Vec<_>>().join(", ")
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(unknown)
}

/// CPU time of a process so far, all its threads, in seconds.
pub fn own_cpu(pid: u32) -> f64 {
    ticks(pid, [14, 15])
}

/// CPU time of the sessions that a postmaster had so far, in seconds. Waits until those that are ending have
/// ended.
pub fn sessions_cpu(postmaster: u32) -> f64 {
    eventually("sessions to end", Duration::from_secs(10), || {
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        let children = children.expect("the server runs");
        children.split_whitespace().all(is_no_session).then_some(())
    });
    ticks(postmaster, [16, 17])
}

/// A process that has ended and was not waited for has no title.
fn is_no_session(pid: &str) -> bool {
    let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let title = String::from_utf8_lossy(&title);
    !title.is_empty() && !title.contains("[local]")
}

/// The sum of two fields of /proc/PID/stat, counted from 1 as in proc(5), which are in 1/100 s.
fn ticks(pid: u32, fields: [usize; 2]) -> f64 {
    let stat = read(&format!("/proc/{pid}/stat"));
    // The second field may hold blanks, and ends with the last `)`.
    let rest: Vec<&str> = stat[stat.rfind(')').map_or(0, |end| end + 1)..]
        .split_whitespace()
        .collect();
    let value = |field: usize| -> f64 {
        let ticks = rest.get(field - 3).and_then(|ticks| ticks.parse().ok());
        ticks.unwrap_or_else(|| panic!("process {pid} is gone"))
    };
    fields.map(value).iter().sum::<f64>() / 100.0
}
