//! Why a connection could not be opened, where the library's error does not tell.
//!
//! A server that has no room for a client (`maxclients`), does not want its certificate (TLS 1.3), or speaks another
//! protocol, says so before anything is asked. The library's driver takes that and tells who asks later only that the
//! connection has ended. Nor does it tell whether that was before any answer (a port for TLS hangs up on who speaks
//! without), or in which step of TLS its time was over. So one more connection is made, without the library, that goes
//! as far as the first answer. What it does not find out changes nothing. It takes `connect_timeout` at most, and is
//! made only after a failure.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::address::Place;
use super::engine::Settings;
use super::fault::{Cause, Kind};
use super::tls::{self, Tls};

/// The cause, or what the server or TLS says of it.
pub(super) async fn of(settings: &Settings, cause: Cause) -> Cause {
    let limit = settings.connect_timeout;
    let found = match (settings.address.place(), cause.kind()) {
        (Place::Tcp { host, port }, kind) if settings.address.is_tls() => {
            if let Err(error) = tls::server_name(host) {
                return Cause::of_io(&error);
            }
            let Some(tls) = settings.tls.as_ref() else {
                return cause;
            };
            match kind {
                Kind::Lost | Kind::TimedOut => over_tls(tls, host, port, limit).await,
                _ => None,
            }
        }
        (Place::Tcp { host, port }, Kind::Lost) => said(TcpStream::connect((host, port)), settings).await,
        (Place::Unix { path }, Kind::Lost) => said(UnixStream::connect(path), settings).await,
        _ => None,
    };
    found.unwrap_or(cause)
}

/// What a server says as it hangs up on whoever connects, if it says anything.
async fn said<S>(socket: impl Future<Output = io::Result<S>>, settings: &Settings) -> Option<Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let said = timeout(settings.connect_timeout, async {
        io::Result::Ok(first_answer(socket.await?).await)
    });
    match said.await.ok()?.ok()? {
        Ok(answer) if !answer.is_empty() => what_is_wrong(&answer),
        answer => {
            let error = answer.err().unwrap_or(io::ErrorKind::UnexpectedEof.into());
            Some(Cause::of_io(&error).before_any_answer(&settings.address))
                .filter(|cause| *cause == Cause::HungUp)
        }
    }
}

/// What a first answer says against whoever connects.
fn what_is_wrong(answer: &str) -> Option<Cause> {
    match answer.as_bytes().first()? {
        b'-' => {
            let cause = Cause::of_text(answer.strip_prefix('-')?);
            // Other errors are answers to the question, from a server that goes on.
            let hangs_up = match &cause {
                Cause::Server { code, .. } => code == "DENIED" || cause.kind() == Kind::PoolExhausted,
                _ => false,
            };
            hangs_up.then_some(cause)
        }
        // What else an answer of Redis may begin with.
        b'+' | b':' | b'$' | b'*' | b'_' | b',' | b'#' | b'(' | b'!' | b'=' | b'%' | b'~' | b'|' | b'>' => {
            None
        }
        _ => Some(Cause::Protocol {
            expected: "an answer to PING",
        }),
    }
}

/// What goes wrong with TLS up to the first answer, if anything does.
async fn over_tls(tls: &Tls, host: &str, port: u16, limit: Duration) -> Option<Cause> {
    let deadline = Instant::now() + limit;
    let name = tls::server_name(host).ok()?;
    let socket = timeout_at(deadline, TcpStream::connect((host, port)));
    let socket = socket.await.ok()?.ok()?;
    let handshake = TlsConnector::from(tls.config()).connect(name, socket);
    let error = match timeout_at(deadline, handshake).await {
        Ok(Ok(socket)) => {
            let answer = timeout_at(deadline, first_answer(socket));
            match answer.await.ok()? {
                Ok(answer) => return what_is_wrong(&answer),
                Err(error) => error,
            }
        }
        Ok(Err(error)) => error,
        Err(_) => tls::unanswered(limit),
    };
    Some(Cause::of_io(&error)).filter(|cause| cause.kind() == Kind::Tls)
}

/// The beginning of what comes from the server, which is asked something that it answers in any case.
async fn first_answer(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<String> {
    // One that has hung up has said why before.
    let _ = socket.write_all(b"PING\r\n").await;
    let mut bytes = [0; 256];
    let read = socket.read(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
}

/// There is nothing to speak TLS with.
pub(super) fn no_tls() -> Cause {
    Cause::Tls {
        text: "the address wants TLS, and nothing is set up for it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_answer_tells_who_is_there() {
        let kind = |answer| what_is_wrong(answer).map(|cause| cause.kind());
        for fine in [
            "+PONG\r\n",
            "-NOAUTH Authentication required.\r\n",
            "-LOADING Redis\r\n",
            ">2\r\n",
            "",
        ] {
            assert_eq!(kind(fine), None, "{fine}");
        }
        assert_eq!(
            kind("-ERR max number of clients reached\r\n"),
            Some(Kind::PoolExhausted)
        );
        assert_eq!(
            kind("-DENIED Redis is running in protected mode\r\n"),
            Some(Kind::Rejected)
        );
        assert_eq!(kind("HTTP/1.0 400 Bad Request\r\n"), Some(Kind::Protocol));
    }
}
