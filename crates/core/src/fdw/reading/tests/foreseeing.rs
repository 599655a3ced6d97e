//! The next window's command, sent while the present window is still coming.
use super::*;

/// Reads a hash of three windows. `pieces`: whether the beginning of each answer is shown before the rest has come.
/// Returns what was sent, a line for each time, and the fields.
fn read_in_pieces(access: Access, pieces: bool) -> (Vec<String>, Vec<String>) {
    let windows = [
        ("0", "7", ["a", "1", "b", "2"]),
        ("7", "3", ["b", "2", "c", "3"]),
        ("3", "0", ["a", "1", "d", "4"]),
    ];
    let mut reading = Reading::new(needs(Kind::Hash, true), access);
    let (mut sent, mut fields, mut on_their_way) = (Vec::new(), Vec::new(), VecDeque::new());
    let mut send = |commands: &Commands, on_their_way: &mut VecDeque<String>| {
        for command in commands.words() {
            sent.push(command.join(" "));
            on_their_way.push_back(command[2].clone());
        }
    };
    let mut commands = Commands::default();
    reading.ask(&mut commands);
    send(&commands, &mut on_their_way);
    while reading.is_waiting() {
        reading.begin_window();
        while reading.is_in_window() {
            let cursor = on_their_way.pop_front().unwrap();
            let (_, next, found) = windows.iter().find(|(from, ..)| *from == cursor).unwrap();
            let mut commands = Commands::default();
            if pieces {
                reading.foresee(&[], &mut commands);
                assert_eq!(commands.count, 0);
                reading.foresee(&[bulk(next)], &mut commands);
                send(&commands, &mut on_their_way);
                reading.foresee(&[bulk(next)], &mut Commands::default());
            }
            reading.answer(page(next, found)).unwrap();
        }
        if !reading.has_foreseen() {
            let mut commands = Commands::default();
            reading.ask(&mut commands);
            send(&commands, &mut on_their_way);
        }
        while let Some(row) = reading.next_row() {
            fields.push(match row.element {
                Element::Pair { field, .. } => String::from_utf8(field).unwrap(),
                other => panic!("{other:?}"),
            });
        }
        // No more than one window is on its way while rows are handed out.
        assert!(on_their_way.len() <= 1);
    }
    (sent, fields)
}

#[test]
fn the_next_window_is_asked_for_when_its_cursor_is_there_and_nothing_comes_twice() {
    let (sent, fields) = read_in_pieces(one_key(Kind::Hash, vec![]), true);
    // The elements' size is known a window later.
    assert_eq!(
        sent,
        [
            "HSCAN k 0 COUNT 200",
            "HSCAN k 7 COUNT 200",
            "HSCAN k 3 COUNT 5000"
        ]
    );
    assert_eq!(fields, ["a", "b", "c", "d"]);
    let (sent, fields) = read_in_pieces(one_key(Kind::Hash, vec![]), false);
    assert_eq!(sent[1], "HSCAN k 7 COUNT 5000");
    assert_eq!(fields, ["a", "b", "c", "d"]);
}

#[test]
fn what_depends_on_the_whole_answer_is_not_foreseen() {
    let foreseen = |kind, access| {
        let mut reading = Reading::new(needs(kind, true), access);
        reading.ask(&mut Commands::default());
        let mut commands = Commands::default();
        reading.foresee(&[bulk("7")], &mut commands);
        commands.count
    };
    assert_eq!(foreseen(Kind::Set, one_key(Kind::Set, vec![])), 1);
    assert_eq!(foreseen(Kind::List, one_key(Kind::List, vec![])), 0);
    let like = Shape {
        target: Target::Name,
        comparison: Comparison::Like,
    };
    let pattern = one_key(Kind::Set, vec![(like, Operand::One(b"a%".to_vec()))]);
    assert_eq!(foreseen(Kind::Set, pattern), 0);
    // Other keys have their turn.
    let keys = KeyAccess::Listed(vec![b"k:1".to_vec(), b"k:2".to_vec()]);
    let within = Within::All;
    assert_eq!(
        foreseen(
            Kind::Set,
            Access {
                keys,
                within,
                exact: false
            }
        ),
        0
    );
}
