//! The tree that `sqlparser` made of a SELECT: only plain columns and one plain table pass.

use std::collections::HashSet;

use sqlparser::ast::{
    Expr, GroupByExpr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectFlavor, SelectItem, SetExpr,
    TableFactor, WildcardAdditionalOptions,
};
use sqlparser::tokenizer::TokenWithSpan;

use super::{Layout, Relation, Text, clause_at};
use crate::config::Columns;
use crate::config::error::{Clause, Fault, Found, Problem};
use crate::config::names;

/// The schema of a table that is written without one; never search_path.
const DEFAULT_SCHEMA: &str = "public";

/// The parsed SELECT on its way to a [`Relation`].
pub(super) struct Checked<'a> {
    pub(super) text: &'a Text<'a>,
    pub(super) tokens: &'a [TokenWithSpan],
    pub(super) layout: &'a Layout,
    pub(super) table_at: usize,
}

impl Checked<'_> {
    fn at_table(&self, problem: Problem) -> Fault {
        problem.at(self.table_at)
    }

    fn at_start(&self, clause: Clause) -> Fault {
        clause_at(self.text.start, clause)
    }

    fn at_item(&self, item: usize, problem: Problem) -> Fault {
        let token = self
            .layout
            .items
            .get(item)
            .and_then(|index| self.tokens.get(*index));
        problem.at(token.map_or(self.text.start, |t| self.text.at(t.span.start)))
    }

    /// Every field of sqlparser's tree is named here, so that one which a new version adds is looked at.
    pub(super) fn query(&self, query: Query) -> Result<Relation, Fault> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        let SetExpr::Select(select) = *body else {
            return Err(self.at_start(Clause::SetOperation));
        };
        let relation = self.select(*select)?;
        let refused = [
            (with.is_some(), Clause::With),
            (order_by.is_some(), Clause::OrderBy),
            (limit_clause.is_some() || fetch.is_some(), Clause::Limit),
            (!locks.is_empty() || for_clause.is_some(), Clause::Locking),
        ];
        if let Some((_, clause)) = refused.into_iter().find(|(present, _)| *present) {
            return Err(self.at_start(clause));
        }
        if settings.is_some() || format_clause.is_some() || !pipe_operators.is_empty() {
            return Err(Problem::TooComplex.at(self.text.start));
        }
        Ok(relation)
    }

    fn select(&self, select: Select) -> Result<Relation, Fault> {
        let Select {
            select_token: _,
            optimizer_hints,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            mut from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        let columns = self.columns(projection)?;
        let plain_group =
            matches!(&group_by, GroupByExpr::Expressions(by, with) if by.is_empty() && with.is_empty());
        let refused = [
            (distinct.is_some(), Clause::Distinct),
            (into.is_some(), Clause::Into),
            (
                prewhere.is_some() || selection.is_some() || !connect_by.is_empty(),
                Clause::Where,
            ),
            (
                !plain_group || !cluster_by.is_empty() || !distribute_by.is_empty(),
                Clause::GroupBy,
            ),
            (!sort_by.is_empty(), Clause::OrderBy),
            (having.is_some() || qualify.is_some(), Clause::Having),
            (!named_window.is_empty(), Clause::Window),
            (!lateral_views.is_empty(), Clause::Lateral),
            (top.is_some(), Clause::Limit),
        ];
        if let Some((_, clause)) = refused.into_iter().find(|(present, _)| *present) {
            return Err(self.at_start(clause));
        }
        let foreign_dialect = !optimizer_hints.is_empty()
            || select_modifiers.is_some()
            || exclude.is_some()
            || value_table_mode.is_some()
            || flavor != SelectFlavor::Standard;
        if foreign_dialect {
            return Err(Problem::TooComplex.at(self.text.start));
        }
        if from.len() > 1 {
            return Err(self.at_table(Problem::SeveralTables));
        }
        match from.pop() {
            None => Err(self.at_table(Problem::NoTable { found: Found::End })),
            Some(table) if !table.joins.is_empty() => Err(clause_at(self.table_at, Clause::Join)),
            Some(table) => self.table(table.relation, columns),
        }
    }

    fn columns(&self, projection: Vec<SelectItem>) -> Result<Columns, Fault> {
        let several = projection.len() > 1;
        let mut names = Vec::with_capacity(projection.len());
        let mut seen = HashSet::new();
        for (item, column) in projection.into_iter().enumerate() {
            let place = item + 1;
            let ident = match column {
                SelectItem::UnnamedExpr(Expr::Identifier(ident)) => ident,
                SelectItem::Wildcard(options) if options == WildcardAdditionalOptions::default() => {
                    if several {
                        return Err(self.at_item(item, Problem::StarNotAlone));
                    }
                    return Ok(Columns::All);
                }
                SelectItem::QualifiedWildcard(..) | SelectItem::UnnamedExpr(Expr::CompoundIdentifier(_)) => {
                    return Err(self.at_item(item, Problem::QualifiedColumn { column: place }));
                }
                SelectItem::ExprWithAlias {
                    expr: Expr::Identifier(_) | Expr::CompoundIdentifier(_),
                    ..
                }
                | SelectItem::ExprWithAliases { .. } => {
                    return Err(self.at_item(item, Problem::ColumnAlias { column: place }));
                }
                _ => return Err(self.at_item(item, Problem::Expression { column: place })),
            };
            let name = name_of(ident).map_err(|problem| self.at_item(item, problem))?;
            if !seen.insert(name.clone()) {
                return Err(self.at_item(item, Problem::ColumnTwice { column: name }));
            }
            names.push(name);
        }
        Ok(Columns::Named(names))
    }

    fn table(&self, table: TableFactor, columns: Columns) -> Result<Relation, Fault> {
        let TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } = table
        else {
            return Err(self.at_table(Problem::NotATable));
        };
        if args.is_some() || with_ordinality || json_path.is_some() || version.is_some() {
            return Err(self.at_table(Problem::NotATable));
        }
        if sample.is_some() {
            return Err(clause_at(self.table_at, Clause::TableSample));
        }
        if alias.is_some() {
            return Err(self.at_table(Problem::TableAlias));
        }
        if !with_hints.is_empty() || !partitions.is_empty() || !index_hints.is_empty() {
            return Err(self.at_table(Problem::TooComplex));
        }
        let (schema, table) = self.relation_name(name)?;
        Ok(Relation {
            schema,
            table,
            table_at: self.table_at,
            columns,
        })
    }

    fn relation_name(&self, ObjectName(parts): ObjectName) -> Result<(String, String), Fault> {
        let count = parts.len();
        let mut names = Vec::with_capacity(count);
        for part in parts {
            match part {
                ObjectNamePart::Identifier(ident) => {
                    names.push(name_of(ident).map_err(|problem| self.at_table(problem))?);
                }
                ObjectNamePart::Function(_) => return Err(self.at_table(Problem::NotATable)),
            }
        }
        match (names.pop(), names.pop(), names.is_empty()) {
            (Some(table), None, true) => Ok((DEFAULT_SCHEMA.to_owned(), table)),
            (Some(table), Some(schema), true) => Ok((schema, table)),
            _ => Err(self.at_table(Problem::TableNameParts { parts: count })),
        }
    }
}

fn name_of(ident: Ident) -> Result<String, Problem> {
    names::check(if ident.quote_style.is_some() {
        ident.value
    } else {
        names::fold(&ident.value)
    })
}
