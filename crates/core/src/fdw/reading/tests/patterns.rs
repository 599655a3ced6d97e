//! Patterns that find little or nothing.
use super::*;

/// COUNT of each command.
fn counts(sent: &[String]) -> Vec<usize> {
    let of = |command: &String| {
        let words: Vec<&str> = command.split(' ').collect();
        let place = words.iter().position(|word| *word == "COUNT").unwrap();
        words[place + 1].parse().unwrap()
    };
    sent.iter().map(of).collect()
}

#[test]
fn a_pattern_that_finds_little_makes_larger_steps() {
    let shape = |target| Shape {
        target,
        comparison: Comparison::Like,
    };
    let next = |command: &[&str], place: usize| (command[place].parse::<usize>().unwrap() + 1) % 8;
    // Nothing is found.
    let redis = |command: &[&str]| page(&next(command, 2).to_string(), &[]);
    let access = || {
        one_key(
            Kind::Set,
            vec![(shape(Target::Name), Operand::One(b"x%".to_vec()))],
        )
    };
    let (sent, _) = read(needs(Kind::Set, true), access(), redis).unwrap();
    assert_eq!(counts(&sent), [200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    // Large members are found by the way: a step is as long as brings a window of them.
    let large = "x".repeat(WINDOW_BYTES / 2);
    let redis = |command: &[&str]| page(&next(command, 2).to_string(), &[&large, &large, &large, &large]);
    let (sent, _) = read(needs(Kind::Set, true), access(), redis).unwrap();
    assert_eq!(counts(&sent)[..4], [200, 100, 50, 25]);

    let redis = |command: &[&str]| match command {
        ["SCAN", ..] => page(&next(command, 1).to_string(), &[]),
        other => panic!("{other:?}"),
    };
    let (sent, _) = read(needs(Kind::Set, false), many_keys(Kind::Set), redis).unwrap();
    assert_eq!(counts(&sent), [200, 200, 400, 800, 1600, 3200, 5000, 5000]);
}

#[test]
fn patterns_that_exclude_each_other_ask_for_nothing() {
    let none = |command: &[&str]| -> Reply { panic!("{command:?}") };
    let like = |target, text: &str| {
        let comparison = Comparison::Like;
        (Shape { target, comparison }, Operand::One(text.into()))
    };
    let keys = Keys::Matching(b"session:*".to_vec());
    let access = Access::new(Kind::String, &keys, vec![like(Target::Key, "user101%")]);
    assert_eq!(read(needs(Kind::String, false), access, none).unwrap().0.len(), 0);
    let both = vec![like(Target::Name, "a%"), like(Target::Name, "b%")];
    let (sent, _) = read(needs(Kind::Set, true), one_key(Kind::Set, both), none).unwrap();
    assert_eq!(sent.len(), 0);
}
