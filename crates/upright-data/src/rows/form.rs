//! A dialect as rows of one kind are read.

use serde_json::{Map, Value};
use upright_base::Result;

use super::RowKind;
use crate::dialects::{Dialect, Fields, Kind, PromptReader, Reader, Tools};

/// A dialect, and how it reads the rows of one [`RowKind`].
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Name in messages and records.
    pub(super) name: &'static str,
    /// The dialect.
    pub(super) dialect: &'static Dialect,
    /// Reads a row.
    pub(super) read: Reader,
}

/// The forms of dialects that have rows of a kind, in the same order.
pub(super) fn forms(dialects: &[&'static Dialect], kind: RowKind) -> Vec<Form> {
    let mut forms = Vec::new();
    for &dialect in dialects {
        let whole = PromptReader {
            name: dialect.name,
            read: dialect.read,
        };
        let reader = match (kind, dialect.kind) {
            (RowKind::Instruction, Kind::Instruction)
            | (RowKind::Preference | RowKind::Chosen, Kind::Preference)
            | (RowKind::Prompt, Kind::Prompt) => Some(whole),
            (RowKind::Prompt, _) => dialect.prompt,
            _ => None,
        };
        if let Some(PromptReader { name, read }) = reader {
            forms.push(Form {
                name,
                dialect,
                read,
            });
        }
    }
    forms
}

impl Form {
    /// Whether a row has all columns that the dialect needs. A column that is null counts as absent.
    pub(super) fn fits(&self, columns: &Map<String, Value>) -> bool {
        let mut needs = self.dialect.needs.iter();
        needs.all(|need| columns.get(*need).is_some_and(|value| !value.is_null()))
    }

    /// The name and the columns that the dialect needs, for messages.
    pub(super) fn describe(&self) -> String {
        format!("{} ({})", self.name, self.dialect.needs.join(", "))
    }

    /// Descriptions of a row's tools, as chat templates expect them.
    pub(super) fn tools(&self, fields: &Fields<'_>) -> Result<Vec<Value>> {
        match self.dialect.tools {
            Tools::None => Ok(Vec::new()),
            Tools::Wrapped => fields.tools("tools"),
            Tools::Bare => fields.bare_tools("tools"),
        }
    }
}
