//! Canonical text and fingerprints.

use super::*;

#[test]
fn canonical_text_leaves_defaults_out_and_quotes_what_needs_it() {
    for (written, canonical) in [
        (
            "U:{ID}=>select A from T with (name = t, format = hash, fill = point)",
            "U:{id} => SELECT a FROM public.t",
        ),
        (
            "'a b:{\"X\"}' => SELECT \"select\", b FROM \"S\".t WITH (allow_rls = on, ttl = '1 min', name = 'q\"')",
            "'a b:{\"X\"}' => SELECT \"select\", b FROM \"S\".t WITH (name = \"q\"\"\", ttl = 60, allow_rls = on)",
        ),
        ("'=>{a}' => SELECT * FROM t", "'=>{a}' => SELECT * FROM public.t"),
        (
            "u:{id} => SELECT a FROM t WITH (server = \"Far Away\", database = b)",
            "u:{id} => SELECT a FROM public.t WITH (database = b, server = \"Far Away\")",
        ),
        (
            "u:{id} => SELECT a FROM t WITH (server = DEFAULT)",
            "u:{id} => SELECT a FROM public.t",
        ),
    ] {
        let mapping = one(written);
        assert_eq!(mapping.to_string(), canonical);
        assert_eq!(one(canonical), mapping);
    }
}

#[test]
fn a_fingerprint_tells_what_matters_and_nothing_else() {
    let base = one("u:{id} => SELECT a FROM t");
    assert_eq!(
        base.fingerprint("app"),
        one("u:{ID}  =>  select A from public.t").fingerprint("app")
    );
    assert_eq!(
        base.fingerprint("app"),
        one("u:{id} => SELECT a FROM t WITH (name = t)").fingerprint("app")
    );
    assert_ne!(base.fingerprint("app"), base.fingerprint("other"));
    for other in [
        "v:{id} => SELECT a FROM t",
        "u:{ix} => SELECT a FROM t",
        "u:{id} => SELECT b FROM t",
        "u:{id} => SELECT a FROM s.t",
        "u:{id} => SELECT a FROM t WITH (ttl = 1)",
        "u:{id} => SELECT a FROM t WITH (database = other)",
        "u:{id} => SELECT a FROM t WITH (server = other)",
    ] {
        assert_ne!(base.fingerprint("app"), one(other).fingerprint("app"), "{other}");
    }
    let elsewhere = one("u:{id} => SELECT a FROM t WITH (database = other)");
    assert_eq!(elsewhere.fingerprint("app"), elsewhere.fingerprint("third"));
}

#[test]
fn a_fingerprint_is_the_same_in_every_build() {
    // Kept in Redis between runs: a change here makes every installation purge once.
    assert_eq!(
        one("u:{id} => SELECT a FROM t").fingerprint("app"),
        15_940_121_514_142_327_544
    );
}

#[test]
fn only_an_empty_or_disabled_list_has_the_fingerprint_0() {
    let list = parse_list("a{x} => SELECT * FROM t; b{x} => SELECT * FROM u").unwrap();
    let swapped: Vec<Mapping> = list.iter().rev().cloned().collect();
    assert_eq!(list_fingerprint(&[], "app", true), 0);
    assert_eq!(list_fingerprint(&list, "app", false), 0);
    assert_ne!(list_fingerprint(&list, "app", true), 0);
    assert_ne!(
        list_fingerprint(&list, "app", true),
        list_fingerprint(&swapped, "app", true)
    );
    assert_ne!(
        list_fingerprint(&list, "app", true),
        list_fingerprint(&list, "other", true)
    );
    assert_ne!(
        list_fingerprint(&list, "app", true),
        list_fingerprint(&list[..1], "app", true)
    );
}
