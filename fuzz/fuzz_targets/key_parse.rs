//! Any template, kinds and key: no panic; a key that is read renders again, and templates that read the same
//! key are known to collide. The input is lines: two templates, each with a letter per column's kind in
//! front, and the key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_redis_cache_core::config::KeyTemplate;
use pg_redis_cache_core::encode::collision::may_collide;
use pg_redis_cache_core::encode::key::KeyKind;

/// `iutb user:{a}:{b}...`
fn keyed(line: &[u8]) -> Option<(KeyTemplate, Vec<KeyKind>)> {
    let (kinds, template) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let template: KeyTemplate = template.parse().ok()?;
    let kinds = kinds.bytes().map(|letter| match letter {
        b'i' => KeyKind::Int,
        b'u' => KeyKind::Uuid,
        b'b' => KeyKind::Bool,
        _ => KeyKind::Text,
    });
    Some((template, kinds.collect()))
}

fn reads(template: &KeyTemplate, kinds: &[KeyKind], key: &[u8]) -> bool {
    let Some(values) = template.parse(key, kinds) else {
        return false;
    };
    let mut rendered = Vec::new();
    template.render(&values, &mut rendered);
    assert_eq!(rendered, key);
    assert!(template.round_trips(key, &values, kinds));
    true
}

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let (Some(a), Some(b), Some(key)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let (Some((a, a_kinds)), Some((b, b_kinds))) = (keyed(a), keyed(b)) else {
        return;
    };
    if reads(&a, &a_kinds, key) && reads(&b, &b_kinds, key) {
        assert!(may_collide(&a, &a_kinds, &b, &b_kinds));
    }
    a.is_unambiguous(&a_kinds);
});
