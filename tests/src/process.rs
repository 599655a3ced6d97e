//! Child processes that never outlive the tests, and run as somebody who may run PostgreSQL.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

/// The user that servers run as, where the tests themselves are run by root.
#[derive(Debug)]
pub struct ServerUser {
    pub uid: u32,
    pub gid: u32,
}

/// `postgres` if there is such a user, else `nobody`; `None` where the caller is not root.
pub fn server_user() -> Option<&'static ServerUser> {
    static USER: OnceLock<Option<ServerUser>> = OnceLock::new();
    USER.get_or_init(|| {
        // SAFETY: geteuid has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            return None;
        }
        let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd cannot be read");
        let user = ["postgres", "nobody"]
            .iter()
            .find_map(|name| find_user(&passwd, name));
        Some(user.expect("root cannot run PostgreSQL, and there is neither a user postgres nor nobody"))
    })
    .as_ref()
}

fn find_user(passwd: &str, name: &str) -> Option<ServerUser> {
    let fields: Vec<&str> = passwd
        .lines()
        .map(|line| line.split(':').collect())
        .find(|f: &Vec<_>| f[0] == name)?;
    Some(ServerUser {
        uid: fields.get(2)?.parse().ok()?,
        gid: fields.get(3)?.parse().ok()?,
    })
}

/// Lets `command` run as [`server_user`].
pub fn as_server_user(command: &mut Command) -> &mut Command {
    if let Some(user) = server_user() {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// Starts a server: as [`server_user`], in a process group of its own (so that Ctrl-C reaches only the
/// tests), with `signal` sent to it when this process dies.
///
/// # Errors
/// Those of starting a process.
pub fn spawn_server(mut command: Command, signal: libc::c_int) -> io::Result<Child> {
    // With it, pgrx adds a backtrace to the DETAIL of errors, which no user has and no two machines share.
    as_server_user(&mut command)
        .process_group(0)
        .env_remove("RUST_BACKTRACE");
    let parent = std::process::id();
    // SAFETY: the closure runs between fork and exec and makes only async-signal-safe system calls. It runs
    // after the change of user, which would have reset the signal.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the signal was asked for.
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    spawn_from_lasting_thread(command)
}

/// PR_SET_PDEATHSIG watches the *thread* that forked, and a test's thread ends with the test, while a
/// server may be shared between tests.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Request = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = channel::<Request>();
        let serve = move || {
            for (mut command, reply) in inbox {
                // A test that no longer waits for the answer has failed already.
                let _ = reply.send(command.spawn());
            }
        };
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(serve)
            .expect("no thread can be started");
        requests
    });
    let (reply, answer) = channel();
    spawner
        .send((command, reply))
        .expect("the spawner thread lives as long as the process");
    answer.recv().expect("the spawner thread answers each request")
}

/// Sends `signal` to one process. A process that is gone already is not an error.
pub fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: kill has no memory preconditions; the pid is of a child of ours or of a child of it.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// The live children of `parent`.
pub fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc cannot be read");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The fourth field of /proc/PID/stat; the second may hold blanks and ends with the last `)`.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..]
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// The command line of a process, as `ps` shows it: PostgreSQL writes there what a process is.
pub fn title(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .trim_end_matches('\0')
        .replace('\0', " ")
}

/// Whether the process exists and is not a zombie.
pub fn is_running(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// Whether SIGSTOP has reached the process: until then it may be in the middle of a fork.
pub fn is_stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

/// The third field of /proc/PID/stat.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].trim_start().chars().next()
}
