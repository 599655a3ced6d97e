//! Whether a scan looks rows up by their key.
//!
//! It does where the node's own index condition or filter restricts every key column by the equality operator
//! of the column type's default btree class, to something that does not depend on the scanned row: a constant,
//! a parameter, a join key, an array of those (`IN`, `= ANY($1)`).
use std::cell::RefCell;

use pgrx::pg_sys::{self, AttrNumber, NodeTag, Oid};
use rustc_hash::FxHashMap;

use super::relations::Placed;
use crate::nodes;

/// Whether the conditions of a scan node restrict every key column of a mapping.
///
/// # Safety
/// `plan` must be the plan of a Seq, Index, Bitmap heap or Tid scan of the relation that `placed` is for.
pub unsafe fn restricts_key(plan: *mut pg_sys::Plan, placed: &Placed) -> bool {
    // SAFETY: the casts follow the tags.
    unsafe {
        let conditions = match (*plan).type_ {
            NodeTag::T_IndexScan => (*plan.cast::<pg_sys::IndexScan>()).indexqualorig,
            NodeTag::T_BitmapHeapScan => (*plan.cast::<pg_sys::BitmapHeapScan>()).bitmapqualorig,
            _ => std::ptr::null_mut(),
        };
        let relation = (*plan.cast::<pg_sys::Scan>()).scanrelid as i32;
        placed.key_attributes.iter().all(|attribute| {
            nodes::items::<pg_sys::Node>(conditions)
                .chain(nodes::items::<pg_sys::Node>((*plan).qual))
                .any(|condition| restricts(condition, relation, *attribute))
        })
    }
}

unsafe fn restricts(condition: *mut pg_sys::Node, relation: i32, attribute: AttrNumber) -> bool {
    // SAFETY: the casts follow the tags.
    unsafe {
        match (*condition).type_ {
            NodeTag::T_OpExpr => {
                let expression = condition.cast::<pg_sys::OpExpr>();
                let mut sides = nodes::items::<pg_sys::Node>((*expression).args);
                let (Some(left), Some(right)) = (sides.next(), sides.next()) else {
                    return false;
                };
                (is_column(left, relation, attribute, (*expression).opno) && is_given(right))
                    || (is_column(right, relation, attribute, (*expression).opno) && is_given(left))
            }
            NodeTag::T_ScalarArrayOpExpr => {
                let expression = condition.cast::<pg_sys::ScalarArrayOpExpr>();
                let mut sides = nodes::items::<pg_sys::Node>((*expression).args);
                let (Some(left), Some(right)) = (sides.next(), sides.next()) else {
                    return false;
                };
                (*expression).useOr
                    && is_column(left, relation, attribute, (*expression).opno)
                    && is_given(right)
            }
            _ => false,
        }
    }
}

unsafe fn is_column(node: *mut pg_sys::Node, relation: i32, attribute: AttrNumber, operator: Oid) -> bool {
    // SAFETY: the casts follow the tags.
    unsafe {
        let mut node = node;
        while nodes::is_a(node, NodeTag::T_RelabelType) {
            node = (*node.cast::<pg_sys::RelabelType>()).arg.cast();
        }
        if !nodes::is_a(node, NodeTag::T_Var) {
            return false;
        }
        let column = node.cast::<pg_sys::Var>();
        (*column).varno == relation
            && (*column).varattno == attribute
            && is_key_equality(operator, (*column).vartype)
    }
}

thread_local! {
    /// What has been found out, by operator and type: these do not change as long as both exist.
    static KEY_EQUALITY: RefCell<FxHashMap<(u32, u32), bool>> = RefCell::new(FxHashMap::default());
}

/// Whether an operator is equality in the default btree family of a type; it may compare with a related type.
unsafe fn is_key_equality(operator: Oid, type_id: Oid) -> bool {
    let pair = (operator.to_u32(), type_id.to_u32());
    if let Some(known) = KEY_EQUALITY.with_borrow(|known| known.get(&pair).copied()) {
        return known;
    }
    // SAFETY: look-ups in the type cache and the system caches.
    let equality = unsafe {
        let entry = pg_sys::lookup_type_cache(type_id, pg_sys::TYPECACHE_BTREE_OPFAMILY as i32);
        let family = (*entry).btree_opf;
        family != pg_sys::InvalidOid
            && pg_sys::get_op_opfamily_strategy(operator, family) == pg_sys::BTEqualStrategyNumber as i32
    };
    KEY_EQUALITY.with_borrow_mut(|known| known.insert(pair, equality));
    equality
}

/// Whether an expression is the same for every row of the scan.
unsafe fn is_given(node: *mut pg_sys::Node) -> bool {
    // SAFETY: a walk over an expression tree.
    unsafe {
        nodes::is_a(node, NodeTag::T_Const)
            || nodes::is_a(node, NodeTag::T_Param)
            || !pg_sys::contain_var_clause(node)
    }
}
