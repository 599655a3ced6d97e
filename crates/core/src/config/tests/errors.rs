//! Each error, with its place and its words.

use super::*;

#[test]
fn errors_of_the_template() {
    assert_refused(
        r#"
        ¦=> SELECT a FROM t --- the key template is missing
        ¦'u:{id} => SELECT a FROM t --- unclosed quote '
        u¦'{id} => SELECT a FROM t --- a quote (') in a key template that stands without quotes
        u¦"{id} => SELECT a FROM t --- a quote (") in a key template that stands without quotes
        u:{id}¦ --- expected => after the key template, found the end of the list
        u:{id}¦; v:{id} => SELECT a FROM t --- expected => after the key template, found ";"
        u:{id} ¦SELECT a FROM t --- expected => after the key template, found "SELECT"
        u:{id} ¦= > SELECT a FROM t --- expected => after the key template, found "="
        'u:{id}'¦x => SELECT a FROM t --- expected => after the key template, found "x"
        u:{id¦ --- expected } after the column's name, found the end of the list
        u:{id ¦=> SELECT a FROM t --- expected } after the column's name, found "="
        u:{id¦+1} => SELECT a FROM t --- expected } after the column's name, found "+"
        u:{¦} => SELECT a FROM t --- expected a column's name after {, found "}"
        u:{¦1a} => SELECT a FROM t --- expected a column's name after {, found "1a"
        u:{¦"id} => SELECT a FROM t --- unclosed quote "
        u:{¦""} => SELECT a FROM t --- a name has no characters
        u:¦} => SELECT a FROM t --- } closes nothing
        u:{id}¦} => SELECT a FROM t --- } closes nothing
        ¦users => SELECT a FROM t --- the key template names no column
        ¦'' => SELECT a FROM t --- the key template names no column
        ¦u:{{id}} => SELECT a FROM t --- the key template names no column
        ¦{id}:u => SELECT a FROM t --- the key template begins with the column "id"
        u:{a}¦{b} => SELECT a FROM t --- nothing stands between the columns "a" and "b"
        u:{a}:¦{A} => SELECT a FROM t --- the column "a" is in the key template twice
        ¦pg_redis_cache:{a} => SELECT a FROM t --- keys that begin with "pg_redis_cache:" are the extension's own
        "#,
    );
}

#[test]
fn limits_of_the_template() {
    let columns = |count| (0..count).map(|nr| format!(":{{c{nr}}}")).collect::<String>();
    let widest = one(&format!("u{} => SELECT a FROM t", columns(32)));
    assert_eq!(widest.template.columns().len(), 32);
    let wider = format!("u{}:¦{{x}} => SELECT a FROM t", columns(32));
    assert_eq!(
        refused(&wider).problem(),
        &Problem::TooManyKeyColumns { limit: 32 }
    );

    let filled = "x".repeat(MAX_TEMPLATE_BYTES);
    one(&format!("{filled}{{id}} => SELECT a FROM t"));
    let longer = format!("{filled}{{id}}¦y => SELECT a FROM t");
    assert_eq!(
        refused(&longer).problem(),
        &Problem::TemplateTooLong {
            bytes: 1025,
            limit: 1024
        }
    );
}

#[test]
fn names_are_as_long_as_postgres_allows() {
    let (longest, name) = ("n".repeat(63), "n".repeat(64));
    one(&format!(
        "u:{{{longest}}} => SELECT {longest} FROM {longest}.{longest}"
    ));
    let problem = Problem::NameTooLong {
        name: name.clone(),
        bytes: 64,
        limit: 63,
    };
    for marked in [
        format!("u:{{¦{name}}} => SELECT a FROM t"),
        format!("u:{{id}} => SELECT b, ¦{name} FROM t"),
        format!("u:{{id}} => SELECT b FROM ¦{name}"),
        format!("u:{{id}} => SELECT b FROM t WITH (name = ¦{name})"),
    ] {
        assert_eq!(refused(&marked).problem(), &problem);
    }
    assert!(problem.to_string().len() < 80, "shown cut short");
}

