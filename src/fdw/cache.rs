//! The connections that a backend keeps: one for each server, user mapping and database.
//!
//! A kept connection is used again unless it is broken or closed, its server, user mapping or wrapper has been altered
//! since, or the settings that it was made by have changed. An abort drops those on which something is on its way.
use std::{
    cell::{Cell, RefCell},
    ffi::c_void,
};

use pg_redis_cache_core::{
    config::DEFAULT_SERVER,
    fdw::options::{self, Given},
    redis::{Address, Secret, Verify},
};
use pgrx::{
    PgSqlErrorCode, pg_guard,
    pg_sys::{self, Datum, Oid, SysCacheIdentifier},
};

use super::{
    catalog::{self, Server},
    connection::Credentials,
    error,
    line::{Line, Route},
    mapped::Mapped,
    table::Table,
};
use crate::{gucs, sql::raise, tls::TlsFiles, worker};

#[derive(Clone, PartialEq, Eq)]
struct Key {
    server: Oid,
    /// Invalid where the user has none.
    user_mapping: Oid,
    /// None: that of the address.
    database: Option<u32>,
    /// Which server of the settings it is, where the foreign server has no address of its own.
    of_settings: String,
}

struct Kept {
    key: Key,
    route: Route,
    server_hash: u32,
    user_mapping_hash: u32,
    /// The settings that it was made by, where the server has no address of its own.
    settings: Option<(String, String)>,
    stale: bool,
}

