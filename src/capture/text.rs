//! The one text of a value, whatever the session's settings.
//!
//! Output functions obey DateStyle, IntervalStyle, TimeZone, extra_float_digits, bytea_output and lc_monetary.
//! While values are turned into text here, these are pinned to ISO, postgres, UTC, shortest-precise, hex and C.
use std::{cell::RefCell, ffi::c_int, thread::LocalKey};

use pgrx::pg_sys::{self, Datum, Oid};
use rustc_hash::FxHashMap;

use super::columns;
use crate::{compat, nodes};

/// A value of more bytes is not turned into text by its type's output function: of some types (bits, arrays of
/// characters) the text is eight times as long, and the function would raise from 1 GB on (MaxAllocSize).
const LARGEST_OUTPUT: usize = 96 * 1024 * 1024;

/// utils/bytea.h
const BYTEA_OUTPUT_HEX: c_int = 1;

/// How a value of a column becomes text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextForm {
    Int2,
    Int4,
    Int8,
    Bool,
    /// The bytes of a varlena are the text: text, varchar, bpchar, json.
    Varlena,
    /// Through the type's output function.
    Output,
}

/// How a value of a column stands in a `json` document: the categories of json.c, `json_categorize_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonForm {
    Text,
    Number,
    Bool,
    /// json and jsonb, embedded as they are.
    Embedded,
    /// Everything that `to_json` treats specially: dates, arrays, composites, types with a cast to json.
    ToJson,
}

/// The settings that a column's text depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pinning {
    /// Any of those that are plain variables.
    pub variables: bool,
    /// lc_monetary, which needs guc.c.
    pub monetary: bool,
}

impl Pinning {
    /// All of them.
    pub const ALL: Self = Self {
        variables: true,
        monetary: true,
    };
}

/// Restores the session's settings when it goes.
pub struct Pinned {
    saved: Option<Saved>,
    nest_level: Option<c_int>,
}

struct Saved {
    date_style: c_int,
    date_order: c_int,
    interval_style: c_int,
    float_digits: c_int,
    bytea: c_int,
    timezone: *mut pg_sys::pg_tz,
}

impl Pinned {
    /// Pins what is needed.
    pub fn new(pinning: Pinning) -> Self {
        let saved = pinning.variables.then(|| {
            // SAFETY: plain variables of this process, and a time zone that is cached for its life.
            unsafe {
                let saved = Saved {
                    date_style: pg_sys::DateStyle,
                    date_order: pg_sys::DateOrder,
                    interval_style: pg_sys::IntervalStyle,
                    float_digits: pg_sys::extra_float_digits,
                    bytea: compat::bytea_output,
                    timezone: pg_sys::session_timezone,
                };
                pg_sys::DateStyle = pg_sys::USE_ISO_DATES as c_int;
                pg_sys::DateOrder = pg_sys::DATEORDER_MDY as c_int;
                pg_sys::IntervalStyle = pg_sys::INTSTYLE_POSTGRES as c_int;
                pg_sys::extra_float_digits = 1;
                compat::bytea_output = BYTEA_OUTPUT_HEX;
                pg_sys::session_timezone = pg_sys::pg_tzset(c"UTC".as_ptr());
                saved
            }
        });
        let nest_level = pinning.monetary.then(|| {
            // SAFETY: as a function with a SET clause does (fmgr.c, fmgr_security_definer).
            unsafe {
                let level = pg_sys::NewGUCNestLevel();
                pg_sys::set_config_option(
                    c"lc_monetary".as_ptr(),
                    c"C".as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
                level
            }
        });
        Self { saved, nest_level }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: puts back what `new` found.
        unsafe {
            if let Some(saved) = &self.saved {
                pg_sys::DateStyle = saved.date_style;
                pg_sys::DateOrder = saved.date_order;
                pg_sys::IntervalStyle = saved.interval_style;
                pg_sys::extra_float_digits = saved.float_digits;
                compat::bytea_output = saved.bytea;
                pg_sys::session_timezone = saved.timezone;
            }
            if let Some(level) = self.nest_level {
                pg_sys::AtEOXact_GUC(false, level);
            }
        }
    }
}

/// How to turn a column's values into text and into JSON. Lives as long as the process.
pub struct ValueWriter {
    pub text: TextForm,
    pub json: JsonForm,
    pub pinning: Pinning,
    /// Whether a value can be, or contain, a composite one.
    pub holds_rows: bool,
    /// Whether the type is a varlena, whose size can be asked before it is fetched.
    varlena: bool,
    /// Text can be twice as long as the value (bytea).
    output: *mut pg_sys::FmgrInfo,
    to_json: *mut pg_sys::FmgrInfo,
}

impl ValueWriter {
    /// The writer for a type.
    ///
    /// # Safety
    /// Must be called within a transaction, in the process's one thread.
    pub unsafe fn new(type_id: Oid) -> Self {
        // SAFETY: catalog look-ups; the call information is kept in TopMemoryContext.
        unsafe {
            let base = pg_sys::getBaseType(type_id);
            let text = text_form(base);
            let json = json_form(base);
            let mut function = pg_sys::InvalidOid;
            let mut varlena = false;
            pg_sys::getTypeOutputInfo(type_id, &raw mut function, &raw mut varlena);
            let pinned = text == TextForm::Output || json == JsonForm::ToJson;
            Self {
                text,
                json,
                pinning: Pinning {
                    variables: pinned,
                    monetary: pinned && may_hold(base, &|of, _| of == pg_sys::MONEYOID, 0),
                },
                holds_rows: may_hold(base, &|_, kind| kind == pg_sys::TYPTYPE_COMPOSITE, 0),
                varlena,
                output: kept(&OUTPUTS, function, || function_info(function)),
                to_json: if json == JsonForm::ToJson {
                    kept(&TO_JSON, type_id, || to_json_info(type_id))
                } else {
                    std::ptr::null_mut()
                },
            }
        }
    }

