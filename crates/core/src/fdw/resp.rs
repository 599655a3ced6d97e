//! The Redis protocol (RESP2): commands packed, answers read.
//!
//! [`Reader`] is fed with whatever the socket had and goes on where it stopped, so that a large answer is looked
//! at once. It allocates for what has arrived, never for what an answer claims to hold.
use std::fmt;

/// The most that a bulk string may claim, in bytes: what Redis itself allows at most for a string.
const MAX_BULK: i64 = 512 * 1024 * 1024;
/// How deep arrays may lie in each other. EXEC around XRANGE has four.
const MAX_DEPTH: usize = 8;

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Nil,
    Integer(i64),
    Status(Vec<u8>),
    Bulk(Vec<u8>),
    Array(Vec<Reply>),
    /// The whole line, which begins with a code in capitals.
    Error(String),
}

impl Reply {
    /// The bytes of a bulk string or status.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Bulk(bytes) | Self::Status(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The first error in the answer, also within arrays (EXEC).
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(text),
            Self::Array(parts) => parts.iter().find_map(Self::error),
            _ => None,
        }
    }
}

/// The bytes are not RESP2: the connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the answer is not RESP2: {}", self.0)
    }
}

/// Commands on their way, packed.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    pub bytes: Vec<u8>,
    /// How many answers they will have.
    pub count: usize,
}

impl Commands {
    /// Appends a command.
    pub fn push(&mut self, words: &[&[u8]]) {
        self.begin(words.len());
        for word in words {
            self.word(word);
        }
    }

    /// Begins a command of so many words, its name included; each must follow by [`Self::word`].
    pub fn begin(&mut self, words: usize) {
        self.count += 1;
        self.bytes.push(b'*');
        self.number(words);
    }

    /// The next word of the command begun.
    pub fn word(&mut self, word: &[u8]) {
        self.bytes.push(b'$');
        self.number(word.len());
        self.bytes.extend_from_slice(word);
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn number(&mut self, number: usize) {
        self.bytes
            .extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Appends other commands.
    pub fn append(&mut self, other: &Commands) {
        self.bytes.extend_from_slice(&other.bytes);
        self.count += other.count;
    }
}

/// Reads answers from pieces of bytes.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    at: usize,
    /// The arrays that are being read, the outermost first: how many parts are missing, and those that are there.
    open: Vec<(usize, Vec<Reply>)>,
}

impl Reader {
    /// Takes over bytes that have arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        } else if self.at > 64 * 1024 && self.at > self.buffer.len() / 2 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether nothing has arrived of the next answer.
    pub fn is_between_answers(&self) -> bool {
        self.open.is_empty() && self.at == self.buffer.len()
    }

    /// The parts of the next answer that are there already, if it is an array of which some are still to come.
    pub fn begun(&self) -> &[Reply] {
        self.open.first().map_or(&[], |(_, parts)| parts)
    }

    /// The next answer; `None` until all of it has arrived.
    ///
    /// # Errors
    /// The bytes are not RESP2. Nothing more can be read then.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, Malformed> {
        while let Some(part) = self.part()? {
            let mut reply = match part {
                Part::Whole(reply) => reply,
                Part::Array(missing) => {
                    if self.open.len() == MAX_DEPTH {
                        return Err(Malformed("arrays too deep"));
                    }
                    self.open.push((missing, Vec::with_capacity(missing.min(4096))));
                    continue;
                }
            };
            loop {
                let Some((missing, parts)) = self.open.last_mut() else {
                    return Ok(Some(reply));
                };
                parts.push(reply);
                *missing -= 1;
                if *missing > 0 {
                    break;
                }
                let (_, parts) = self.open.pop().unwrap_or_default();
                reply = Reply::Array(parts);
            }
        }
        Ok(None)
    }

