//! Redis's bytes as values of a column's type, and back.
//!
//! A `bytea` column has the bytes as they are (but a mapping's has their text). Every other type goes through its own
//! input and output functions; the bytes are UTF-8 then, whatever the server's encoding. Texts are written under the
//! settings of [`Pinned`], so that they do not depend on the session.
use std::{ffi::CString, rc::Rc};

use pgrx::{
    PgSqlErrorCode,
    pg_sys::{self, Datum, Oid},
};

use crate::{
    capture::text::{Pinned, Pinning, ValueWriter},
    nodes,
    sql::raise,
};

/// What Redis has of a bytea value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    AsTheyAre,
    /// Its text, as mappings store it.
    AsText,
}

/// How a column's values are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The bytes of a bytea, or of a domain over it.
    Bytes,
    /// text, and varchar of any length.
    Text,
    /// By the type's input function.
    Input,
}

/// A type's way in and out.
pub struct Converter {
    /// For errors.
    name: Rc<str>,
    type_id: Oid,
    modifier: i32,
    form: Form,
    is_domain: bool,
    /// Whether the server's texts are UTF-8, too.
    is_utf8: bool,
    input: Box<pg_sys::FmgrInfo>,
    parameter: Oid,
    writer: ValueWriter,
}

impl Converter {
    /// For a type, as a column called `name` has it, whose bytea values Redis has in the form `bytes`.
    ///
    /// # Safety
    /// Must be called within a transaction.
    pub unsafe fn new(name: String, type_id: Oid, modifier: i32, bytes: Bytes) -> Self {
        let mut function = pg_sys::InvalidOid;
        let mut parameter = pg_sys::InvalidOid;
        let mut input = Box::<pg_sys::FmgrInfo>::default();
        // SAFETY: catalog look-ups. The call information's own memory is taken from the current context, which
        // outlives the statement's state that holds this.
        let base = unsafe {
            pg_sys::getTypeInputInfo(type_id, &raw mut function, &raw mut parameter);
            pg_sys::fmgr_info(function, &raw mut *input);
            pg_sys::getBaseType(type_id)
        };
        let form = match type_id {
            _ if base == pg_sys::BYTEAOID && bytes == Bytes::AsTheyAre => Form::Bytes,
            pg_sys::TEXTOID => Form::Text,
            pg_sys::VARCHAROID if modifier < 0 => Form::Text,
            _ => Form::Input,
        };
        Self {
            name: name.into(),
            type_id,
            modifier,
            form,
            is_domain: base != type_id,
            // SAFETY: reads a variable.
            is_utf8: unsafe { pg_sys::GetDatabaseEncoding() } == pg_sys::pg_enc::PG_UTF8 as i32,
            input,
            parameter,
            // SAFETY: as the caller promises.
            writer: unsafe { ValueWriter::new(type_id) },
        }
    }

    /// The value of Redis's bytes, in the current memory context; raises what the input function raises.
    ///
    /// # Safety
    /// Must be called within a transaction.
    pub unsafe fn read(&mut self, bytes: &[u8]) -> Datum {
        // SAFETY: the input function belongs to the type.
        unsafe {
            match self.form {
                Form::Bytes => {
                    let value = varlena(bytes);
                    if self.is_domain {
                        let none = std::ptr::null_mut();
                        pg_sys::domain_check(value, false, self.type_id, none, pg_sys::CurrentMemoryContext);
                    }
                    value
                }
                Form::Text => {
                    let text = self.text(bytes);
                    if self.is_utf8 {
                        varlena(text.as_bytes())
                    } else {
                        varlena(nodes::bytes(self.server_text(text)))
                    }
                }
                Form::Input => {
                    let text = self.text(bytes);
                    let text = self.server_text(text);
                    pg_sys::InputFunctionCall(&raw mut *self.input, text, self.parameter, self.modifier)
                }
            }
        }
    }

    /// The settings that the type's texts depend on.
    pub fn pinning(&self) -> Pinning {
        self.writer.pinning
    }

    /// The column's name.
    pub fn name(&self) -> Rc<str> {
        Rc::clone(&self.name)
    }

    /// Bytes that can be a text, or raises.
    fn text<'b>(&self, bytes: &'b [u8]) -> &'b str {
        let problem = if bytes.contains(&0) {
            "It holds a NUL byte."
        } else {
            match std::str::from_utf8(bytes) {
                Ok(text) => return text,
                Err(_) => "It is not valid UTF-8.",
            }
        };
        raise(
            PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
            format!("a value in Redis is no text for column \"{}\"", self.name),
            problem,
            "A column of type bytea takes all bytes as they are.",
        )
    }

    /// A text as a C string in the server's encoding.
    unsafe fn server_text(&self, text: &str) -> *mut std::ffi::c_char {
        // SAFETY: the copy has room for the text and the byte behind it; what text() lets through has no NUL.
        unsafe {
            let copy = pg_sys::palloc(text.len() + 1).cast::<u8>();
            std::ptr::copy_nonoverlapping(text.as_ptr(), copy, text.len());
            copy.add(text.len()).write(0);
            if self.is_utf8 {
                return copy.cast();
            }
            pg_sys::pg_any_to_server(copy.cast(), text.len() as i32, pg_sys::pg_enc::PG_UTF8 as i32)
        }
    }

    /// A value as Redis gets it.
    ///
    /// # Safety
    /// `datum` must be a value of the column's type, and not NULL.
    pub unsafe fn write(&self, datum: Datum) -> Vec<u8> {
        let mut out = Vec::new();
        // SAFETY: as the caller promises.
        unsafe {
            if self.form == Form::Bytes {
                let value = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
                out.extend_from_slice(pgrx::varlena_to_byte_slice(value));
                return out;
            }
            let _pinned = Pinned::new(self.writer.pinning);
            self.writer.write_text(datum, &mut out);
            if !self.is_utf8 {
                let text = CString::new(out).unwrap_or_default();
                let length = text.as_bytes().len() as i32;
                let converted =
                    pg_sys::pg_server_to_any(text.as_ptr(), length, pg_sys::pg_enc::PG_UTF8 as i32);
                out = nodes::bytes(converted).to_vec();
            }
        }
        out
    }
}

/// A varlena with these bytes, in the current memory context.
fn varlena(bytes: &[u8]) -> Datum {
    let size = bytes.len() + pg_sys::VARHDRSZ;
    // SAFETY: the allocation holds header and bytes; palloc raises for more than 1 GB, which Redis's 512 MB are below.
    unsafe {
        let value = pg_sys::palloc(size).cast::<pg_sys::varlena>();
        pgrx::set_varsize_4b(value, size as i32);
        let place = value.cast::<u8>().add(pg_sys::VARHDRSZ);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
        Datum::from(value)
    }
}
