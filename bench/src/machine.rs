//! What the figures were measured on.

use std::fs;
use std::process::Command;

use pg_redis_cache_tests::{installation, repository};

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
