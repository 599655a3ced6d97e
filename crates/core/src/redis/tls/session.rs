//! A TLS connection over a socket that may not block.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustls::ClientConnection;

use super::{Tls, TlsFailure, server_name};

/// A TLS connection over a stream that answers `WouldBlock` where it would have to wait. Each call can be stopped by
/// that at any byte and is then made again; [`Self::wants_write`] tells whether the socket has to take something
/// before any more can come.
///
/// [`Write::flush`] finishes the handshake too. What has been decrypted is handed out before the socket is asked, so
/// a quiet socket does not mean that there is nothing to read.
#[derive(Debug)]
pub struct Session<S = TcpStream> {
    session: ClientConnection,
    pub(super) socket: S,
}

impl<S: Read + Write> Session<S> {
    /// Begins to speak TLS to `host`. Nothing is sent yet: [`flush`](Write::flush) shakes hands.
    ///
    /// # Errors
    /// The host has no name that a certificate could have.
    pub fn new(tls: &Tls, host: &str, socket: S) -> io::Result<Self> {
        let session = ClientConnection::new(tls.config(), server_name(host)?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Self { session, socket })
    }

    /// The stream below.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Whether something is to be written, whatever the call that would have blocked was for.
    pub fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    /// Whether nothing has come unasked, and the other end is still there. A TLS server sends on its own what means
    /// nothing to the caller (tickets, new keys); that is taken.
    pub fn is_idle(&mut self) -> bool {
        let state = loop {
            match self.session.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() > 0 || state.peer_has_closed() => return false,
                Ok(_) => {}
                Err(_) => return false,
            }
            match self.session.read_tls(&mut self.socket) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => break error.kind(),
            }
        };
        state == io::ErrorKind::WouldBlock
    }

    /// Writes what rustls has for the socket.
    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(error) => return Err(self.said_before(error)),
            }
        }
        Ok(())
    }

    /// Why the socket takes no more: what the server said before it closed, if it said anything. It refuses a
    /// certificate only after the client has begun to send (TLS 1.3).
    fn said_before(&mut self, error: io::Error) -> io::Error {
        loop {
            match self.take() {
                Ok(()) => {}
                Err(said) if said.kind() == io::ErrorKind::InvalidData => return said,
                Err(_) => return error,
            }
        }
    }

    /// Reads from the socket once and decrypts what is whole; tells the server if that cannot be.
    fn pull(&mut self) -> io::Result<()> {
        let taken = self.take();
        if taken.is_err() && self.session.wants_write() {
            // So that the server can say why it was left, if the socket takes it now.
            let _ = self.session.write_tls(&mut self.socket);
        }
        taken
    }

    fn take(&mut self) -> io::Result<()> {
        if self.session.read_tls(&mut self.socket)? == 0 {
            return Err(if self.session.is_handshaking() {
                let text = "the connection was closed during the handshake: does the port speak TLS?";
                io::Error::new(io::ErrorKind::InvalidData, TlsFailure(text.to_owned()))
            } else {
                io::ErrorKind::UnexpectedEof.into()
            });
        }
        let state = self.session.process_new_packets();
        state
            .map(drop)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl<S: Read + Write> Read for Session<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Also 0: the other end has said that nothing more comes.
                result => return result,
            }
            match self.push() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => self.pull()?,
            }
        }
    }
}

impl<S: Read + Write> Write for Session<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            let taken = self.session.writer().write(buffer)?;
            match self.push() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                // What rustls has taken it keeps, and the next call goes on with it.
                _ if taken > 0 || buffer.is_empty() => return Ok(taken),
                // rustls is full: the socket first.
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        loop {
            self.push()?;
            if !self.session.is_handshaking() {
                return Ok(());
            }
            self.pull()?;
        }
    }
}
