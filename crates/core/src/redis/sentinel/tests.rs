use super::*;
use crate::redis::Address;

fn at(port: u16) -> HostPort {
    HostPort {
        host: "h".to_owned(),
        port,
    }
}

fn answer(bytes: &[u8]) -> Value {
    ::redis::parse_redis_value(bytes).unwrap()
}

#[test]
fn an_answer_names_a_master_or_says_why_not() {
    let named = answer(b"*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6380\r\n");
    let master = HostPort {
        host: "127.0.0.1".to_owned(),
        port: 6380,
    };
    assert_eq!(master_in(&named), Ok(master));
    assert_eq!(master_in(&answer(b"*-1\r\n")), Err(Cause::UnknownService));
    let refused = answer(b"-NOAUTH Authentication required.\r\n");
    assert!(wants_credentials(&refused) && !wants_credentials(&named));
    assert_eq!(master_in(&refused).unwrap_err().kind(), Kind::Auth);
    for bytes in [
        b"+OK\r\n".as_slice(),
        b"*0\r\n",
        b"*1\r\n$1\r\nh\r\n",
        b"*2\r\n$0\r\n\r\n$4\r\n6380\r\n",
        b"*2\r\n$1\r\nh\r\n$1\r\n0\r\n",
        b"*2\r\n$1\r\nh\r\n$5\r\n65536\r\n",
        b"*2\r\n*0\r\n$4\r\n6380\r\n",
    ] {
        assert_eq!(master_in(&answer(bytes)).unwrap_err().kind(), Kind::Protocol);
    }
}

#[test]
fn the_configuration_is_told_by_its_epoch() {
    let fields = b"*4\r\n$4\r\nname\r\n$1\r\nm\r\n$12\r\nconfig-epoch\r\n$2\r\n17\r\n";
    assert_eq!(epoch_in(&answer(fields)), Some(17));
    assert_eq!(epoch_in(&answer(b"-NOPERM no\r\n")), None);
    assert_eq!(
        epoch_in(&answer(b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n")),
        None
    );
}

#[test]
fn the_newest_configuration_counts_then_the_majority_then_what_is_known() {
    let master_of = |said: &[(u16, u64)], known: u16| {
        let all = said.iter().enumerate().map(|(sentinel, (port, epoch))| Said {
            sentinel,
            master: at(*port),
            epoch: *epoch,
        });
        best(all.collect(), &at(known)).map(|said| (said.sentinel, said.master.port))
    };
    assert_eq!(master_of(&[], 1), None);
    // A sentinel that was cut off with the old master, and two that were not.
    assert_eq!(master_of(&[(1, 4), (2, 5), (2, 5)], 1).unwrap().1, 2);
    // The first that knows of a failover.
    assert_eq!(master_of(&[(1, 4), (1, 4), (2, 5)], 1), Some((2, 2)));
    // They do not tell their epochs.
    assert_eq!(master_of(&[(1, 0), (2, 0), (2, 0)], 1).unwrap().1, 2);
    assert_eq!(master_of(&[(2, 0), (1, 0)], 1), Some((1, 1)));
}

#[test]
fn who_fails_alike_is_told_together() {
    let address = Address::parse("redis-sentinel://h:1,h:2,h:3/main").unwrap();
    let service = address.service().unwrap();
    let refused = || Cause::of_io(&std::io::ErrorKind::ConnectionRefused.into());
    let mut inquiry = Inquiry::default();
    inquiry.failed(&at(1), refused());
    inquiry.failed(&at(2), Cause::UnknownService);
    inquiry.failed(&at(3), refused());
    let cause = inquiry.end(&service);
    assert_eq!(cause.kind(), Kind::Rejected);
    assert_eq!(
        cause.to_string(),
        "no sentinel names the master of main: h:1, h:3: connection refused; h:2: it does not know the service"
    );
    assert_eq!(Cause::of_io(&cause.clone().into_io()), cause);
    let mut inquiry = Inquiry::default();
    inquiry.failed(&at(1), refused());
    assert_eq!(inquiry.end(&service).kind(), Kind::Refused);
    assert_eq!(
        Inquiry::share(Duration::from_secs(2), 4),
        Duration::from_millis(500)
    );
}
