//! The register: the document that says which mappings may have keys in Redis.
//!
//! Unlike the document of the past ([`past`](super::past)) it claims nothing about what those keys hold. It is for
//! the start of which nothing is known: whatever the mapping list says by then, the keys that an earlier run has
//! written can be found and deleted.

use serde_json::{Value, json};

use super::past::{PastMapping, Unknown, mapping_from_json, mapping_to_json};

/// Raised with each change of what the document says. Format 1 knew one server.
const FORMAT: u64 = 2;

/// The document.
pub fn to_document(mappings: &[PastMapping]) -> String {
    let mappings: Vec<Value> = mappings.iter().map(mapping_to_json).collect();
    json!({ "format": FORMAT, "mappings": mappings }).to_string()
}

/// Reads a document.
///
/// # Errors
///
/// [`Unknown::Unreadable`].
pub fn from_document(document: &[u8]) -> Result<Vec<PastMapping>, Unknown> {
    let document: Value = serde_json::from_slice(document).map_err(|_| Unknown::Unreadable)?;
    if !matches!(document["format"].as_u64(), Some(1 | FORMAT)) {
        return Err(Unknown::Unreadable);
    }
    let mappings = document["mappings"].as_array().ok_or(Unknown::Unreadable)?;
    mappings.iter().map(mapping_from_json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::key::KeyKind;

    #[test]
    fn a_document_says_what_was_put_into_it() {
        let mapping = |template: &str, kinds| PastMapping {
            fingerprint: u64::MAX,
            relation: 16384,
            kinds,
            template: template.into(),
            server: "far away".into(),
        };
        let mappings = vec![
            mapping("user:{id}", vec![KeyKind::Int]),
            mapping("'it''s {a}:{b}'", vec![KeyKind::Text, KeyKind::Uuid]),
        ];
        assert_eq!(from_document(to_document(&mappings).as_bytes()), Ok(mappings));
        assert_eq!(from_document(to_document(&[]).as_bytes()), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_document_is_not_read() {
        for document in [
            "",
            "{}",
            "[]",
            r#"{"format":3,"mappings":[]}"#,
            r#"{"format":1,"mappings":[1]}"#,
        ] {
            assert_eq!(
                from_document(document.as_bytes()),
                Err(Unknown::Unreadable),
                "{document}"
            );
        }
    }

    #[test]
    fn a_document_from_when_there_was_one_server_is_read() {
        let old =
            r#"{"format":1,"mappings":[{"fingerprint":7,"relation":8,"kinds":["int"],"template":"a:{id}"}]}"#;
        let mapping = PastMapping {
            fingerprint: 7,
            relation: 8,
            kinds: vec![KeyKind::Int],
            template: "a:{id}".into(),
            server: "default".into(),
        };
        assert_eq!(from_document(old.as_bytes()), Ok(vec![mapping]));
    }
}
