//! Redis without anything before it: a socket, commands as bytes, answers cut into values. What the foreign data
//! wrapper is compared with.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;

/// A connection that blocks.
pub struct Bare {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Where the bytes begin that belong to no answer yet.
    at: usize,
}

/// Appends a command in Redis's protocol.
pub fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    // Writing to memory does not fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

impl Bare {
    /// To a server on this machine.
    ///
    /// # Panics
    /// If there is none.
    pub fn connect(port: u16) -> Bare {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("Redis listens there");
        stream.set_nodelay(true).expect("an open socket");
        Bare {
            stream,
            buffer: Vec::new(),
            at: 0,
        }
    }

    /// Sends commands, and returns the values of the answers to all of them, one after the other.
    ///
    /// # Panics
    /// If Redis refuses one or goes away.
    pub fn ask(&mut self, commands: &[u8], answers: usize) -> Vec<Vec<u8>> {
        self.stream.write_all(commands).expect("Redis reads");
        let mut values = Vec::new();
        for _ in 0..answers {
            self.answer(&mut values);
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        values
    }

    /// One command.
    pub fn command(&mut self, words: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        command(&mut out, words);
        self.ask(&out, 1)
    }

    fn answer(&mut self, values: &mut Vec<Vec<u8>>) {
        let line = self.line();
        let text = &self.buffer[line.clone()];
        let number = || -> i64 {
            let digits = std::str::from_utf8(&text[1..]).expect("a number is ASCII");
            digits.parse().expect("Redis sends a length")
        };
        match text[0] {
            b'*' => (0..number()).for_each(|_| self.answer(values)),
            b'$' => {
                let Ok(length) = usize::try_from(number()) else {
                    return;
                };
                while self.buffer.len() < self.at + length + 2 {
                    self.read();
                }
                values.push(self.buffer[self.at..self.at + length].to_vec());
                self.at += length + 2;
            }
            b'-' => panic!("Redis refused: {}", String::from_utf8_lossy(text)),
            _ => values.push(text[1..].to_vec()),
        }
    }

    fn line(&mut self) -> Range<usize> {
        let begin = self.at;
        let mut looked = begin;
        loop {
            let end = self.buffer[looked..].iter().position(|byte| *byte == b'\r');
            match end {
                Some(end) if looked + end + 1 < self.buffer.len() => {
                    self.at = looked + end + 2;
                    return begin..looked + end;
                }
                _ => {
                    looked = self.buffer.len().saturating_sub(1).max(begin);
                    self.read();
                }
            }
        }
    }

    fn read(&mut self) {
        let filled = self.buffer.len();
        self.buffer.resize(filled + 64 * 1024, 0);
        let count = self
            .stream
            .read(&mut self.buffer[filled..])
            .expect("Redis writes");
        assert!(count > 0, "Redis went away");
        self.buffer.truncate(filled + count);
    }
}
