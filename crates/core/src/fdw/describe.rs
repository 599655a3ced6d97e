//! What EXPLAIN shows of a table and of the commands that read it.
use super::{
    Kind, Layout, Role, Shape, counting,
    filter::{Comparison, Target},
    options::Keys,
};

/// The key or the pattern of keys.
pub fn keys(layout: &Layout) -> String {
    match &layout.keys {
        Keys::One(key) | Keys::Matching(key) => String::from_utf8_lossy(key).into_owned(),
    }
}

/// The commands by which a table is read under such conditions, in the order in which they are first sent. Operands
/// stand in angle brackets. `ttl`: whether the times to live are asked for; `fields`: what is needed of a mapping's
/// hashes, unless it is all.
pub fn commands(
    kind: Kind,
    layout: &Layout,
    shapes: &[Shape],
    ttl: bool,
    fields: Option<&[Vec<u8>]>,
) -> Vec<String> {
    let parts = parts(layout);
    let has = |target: Target, meets: fn(Comparison) -> bool| has(shapes, target, meets);
    let mut commands = Vec::new();
    let key = key(kind, layout, shapes, &mut commands);
    if ttl {
        commands.push(format!("TTL {key}"));
    }
    let matching = if has(Target::Name, is_pattern) {
        " MATCH <pattern>"
    } else {
        ""
    };
    let named = has(Target::Name, Comparison::is_point);
    if let Some(fields) = fields {
        if !fields.is_empty() {
            commands.push(format!(
                "HMGET {key} {}",
                String::from_utf8_lossy(&fields.join(&b' '))
            ));
        }
        commands.push(format!("HLEN {key}"));
        return commands;
    }
    commands.push(match kind {
        Kind::String if layout.has_key() => format!("MGET {key}"),
        Kind::String => format!("GET {key}"),
        Kind::Hash if parts > 0 => format!("HGETALL {key}"),
        Kind::Hash if named => format!("HMGET {key} <field>"),
        Kind::Hash => format!("HSCAN {key}{matching}"),
        Kind::Set if named => format!("SMISMEMBER {key} <member>"),
        Kind::Set => format!("SSCAN {key}{matching}"),
        Kind::Zset if named => format!("ZMSCORE {key} <member>"),
        Kind::Zset if has(Target::Score, |_| true) => format!("ZRANGE {key} <score> <score> BYSCORE"),
        Kind::Zset => format!("ZSCAN {key}{matching}"),
        Kind::List if has(Target::Index, |_| true) => format!("LRANGE {key} <index> <index>"),
        Kind::List => format!("LRANGE {key} 0 -1"),
        Kind::Stream if has(Target::Name, |_| true) => format!("XRANGE {key} <id> <id>"),
        Kind::Stream => format!("XRANGE {key} - +"),
    });
    commands
}

/// XREVRANGE for an XRANGE: the ends change places.
pub fn latest_first(range: &str) -> String {
    let mut words: Vec<&str> = range.split(' ').collect();
    if let [.., from, to] = words.as_mut_slice() {
        std::mem::swap(from, to);
    }
    words.join(" ").replacen("XRANGE", "XREVRANGE", 1)
}

/// The commands by which such a table's rows are counted.
pub fn counting(kind: Kind, layout: &Layout, shapes: &[Shape]) -> Vec<String> {
    let mut commands = Vec::new();
    let key = key(kind, layout, shapes, &mut commands);
    if has(shapes, Target::Score, |_| true) {
        commands.push(format!("ZCOUNT {key} <score> <score>"));
    } else if kind != Kind::String || commands.is_empty() {
        commands.push(format!("{} {key}", counting::size(kind)));
    }
    commands
}

fn has(shapes: &[Shape], target: Target, meets: fn(Comparison) -> bool) -> bool {
    shapes
        .iter()
        .any(|shape| shape.target == target && meets(shape.comparison))
}

fn is_pattern(comparison: Comparison) -> bool {
    matches!(comparison, Comparison::Like | Comparison::Prefix)
}

/// How many parts the keys of a mapping have.
fn parts(layout: &Layout) -> usize {
    let parts = layout
        .roles
        .iter()
        .filter(|role| matches!(role, Some(Role::Part(_))));
    parts.count()
}

/// What stands for the key in commands, and before them the SCAN that finds it, if one does.
fn key(kind: Kind, layout: &Layout, shapes: &[Shape], commands: &mut Vec<String>) -> String {
    let parts = parts(layout);
    let known = |part: usize| shapes.iter().any(|shape| shape.target == Target::Part(part));
    if !layout.has_key() {
        return keys(layout);
    }
    let listed = has(shapes, Target::Key, Comparison::is_point) || parts > 0 && (0..parts).all(known);
    if !listed {
        let pattern = if has(shapes, Target::Key, is_pattern) || (0..parts).any(known) {
            "<pattern>".to_string()
        } else {
            keys(layout)
        };
        commands.push(format!("SCAN MATCH {pattern} TYPE {kind}"));
    }
    "<key>".to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fdw::{Column, TableOptions};

    fn layout(kind: &str, prefix: &str, columns: &[&str]) -> Layout {
        let given = [("table_type", kind), ("table_key_prefix", prefix)];
        let given: Vec<_> = given
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect();
        let column = |name: &&str| {
            Some(Column {
                name: name.to_string(),
                is_integer: false,
            })
        };
        let columns: Vec<_> = columns.iter().map(column).collect();
        Layout::of(&TableOptions::read(&given).unwrap(), &columns).unwrap()
    }

    #[test]
    fn the_commands_are_those_of_the_conditions() {
        let shape = |target, comparison| Shape { target, comparison };
        let hash = layout("hash", "user:profiles", &["field", "value"]);
        let of = |shapes: &[Shape]| commands(Kind::Hash, &hash, shapes, false, None).join(", ");
        assert_eq!(of(&[]), "HSCAN user:profiles");
        assert_eq!(
            of(&[shape(Target::Name, Comparison::Like)]),
            "HSCAN user:profiles MATCH <pattern>"
        );
        assert_eq!(
            of(&[shape(Target::Name, Comparison::Any)]),
            "HMGET user:profiles <field>"
        );

        let sessions = layout("string", "session:*", &["key", "value", "ttl"]);
        let of = |shapes: &[Shape]| commands(Kind::String, &sessions, shapes, true, None).join(", ");
        assert_eq!(of(&[]), "SCAN MATCH session:* TYPE string, TTL <key>, MGET <key>");
        assert_eq!(
            of(&[shape(Target::Key, Comparison::Equal)]),
            "TTL <key>, MGET <key>"
        );

        let users = layout("hash", "user:*", &["key", "field", "value"]);
        let fields = |fields: &[&str]| {
            fields
                .iter()
                .map(|field| field.as_bytes().to_vec())
                .collect::<Vec<_>>()
        };
        let of = |wanted: &[Vec<u8>]| commands(Kind::Hash, &users, &[], false, Some(wanted)).join(", ");
        assert_eq!(
            of(&fields(&["name", "mail"])),
            "SCAN MATCH user:* TYPE hash, HMGET <key> name mail, HLEN <key>"
        );
        assert_eq!(of(&[]), "SCAN MATCH user:* TYPE hash, HLEN <key>");

        let zset = layout("zset", "z", &["member", "score"]);
        let range = [shape(Target::Score, Comparison::Less)];
        assert_eq!(
            commands(Kind::Zset, &zset, &range, false, None),
            ["ZRANGE z <score> <score> BYSCORE"]
        );
    }
}
