//! Redis's glob patterns (util.c, stringmatchlen): matched as Redis does, and made from SQL's LIKE.

/// Whether a pattern names more than one text.
pub fn is_glob(pattern: &[u8]) -> bool {
    pattern.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// A pattern that matches just this text.
pub fn escape(text: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(text.len());
    for &byte in text {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^' | b'-') {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern
}

/// The text that every match begins with.
pub fn literal_prefix(pattern: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::new();
    let mut rest = pattern;
    while let Some((&byte, behind)) = rest.split_first() {
        match byte {
            b'*' | b'?' | b'[' => break,
            b'\\' if !behind.is_empty() => {
                prefix.push(behind[0]);
                rest = &behind[1..];
            }
            _ => {
                prefix.push(byte);
                rest = behind;
            }
        }
    }
    prefix
}

/// Of patterns that must all match, the one that says most from the left; none if no text begins as all of them do,
/// or there is no pattern.
pub fn narrowest(patterns: &[Vec<u8>]) -> Option<&[u8]> {
    let prefixes = patterns.iter().map(|pattern| literal_prefix(pattern));
    let (place, longest) = prefixes.enumerate().max_by_key(|(_, prefix)| prefix.len())?;
    let agree = patterns
        .iter()
        .all(|pattern| longest.starts_with(&literal_prefix(pattern)));
    agree.then(|| patterns[place].as_slice())
}

/// What a LIKE pattern (escape character `\`) becomes. It matches all that LIKE matches, and may match more: `_` is a
/// character there and any bytes here. `None` if the pattern ends in its escape character, which LIKE refuses.
pub fn from_like(like: &[u8]) -> Option<Vec<u8>> {
    let mut pattern = Vec::with_capacity(like.len() + 2);
    let mut rest = like;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'%' | b'_' => {
                if pattern.last() != Some(&b'*') || ends_escaped(&pattern) {
                    pattern.push(b'*');
                }
            }
            b'\\' => {
                let (&literal, behind) = rest.split_first()?;
                pattern.extend(escape(&[literal]));
                rest = behind;
            }
            _ => pattern.extend(escape(&[byte])),
        }
    }
    Some(pattern)
}

/// Whether what [`from_like`] makes of a LIKE pattern matches nothing more.
pub fn is_exact_like(like: &[u8]) -> bool {
    let mut rest = like.iter();
    while let Some(byte) = rest.next() {
        if *byte == b'_' || (*byte == b'\\' && rest.next().is_none()) {
            return false;
        }
    }
    true
}

fn ends_escaped(pattern: &[u8]) -> bool {
    let before = &pattern[..pattern.len().saturating_sub(1)];
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Whether Redis says that the text matches.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on when what follows the last `*` does not match here: behind the star, one byte further.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(p + 1),
            Some(b'[') => class(pattern, p + 1, text[t]),
            Some(b'\\') if p + 1 < pattern.len() => (pattern[p + 1] == text[t]).then_some(p + 2),
            Some(&byte) => (byte == text[t]).then_some(p + 1),
            None => None,
        };
        match (step, retry) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((behind, from))) => {
                retry = Some((behind, from + 1));
                (p, t) = (behind, from + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Behind a class that begins at `at` and holds the byte.
fn class(pattern: &[u8], mut at: usize, byte: u8) -> Option<usize> {
    let negated = pattern.get(at) == Some(&b'^');
    if negated {
        at += 1;
    }
    let mut found = false;
    loop {
        match pattern.get(at) {
            Some(b'\\') if at + 1 < pattern.len() => {
                found |= pattern[at + 1] == byte;
                at += 2;
            }
            Some(b']') => {
                at += 1;
                break;
            }
            None => break,
            Some(&low) if pattern.get(at + 1) == Some(&b'-') && at + 2 < pattern.len() => {
                let high = pattern[at + 2];
                found |= (low.min(high)..=low.max(high)).contains(&byte);
                at += 3;
            }
            Some(&member) => {
                found |= member == byte;
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("user:*", "user:1", true),
            ("user:*", "user", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"[\]]", "]", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("a*", "a", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn like_becomes_a_glob() {
        let glob = |like: &str| from_like(like.as_bytes()).map(|glob| String::from_utf8(glob).unwrap());
        assert_eq!(glob("555%").unwrap(), "555*");
        assert_eq!(glob("a_c").unwrap(), "a*c");
        assert_eq!(glob(r"50\%*").unwrap(), r"50%\*");
        assert_eq!(glob("*%").unwrap(), r"\**");
        assert_eq!(glob("%%_a").unwrap(), "*a");
        assert_eq!(glob(r"a\"), None);
    }

    #[test]
    fn the_prefix_ends_where_the_pattern_begins() {
        assert_eq!(literal_prefix(b"user:*:x"), b"user:");
        assert_eq!(literal_prefix(br"a\*b[c]"), b"a*b");
        assert_eq!(literal_prefix(b"*"), b"");
    }

    #[test]
    fn patterns_that_begin_differently_match_nothing() {
        let of = |patterns: &[&str]| {
            let patterns: Vec<Vec<u8>> = patterns.iter().map(|text| text.as_bytes().to_vec()).collect();
            narrowest(&patterns).map(|pattern| String::from_utf8(pattern.to_vec()).unwrap())
        };
        assert_eq!(of(&["user:*", "user:10*", "*9"]).as_deref(), Some("user:10*"));
        assert_eq!(of(&["session:*", "user101*"]), None);
        assert_eq!(of(&[r"a\*b*", "a*", "a"]).as_deref(), Some(r"a\*b*"));
        assert_eq!(of(&["", "*"]).as_deref(), Some("*"));
        assert_eq!(of(&[]), None);
    }

    proptest! {
        #[test]
        fn an_escaped_text_matches_itself_alone(a in r"[a*?\[\]\\^-]{0,6}", b in r"[a*?\[\]\\^-]{0,6}") {
            prop_assert_eq!(matches(&escape(a.as_bytes()), b.as_bytes()), a == b);
        }
    }
}
