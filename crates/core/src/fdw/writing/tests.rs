use super::*;

fn lines(commands: &Commands) -> Vec<String> {
    commands.words().iter().map(|words| words.join(" ")).collect()
}

fn put(key: &str, element: Element) -> Put {
    Put {
        key: key.as_bytes().into(),
        element,
        lifetime: Lifetime::Plain,
    }
}

fn pair(field: &str, value: &str) -> Element {
    Element::Pair {
        field: field.into(),
        value: value.into(),
    }
}

fn named(name: &str) -> Name {
    Name::Named(name.into())
}

fn inserted(kind: Kind, puts: Vec<Put>) -> Vec<String> {
    let mut commands = Commands::default();
    inserts(kind, puts, &mut commands);
    lines(&commands)
}

fn taken(mut changes: Changes) -> Vec<String> {
    let mut commands = Commands::default();
    changes.take(&mut commands);
    assert!(changes.is_empty());
    lines(&commands)
}

/// The command for a key, its type and its time to live.
fn expiring(arguments: &str) -> String {
    format!("EVAL {} 1 {arguments}", String::from_utf8_lossy(EXPIRE))
}

#[test]
fn rows_of_one_key_share_a_command() {
    let mut last = put("a", pair("g", "2"));
    last.lifetime = Lifetime::Seconds(60);
    let puts = vec![put("a", pair("f", "1")), put("b", pair("f", "3")), last];
    assert_eq!(
        inserted(Kind::Hash, puts),
        ["HSET a f 1 g 2", &expiring("a hash 60"), "HSET b f 3"]
    );
    let many = (0..1500).map(|n| put("s", Element::Member(n.to_string().into())));
    assert_eq!(inserted(Kind::Set, many.collect()).len(), 2);
}

#[test]
fn a_string_s_lifetime_goes_with_it() {
    let of = |lifetime| {
        let mut put = put("k", Element::Value(b"v".to_vec()));
        put.lifetime = lifetime;
        inserted(Kind::String, vec![put]).remove(0)
    };
    assert_eq!(of(Lifetime::Plain), "SET k v GET");
    assert_eq!(of(Lifetime::Endless), "SET k v GET");
    assert_eq!(of(Lifetime::Kept), "SET k v GET KEEPTTL");
    assert_eq!(of(Lifetime::Seconds(9)), "SET k v GET EX 9");
}

#[test]
fn items_without_an_index_are_pushed_and_others_set() {
    let item = |index, element: &str| {
        put(
            "l",
            Element::Item {
                index,
                element: element.into(),
            },
        )
    };
    let pushed = inserted(Kind::List, vec![item(APPENDED, "a"), item(APPENDED, "b")]);
    assert_eq!(pushed, ["RPUSH l a b"]);
    let set = inserted(Kind::List, vec![item(0, "a"), item(APPENDED, "b")]);
    assert!(set[0].starts_with("EVAL local length") && set[0].ends_with(" 1 l  0 a -1 b"));
}

#[test]
fn entries_and_scores_are_written() {
    let entry = Element::Entry {
        id: b"*".to_vec(),
        fields: vec![(b"f".to_vec(), b"v".to_vec())],
    };
    assert_eq!(inserted(Kind::Stream, vec![put("x", entry)]), ["XADD x * f v"]);
    let scored = Element::Scored {
        member: b"m".to_vec(),
        score: 0.5,
    };
    assert_eq!(inserted(Kind::Zset, vec![put("z", scored)]), ["ZADD z 0.5 m"]);
}

#[test]
fn rows_that_trade_names_are_all_kept() {
    let mut changes = Changes::new(Kind::Hash);
    changes.update(b"h"[..].into(), named("a"), put("h", pair("b", "1")));
    changes.update(b"h"[..].into(), named("b"), put("h", pair("a", "2")));
    changes.update(b"h"[..].into(), named("c"), put("h", pair("d", "3")));
    assert_eq!(taken(changes), ["HSET h b 1 a 2 d 3", "HDEL h c"]);
}

#[test]
fn a_row_that_keeps_its_name_is_only_changed() {
    let mut changes = Changes::new(Kind::Zset);
    let scored = Element::Scored {
        member: b"m".to_vec(),
        score: 2.0,
    };
    changes.update(b"z"[..].into(), named("m"), put("z", scored));
    assert_eq!(taken(changes), ["ZADD z XX 2 m"]);
    let mut changes = Changes::new(Kind::String);
    let mut kept = put("k", Element::Value(b"v".to_vec()));
    kept.lifetime = Lifetime::Kept;
    changes.update(b"k"[..].into(), Name::Whole, kept.clone());
    assert_eq!(taken(changes), ["SET k v GET KEEPTTL XX"]);
    let mut changes = Changes::new(Kind::String);
    changes.update(b"j"[..].into(), Name::Whole, kept);
    assert_eq!(taken(changes), ["SET k v GET KEEPTTL", "UNLINK j"]);
}

#[test]
fn deletes_are_by_key_and_name() {
    let mut changes = Changes::new(Kind::Set);
    for (key, member) in [("a", "1"), ("b", "1"), ("a", "2")] {
        changes.delete(key.as_bytes().into(), named(member));
    }
    assert_eq!(taken(changes), ["SREM a 1 2", "SREM b 1"]);
    let mut changes = Changes::new(Kind::String);
    changes.delete(b"a"[..].into(), Name::Whole);
    changes.delete(b"b"[..].into(), Name::Whole);
    assert_eq!(taken(changes), ["UNLINK a b"]);
    let mut changes = Changes::new(Kind::Hash);
    changes.expire(b"h"[..].into(), Lifetime::Endless);
    assert_eq!(taken(changes), [expiring("h hash -1")]);
}

#[test]
fn the_changes_of_a_list_are_one_script() {
    let at = |index, element: &str| Name::At {
        index,
        element: element.into(),
    };
    let mut changes = Changes::new(Kind::List);
    changes.delete(b"l"[..].into(), at(0, "a"));
    let new = Element::Item {
        index: 1,
        element: b"B".to_vec(),
    };
    changes.update(b"l"[..].into(), at(1, "b"), put("l", new));
    let lines = taken(changes);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].ends_with(" d 0 a  s 1 b B"), "{}", lines[0]);
}
