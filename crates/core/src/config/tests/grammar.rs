//! What a list may say, and what it then means.

use super::*;

#[test]
fn the_example_of_the_documentation_is_read() {
    let list = "user:{id} => SELECT name, email FROM public.users WITH (ttl = 300); \
                sess:{token} => SELECT payload FROM app.sessions WITH (format = string)";
    let mappings = parse_list(list).unwrap();
    let [users, sessions] = mappings.as_slice() else {
        panic!("{mappings:?}")
    };
    assert_eq!(users.name, "users");
    assert_eq!(users.template.prefix(), "user:");
    assert_eq!(users.template.columns().collect::<Vec<_>>(), ["id"]);
    assert_eq!(users.columns, named(&["name", "email"]));
    assert_eq!((users.schema.as_str(), users.table.as_str()), ("public", "users"));
    assert_eq!(users.ttl.map(NonZeroU32::get), Some(300));
    assert_eq!(users.format, Format::Hash);
    assert_eq!(
        (sessions.schema.as_str(), sessions.table.as_str()),
        ("app", "sessions")
    );
    assert_eq!(sessions.format, Format::String);
    assert_eq!(sessions.ttl, None);
    assert_eq!(print_list(&mappings), list.replace("                ", ""));
}

#[test]
fn empty_entries_are_ignored() {
    for list in ["", " ", ";", " ;\t;\n; "] {
        assert_eq!(parse_list(list), Ok(vec![]), "{list:?}");
    }
    assert_eq!(
        parse_list(";; a{x} => SELECT * FROM t;; b{x} => SELECT * FROM u ;")
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn options_have_their_defaults() {
    let mapping = one("u:{id}=>select*from users");
    assert_eq!(mapping.columns, Columns::All);
    assert_eq!(mapping.name, "users");
    assert_eq!(mapping.database, None);
    assert_eq!(mapping.schema, "public");
    let options = (
        mapping.format,
        mapping.ttl,
        mapping.fill,
        mapping.write,
        mapping.insert,
        mapping.allow_rls,
    );
    assert_eq!(
        options,
        (Format::Hash, None, Fill::Point, Write::Set, Insert::Off, false)
    );
}

#[test]
fn every_option_is_read_in_any_case() {
    let mapping = one(
        "u:{id} => SELECT a FROM t with(NAME = N, Database='My DB', format=JSON, TTL = '5 minutes', \
         fill = 'any', write = Delete, insert = SET, allow_rls = on)",
    );
    assert_eq!(mapping.name, "n");
    assert_eq!(mapping.database.as_deref(), Some("My DB"));
    assert_eq!(mapping.ttl.map(NonZeroU32::get), Some(300));
    let options = (
        mapping.format,
        mapping.fill,
        mapping.write,
        mapping.insert,
        mapping.allow_rls,
    );
    assert_eq!(
        options,
        (Format::Json, Fill::Any, Write::Delete, Insert::Set, true)
    );
}

#[test]
fn names_fold_as_in_sql() {
    let mapping = one("U:{Id}:{\"Id\"} => SELECT Name, \"Name\", \"a\"\"b\", ÄB FROM App.\"My Table\"");
    assert_eq!(mapping.template.prefix(), "U:");
    assert_eq!(mapping.template.columns().collect::<Vec<_>>(), ["id", "Id"]);
    assert_eq!(mapping.columns, named(&["name", "Name", "a\"b", "Äb"]));
    assert_eq!(
        (mapping.schema.as_str(), mapping.table.as_str()),
        ("app", "My Table")
    );
    assert_eq!(mapping.name, "My Table");
}

#[test]
fn words_that_are_no_reserved_words_are_names() {
    let mapping = one(
        "u:{user} => SELECT position, interval, date, time, values, name, type, exists, row, coalesce, text, \
         by, update, share, first, filter, trim, extract, struct, map, if FROM public.user",
    );
    assert_eq!(mapping.template.columns().collect::<Vec<_>>(), ["user"]);
    assert_eq!(mapping.table, "user");
    let Columns::Named(columns) = mapping.columns else {
        panic!()
    };
    assert_eq!(columns.len(), 21);
    assert_eq!(
        one("u:{id} => SELECT a FROM public.with WITH (ttl = 1)").table,
        "with"
    );
    assert_eq!(one("u:{id} => SELECT a FROM values").table, "values");
    assert_eq!(
        one("u:{id} => SELECT \"user\", \"from\" FROM \"with\"").columns,
        named(&["user", "from"])
    );
}

#[test]
fn separators_in_quotes_and_braces_do_not_separate() {
    let mapping =
        one("'a;b => WITH ''{\"x;=> }\"}' => SELECT \"; => WITH (\" FROM \"t;\" WITH (name = \"n;\")");
    assert_eq!(mapping.template.prefix(), "a;b => WITH '");
    assert_eq!(mapping.template.columns().collect::<Vec<_>>(), ["x;=> }"]);
    assert_eq!(mapping.columns, named(&["; => WITH ("]));
    assert_eq!((mapping.table.as_str(), mapping.name.as_str()), ("t;", "n;"));
    assert_eq!(
        one("a:{ \"x y\" }=>SELECT a FROM t").template.to_string(),
        "a:{\"x y\"}"
    );
}

#[test]
fn doubled_braces_are_literal() {
    let template = one("{{u}}:{{{id}}}:{x}}} => SELECT a FROM t").template;
    assert_eq!(template.prefix(), "{u}:{");
    let parts: Vec<_> = template
        .parts()
        .iter()
        .map(|part| (part.column(), part.literal()))
        .collect();
    assert_eq!(parts, [("id", "}:"), ("x", "}")]);
    assert_eq!(template.to_string(), "{{u}}:{{{id}}}:{x}}}");
    assert_eq!(template.to_string().parse(), Ok(template));
}
