use super::*;

fn given(options: &[(&str, &str)]) -> Vec<Given> {
    options
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

#[test]
fn the_later_place_wins() {
    let options = given(&[
        ("table_type", "set"),
        ("ttl", "60"),
        ("host_port", "a:1"),
        ("TABLE_TYPE", "list"),
        ("table_type", "HASH"),
        ("table_key_prefix", "user:profiles"),
        ("batch_size", "100"),
    ]);
    let read = TableOptions::read(&options).unwrap();
    assert_eq!(read.kind, Kind::Hash);
    assert_eq!(read.keys, Keys::One(b"user:profiles".to_vec()));
    assert_eq!((read.ttl, read.batch_size, read.database), (Some(60), 100, None));
}

#[test]
fn a_pattern_names_many_keys() {
    for (prefix, many) in [("a:*", true), ("a:?", true), ("a:[bc]", true), ("a:b", false)] {
        let options = given(&[("table_type", "string"), ("table_key_prefix", prefix)]);
        let keys = TableOptions::read(&options).unwrap().keys;
        assert_eq!(matches!(keys, Keys::Matching(_)), many, "{prefix}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let missing = |options| TableOptions::read(&given(options)).unwrap_err().to_string();
    assert_eq!(missing(&[]), "option \"table_type\" is missing");
    assert_eq!(
        missing(&[("table_type", "set")]),
        "option \"table_key_prefix\" is missing"
    );
}

#[test]
fn an_unknown_option_is_an_error_or_a_warning() {
    let server = check(Place::Server, &given(&[("hostport", "a:1")])).unwrap_err();
    assert_eq!(server.hint(), "Perhaps you meant \"host_port\".");
    let ignored = check(Place::Server, &given(&[("host_port", "a:1"), ("colour", "red")])).unwrap();
    assert_eq!(ignored.len(), 1);
    assert!(ignored[0].hint().starts_with("Valid options here: "));
    assert!(ignored[0].hint().contains(" host_port,"), "{}", ignored[0].hint());
    let ignored = check(Place::Table, &given(&[("table_type", "set"), ("password", "x")])).unwrap();
    assert_eq!(ignored[0].to_string(), "invalid option \"password\"");
    assert!(check(Place::Server, &given(&[("pool_max_size", "9")])).is_ok());
    assert!(check(Place::UserMapping, &given(&[("passwort", "x")])).is_err());
}

#[test]
fn a_server_is_where_one_option_says() {
    let sentinels = ("url", "redis-sentinel://a,b/main/2");
    let node = ("host_port", "c:1");
    assert_eq!(check(Place::Server, &given(&[sentinels])), Ok(vec![]));
    assert_eq!(
        check(Place::Server, &given(&[sentinels, node])),
        Err(OptionProblem::TwoAddresses)
    );
    let problem = check(Place::Server, &given(&[("url", "redis-sentinel://:secret@a,b")])).unwrap_err();
    assert_eq!(
        problem,
        OptionProblem::Url {
            problem: AddressError::NoService
        }
    );
    assert!(!format!("{problem} {problem:?}").contains("secret"));
    // The server's own goes before the wrapper's.
    let shown = |options: &[(&str, &str)]| {
        let addresses = addresses(&given(options)).unwrap().unwrap();
        let all: Vec<String> = addresses.iter().map(Address::masked).collect();
        all.join(" ")
    };
    assert_eq!(
        shown(&[node, ("batch_size", "100"), sentinels]),
        "redis-sentinel://a:26379,b:26379/main/2"
    );
    assert_eq!(shown(&[sentinels, node]), "redis://c:1/0");
    assert_eq!(addresses(&given(&[("batch_size", "100")])), Ok(None));
    assert!(have_address(&given(&[sentinels])) && !have_address(&given(&[("database", "1")])));
}

#[test]
fn no_credentials_go_out_in_clear_beside_tls() {
    let shown = |value: &str| {
        let addresses = addresses(&given(&[("host_port", value)]))?.unwrap();
        Ok(addresses
            .iter()
            .map(Address::masked)
            .collect::<Vec<_>>()
            .join(" "))
    };
    for (value, wanted) in [
        ("a:1, b:2", "redis://a:1/0 redis://b:2/0"),
        ("redis-0:1,redis://b-1:2", "redis://redis-0:1/0 redis://b-1:2/0"),
        (
            "rediss://a:1,b:2,c",
            "rediss://a:1/0 rediss://b:2/0 rediss://c:6379/0",
        ),
        ("rediss-cluster://a:1,b:2", "rediss-cluster://a:1,b:2"),
        (
            "rediss-sentinel://a:1,b:2/main/3",
            "rediss-sentinel://a:1,b:2/main/3",
        ),
    ] {
        assert_eq!(shown(value).as_deref(), Ok(wanted));
    }
    for value in [
        "rediss://a:1,redis://b:2",
        "a:1,rediss://b:2",
        "redis://a:1,rediss://b:2",
    ] {
        assert_eq!(shown(value), Err(OptionProblem::MixedTls { node: 2 }), "{value}");
    }
}

#[test]
fn a_table_over_a_mapping_has_no_other_meaning() {
    let options = given(&[("mapping", "users"), ("batch_size", "100")]);
    assert_eq!(check(Place::Table, &options), Ok(vec![]));
    assert_eq!(mapping(&options), Some("users"));
    let both = given(&[("mapping", "users"), ("table_type", "set")]);
    let problem = check(Place::Table, &both).unwrap_err();
    assert_eq!(
        problem.hint(),
        "Valid options here: mapping, batch_size, join_batch_size, use_remote_estimate."
    );
    assert!(check(Place::Server, &given(&[("mapping", "users")])).is_err());
    assert!(check(Place::Table, &given(&[("mapping", "")])).is_err());
}

#[test]
fn values_are_checked_where_they_are_set() {
    for (place, name, value) in [
        (Place::Table, "table_type", "hasch"),
        (Place::Table, "table_key_prefix", ""),
        (Place::Table, "database", "-1"),
        (Place::Table, "database", "4294967295"),
        (Place::Table, "ttl", "0"),
        (Place::Table, "batch_size", "99"),
        (Place::Table, "strict_key_prefix", "maybe"),
        (Place::Table, "join_batch_size", "0"),
        (Place::Server, "cluster_mode", "perhaps"),
        (Place::Server, "host_port", "a:b"),
        (Place::Server, "host_port", "a:1,,"),
        (Place::Server, "host_port", "redissss://a:1"),
        (Place::Server, "tls_verify", "maybe"),
        (Place::Server, "tls_ca_file", ""),
    ] {
        assert!(check(place, &given(&[(name, value)])).is_err(), "{name} {value}");
    }
}

#[test]
fn no_problem_shows_a_connection_s_value() {
    for value in ["redis://:sesame@a:b", "sesame:x"] {
        let problem = check(Place::Server, &given(&[("host_port", value)])).unwrap_err();
        assert!(!format!("{problem} {}", problem.hint()).contains("sesame"));
    }
}

#[test]
fn addresses_are_read_in_all_their_forms() {
    let nodes = nodes("127.0.0.1:7000, redis://b:7001,redis+unix:///run/redis.sock").unwrap();
    let shown: Vec<String> = nodes.iter().map(Address::masked).collect();
    assert_eq!(
        shown,
        [
            "redis://127.0.0.1:7000/0",
            "redis://b:7001/0",
            "redis+unix:///run/redis.sock?db=0"
        ]
    );
}
