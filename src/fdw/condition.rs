//! The pushed conditions of a scan, and the values of their operands.
use pg_redis_cache_core::fdw::{Comparison, Operand, Role, Shape, Target};
use pgrx::pg_sys::{self, Datum};

use super::{private::Planned, table::Table, values::Converter};

/// A condition whose operand has to be evaluated.
pub struct Condition {
    pub shape: Shape,
    /// The column's place.
    pub place: usize,
    /// Whether the operand comes from another table.
    pub joins: bool,
    operand: *mut pg_sys::ExprState,
    /// Of the operand's type, or of its array's elements.
    converter: Converter,
    /// What deconstruct_array asks of the elements' type.
    elements: Option<ElementType>,
}

struct ElementType {
    oid: pg_sys::Oid,
    length: i16,
    by_value: bool,
    alignment: std::ffi::c_char,
}

/// What a column's conditions are about.
pub fn target(role: &Role) -> Option<Target> {
    match role {
        Role::Key => Some(Target::Key),
        Role::Field | Role::Member | Role::Id => Some(Target::Name),
        Role::Score => Some(Target::Score),
        Role::Index => Some(Target::Index),
        Role::Part(part) => Some(Target::Part(*part)),
        Role::Value | Role::Element | Role::Named(_) | Role::Property | Role::Ttl => None,
    }
}

impl Condition {
    /// The operand's expression is made ready for the node; none if the table has no such condition (any more).
    ///
    /// # Safety
    /// `operand` must be an expression of the plan of `node`, which is being started.
    pub unsafe fn new(
        table: &Table,
        planned: Planned,
        operand: *mut pg_sys::Expr,
        node: *mut pg_sys::PlanState,
    ) -> Option<Self> {
        let Planned {
            place,
            comparison,
            joins,
        } = planned;
        let shape = table.shape(place, comparison)?;
        // SAFETY: an expression of the node's plan; the node is being started.
        unsafe {
            let mut type_id = pg_sys::exprType(operand.cast());
            let elements = (shape.comparison == Comparison::Any).then(|| {
                type_id = pg_sys::get_base_element_type(type_id);
                ElementType::of(type_id)
            });
            Some(Self {
                shape,
                place,
                joins,
                operand: pg_sys::ExecInitExpr(operand, node),
                converter: Converter::new("operand".to_string(), type_id, -1, table.bytes()),
                elements,
            })
        }
    }

    /// The condition as part of a look-up.
    pub fn looked_up(&self, operand: Operand) -> (usize, Comparison, Operand) {
        (self.place, self.shape.comparison, operand)
    }

    /// The operand's value.
    ///
    /// # Safety
    /// `context` must be the node's.
    pub unsafe fn evaluate(&mut self, context: *mut pg_sys::ExprContext) -> Operand {
        // SAFETY: as `Scan::operands`.
        unsafe {
            let mut null = false;
            let value = pg_sys::ExecEvalExpr(self.operand, context, &raw mut null);
            match &self.elements {
                _ if null => Operand::Null,
                None => Operand::One(self.converter.write(value)),
                Some(elements) => {
                    let values = elements.of_array(value);
                    Operand::Many(
                        values
                            .into_iter()
                            .map(|value| self.converter.write(value))
                            .collect(),
                    )
                }
            }
        }
    }
}

impl ElementType {
    unsafe fn of(oid: pg_sys::Oid) -> Self {
        let (mut length, mut by_value, mut alignment) = (0, false, 0);
        // SAFETY: a catalog look-up.
        unsafe {
            pg_sys::get_typlenbyvalalign(oid, &raw mut length, &raw mut by_value, &raw mut alignment);
        }
        Self {
            oid,
            length,
            by_value,
            alignment,
        }
    }

    /// An array's elements that are not NULL: no row equals that.
    unsafe fn of_array(&self, array: Datum) -> Vec<Datum> {
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: an array of these elements.
        unsafe {
            let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            pg_sys::deconstruct_array(
                array,
                self.oid,
                self.length.into(),
                self.by_value,
                self.alignment,
                &raw mut values,
                &raw mut nulls,
                &raw mut count,
            );
            (0..count as usize)
                .filter(|place| !*nulls.add(*place))
                .map(|place| *values.add(place))
                .collect()
        }
    }
}