thread_local! {
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// A line to a foreign server for a user: over the connection that is kept, or a new one. Where it has no address of
/// its own it is the one of the setting `url`.
pub fn line(server: Oid, user: Oid, database: Option<u32>) -> Line {
    line_to(server, user, database, DEFAULT_SERVER)
}

/// A line for a table, see [`line()`]. A table that shows a mapping is where that has its keys.
pub fn line_of(table: &Table, user: Oid) -> Line {
    let mapping = table.mapping.as_ref();
    let of_settings = mapping.map_or(DEFAULT_SERVER, Mapped::server);
    line_to(table.server, user, table.options.database, of_settings)
}

fn line_to(server: Oid, user: Oid, database: Option<u32>, of_settings: &str) -> Line {
    if !REGISTERED.replace(true) {
        register();
    }
    let user_mapping = catalog::user_mapping(user, server);
    let key = Key {
        server,
        user_mapping: user_mapping
            .as_ref()
            .map_or(pg_sys::InvalidOid, |mapping| mapping.oid),
        database,
        of_settings: of_settings.to_owned(),
    };
    let kept = KEPT.with_borrow_mut(|kept| {
        kept.retain(|kept| kept.key != key || kept.can_be_used());
        let found = kept.iter().find(|kept| kept.key == key);
        found.map(|kept| kept.route.clone())
    });
    let kept = kept.filter(|route| {
        let leads = route.leads_to_master();
        if !leads {
            KEPT.with_borrow_mut(|kept| kept.retain(|kept| kept.key != key));
        }
        leads
    });
    let route = kept.unwrap_or_else(|| {
        let given = user_mapping.map(|mapping| mapping.given).unwrap_or_default();
        connect(key, &catalog::server(server), &given)
    });
    route.line()
}

impl Kept {
    fn can_be_used(&self) -> bool {
        !self.stale
            && self
                .settings
                .as_ref()
                .is_none_or(|made| *made == settings(&self.key.of_settings))
            && self.route.is_usable()
    }
}

/// What tells that the address of the settings has changed.
fn settings(server: &str) -> (String, String) {
    let url = gucs::servers::url_of(server).unwrap_or_default();
    (url, gucs::text(&gucs::PASSWORD_FILE))
}

fn connect(key: Key, server: &Server, of_user: &[Given]) -> Route {
    let given: Vec<&Given> = server.given.iter().chain(of_user).collect();
    let last = |name: &str| {
        let option = given.iter().rev().find(|(other, _)| other == name);
        option.map(|(_, value)| value.clone())
    };
    let own = options::addresses(&server.given).unwrap_or_else(|problem| error::option(&problem));
    let has_own = own.is_some();
    if !server.is_trusted && (!has_own || options::FILES.iter().any(|name| last(name).is_some())) {
        error::untrusted(&server.name);
    }
    let (addresses, of_settings) = match own {
        Some(addresses) => (addresses, None),
        None => {
            let (address, password) = configured(&key.of_settings);
            (vec![address], password)
        }
    };
    let user = last("username").filter(|user| !user.is_empty());
    let password = last("password")
        .filter(|password| !password.is_empty())
        .map(Secret::new);
    let addresses: Vec<Address> = addresses
        .into_iter()
        .map(|address| address.with(user.clone(), password.clone(), key.database))
        .collect();
    let of_cluster = addresses.iter().any(|address| address.cluster().is_some());
    let nodes = |address: Address| address.cluster().unwrap_or_else(|| vec![address]);
    let addresses: Vec<Address> = addresses.into_iter().flat_map(nodes).collect();
    let wants_tls = addresses.iter().any(Address::is_tls);
    let tls = wants_tls.then(|| tls_files(has_own, last).load());
    let made_by = (!has_own).then(|| settings(&key.of_settings));
    // The password file is for the settings' own user.
    let clustered = if of_cluster {
        Some(true)
    } else {
        last("cluster_mode").map(|mode| options::is_true(&mode))
    };
    let credentials = Credentials {
        password: password.or(of_settings),
        tls,
    };
    let route = Route::open(addresses, &credentials, clustered);
    // SAFETY: system cache hashes of plain Oids.
    let hash = |cache: SysCacheIdentifier::Type, oid: Oid| unsafe {
        let none = Datum::from(0usize);
        pg_sys::GetSysCacheHashValue(cache as i32, Datum::from(oid), none, none, none)
    };
    let kept = Kept {
        route: route.clone(),
        server_hash: hash(SysCacheIdentifier::FOREIGNSERVEROID, key.server),
        user_mapping_hash: hash(SysCacheIdentifier::USERMAPPINGOID, key.user_mapping),
        key,
        settings: made_by,
        stale: false,
    };
    KEPT.with_borrow_mut(|all| all.push(kept));
    route
}

/// Which files a server's TLS is set up with: what its options say goes before the settings. Of these a server with an
/// address of its own has the authorities alone: whom the cache is known as is not for others to use.
fn tls_files(has_own_address: bool, option: impl Fn(&str) -> Option<String>) -> TlsFiles {
    let settings = TlsFiles::configured();
    let others = if has_own_address {
        TlsFiles {
            authorities: settings.authorities,
            ..TlsFiles::default()
        }
    } else {
        settings
    };
    TlsFiles {
        authorities: option("tls_ca_file").unwrap_or(others.authorities),
        certificate: option("tls_cert_file").unwrap_or(others.certificate),
        key: option("tls_key_file").unwrap_or(others.key),
        verify: option("tls_verify")
            .and_then(|level| Verify::named(&level))
            .unwrap_or(others.verify),
    }
}

/// The address of the settings, for servers that have none of their own.
fn configured(server: &str) -> (Address, Option<Secret>) {
    worker::configured_address(server).unwrap_or_else(|problem| {
        raise(
            PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR,
            "the address of Redis cannot be used",
            problem,
            "Give the server the option host_port or url, or see the settings pg_redis_cache.url and pg_redis_cache.password_file.",
        )
    })
}

fn register() {
    // SAFETY: once in a process; the callbacks are guarded and raise nothing.
    unsafe {
        for cache in [
            SysCacheIdentifier::FOREIGNSERVEROID,
            SysCacheIdentifier::USERMAPPINGOID,
            SysCacheIdentifier::FOREIGNDATAWRAPPEROID,
        ] {
            pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(altered), Datum::from(0usize));
        }
        pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_ended), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn altered(_argument: Datum, cache: i32, hash: u32) {
    KEPT.with(|kept| {
        // While it is borrowed nothing of the catalogs is read, so no message comes.
        let Ok(mut kept) = kept.try_borrow_mut() else {
            return;
        };
        for kept in kept.iter_mut() {
            let meant = match cache as SysCacheIdentifier::Type {
                SysCacheIdentifier::FOREIGNSERVEROID => hash == kept.server_hash,
                SysCacheIdentifier::USERMAPPINGOID => hash == kept.user_mapping_hash,
                _ => true,
            };
            kept.stale |= meant || hash == 0;
        }
    });
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_ended(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    if matches!(
        event,
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PARALLEL_ABORT
    ) {
        drop_busy();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_ended(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        drop_busy();
    }
}

/// What was cut short is not used again; a cursor of an outer transaction keeps its own.
fn drop_busy() {
    KEPT.with(|kept| {
        if let Ok(mut kept) = kept.try_borrow_mut() {
            kept.retain(|kept| kept.route.drop_busy());
        }
    });
}