#[test]
fn errors_of_the_column_list() {
    assert_refused(
        r#"
        u:{id} => ¦ --- expected SELECT after =>, found the end of the list
        u:{id} => ¦; --- expected SELECT after =>, found ";"
        u:{id} => ¦UPDATE t SET a = 1 --- expected SELECT after =>, found "UPDATE"
        u:{id} => ¦(SELECT a FROM t) --- expected SELECT after =>, found "("
        u:{id} => ¦users --- expected SELECT after =>, found "users"
        u:{id} => ¦WITH x AS (SELECT 1) SELECT a FROM x --- a WITH query is not allowed
        u:{id} => SELECT ¦FROM t --- the SELECT names no column
        u:{id} => SELECT a, ¦b + 1 FROM t --- column 2 of the SELECT is an expression
        u:{id} => SELECT ¦lower(a) FROM t --- column 1 of the SELECT is an expression
        u:{id} => SELECT ¦a::text FROM t --- column 1 of the SELECT is an expression
        u:{id} => SELECT ¦'a' FROM t --- column 1 of the SELECT is an expression
        u:{id} => SELECT ¦1 FROM t --- column 1 of the SELECT is an expression
        u:{id} => SELECT ¦(a) FROM t --- column 1 of the SELECT is an expression
        u:{id} => SELECT ¦a[1] FROM t --- column 1 of the SELECT is an expression
        u:{id} => SELECT ¦(SELECT b FROM c) FROM t --- column 1 of the SELECT is an expression
        u:{id} => SELECT ¦CASE WHEN a THEN b END FROM t --- column 1 of the SELECT is an expression
        u:{id} => SELECT a, ¦t.b FROM t --- column 2 of the SELECT is qualified by a table
        u:{id} => SELECT ¦t.* FROM t --- column 1 of the SELECT is qualified by a table
        u:{id} => SELECT a, b ¦AS c FROM t --- column 2 of the SELECT has an alias
        u:{id} => SELECT a, ¦b c FROM t --- column 2 of the SELECT has an alias
        u:{id} => SELECT a, b, ¦A FROM t --- the column "a" is named twice
        u:{id} => SELECT a, ¦* FROM t --- * stands beside other columns
        u:{id} => SELECT ¦*, a FROM t --- * stands beside other columns
        u:{id} => SELECT a, ¦user FROM t --- "user" is a reserved word of SQL
        u:{id} => SELECT a, ¦order FROM t --- "order" is a reserved word of SQL
        u:{id} => SELECT ¦group, a FROM t --- "group" is a reserved word of SQL
        u:{id} => SELECT ¦current_date FROM t --- "current_date" is a reserved word of SQL
        u:{id} => SELECT ¦"" FROM t --- a name has no characters
        u:{id} => SELECT ¦"a FROM t --- unclosed quote "
        u:{id} => SELECT a ¦/* b */ FROM t --- a comment is not allowed
        "#,
    );
    assert_refused("u:{id} => SELECT a ¦-- b\nFROM t --- a comment is not allowed");
}

#[test]
fn errors_of_the_table() {
    assert_refused(
        r#"
        u:{id} => SELECT a¦ --- expected FROM and a table, found the end of the list
        u:{id} => SELECT a¦; v:{id} => SELECT a FROM t --- expected FROM and a table, found ";"
        u:{id} => SELECT a¦ WITH (ttl = 1) --- expected FROM and a table, found "WITH"
        u:{id} => SELECT a FROM ¦ONLY t --- ONLY is not allowed
        u:{id} => SELECT a FROM ¦only(t) --- ONLY is not allowed
        u:{id} => SELECT a FROM ¦only --- ONLY is not allowed
        u:{id} => SELECT a FROM ¦t, s --- the SELECT names several tables
        u:{id} => SELECT a FROM ¦t x --- the table has an alias
        u:{id} => SELECT a FROM t ¦AS x --- the table has an alias
        u:{id} => SELECT a FROM ¦f(1) --- FROM names something else than a table
        u:{id} => SELECT a FROM ¦(SELECT 1) x --- FROM names something else than a table
        u:{id} => SELECT a FROM ¦d.s.t --- the table's name has 3 parts
        u:{id} => SELECT a FROM ¦table --- "table" is a reserved word of SQL
        u:{id} => SELECT a FROM ¦order --- "order" is a reserved word of SQL
        u:{id} => SELECT a FROM ¦WHERE b --- "WHERE" is a reserved word of SQL
        u:{id} => SELECT a FROM ¦"" --- a name has no characters
        "#,
    );
}

