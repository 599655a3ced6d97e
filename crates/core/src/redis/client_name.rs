//! What the connections are called in Redis (CLIENT LIST).
//!
//! The engine's are `program/version:role[:label]:owner:instance`, read from the right: rule 5 rests on the owner and
//! the instance, whatever stands before them. Those of a backend are `program/version:role[:label]` and name no owner,
//! so that no engine takes one for an earlier engine's. Redis takes neither spaces nor what is not printed in a name
//! (networking.c, clientSetName), so colons stand where a reader would want spaces.

/// The longest label, in characters.
const LONGEST: usize = 63;

/// A text as it may be part of a name: what Redis does not take in one, and colons, become underscores.
fn word(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_graphic() && c != ':';
    let kept = text.chars().map(|c| if allowed(c) { c } else { '_' });
    kept.take(LONGEST).collect()
}

/// The name of a connection that belongs to no engine. `label` tells a reader whose it is, and may be empty.
pub fn client_name(program: &str, role: &str, label: &str) -> String {
    let label = word(label);
    if label.is_empty() {
        format!("{program}:{role}")
    } else {
        format!("{program}:{role}:{label}")
    }
}

/// The name of an engine's connection.
pub(super) fn engine_name(program: &str, role: &str, label: &str, owner: &str, instance: &str) -> String {
    format!("{}:{owner}:{instance}", client_name(program, role, label))
}

/// Whether a name is that of another engine of this program, of whatever version, and this owner.
pub(super) fn is_predecessor(name: &str, program: &str, owner: &str, instance: &str) -> bool {
    let without_version = |name: &str| name.split('/').next().map(str::to_owned);
    let mut parts = name.rsplitn(3, ':');
    let (its_instance, its_owner, rest) = (parts.next(), parts.next(), parts.next());
    its_owner == Some(owner)
        && its_instance != Some(instance)
        && rest.and_then(without_version) == without_version(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "p/2.0";

    fn is_killed(name: &str) -> bool {
        is_predecessor(name, PROGRAM, "7001", "b-2")
    }

    #[test]
    fn a_name_is_one_that_redis_takes() {
        assert_eq!(
            engine_name(PROGRAM, "lane-0", "main cluster: é\n", "7001", "b-2"),
            "p/2.0:lane-0:main_cluster____:7001:b-2"
        );
        assert_eq!(
            engine_name(PROGRAM, "control", "", "7001", "b-2"),
            "p/2.0:control:7001:b-2"
        );
        assert_eq!(client_name(PROGRAM, "fdw", "main"), "p/2.0:fdw:main");
        assert_eq!(client_name(PROGRAM, "fdw", &"x".repeat(100)).len(), 10 + LONGEST);
    }

    #[test]
    fn earlier_engines_are_told_with_and_without_a_label() {
        for version in ["p/1.0", "p/2.0", "p/10.2-beta"] {
            for label in ["", "main", "other cluster", "7001", "a:b", "p/2.0"] {
                let name = |instance| engine_name(version, "lane-3", label, "7001", instance);
                assert!(is_killed(&name("a-1")), "{}", name("a-1"));
                assert!(!is_killed(&name("b-2")), "{}", name("b-2"));
            }
        }
        // As the version before wrote it.
        assert!(is_killed("p/1.0:lane-0:7001:a-1"));
    }

    #[test]
    fn nobody_else_is_taken_for_an_earlier_engine() {
        let others = [
            engine_name(PROGRAM, "lane-0", "main", "7002", "a-1"),
            engine_name("q/2.0", "lane-0", "main", "7001", "a-1"),
            // A label that looks like an owner does not make one.
            engine_name(PROGRAM, "lane-0", "7001", "7002", "a-1"),
            client_name(PROGRAM, "fdw", "7001"),
            client_name(PROGRAM, "fdw", "7001:a-1"),
            client_name(PROGRAM, "fdw", ""),
            "7001:a-1".to_owned(),
            String::new(),
        ];
        for name in others {
            assert!(!is_killed(&name), "{name}");
        }
    }
}
