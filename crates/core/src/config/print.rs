//! Mappings as text that parses back to equal mappings.
//!
//! The text is canonical: two mappings print alike exactly if they are equal. The schema is always written,
//! options stand in a fixed order, and those with their default value are left out.

use std::fmt;

use super::names::quote_name;
use super::scan::is_space;
use super::{Columns, Fill, Format, Insert, Mapping, Write};

/// The list as [`super::parse_list`] reads it.
pub fn print_list(mappings: &[Mapping]) -> String {
    let texts: Vec<String> = mappings.iter().map(Mapping::to_string).collect();
    texts.join("; ")
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let template = self.template.to_string();
        let needs_quotes = |c| is_space(c) || matches!(c, '\'' | '"' | ';');
        if template.contains(needs_quotes) || template.contains("=>") {
            write!(f, "'{}'", template.replace('\'', "''"))?;
        } else {
            f.write_str(&template)?;
        }
        write!(f, " => SELECT {} FROM ", self.columns)?;
        write!(f, "{}.{}", quote_name(&self.schema), quote_name(&self.table))?;
        let options = self.printed_options();
        if options.is_empty() {
            Ok(())
        } else {
            write!(f, " WITH ({})", options.join(", "))
        }
    }
}

impl Mapping {
    /// The options that differ from their defaults.
    fn printed_options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if self.name != self.table {
            options.push(format!("name = {}", quote_name(&self.name)));
        }
        if let Some(database) = &self.database {
            options.push(format!("database = {}", quote_name(database)));
        }
        if let Some(server) = &self.server {
            options.push(format!("server = {}", quote_name(server)));
        }
        if self.format != Format::default() {
            options.push(format!("format = {}", self.format));
        }
        if let Some(ttl) = self.ttl {
            options.push(format!("ttl = {ttl}"));
        }
        if self.fill != Fill::default() {
            options.push(format!("fill = {}", self.fill));
        }
        if self.write != Write::default() {
            options.push(format!("write = {}", self.write));
        }
        if self.insert != Insert::default() {
            options.push(format!("insert = {}", self.insert));
        }
        if self.allow_rls {
            options.push("allow_rls = on".to_owned());
        }
        options
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Columns::All => f.write_str("*"),
            Columns::Named(names) => {
                let quoted: Vec<String> = names.iter().map(|name| quote_name(name)).collect();
                f.write_str(&quoted.join(", "))
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Hash => "hash",
            Format::Json => "json",
            Format::String => "string",
        })
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fill::Point => "point",
            Fill::Any => "any",
            Fill::Off => "off",
        })
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Write::Set => "set",
            Write::Delete => "delete",
        })
    }
}

impl fmt::Display for Insert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Insert::Off => "off",
            Insert::Set => "set",
        })
    }
}