#[test]
fn each_clause_has_its_own_error() {
    assert_refused(
        r#"
        u:{id} => SELECT ¦DISTINCT a FROM t --- DISTINCT is not allowed
        u:{id} => SELECT ¦ALL a FROM t --- SELECT ALL is not allowed
        u:{id} => SELECT a ¦INTO x FROM t --- SELECT INTO is not allowed
        u:{id} => SELECT a FROM t ¦WHERE b --- a WHERE clause is not allowed
        u:{id} => SELECT a FROM t ¦where --- a WHERE clause is not allowed
        u:{id} => SELECT a FROM t ¦JOIN s USING (id) --- a join is not allowed
        u:{id} => SELECT a FROM t ¦LEFT JOIN s ON true --- a join is not allowed
        u:{id} => SELECT a FROM t ¦NATURAL JOIN s --- a join is not allowed
        u:{id} => SELECT a FROM t ¦GROUP BY a --- GROUP BY is not allowed
        u:{id} => SELECT a FROM t ¦HAVING true --- HAVING is not allowed
        u:{id} => SELECT a FROM t ¦WINDOW w AS () --- WINDOW is not allowed
        u:{id} => SELECT a FROM t ¦UNION SELECT b FROM s --- UNION, INTERSECT or EXCEPT is not allowed
        u:{id} => SELECT a FROM t ¦ORDER BY a --- ORDER BY is not allowed
        u:{id} => SELECT a FROM t ¦LIMIT 1 --- LIMIT, OFFSET or FETCH is not allowed
        u:{id} => SELECT a FROM t ¦FETCH FIRST ROW ONLY --- LIMIT, OFFSET or FETCH is not allowed
        u:{id} => SELECT a FROM t ¦FOR UPDATE --- a locking clause (FOR UPDATE, FOR SHARE) is not allowed
        u:{id} => SELECT a FROM t ¦TABLESAMPLE system (1) --- TABLESAMPLE is not allowed
        u:{id} => SELECT a FROM ¦LATERAL f(1) --- LATERAL is not allowed
        "#,
    );
}

#[test]
fn broken_sql_is_a_syntax_error_at_its_place() {
    for marked in [
        "u:{id} => SELECT a, ¦, b FROM t",
        "u:{id} => SELECT a FROM¦",
        "u:{id} => SELECT a FROM t ¦*",
        "u:{id} => SELECT a FROM t x ¦y",
        "u:{id} => SELECT a\n,b FROM t\n ¦)",
    ] {
        let error = refused(marked);
        assert!(matches!(error.problem(), Problem::SelectSyntax { .. }), "{error}");
    }
}

#[test]
fn nesting_and_length_are_bounded() {
    let nested = format!("u:{{id}} => SELECT {}¦(a FROM t", "(".repeat(4));
    let chained = format!("u:{{id}} => ¦SELECT a{} FROM t", "+a".repeat(100_000));
    let unions = format!("u:{{id}} => ¦SELECT a, b{} FROM t", " IS NULL".repeat(10_000));
    for marked in [nested, chained, unions] {
        assert_eq!(refused(&marked).problem(), &Problem::TooComplex);
    }
    let many: Vec<String> = (0..1600).map(|nr| format!("column_{nr}")).collect();
    one(&format!("u:{{id}} => SELECT {} FROM t", many.join(", ")));
}

#[test]
fn hostile_nesting_needs_little_stack() {
    let hostile = || {
        for piece in [
            "NOT CASE WHEN ",
            "- ",
            "CASE ",
            "EXISTS (SELECT ",
            "(SELECT ",
            "ARRAY[",
            "INTERVAL ",
            "CAST(",
            "f(",
            "a BETWEEN ",
            "a = ANY (",
            "{",
        ] {
            for count in [4, 8, 15, 30, 60] {
                let nested = piece.repeat(count);
                parse_list(&format!("u:{{id}} => SELECT {nested} a FROM t")).unwrap_err();
                parse_list(&format!("u:{{id}} => SELECT a FROM {nested} t")).unwrap_err();
            }
        }
    };
    // PostgreSQL's own limit on recursion, max_stack_depth, is 2 MB by default.
    let thread = std::thread::Builder::new().stack_size(1024 * 1024).spawn(hostile);
    thread.unwrap().join().unwrap();
}

