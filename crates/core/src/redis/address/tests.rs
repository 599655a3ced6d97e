use super::*;

fn tcp(text: &str) -> (String, u16, u32, Option<String>, Option<String>) {
    let address = Address::parse(text).unwrap();
    let Endpoint::Tcp(HostPort { host, port }) = address.endpoint.clone() else {
        panic!("not TCP")
    };
    let password = address.password.as_ref().map(|p| p.reveal().to_owned());
    (host, port, address.database, address.user, password)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn what_is_left_out_has_its_default() {
    assert_eq!(tcp("redis://cache"), ("cache".into(), 6379, 0, None, None));
    assert_eq!(tcp("redis://cache/"), ("cache".into(), 6379, 0, None, None));
    assert_eq!(
        tcp(" redis://127.0.0.1:1/15 "),
        ("127.0.0.1".into(), 1, 15, None, None)
    );
}

#[test]
fn the_scheme_says_whether_it_is_tls() {
    for (text, is_tls) in [
        ("redis://h", false),
        ("rediss://h", true),
        ("REDISS://u:p@h:1/2", true),
        ("redis+unix:///s", false),
    ] {
        assert_eq!(Address::parse(text).unwrap().is_tls(), is_tls, "{text}");
    }
    assert_eq!(tcp("rediss://u:p@h:1/2"), tcp("redis://u:p@h:1/2"));
}

#[test]
fn credentials_are_decoded() {
    assert_eq!(
        tcp("redis://bob:s%40%3Aé@h:2/3"),
        ("h".into(), 2, 3, some("bob"), some("s@:é"))
    );
    assert_eq!(tcp("redis://:pw@h"), ("h".into(), 6379, 0, None, some("pw")));
    assert_eq!(tcp("redis://:a@b@h"), ("h".into(), 6379, 0, None, some("a@b")));
    assert_eq!(tcp("redis://bob@h"), ("h".into(), 6379, 0, some("bob"), None));
    assert_eq!(
        tcp("redis://bob:@h"),
        ("h".into(), 6379, 0, some("bob"), some(""))
    );
    assert_eq!(tcp("redis://:@h"), ("h".into(), 6379, 0, None, None));
}

#[test]
fn ipv6_stands_in_brackets() {
    assert_eq!(tcp("redis://[::1]"), ("::1".into(), 6379, 0, None, None));
    assert_eq!(tcp("redis://u:p@[fe80::1%25eth0]:7000/1").0, "fe80::1%eth0");
    for bad in ["redis://[::1", "redis://[::1]x", "redis://[nope]:1", "redis://[]"] {
        assert_eq!(Address::parse(bad), Err(AddressError::Brackets), "{bad}");
    }
}

#[test]
fn a_socket_has_an_absolute_path_and_parameters() {
    let address = Address::parse("redis+unix:///run/my%20redis.sock?db=2&user=bob&pass=x%26y").unwrap();
    assert_eq!(
        address.endpoint,
        Endpoint::Unix {
            path: "/run/my redis.sock".into()
        }
    );
    assert_eq!((address.database, address.user.as_deref()), (2, Some("bob")));
    assert_eq!(address.password.as_ref().unwrap().reveal(), "x&y");
    assert_eq!(
        Address::parse("unix:///s").unwrap().masked(),
        "redis+unix:///s?db=0"
    );
    assert_eq!(Address::parse("redis+unix://s"), Err(AddressError::NoPath));
    assert_eq!(Address::parse("unix://"), Err(AddressError::NoPath));
    assert_eq!(
        Address::parse("unix:///s?db=1&x=2"),
        Err(AddressError::Parameter { number: 2 })
    );
}

#[test]
fn sentinels_know_a_service() {
    let text = "redis-sentinel://bob:p%2Cw@a,[::1]:7000,b:26380/my%2Fmaster/3";
    let address = Address::parse(text).unwrap();
    let service = address.service().unwrap();
    let at = |host: &str, port| HostPort {
        host: host.to_owned(),
        port,
    };
    assert_eq!(
        (service.sentinels, service.name),
        (
            &[at("a", 26379), at("::1", 7000), at("b", 26380)][..],
            "my/master"
        )
    );
    assert_eq!((address.database(), address.user()), (3, Some("bob")));
    assert_eq!(address.password().map(Secret::reveal), Some("p,w"));
    assert!(!address.is_tls());
    assert_eq!(
        address.masked(),
        "redis-sentinel://bob:***@a:26379,[::1]:7000,b:26380/my%2Fmaster/3"
    );
    let master = address.clone().at("10.0.0.1".to_owned(), 6380);
    assert_eq!(master.masked(), "redis://bob:***@10.0.0.1:6380/3");
    assert_eq!(master.service(), None);
    let sentinel = address.bare_at(&at("a", 26379));
    assert_eq!(sentinel.masked(), "redis://a:26379/0");
    assert!(sentinel.greeting(None).is_empty());

    let address = Address::parse("rediss-sentinel://h/m?db=2&user=u").unwrap();
    assert!(address.is_tls() && address.bare_at(&at("h", 1)).is_tls());
    assert_eq!(address.masked(), "rediss-sentinel://u@h:26379/m/2");
    assert_eq!(address.at("r".to_owned(), 6379).masked(), "rediss://u@r:6379/2");
}

#[test]
fn each_mistake_has_its_error() {
    let listed = |number, problem| AddressError::Listed {
        number,
        problem: Box::new(problem),
    };
    let cases = [
        ("", AddressError::NoScheme),
        ("127.0.0.1:6379", AddressError::NoScheme),
        ("http://h", AddressError::UnknownScheme),
        ("redissss://h", AddressError::UnknownScheme),
        ("rediss://", AddressError::NoHost),
        ("redis://", AddressError::NoHost),
        ("redis:///0", AddressError::NoHost),
        ("redis://:p@:6379", AddressError::NoHost),
        ("redis://a b", AddressError::Host),
        ("redis://h:0", AddressError::Port),
        ("redis://h:+1", AddressError::Port),
        ("redis://h:65536", AddressError::Port),
        ("redis://h:", AddressError::Port),
        ("redis://h/x", AddressError::Database),
        ("redis://h/-1", AddressError::Database),
        ("redis://h/2147483648", AddressError::Database),
        ("redis://%zz@h", AddressError::Percent),
        ("redis://%ff@h", AddressError::Percent),
        ("redis://h%4", AddressError::Percent),
        ("redis-sentinel://a,b", AddressError::NoService),
        ("redis-sentinel://a,b/", AddressError::NoService),
        ("redis-sentinel://a,b//1", AddressError::NoService),
        ("redis-sentinel://a,b/m/x", AddressError::Database),
        ("redis-sentinel:///m", listed(1, AddressError::NoHost)),
        ("redis-sentinel://a,,b/m", listed(2, AddressError::NoHost)),
        ("redis-sentinel://a,b:0/m", listed(2, AddressError::Port)),
        ("redis-sentinel://a,b,[x]/m", listed(3, AddressError::Brackets)),
        ("redis-sentinels://a/m", AddressError::UnknownScheme),
    ];
    for (text, expected) in cases {
        assert_eq!(Address::parse(text), Err(expected), "{text}");
    }
}

#[test]
fn no_way_of_showing_it_shows_the_password() {
    let texts = [
        "redis://bob:hunter2@h:1/2",
        "redis://:hunter2@[::1]",
        "rediss://:hunter2@h",
        "unix:///s?pass=hunter2",
        "redis-sentinel://:hunter2@a,b/m",
        "redis-sentinel://:hunter2@a,b:x/m",
        "redis-sentinel://:hunter2@a,b/",
        // Slips that leave the password where another part is expected.
        "redis://:hunter2/h@h:1",
        "redis://:hunter2",
        "redis://hunter2:hunter2",
        "hunter2://h",
        "redis://h/hunter2",
        "redis://h?hunter2=1",
    ];
    for text in texts {
        let shown = match Address::parse(text) {
            Ok(address) => format!(
                "{address} {address:?} {} {:?}",
                address.masked(),
                address.password
            ),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains("hunter2"), "{text} shows {shown}");
    }
    assert_eq!(
        Address::parse(texts[0]).unwrap().masked(),
        "redis://bob:***@h:1/2"
    );
}

#[test]
fn without_a_password_what_is_shown_reads_back() {
    for text in [
        "redis://a%40b@h:1/2",
        "rediss://[::1]:6379/0",
        "redis://[::1]:6379/0",
        "redis-sentinel://a:1,[::1]:2/my%2Cmaster/4",
        "redis+unix:///a%3Fb?db=3&user=x%26",
    ] {
        assert_eq!(Address::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn a_cluster_is_named_by_some_of_its_nodes() {
    let address = Address::parse("rediss-cluster://bob:pw@a,[::1]:7001,c:2").unwrap();
    assert!(address.is_tls());
    let nodes = address.cluster().unwrap();
    let shown: Vec<String> = nodes.iter().map(Address::masked).collect();
    assert_eq!(
        shown,
        [
            "rediss://bob:***@a:6379/0",
            "rediss://bob:***@[::1]:7001/0",
            "rediss://bob:***@c:2/0"
        ]
    );
    assert_eq!(address.masked(), "rediss-cluster://bob:***@a:6379,[::1]:7001,c:2");
    assert_eq!(Address::parse("redis-cluster://a/0").unwrap().database(), 0);
    assert_eq!(Address::parse("redis://a").unwrap().cluster(), None);
}

#[test]
fn a_cluster_has_one_database() {
    for text in ["redis-cluster://a/1", "redis-cluster://a,b?db=3"] {
        assert_eq!(Address::parse(text), Err(AddressError::ClusterDatabase), "{text}");
    }
    let problem = Address::parse("redis-cluster://a,b:x").unwrap_err();
    assert_eq!(
        problem.to_string(),
        "host 2: the port must be a number from 1 to 65535"
    );
}

#[test]
fn two_addresses_of_the_same_keys_are_told_whoever_comes() {
    let same = |one: &str, other: &str| {
        let parse = |text| Address::parse(text).unwrap();
        parse(one).is_same_place(&parse(other))
    };
    assert!(same("redis://h", "rediss://user:pass@H:6379/0"));
    assert!(same("redis+unix:///s?db=2", "unix:///s?db=2&pass=x"));
    assert!(!same("redis://h/1", "redis://h/2"));
    assert!(!same("redis://h:1", "redis://h:2"));
    assert!(!same("redis://h", "redis://i"));
    assert!(!same("redis+unix:///s", "redis+unix:///t"));
    assert!(!same("redis+unix:///s", "redis://h"));
    assert!(same(
        "redis-sentinel://a,b/main",
        "redis-sentinel://c,B:26379/main"
    ));
    assert!(!same("redis-sentinel://a,b/main", "redis-sentinel://a,b/other"));
    assert!(!same("redis-sentinel://a/main", "redis-sentinel://b/main"));
    assert!(same("redis-cluster://a,b:7001", "redis-cluster://B:7001,c"));
    assert!(!same("redis-cluster://a,b:7001", "redis-cluster://b,c"));
}
