//! What holds for every list: printed text parses back, and no text makes the parser panic.

use proptest::prelude::*;

use super::*;

/// Names with everything that could confuse a scanner; at most 63 bytes.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_][a-z0-9_$]{0,20}",
        "[a-zA-Zäöü'\"; =>{}(),.*\\n-]{1,20}",
        "(select|from|with|user|only|date|SELECT|e'|--|/\\*|as)",
        "[^\u{0}]{1,15}",
    ]
}

fn literal(least: usize) -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::string::string_regex(&format!("[a-z:]{{{least},6}}")).unwrap(),
        proptest::string::string_regex(&format!("[:{{}}'\"; =>\\n\u{a0}é-]{{{least},6}}")).unwrap(),
    ]
}

/// A template, made from its own plain text.
fn template() -> impl Strategy<Value = KeyTemplate> {
    let columns = proptest::collection::hash_set(name(), 1..5);
    let texts = proptest::collection::vec(literal(1), 6);
    (columns, texts, literal(0)).prop_map(|(columns, texts, last)| {
        let double = |text: &str| text.replace('{', "{{").replace('}', "}}");
        let count = columns.len();
        let mut text = double(&texts[0]);
        for (place, column) in columns.iter().enumerate() {
            let behind = if place + 1 < count {
                &texts[place + 1]
            } else {
                &last
            };
            text.push_str(&format!("{{{}}}{}", quote_name(column), double(behind)));
        }
        text.parse().unwrap()
    })
}

fn columns() -> impl Strategy<Value = Columns> {
    let names = proptest::collection::hash_set(name(), 1..6);
    prop_oneof![
        Just(Columns::All),
        names.prop_map(|names| Columns::Named(names.into_iter().collect()))
    ]
}

fn mapping() -> impl Strategy<Value = Mapping> {
    let formats = prop_oneof![Just(Format::Hash), Just(Format::Json), Just(Format::String)];
    let fills = prop_oneof![Just(Fill::Point), Just(Fill::Any), Just(Fill::Off)];
    let writes = prop_oneof![Just(Write::Set), Just(Write::Delete)];
    let inserts = prop_oneof![Just(Insert::Off), Just(Insert::Set)];
    let ttls = proptest::option::of(1..=i32::MAX as u32);
    let servers = proptest::option::of(name().prop_filter("no option", |name| name != DEFAULT_SERVER));
    let places = (proptest::option::of(name()), servers);
    let names = (name(), places, name(), name());
    (
        names,
        template(),
        columns(),
        (formats, fills, writes, inserts),
        ttls,
        any::<bool>(),
    )
        .prop_map(
            |((name, (database, server), schema, table), template, columns, options, ttl, allow_rls)| {
                let (mut format, fill, write, insert) = options;
                if matches!(&columns, Columns::Named(names) if names.len() > 1) && format == Format::String {
                    format = Format::Hash;
                }
                let ttl = ttl.and_then(NonZeroU32::new);
                Mapping {
                    name,
                    database,
                    server,
                    template,
                    schema,
                    table,
                    columns,
                    format,
                    ttl,
                    fill,
                    write,
                    insert,
                    allow_rls,
                }
            },
        )
}

proptest! {
    #[test]
    fn a_printed_list_parses_back(mut mappings in proptest::collection::vec(mapping(), 0..5)) {
        let mut names = std::collections::HashSet::new();
        mappings.retain(|mapping| names.insert(mapping.name.clone()));
        let text = print_list(&mappings);
        prop_assert_eq!(parse_list(&text), Ok(mappings), "{}", text);
    }

    #[test]
    fn a_printed_template_parses_back(template in template()) {
        prop_assert_eq!(template.to_string().parse(), Ok(template));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        if let Err(error) = parse_list(&text) {
            prop_assert!(error.byte() <= text.len());
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn no_tokens_make_the_parser_panic(tokens in proptest::collection::vec(token(), 0..40)) {
        let text = format!("u:{{id}} => SELECT {}", tokens.join(" "));
        if let Ok(mappings) = parse_list(&text) {
            prop_assert_eq!(parse_list(&print_list(&mappings)), Ok(mappings));
        }
    }
}

/// Pieces of SQL and of the mapping language.
fn token() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "a",
        "b",
        "t",
        "s.t",
        "\"A\"",
        "*",
        ",",
        ".",
        "(",
        ")",
        "[",
        "]",
        "+",
        "-",
        "::",
        "'x'",
        "1",
        "FROM",
        "SELECT",
        "AS",
        "IS NULL",
        "NOT",
        "AND",
        "IN",
        "CASE",
        "WHEN",
        "END",
        "CAST",
        "BETWEEN",
        "EXISTS",
        "OVER",
        "FILTER",
        "ARRAY",
        "ROW",
        "INTERVAL",
        "DATE",
        "POSITION",
        "EXTRACT",
        "LATERAL",
        "ONLY",
        "VALUES",
        "TABLE",
        "UNNEST",
        "WITH",
        "(ttl = 1)",
        ";",
        "=>",
        "u:{id}",
        "{",
        "}",
        "$1",
        "$$",
        "E'\\'",
        "U&\"",
        "COLLATE",
        "AT TIME ZONE",
        "AS u",
        "ORDINALITY",
        "JSON_TABLE",
        "XMLTABLE",
        "|>",
        "?",
        "@",
        "#",
    ];
    proptest::sample::select(PIECES).prop_map(str::to_owned)
}
