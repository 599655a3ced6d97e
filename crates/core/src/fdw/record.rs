//! A hash as one row.
//!
//! Where few of its fields are wanted HMGET asks for these, and HLEN beside it tells a key that is not there from one
//! without any of them. Both are of one time only if nothing changes the key between them: what has a length and
//! none of the fields may have come in between, so it is looked at whole, by one command.
use super::{
    element::Element,
    resp::{Commands, Reply},
    step::{Step, Unexpected, Window, bulk, pairs},
};

/// Appends the commands for these fields.
pub fn ask(key: &[u8], fields: &[Vec<u8>], commands: &mut Commands) {
    if !fields.is_empty() {
        commands.begin(fields.len() + 2);
        commands.word(b"HMGET");
        commands.word(key);
        fields.iter().for_each(|field| commands.word(field));
    }
    commands.push(&[b"HLEN", key]);
}

/// The row in the answers to what [`ask`] has asked.
///
/// # Errors
/// They are none that the commands have.
pub fn take(fields: &[Vec<u8>], mut replies: Vec<Reply>) -> Result<Window, Unexpected> {
    let Some(Reply::Integer(length)) = replies.pop() else {
        return Err(Unexpected);
    };
    let values = match replies.pop() {
        Some(Reply::Array(values)) => values,
        None => Vec::new(),
        Some(_) => return Err(Unexpected),
    };
    if values.len() != fields.len() {
        return Err(Unexpected);
    }
    let mut found = Vec::new();
    for (field, value) in fields.iter().zip(values) {
        if value != Reply::Nil {
            found.push((field.clone(), bulk(value)?));
        }
    }
    let looked_at_whole = found.is_empty() && !fields.is_empty() && length > 0;
    let is_there = !found.is_empty() || length > 0;
    Ok(Window {
        elements: if is_there && !looked_at_whole {
            vec![row(found)]
        } else {
            Vec::new()
        },
        next: looked_at_whole.then_some(Step::Record),
    })
}

/// The row in the answer to HGETALL.
///
/// # Errors
/// It is none that the command has.
pub fn whole(parts: Vec<Reply>) -> Result<Window, Unexpected> {
    let fields = pairs(parts)?;
    Ok(Window {
        elements: if fields.is_empty() {
            Vec::new()
        } else {
            vec![row(fields)]
        },
        next: None,
    })
}

fn row(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Element {
    Element::Entry {
        id: Vec::new(),
        fields,
    }
}
