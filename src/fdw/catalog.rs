//! What the catalogs say of servers, user mappings and tables.
use pg_redis_cache_core::fdw::options::Given;
use pgrx::pg_sys::{self, Datum, Oid, SysCacheIdentifier};

use crate::nodes;

/// A foreign server.
pub struct Server {
    pub name: String,
    /// The wrapper's options, and the server's behind them.
    pub given: Vec<Given>,
    /// Whether its options were judged when they were set, or its owner is a superuser.
    pub is_trusted: bool,
}

/// A user mapping.
pub struct UserMapping {
    pub oid: Oid,
    pub given: Vec<Given>,
}

/// The server with that Oid; raises if there is none.
pub fn server(oid: Oid) -> Server {
    // SAFETY: catalog look-ups within a transaction.
    unsafe {
        let server = pg_sys::GetForeignServer(oid);
        let wrapper = pg_sys::GetForeignDataWrapper((*server).fdwid);
        let mut given = options((*wrapper).options);
        given.extend(options((*server).options));
        Server {
            name: String::from_utf8_lossy(nodes::bytes((*server).servername)).into_owned(),
            given,
            is_trusted: (*wrapper).fdwvalidator != pg_sys::InvalidOid
                || pg_sys::superuser_arg((*server).owner),
        }
    }
}

/// The server of a foreign table, and the options of wrapper, server and table, in this order.
pub fn table(relid: Oid) -> (Oid, Server, Vec<Given>) {
    // SAFETY: catalog look-ups within a transaction.
    unsafe {
        let table = pg_sys::GetForeignTable(relid);
        let oid = (*table).serverid;
        let server = server(oid);
        let mut given = server.given.clone();
        given.extend(options((*table).options));
        (oid, server, given)
    }
}

/// The user mapping of a user, or of PUBLIC, if there is one (as foreign.c, GetUserMapping, which raises if not).
pub fn user_mapping(user: Oid, server: Oid) -> Option<UserMapping> {
    [user, pg_sys::InvalidOid].into_iter().find_map(|user| {
        let cache = SysCacheIdentifier::USERMAPPINGUSERSERVER as i32;
        // SAFETY: a system cache look-up; the tuple is released after its attributes have been copied.
        unsafe {
            let tuple = pg_sys::SearchSysCache2(cache, Datum::from(user), Datum::from(server));
            if tuple.is_null() {
                return None;
            }
            let mut null = false;
            let attribute = |number: u32, null: &mut bool| {
                pg_sys::SysCacheGetAttr(cache, tuple, number as i16, &raw mut *null)
            };
            let oid = attribute(pg_sys::Anum_pg_user_mapping_oid, &mut null);
            let given = attribute(pg_sys::Anum_pg_user_mapping_umoptions, &mut null);
            let given = if null {
                Vec::new()
            } else {
                options(pg_sys::untransformRelOptions(given))
            };
            pg_sys::ReleaseSysCache(tuple);
            Some(UserMapping {
                oid: Oid::from(oid.value() as u32),
                given,
            })
        }
    })
}

/// A list of `DefElem`s as names and values.
///
/// # Safety
/// `list` must be null or such a list.
pub unsafe fn options(list: *mut pg_sys::List) -> Vec<Given> {
    // SAFETY: as the caller promises.
    unsafe {
        nodes::items::<pg_sys::DefElem>(list)
            .map(|option| {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                let name = text(nodes::bytes((*option).defname));
                (name, text(nodes::bytes(pg_sys::defGetString(option))))
            })
            .collect()
    }
}
