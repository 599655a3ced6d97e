//! A stream that remembers how it failed.
//!
//! The library tells who waits for an answer why there is none, but who asks after a connection has failed learns only
//! that it has. In TLS that is how the refusal of a certificate comes: after the handshake, and before a question.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::fault::Cause;

/// Why a stream has failed, once it has.
pub(super) type Note = Arc<OnceLock<Cause>>;

/// See the module.
pub(super) struct Noting<S> {
    stream: S,
    note: Note,
}

impl<S> Noting<S> {
    pub fn new(stream: S) -> (Self, Note) {
        let note = Note::default();
        let noting = Self {
            stream,
            note: note.clone(),
        };
        (noting, note)
    }

    fn noted<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &outcome {
            // The first failure is the one that says why.
            let _ = self.note.set(Cause::of_io(error));
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.noted(outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.noted(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
