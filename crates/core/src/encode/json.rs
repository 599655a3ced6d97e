//! The text of the `json` format: one object, as `to_json` of the same row writes it.
//!
//! Names in the order of the calls, no white space, NULL as `null`. Strings are escaped by serde_json, which
//! escapes what PostgreSQL's `escape_json` escapes and in the same way: quote, backslash and control
//! characters, everything else as it is. Not checked: that names are distinct (PostgreSQL does not either),
//! and that what is handed to [`JsonWriter::raw`] is JSON.

/// Writes one JSON object into a buffer, behind what is there.
#[must_use = "an object is whole only after finish()"]
pub struct JsonWriter<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    not_utf8: bool,
}

impl<'o> JsonWriter<'o> {
    /// Begins an object.
    pub fn begin(out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        out.push(b'{');
        JsonWriter {
            out,
            start,
            not_utf8: false,
        }
    }

    /// A string. `text` is UTF-8, as the server's encoding is.
    pub fn text(&mut self, name: &str, text: &[u8]) {
        self.name(name);
        self.string(text);
    }

    /// JSON as it is: the text of json, jsonb, or what to_json made of a composite or an array.
    pub fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(json);
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &str, value: bool) {
        self.raw(name, if value { b"true" } else { b"false" });
    }

    /// The text of an integer, a float or a numeric: bare if JSON has such a number, else (NaN, Infinity) a
    /// string, as PostgreSQL does.
    pub fn number_or_text(&mut self, name: &str, number: &[u8]) {
        self.name(name);
        if is_json_number(number) {
            self.out.extend_from_slice(number);
        } else {
            self.string(number);
        }
    }

    /// `null`.
    pub fn null(&mut self, name: &str) {
        self.raw(name, b"null");
    }

    /// Ends the object. False if some text was not UTF-8: the buffer is then as it was before `begin`, and
    /// the row is to be stored as no key.
    pub fn finish(self) -> bool {
        if self.not_utf8 {
            self.out.truncate(self.start);
            return false;
        }
        self.out.push(b'}');
        true
    }

    fn name(&mut self, name: &str) {
        if self.out.len() > self.start + 1 {
            self.out.push(b',');
        }
        self.string(name.as_bytes());
        self.out.push(b':');
    }

    fn string(&mut self, text: &[u8]) {
        let written = std::str::from_utf8(text).is_ok_and(|text| {
            // Writing to a Vec does not fail, and a str is always a JSON string.
            serde_json::to_writer(&mut *self.out, text).is_ok()
        });
        self.not_utf8 |= !written;
    }
}

/// Whether `text` is a number in JSON's grammar (RFC 8259, section 6), as PostgreSQL's IsValidJsonNumber
/// checks: no plus sign, no leading zeros, digits on both sides of the point.
pub fn is_json_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.first() == Some(&b'0')) {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', digits @ ..] => digits,
            digits => digits,
        };
        let count = digits(exponent);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(write: impl FnOnce(&mut JsonWriter<'_>)) -> String {
        let mut out = b"before ".to_vec();
        let mut writer = JsonWriter::begin(&mut out);
        write(&mut writer);
        assert!(writer.finish());
        String::from_utf8(out[7..].to_vec()).unwrap()
    }

    #[test]
    fn an_object_is_what_to_json_writes() {
        // select to_json(r) from (select 1 as id, 'Ada' as name, null as x, true as ok, '{"a": [1]}'::json as j) r
        let written = object(|json| {
            json.number_or_text("id", b"1");
            json.text("name", b"Ada");
            json.null("x");
            json.boolean("ok", true);
            json.raw("j", b"{\"a\": [1]}");
        });
        assert_eq!(
            written,
            r#"{"id":1,"name":"Ada","x":null,"ok":true,"j":{"a": [1]}}"#
        );
    }

    #[test]
    fn an_object_without_columns_is_empty() {
        assert_eq!(object(|_| ()), "{}");
    }

    #[test]
    fn strings_are_escaped_as_postgres_does() {
        // select to_json(E'\b\f\n\r\t"\\\x01\x1f\x7f/<é') gives the same
        let written = object(|json| json.text("a\"b", "\x08\x0c\n\r\t\"\\\x01\x1f\x7f/<é".as_bytes()));
        assert_eq!(
            written,
            "{\"a\\\"b\":\"\\b\\f\\n\\r\\t\\\"\\\\\\u0001\\u001f\x7f/<é\"}"
        );
    }

    #[test]
    fn text_that_is_not_utf8_leaves_the_buffer_alone() {
        let mut out = b"before".to_vec();
        let mut writer = JsonWriter::begin(&mut out);
        writer.text("a", b"\xff");
        writer.text("b", b"fine");
        assert!(!writer.finish());
        assert_eq!(out, b"before");
    }

    #[test]
    fn only_numbers_of_json_stand_bare() {
        for number in [
            "0",
            "-0",
            "1",
            "-12",
            "1.50",
            "0.1",
            "1e10",
            "1E+5",
            "1.5e-07",
            "123456789012345678901234567890",
        ] {
            assert!(is_json_number(number.as_bytes()), "{number}");
        }
        for text in [
            "",
            "-",
            "NaN",
            "Infinity",
            "-Infinity",
            "01",
            "-01",
            "1.",
            ".5",
            "+1",
            "1e",
            "1e+",
            "1.e5",
            "1 ",
            " 1",
            "0x1",
        ] {
            assert!(!is_json_number(text.as_bytes()), "{text}");
        }
        assert_eq!(object(|json| json.number_or_text("n", b"NaN")), r#"{"n":"NaN"}"#);
    }
}