    /// The next piece that is no array, or the beginning of one.
    fn part(&mut self) -> Result<Option<Part>, Malformed> {
        let rest = &self.buffer[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\r');
        let Some(end) = end.filter(|end| end + 1 < rest.len()) else {
            return match rest.first() {
                Some(b'+' | b'-') | None => Ok(None),
                Some(_) if rest.len() > 32 => Err(Malformed("a number without an end")),
                Some(_) => Ok(None),
            };
        };
        if rest[end + 1] != b'\n' {
            return Err(Malformed("a line without an end"));
        }
        let (Some(&mark), line) = (rest.first(), rest.get(1..end).unwrap_or_default()) else {
            return Err(Malformed("an empty line"));
        };
        let mut used = end + 2;
        let part = match mark {
            b'+' => Part::Whole(Reply::Status(line.to_vec())),
            b'-' => Part::Whole(Reply::Error(String::from_utf8_lossy(line).into_owned())),
            b':' => Part::Whole(Reply::Integer(number(line)?)),
            b'$' => match number(line)? {
                -1 => Part::Whole(Reply::Nil),
                length @ 0..=MAX_BULK => {
                    let length = length as usize;
                    let Some(bytes) = rest.get(used..used + length + 2) else {
                        return Ok(None);
                    };
                    if !bytes.ends_with(b"\r\n") {
                        return Err(Malformed("a string without an end"));
                    }
                    used += length + 2;
                    Part::Whole(Reply::Bulk(bytes[..length].to_vec()))
                }
                _ => return Err(Malformed("a string too long")),
            },
            b'*' => match number(line)? {
                -1 => Part::Whole(Reply::Nil),
                0 => Part::Whole(Reply::Array(Vec::new())),
                length @ 1..=0x7fff_ffff => Part::Array(length as usize),
                _ => return Err(Malformed("an array too long")),
            },
            _ => return Err(Malformed("an unknown type")),
        };
        self.at += used;
        Ok(Some(part))
    }
}

enum Part {
    Whole(Reply),
    /// An array of so many parts, at least one.
    Array(usize),
}

fn number(line: &[u8]) -> Result<i64, Malformed> {
    // As most are: a length, which cannot overflow.
    if !line.is_empty() && line.len() < 19 && line.iter().all(u8::is_ascii_digit) {
        return Ok(line
            .iter()
            .fold(0, |number, digit| number * 10 + i64::from(digit - b'0')));
    }
    let text = std::str::from_utf8(line).map_err(|_| Malformed("not a number"))?;
    text.parse().map_err(|_| Malformed("not a number"))
}

#[cfg(test)]
impl Commands {
    /// Each command as its words.
    pub fn words(&self) -> Vec<Vec<String>> {
        let mut reader = Reader::default();
        reader.feed(&self.bytes);
        let mut all = Vec::new();
        while let Some(Reply::Array(parts)) = reader.next_reply().unwrap() {
            let words = parts.into_iter().filter_map(Reply::into_bytes);
            all.push(words.map(|word| String::from_utf8(word).unwrap()).collect());
        }
        assert_eq!(all.len(), self.count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().to_vec())
    }

    #[test]
    fn commands_are_packed_with_their_lengths() {
        let mut commands = Commands::default();
        commands.push(&[b"GET", b"a\r\n\0"]);
        assert_eq!(commands.bytes, b"*2\r\n$3\r\nGET\r\n$4\r\na\r\n\0\r\n");
        assert_eq!(commands.count, 1);
    }

    #[test]
    fn each_kind_of_answer_is_read() {
        let mut reader = Reader::default();
        reader.feed(b"+OK\r\n:-7\r\n$-1\r\n*-1\r\n$0\r\n\r\n*0\r\n*2\r\n*1\r\n$1\r\na\r\n:1\r\n-ERR no\r\n");
        let expected = [
            Reply::Status(b"OK".to_vec()),
            Reply::Integer(-7),
            Reply::Nil,
            Reply::Nil,
            bulk(""),
            Reply::Array(vec![]),
            Reply::Array(vec![Reply::Array(vec![bulk("a")]), Reply::Integer(1)]),
            Reply::Error("ERR no".into()),
        ];
        for reply in expected {
            assert_eq!(reader.next_reply(), Ok(Some(reply)));
        }
        assert!(reader.is_between_answers());
        assert_eq!(reader.next_reply(), Ok(None));
    }

    #[test]
    fn what_has_begun_can_be_looked_at() {
        let mut reader = Reader::default();
        assert!(reader.begun().is_empty());
        reader.feed(b"*2\r\n$2\r\n17\r\n*2\r\n$1\r\na\r\n");
        assert_eq!(reader.next_reply(), Ok(None));
        assert_eq!(reader.begun(), [bulk("17")]);
        reader.feed(b"$1\r\nb\r\n");
        assert!(reader.next_reply().unwrap().is_some());
        assert!(reader.begun().is_empty());
    }

    #[test]
    fn what_is_not_resp_is_told() {
        for bytes in [
            &b"?\r\n"[..],
            b"\r\n",
            b":x\r\n",
            b"$9999999999\r\n",
            b"*-2\r\n",
            b"$1\r\nabc",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
        ] {
            let mut reader = Reader::default();
            reader.feed(bytes);
            assert!(reader.next_reply().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn an_error_within_exec_is_found() {
        let reply = Reply::Array(vec![
            Reply::Integer(1),
            Reply::Error("ERR index out of range".into()),
        ]);
        assert_eq!(reply.error(), Some("ERR index out of range"));
        assert_eq!(Reply::Nil.error(), None);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_make_the_same_answers(sizes in proptest::collection::vec(1usize..7, 1..80)) {
            let bytes = b"*3\r\n$3\r\nabc\r\n*2\r\n:1\r\n$-1\r\n$5\r\n\r\n\r\n\0\r\n+fine\r\n";
            let mut whole = Reader::default();
            whole.feed(bytes);
            let expected = [whole.next_reply(), whole.next_reply()].map(|reply| reply.unwrap().unwrap());
            let (mut reader, mut found, mut rest) = (Reader::default(), Vec::new(), &bytes[..]);
            for size in sizes.iter().cycle() {
                let (piece, behind) = rest.split_at((*size).min(rest.len()));
                reader.feed(piece);
                while let Some(reply) = reader.next_reply().unwrap() {
                    found.push(reply);
                }
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(&found[..], &expected[..]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::default();
            reader.feed(&bytes);
            while let Ok(Some(_)) = reader.next_reply() {}
        }
    }
}
