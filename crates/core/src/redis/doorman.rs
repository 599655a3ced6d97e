//! Masters of a cluster for tests, which say only what a test has them say, and when.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};

use super::event::Server;

/// How long anything may take before a test fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// As lanes and control run: what they begin are tasks beside them.
pub(super) async fn beside_others<T>(test: impl Future<Output = T>) -> T {
    let tasks = LocalSet::new();
    let ended = tokio::time::timeout(PATIENCE, tasks.run_until(test)).await;
    ended.expect("it comes to an end")
}

/// Who a doorman says that it is.
pub(super) fn server(run_id: &str) -> Server {
    Server {
        run_id: run_id.to_owned(),
        replication_id: "data".to_owned(),
        version: "Redis, version unknown".to_owned(),
    }
}

/// A master that tells whoever connects who it is, answers one that looks at the cluster when the test says what, and
/// closes the connection over anything else that it is asked.
pub(super) struct Doorman {
    pub port: u16,
    listener: TcpListener,
    run_id: &'static str,
    /// What it answers to CLUSTER NODES, one look after the other. It closes the connection where nothing can come.
    answers: Answers,
}

type Answers = Rc<Mutex<UnboundedReceiver<String>>>;

impl Doorman {
    pub async fn new(run_id: &'static str) -> (Self, UnboundedSender<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sender, answers) = unbounded_channel();
        let doorman = Self {
            port: listener.local_addr().unwrap().port(),
            listener,
            run_id,
            answers: Rc::new(Mutex::new(answers)),
        };
        (doorman, sender)
    }

    /// Lets in whoever comes, from now on.
    pub fn stand(self) {
        spawn_local(async move {
            while let Ok((caller, _)) = self.listener.accept().await {
                spawn_local(serve(caller, self.run_id, self.answers.clone()));
            }
        });
    }
}

async fn serve(mut caller: TcpStream, run_id: &str, answers: Answers) {
    // Questions after which [`Line`](super::line::Line) waits for the answers.
    let hello = format!("{}\r\n", env!("CARGO_PKG_VERSION"));
    if hear(&mut caller, &hello).await.is_none() {
        return;
    }
    let mut answer = identity(run_id) + ":7\r\n+OK\r\n+OK\r\n+OK\r\n";
    while caller.write_all(answer.as_bytes()).await.is_ok() && hear(&mut caller, "NODES\r\n").await.is_some()
    {
        let Some(nodes) = answers.lock().await.recv().await else {
            return;
        };
        answer = format!("{}*0\r\n{}", identity(run_id), bulk(&nodes));
    }
}

/// Waits for questions that begin as all do that it knows, and end so.
async fn hear(caller: &mut TcpStream, end: &str) -> Option<()> {
    let (mut asked, mut bytes) = (Vec::new(), [0; 4096]);
    while !asked.ends_with(end.as_bytes()) {
        let read = caller.read(&mut bytes).await.ok()?;
        asked.extend_from_slice(&bytes[..read]);
        let begins = asked.starts_with(b"*2\r\n$4\r\nINFO\r\n");
        if read == 0 || !begins {
            return None;
        }
    }
    Some(())
}

/// The answers to who it is.
fn identity(run_id: &str) -> String {
    let server = format!("redis_mode:cluster\r\nrun_id:{run_id}\r\n");
    let replication = "role:master\r\nmaster_replid:data\r\n";
    bulk(&server) + &bulk(replication)
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}
