use super::*;

fn tcp(text: &str) -> (String, u16, u32, Option<String>, Option<String>) {
    let address = Address::parse(text).unwrap();
    let Endpoint::Tcp { host, port } = address.endpoint.clone() else {
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
fn each_mistake_has_its_error() {
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
        "redis+unix:///a%3Fb?db=3&user=x%26",
    ] {
        assert_eq!(Address::parse(text).unwrap().to_string(), text);
    }
}
