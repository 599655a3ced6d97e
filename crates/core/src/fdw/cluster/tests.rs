use super::*;

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.into())
}

fn commands(all: &[&[&str]]) -> Commands {
    let mut commands = Commands::default();
    for words in all {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        commands.push(&words);
    }
    commands
}

fn text(part: &Part) -> String {
    let mut reader = Reader::default();
    reader.feed(&part.command.bytes);
    match reader.next_reply().unwrap().unwrap() {
        Reply::Array(words) => {
            let words = words.into_iter().filter_map(Reply::into_bytes);
            let words: Vec<String> = words.map(|word| String::from_utf8(word).unwrap()).collect();
            words.join(" ")
        }
        other => panic!("{other:?}"),
    }
}

fn three() -> Slots {
    let row = |from, to, host: &str, port| {
        let node = |host: &str, port| Reply::Array(vec![bulk(host), Reply::Integer(port), bulk("id")]);
        Reply::Array(vec![
            Reply::Integer(from),
            Reply::Integer(to),
            node(host, port),
            node("replica", 1),
        ])
    };
    let rows = vec![
        row(8192, 12287, "b", 7001),
        row(0, 8191, "", 7000),
        row(12288, 16000, "a", 7002),
        row(16001, 16001, "b", 7001),
    ];
    read_slots(Reply::Array(rows), "asked").unwrap()
}

#[test]
fn each_slot_has_its_master() {
    let slots = three();
    let master = |slot| {
        slots
            .master(slot)
            .map(|node| format!("{}:{}", node.host, node.port))
    };
    assert_eq!(master(0).unwrap(), "asked:7000");
    assert_eq!(master(8191).unwrap(), "asked:7000");
    assert_eq!(master(8192).unwrap(), "b:7001");
    assert_eq!(master(16000).unwrap(), "a:7002");
    assert_eq!(master(16001).unwrap(), "b:7001");
    assert_eq!(master(16002), None);
    assert_eq!(slots.masters().len(), 3);
    assert_eq!(read_slots(Reply::Integer(1), "h"), Err(Unexpected));
    assert_eq!(
        read_slots(Reply::Array(vec![Reply::Array(vec![])]), "h"),
        Err(Unexpected)
    );
}

#[test]
fn commands_go_to_the_slot_of_their_key() {
    let routed = route(&commands(&[
        &["HSET", "foo", "f", "v"],
        &["EVAL", "return 1", "1", "foo", "x"],
        &["MEMORY", "USAGE", "foo"],
        &["PING"],
        &["DBSIZE"],
    ]));
    let to: Vec<To> = routed.iter().map(|routed| routed.parts[0].to).collect();
    assert_eq!(
        to,
        [
            To::Slot(12182),
            To::Slot(12182),
            To::Slot(12182),
            To::Any,
            To::Every
        ]
    );
    assert!(routed[..4].iter().all(|routed| routed.merge == Merge::Only));
    assert_eq!(routed[4].merge, Merge::Sum);
    assert_eq!(text(&routed[0].parts[0]), "HSET foo f v");
    assert_eq!(
        slots_of(&commands(&[
            &["MULTI"],
            &["SET", "foo", "1"],
            &["DEL", "{foo}x"],
            &["EXEC"]
        ])),
        [12182]
    );
    assert_eq!(
        slots_of(&commands(&[&["SET", "a", "1"], &["SET", "b", "1"]])).len(),
        2
    );
}

#[test]
fn commands_of_many_keys_are_taken_apart() {
    let routed = route(&commands(&[
        &["MGET", "a", "foo"],
        &["UNLINK", "a", "b", "c"],
        &["UNLINK", "a"],
    ]));
    assert_eq!(text(&routed[0].parts[1]), "GET foo");
    assert_eq!(routed[0].parts[1].to, To::Slot(12182));
    assert_eq!(text(&routed[1].parts[2]), "UNLINK c");
    assert_eq!(routed[2].merge, Merge::Only);
    let wrong = || Reply::Error("WRONGTYPE Operation against a key".to_owned());
    let values = Merge::Values.apply(vec![bulk("1"), wrong(), Reply::Nil], 3);
    assert_eq!(values, Reply::Array(vec![bulk("1"), Reply::Nil, Reply::Nil]));
    let error = Reply::Error("NOPERM".to_owned());
    assert_eq!(Merge::Values.apply(vec![bulk("1"), error.clone()], 3), error);
    let integers = |numbers: [i64; 2]| numbers.map(Reply::Integer).to_vec();
    assert_eq!(Merge::Sum.apply(integers([1, 1]), 3), Reply::Integer(2));
    assert_eq!(Merge::Sum.apply(vec![Reply::Integer(1), error.clone()], 3), error);
}

#[test]
fn the_keys_of_all_masters_are_one_scan() {
    let step = |cursor: &str| {
        let mut routed = route(&commands(&[&["SCAN", cursor, "MATCH", "k:*"]]));
        routed.pop().unwrap()
    };
    let answer = |merge: Merge, own: &str| {
        let reply = Reply::Array(vec![bulk(own), Reply::Array(vec![])]);
        match merge.apply(vec![reply], 2) {
            Reply::Array(parts) => String::from_utf8(parts[0].clone().into_bytes().unwrap()).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let to = |master, begins| To::Scanned { master, begins };
    let first = step("0");
    assert_eq!(
        (first.parts[0].to, text(&first.parts[0])),
        (to(0, true), "SCAN 0 MATCH k:*".into())
    );
    assert_eq!(answer(first.merge, "17"), "0:17");
    let second = step("0:17");
    assert_eq!(
        (second.parts[0].to, text(&second.parts[0])),
        (to(0, false), "SCAN 17 MATCH k:*".into())
    );
    assert_eq!(answer(second.merge, "0"), "1:0");
    let third = step("1:0");
    assert_eq!(
        (third.parts[0].to, text(&third.parts[0])),
        (to(1, false), "SCAN 0 MATCH k:*".into())
    );
    assert_eq!(answer(third.merge, "5"), "1:5");
    assert_eq!(answer(step("1:5").merge, "0"), "0");
    let error = Reply::Error("ERR".to_owned());
    assert_eq!(third.merge.apply(vec![error.clone()], 2), error);
}

#[test]
fn slots_on_their_way_are_seen() {
    let own = b"e7d1 127.0.0.1:30001@31001 myself,master - 0 0 1 connected 0-5460 [93->-292f8b365]\n";
    assert!(is_resharding(own));
    assert!(!is_resharding(
        b"e7d1 127.0.0.1:30001@31001 myself,master - 0 0 1 connected 0-5460\n"
    ));
    assert!(!is_resharding(
        b"e7d1 127.0.0.1:30001@31001 master - 0 0 1 connected 0-5460 [93-<-292f8b365]\n"
    ));
}