#[test]
fn errors_of_the_options() {
    assert_refused(
        r#"
        u:{id} => SELECT a FROM t WITH ¦ --- expected ( after WITH, found the end of the list
        u:{id} => SELECT a FROM t WITH ¦ttl = 1 --- expected ( after WITH, found "ttl"
        u:{id} => SELECT a FROM t WITH (¦) --- expected an option, found ")"
        u:{id} => SELECT a FROM t WITH (ttl = 1, ¦) --- expected an option, found ")"
        u:{id} => SELECT a FROM t WITH (¦ --- expected an option, found the end of the list
        u:{id} => SELECT a FROM t WITH (¦expire = 1) --- unknown option "expire"
        u:{id} => SELECT a FROM t WITH (ttl = 1, ¦TTL = 2) --- the option ttl is given twice
        u:{id} => SELECT a FROM t WITH (ttl ¦300) --- expected = after ttl, found "300"
        u:{id} => SELECT a FROM t WITH (ttl = ¦) --- expected a value for ttl, found ")"
        u:{id} => SELECT a FROM t WITH (ttl = ¦, fill = any) --- expected a value for ttl, found ","
        u:{id} => SELECT a FROM t WITH (ttl = 1 ¦fill = any) --- expected , or ) after an option, found "fill"
        u:{id} => SELECT a FROM t WITH (ttl = 5 ¦minutes) --- expected , or ) after an option, found "minutes"
        u:{id} => SELECT a FROM t WITH (ttl = 1¦; v --- expected , or ) after an option, found ";"
        u:{id} => SELECT a FROM t WITH (ttl = ¦'1) --- unclosed quote '
        u:{id} => SELECT a FROM t WITH (ttl = 1) ¦x --- expected ; or the end of the list, found "x"
        u:{id} => SELECT a FROM t WITH (format = ¦xml) --- format cannot be "xml"
        u:{id} => SELECT a FROM t WITH (fill = ¦on) --- fill cannot be "on"
        u:{id} => SELECT a FROM t WITH (write = ¦'') --- write cannot be ""
        u:{id} => SELECT a FROM t WITH (insert = ¦on) --- insert cannot be "on"
        u:{id} => SELECT a FROM t WITH (allow_rls = ¦maybe) --- allow_rls cannot be "maybe"
        u:{id} => SELECT a FROM t WITH (name = ¦my-users) --- name cannot be "my-users" without quotes
        u:{id} => SELECT a FROM t WITH (name = ¦'') --- a name has no characters
        u:{id} => SELECT a FROM t WITH (database = ¦1) --- database cannot be "1" without quotes
        u:{id} => SELECT a FROM t WITH (ttl = ¦0) --- ttl cannot be "0": it is not above 0
        u:{id} => SELECT a FROM t WITH (ttl = ¦'1 month') --- ttl cannot be "1 month": the length of a month depends on the date
        u:{id} => SELECT a, b FROM t WITH (format = ¦string) --- format string with 2 columns
        "#,
    );
    one("u:{id} => SELECT * FROM t WITH (format = string)");
}

#[test]
fn a_name_is_unique_in_the_whole_list() {
    let error = refused("a{x} => SELECT * FROM t;; b{x} => SELECT * FROM ¦s.t");
    assert_eq!(error.entry(), 2);
    assert_eq!(
        error.message(),
        "mapping entry 2, character 49: the mapping name \"t\" is that of entry 1"
    );
    let error = refused("a{x} => SELECT * FROM t; b{x} => SELECT * FROM u WITH (database = d, name = ¦t)");
    assert_eq!(
        error.problem(),
        &Problem::NameTwice {
            name: "t".into(),
            first: 1
        }
    );
    assert!(parse_list("a{x} => SELECT * FROM t; b{x} => SELECT * FROM s.t WITH (name = t2)").is_ok());
}

#[test]
fn positions_count_characters_of_the_whole_list() {
    let error = refused("é:{x} => SELECT * FROM t;\nü:{\"ö\"} => SELECT \"ä\", \n¦1 FROM t");
    assert_eq!((error.entry(), error.character()), (2, 51));
    assert!(error.byte() > error.character());
}

#[test]
fn an_error_says_what_was_expected_and_what_to_do() {
    let error = refused("u:{id} => SELECT a FROM t ¦WHERE a");
    assert_eq!(
        error.detail(),
        "Expected SELECT <columns> FROM <table> and nothing else."
    );
    assert_eq!(
        error.hint().unwrap(),
        "A key belongs to one row, whatever the row's values are."
    );
    assert_eq!(
        error.to_string(),
        "mapping entry 1, character 27: a WHERE clause is not allowed \
         (Expected SELECT <columns> FROM <table> and nothing else)",
    );
}

#[test]
fn the_list_as_a_whole_is_bounded() {
    let error = parse_list(&";".repeat(MAX_LIST_BYTES + 1)).unwrap_err();
    assert_eq!(
        error.message(),
        "the mapping list has 262145 bytes, more than 262144"
    );
    let error = parse_list("u:{id} => SELECT a\0 FROM t").unwrap_err();
    assert_eq!((error.entry(), error.byte()), (0, 18));
    assert_eq!(error.problem(), &Problem::NulCharacter);
}