    /// The size of a value before it is fetched and turned into text, an upper bound of its text's length for
    /// the types whose text can be long.
    ///
    /// # Safety
    /// `datum` must be a value of the column's type.
    pub unsafe fn size(&self, datum: Datum) -> usize {
        if !self.varlena {
            return 64;
        }
        // SAFETY: a varlena; toast_raw_datum_size reads only its header.
        let raw = unsafe {
            if is_plain(datum) {
                pgrx::varlena::varsize_any(datum.cast_mut_ptr())
            } else {
                pg_sys::toast_raw_datum_size(datum)
            }
        };
        if self.text == TextForm::Output {
            if raw > LARGEST_OUTPUT { usize::MAX } else { raw * 2 }
        } else {
            raw
        }
    }

    /// Appends the text of a value.
    ///
    /// # Safety
    /// `datum` must be a value of the column's type; the settings must be pinned; memory is taken from the
    /// current context.
    pub unsafe fn write_text(&self, datum: Datum, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        // SAFETY: the datum is of the column's type.
        unsafe {
            match self.text {
                TextForm::Int2 => {
                    out.extend_from_slice(number.format(datum.value() as i16).as_bytes());
                }
                TextForm::Int4 => out.extend_from_slice(number.format(datum.value() as i32).as_bytes()),
                TextForm::Int8 => out.extend_from_slice(number.format(datum.value() as i64).as_bytes()),
                TextForm::Bool => out.push(if datum.value() & 0xff != 0 { b't' } else { b'f' }),
                TextForm::Varlena => append_varlena(datum, out),
                TextForm::Output => {
                    let text = pg_sys::OutputFunctionCall(self.output, datum);
                    out.extend_from_slice(nodes::bytes(text));
                }
            }
        }
    }

    /// Appends the value as `to_json` writes it, for columns of [`JsonForm::ToJson`].
    ///
    /// # Safety
    /// As [`Self::write_text`].
    pub unsafe fn write_to_json(&self, datum: Datum, out: &mut Vec<u8>) {
        // SAFETY: to_json takes its argument's type from the call information.
        unsafe {
            let json = pg_sys::FunctionCall1Coll(self.to_json, pg_sys::InvalidOid, datum);
            append_varlena(json, out);
        }
    }
}

unsafe fn append_varlena(datum: Datum, out: &mut Vec<u8>) {
    // SAFETY: a varlena; pg_detoast_datum_packed copies only what is compressed or stored elsewhere.
    unsafe {
        let value = if is_plain(datum) {
            datum.cast_mut_ptr()
        } else {
            pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr())
        };
        out.extend_from_slice(pgrx::varlena_to_byte_slice(value));
    }
}

/// Whether a varlena is neither compressed nor stored elsewhere: its bytes can be read where they are.
unsafe fn is_plain(datum: Datum) -> bool {
    use pgrx::varlena::{varatt_is_1b, varatt_is_1b_e, varatt_is_4b_u};
    let value = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: reads the header alone.
    unsafe { varatt_is_4b_u(value) || (varatt_is_1b(value) && !varatt_is_1b_e(value)) }
}

thread_local! {
    /// Call information is kept for the life of the process, one for each function or type: a mapped relation is
    /// looked at anew after every invalidation.
    static OUTPUTS: RefCell<FxHashMap<u32, *mut pg_sys::FmgrInfo>> = RefCell::new(FxHashMap::default());
    static TO_JSON: RefCell<FxHashMap<u32, *mut pg_sys::FmgrInfo>> = RefCell::new(FxHashMap::default());
}

/// What is kept under `key`, or what `make` makes for it.
fn kept(
    place: &'static LocalKey<RefCell<FxHashMap<u32, *mut pg_sys::FmgrInfo>>>,
    key: Oid,
    make: impl FnOnce() -> *mut pg_sys::FmgrInfo,
) -> *mut pg_sys::FmgrInfo {
    if let Some(known) = place.with_borrow(|known| known.get(&key.to_u32()).copied()) {
        return known;
    }
    let made = make();
    place.with_borrow_mut(|known| known.insert(key.to_u32(), made));
    made
}

