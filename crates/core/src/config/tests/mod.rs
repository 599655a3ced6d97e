//! The grammar, rule by rule, and each of its errors with its place.

use super::*;

mod errors;
mod grammar;
mod prints;

fn one(text: &str) -> Mapping {
    match parse_list(text).as_deref() {
        Ok([mapping]) => mapping.clone(),
        other => panic!("{text}: {other:?}"),
    }
}

fn named(names: &[&str]) -> Columns {
    Columns::Named(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Refuses `marked` at the place of the mark ¦, which is not part of the list.
fn refused(marked: &str) -> ConfigError {
    let byte = marked.find('¦').expect("a mark");
    let list = marked.replace('¦', "");
    match parse_list(&list) {
        Ok(mappings) => panic!("{list}: {mappings:?}"),
        Err(error) => {
            assert_eq!(error.byte(), byte, "{list}: {error}");
            assert_eq!(error.character(), list[..byte].chars().count() + 1);
            assert!(!error.to_string().contains('\n'));
            error
        }
    }
}

/// Refuses each line's list, up to `---`, at the mark in it and with the message behind.
fn assert_refused(lines: &str) {
    for line in lines.trim().split("\n        ") {
        let (marked, message) = line.split_once(" --- ").expect("a list --- and its message");
        let error = refused(marked);
        let expected = format!("mapping entry 1, character {}: {message}", error.character());
        assert_eq!(error.message(), expected, "{marked}");
    }
}
