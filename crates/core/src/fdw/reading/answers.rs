//! What becomes of the answers.
use super::{Asked, Asking, ReadProblem, Reading, Source, Work};
use crate::fdw::{
    element::{Element, Row},
    filter::Within,
    glob,
    resp::Reply,
    step::{self, Key},
};

/// What TTL answers for a key that is not there.
const GONE: i64 = -2;

impl Reading {
    /// Takes the next answer.
    ///
    /// # Errors
    /// Reading cannot go on. Answers that are still to come are nobody's then.
    pub fn answer(&mut self, reply: Reply) -> Result<(), ReadProblem> {
        if let Some(Asked::Window(asking)) = self.asked.front_mut()
            && asking.missing > 1
        {
            asking.missing -= 1;
            asking.replies.push(reply);
            return Ok(());
        }
        let asked = self.asked.pop_front().ok_or(ReadProblem::Unexpected)?;
        match (asked, reply) {
            (Asked::Window(mut asking), reply) => {
                asking.replies.push(reply);
                self.take_window(*asking)
            }
            (_, Reply::Error(text)) => self.refused(&text),
            (Asked::Ttl, Reply::Integer(seconds)) => {
                self.ttls.push_back(seconds);
                Ok(())
            }
            (Asked::Keys, Reply::Array(parts)) => self.take_keys(parts),
            (Asked::Values(keys), Reply::Array(values)) => self.take_values(keys, values),
            (Asked::Values(keys), value) => self.take_values(keys, vec![value]),
            _ => Err(ReadProblem::Unexpected),
        }
    }

    /// Redis has refused a command.
    fn refused(&self, text: &str) -> Result<(), ReadProblem> {
        if !text.starts_with("WRONGTYPE") {
            return Err(ReadProblem::Refused(text.to_string()));
        }
        if self.needs.one_key {
            return Err(ReadProblem::OtherType);
        }
        // A key that holds another type is none of the table's.
        Ok(())
    }

    fn take_keys(&mut self, parts: Vec<Reply>) -> Result<(), ReadProblem> {
        let (next, found) = step::cursor_and_found(parts)?;
        let Source::Scan {
            cursor,
            patterns,
            seen,
            count,
            ..
        } = &mut self.source
        else {
            return Err(ReadProblem::Unexpected);
        };
        let once = next.is_none() && seen.is_none();
        // Few of the keys there are match: Redis may look at more of them in a step.
        if found.len() < *count {
            *count = (2 * *count).min(self.needs.batch_size);
        }
        for key in found {
            let Reply::Bulk(key) = key else {
                return Err(ReadProblem::Unexpected);
            };
            let matches = patterns.iter().all(|pattern| glob::matches(pattern, &key));
            if matches && (once || seen.get_or_insert_default().is_new(&key)) {
                self.keys.push_back(key.into());
            }
        }
        match next {
            Some(next) => *cursor = next,
            None => self.source = Source::Ended,
        }
        Ok(())
    }

    fn take_values(&mut self, keys: Vec<Key>, values: Vec<Reply>) -> Result<(), ReadProblem> {
        if keys.len() != values.len() {
            return Err(ReadProblem::Unexpected);
        }
        let (count, mut bytes) = (keys.len(), 0);
        for (key, value) in keys.into_iter().zip(values) {
            let ttl = if self.needs.ttl {
                self.ttls.pop_front()
            } else {
                None
            };
            match value {
                Reply::Nil => {}
                Reply::Bulk(value) => {
                    bytes += key.len() + value.len();
                    self.rows.push(Row {
                        key,
                        ttl: ttl.unwrap_or(GONE),
                        element: Element::Value(value),
                    });
                }
                _ => return Err(ReadProblem::Unexpected),
            }
        }
        self.window.came(count, bytes);
        Ok(())
    }

    fn take_window(&mut self, asking: Asking) -> Result<(), ReadProblem> {
        let Asking {
            work, count, replies, ..
        } = asking;
        let Work {
            key,
            step,
            mut ttl,
            mut seen,
        } = work;
        if self.needs.ttl && ttl.is_none() {
            ttl = self.ttls.pop_front();
        }
        if let Some(Reply::Error(text)) = replies.iter().find(|reply| matches!(reply, Reply::Error(_))) {
            return self.refused(text);
        }
        let step::Window { mut elements, next } = step.take(self.needs.kind, &self.within, count, replies)?;
        let bytes = elements.iter().map(Element::size).sum();
        self.window.came(elements.len(), bytes);
        // An answer that is the whole collection, or all that was asked for by name, repeats nothing.
        let once = next.is_none() && seen.is_none() || matches!(self.within, Within::Names(_));
        if !once && elements.first().and_then(step::identity).is_some() {
            let seen = seen.get_or_insert_default();
            elements.retain(|element| step::identity(element).is_none_or(|name| seen.is_new(name)));
        }
        self.rows.extend(key.clone(), ttl.unwrap_or(GONE), elements);
        match (next, self.asked.front_mut()) {
            (Some(_), Some(Asked::Window(foreseen))) if self.has_foreseen => foreseen.work.seen = seen,
            (Some(step), _) => self.begun.push_back(Work { key, step, ttl, seen }),
            (None, _) => {}
        }
        Ok(())
    }
}