unsafe fn function_info(function: Oid) -> *mut pg_sys::FmgrInfo {
    // SAFETY: the call information outlives the transaction, as the relation cache's does.
    unsafe {
        let info = pg_sys::MemoryContextAllocZero(pg_sys::TopMemoryContext, size_of::<pg_sys::FmgrInfo>())
            .cast::<pg_sys::FmgrInfo>();
        pg_sys::fmgr_info_cxt(function, info, pg_sys::TopMemoryContext);
        info
    }
}

/// `to_json(anyelement)` for one type: get_fn_expr_argtype reads the type from the call's expression.
unsafe fn to_json_info(type_id: Oid) -> *mut pg_sys::FmgrInfo {
    // SAFETY: the nodes are made in TopMemoryContext, where they stay.
    unsafe {
        let info = function_info(pg_sys::Oid::from(pg_sys::F_TO_JSON));
        let previous = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let argument = pg_sys::makeNullConst(type_id, -1, pg_sys::InvalidOid);
        let arguments = pg_sys::lappend(std::ptr::null_mut(), argument.cast());
        let call = pg_sys::makeFuncExpr(
            pg_sys::Oid::from(pg_sys::F_TO_JSON),
            pg_sys::JSONOID,
            arguments,
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        );
        pg_sys::MemoryContextSwitchTo(previous);
        (*info).fn_expr = call.cast();
        info
    }
}

fn text_form(base: Oid) -> TextForm {
    match base {
        pg_sys::INT2OID => TextForm::Int2,
        pg_sys::INT4OID => TextForm::Int4,
        pg_sys::INT8OID => TextForm::Int8,
        pg_sys::BOOLOID => TextForm::Bool,
        pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID | pg_sys::JSONOID => TextForm::Varlena,
        _ => TextForm::Output,
    }
}

unsafe fn json_form(base: Oid) -> JsonForm {
    match base {
        pg_sys::INT2OID
        | pg_sys::INT4OID
        | pg_sys::INT8OID
        | pg_sys::FLOAT4OID
        | pg_sys::FLOAT8OID
        | pg_sys::NUMERICOID => JsonForm::Number,
        pg_sys::BOOLOID => JsonForm::Bool,
        pg_sys::JSONOID | pg_sys::JSONBOID => JsonForm::Embedded,
        pg_sys::DATEOID | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => JsonForm::ToJson,
        // User-defined types can be composites or have a cast to json.
        _ if base.to_u32() >= pg_sys::FirstNormalObjectId => JsonForm::ToJson,
        // SAFETY: a catalog look-up.
        _ if unsafe { pg_sys::get_element_type(base) } != pg_sys::InvalidOid => JsonForm::ToJson,
        _ => JsonForm::Text,
    }
}

/// Whether a value of the type is or can contain one of a type that `wanted` says yes to, by Oid and typtype: itself,
/// in an array or a range of it, or in a composite. What a composite holds is not looked at: it may be anything.
unsafe fn may_hold(base: Oid, wanted: &dyn Fn(Oid, u8) -> bool, depth: u32) -> bool {
    // SAFETY: catalog look-ups.
    unsafe {
        let kind = pg_sys::get_typtype(base) as u8;
        if wanted(base, kind) || kind == pg_sys::TYPTYPE_COMPOSITE || depth == MOST_DEPTH {
            return true;
        }
        let held = held_by(base);
        held != pg_sys::InvalidOid && may_hold(pg_sys::getBaseType(held), wanted, depth + 1)
    }
}

/// How deep types are followed into each other.
const MOST_DEPTH: u32 = 16;

/// The type that an array, a range or a multirange is made of, InvalidOid for any other type.
///
/// # Safety
/// Must be called within a transaction.
pub unsafe fn held_by(base: Oid) -> Oid {
    // SAFETY: catalog look-ups.
    unsafe {
        match pg_sys::get_typtype(base) as u8 {
            pg_sys::TYPTYPE_RANGE => pg_sys::get_range_subtype(base),
            pg_sys::TYPTYPE_MULTIRANGE => pg_sys::get_multirange_range(base),
            _ => pg_sys::get_element_type(base),
        }
    }
}

/// Whether a value of the type is or can contain a row of that relation. Takes no locks on the types that it looks
/// at: this is asked in the middle of DDL on the relation. Of a type that is gone it says yes.
///
/// # Safety
/// Must be called within a transaction.
pub unsafe fn holds_rows_of(type_id: Oid, relation: Oid, depth: u32) -> bool {
    // SAFETY: catalog look-ups.
    unsafe {
        if pg_sys::get_typtype(type_id) == 0 || depth == MOST_DEPTH {
            return true;
        }
        let base = pg_sys::getBaseType(type_id);
        let kind = pg_sys::get_typtype(base) as u8;
        if kind != pg_sys::TYPTYPE_COMPOSITE {
            let held = held_by(base);
            return held != pg_sys::InvalidOid && holds_rows_of(held, relation, depth + 1);
        }
        let of = pg_sys::get_typ_typrelid(base);
        of == relation
            || (1..=columns::last_attribute(of)).any(|number| {
                let column = pg_sys::get_atttype(of, number); // none of a dropped one
                column != pg_sys::InvalidOid && holds_rows_of(column, relation, depth + 1)
            })
    }
}
