//! The topics of `regress/`, for those who run them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::installation::{installation, repository};
use crate::world::World;

/// The database that topics are run in.
const DATABASE: &str = "regression";

fn regress() -> PathBuf {
    repository().join("regress")
}

/// The names of the topics in a folder of `regress/`: those of its files that end so, sorted.
///
/// # Panics
/// If the folder cannot be read.
pub fn topics(folder: &str, extension: &str) -> Vec<String> {
    let mut topics: Vec<String> = fs::read_dir(regress().join(folder))
        .expect("the folder of topics can be read")
        .map(|entry| entry.expect("an entry can be read").path())
        .filter(|path| path.extension() == Some(OsStr::new(extension)))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    topics.sort();
    topics
}

/// A world as a topic wants it: with its settings, and with `helpers.sql` run.
///
/// # Panics
/// If that cannot be made.
pub fn topic_world(topic: &str) -> World {
    let conf = fs::read_to_string(regress().join("conf").join(format!("{topic}.conf"))).unwrap_or_default();
    let world = World::builder().database(DATABASE).conf_text(&conf).start();
    let helpers = fs::read_to_string(regress().join("helpers.sql")).expect("regress/helpers.sql can be read");
    world.execute(&helpers);
    world
}

/// What a topic's commands of the shell need: their folder and the servers' programs in the PATH, and the world's Redis.
pub fn topic_environment(command: &mut Command, world: &World) {
    command.env("REDIS_SOCKET", world.redis.socket()).env(
        "PATH",
        path_with(&[&regress().join("bin"), &installation().bindir]),
    );
}

/// PATH with folders before it.
fn path_with(folders: &[&Path]) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.iter().map(|folder| folder.to_path_buf());
    std::env::join_paths(folders.chain(std::env::split_paths(&path))).expect("no path here holds a colon")
}
