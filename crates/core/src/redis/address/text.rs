//! The text of an address: its parts, and what is percent-encoded in it.

use std::fmt;

use super::AddressError;

/// What lies between `://` and the end.
pub(super) struct Parts<'a> {
    pub credentials: &'a str,
    /// One or several, with their ports.
    pub hosts: &'a str,
    pub path: &'a str,
    pub query: &'a str,
}

impl<'a> Parts<'a> {
    pub fn of(rest: &'a str) -> Self {
        let (rest, query) = split_query(rest);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The last @: an unescaped one in the password is a common slip, and harmless.
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        Self {
            credentials,
            hosts,
            path,
            query,
        }
    }
}

/// Splits off what is behind `?`; a fragment behind `#` is dropped.
pub(super) fn split_query(text: &str) -> (&str, &str) {
    let text = text.split_once('#').map_or(text, |(before, _)| before);
    text.split_once('?').unwrap_or((text, ""))
}

/// Takes percent-encoding away.
pub(super) fn decode(text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).ok_or(AddressError::Percent)?;
        let digit = |d: u8| char::from(d).to_digit(16).ok_or(AddressError::Percent);
        bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| AddressError::Percent)
}

/// Percent-encodes what has a meaning in an address.
pub(super) struct Encoded<'a>(pub &'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_ascii_control()
                || matches!(c, ' ' | '%' | ':' | '@' | '?' | '#' | '&' | '=' | '[' | ']' | ',')
            {
                write!(f, "%{:02X}", u32::from(c))?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}
