//! The topics of `regress/`, each in a world of its own, run by PostgreSQL's own pg_regress and
//! pg_isolation_regress. How to write one: `regress/README.md`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};
use pg_redis_cache_tests::{Folder, Postgres, World, installation, repository};

const DATABASE: &str = "regression";

/// Which of PostgreSQL's two runners a topic is for.
#[derive(Clone, Copy)]
enum Runner {
    Sql,
    Isolation,
}

impl Runner {
    fn topics(self) -> Vec<String> {
        let (folder, extension) = match self {
            Runner::Sql => ("sql", "sql"),
            Runner::Isolation => ("specs", "spec"),
        };
        let mut topics: Vec<String> = fs::read_dir(repository().join("regress").join(folder))
            .expect("the folder of topics can be read")
            .map(|entry| entry.expect("an entry can be read").path())
            .filter(|path| path.extension() == Some(OsStr::new(extension)))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        topics.sort();
        topics
    }

    fn program(self) -> PathBuf {
        let tests = installation().pkglibdir.join("pgxs/src/test");
        tests.join(match self {
            Runner::Sql => "regress/pg_regress",
            Runner::Isolation => "isolation/pg_isolation_regress",
        })
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for (runner, kind) in [(Runner::Sql, "sql"), (Runner::Isolation, "isolation")] {
        for topic in runner.topics() {
            let name = format!("{kind}::{topic}");
            trials.push(Trial::test(name, move || {
                run(runner, &topic).map_err(Failed::from)
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn run(runner: Runner, topic: &str) -> Result<(), String> {
    let regress = repository().join("regress");
    let conf = fs::read_to_string(regress.join("conf").join(format!("{topic}.conf"))).unwrap_or_default();
    let world = World::builder().database(DATABASE).conf_text(&conf).start();
    let helpers = fs::read_to_string(regress.join("helpers.sql")).expect("regress/helpers.sql can be read");
    world.execute(&helpers);

    let output = Folder::new();
    let mut command = Command::new(runner.program());
    command
        .arg("--inputdir")
        .arg(&regress)
        .arg("--outputdir")
        .arg(output.path());
    command
        .arg("--bindir")
        .arg(&installation().bindir)
        .args(["--user=postgres", "--use-existing"]);
    command
        .arg(format!("--dbname={DATABASE}"))
        .arg("--host")
        .arg(world.postgres.socket_dir());
    command.arg(format!("--port={}", Postgres::PORT)).arg(topic);
    command
        .env("REDIS_SOCKET", world.redis.socket())
        .env("PATH", path_with(&[&regress.join("bin"), &installation().bindir]));
    let ran = command
        .output()
        .map_err(|e| format!("{}: {e}", runner.program().display()))?;
    keep_results(output.path(), &regress.join("results"));
    if ran.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    let differences = fs::read_to_string(output.path().join("regression.diffs")).unwrap_or_default();
    let log = last_lines(&world.postgres.log(), 20);
    Err(format!(
        "{printed}\n{differences}\nthe end of PostgreSQL's log:\n{log}"
    ))
}

/// PATH with folders before it.
fn path_with(folders: &[&Path]) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.iter().map(|folder| folder.to_path_buf());
    std::env::join_paths(folders.chain(std::env::split_paths(&path))).expect("no path here holds a colon")
}

/// So that a new topic's output can be looked at, and taken as the expected one. The tests do not need it.
fn keep_results(output: &Path, results: &Path) {
    let _ = fs::create_dir_all(results);
    for entry in fs::read_dir(output.join("results"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let _ = fs::copy(entry.path(), results.join(entry.file_name()));
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
