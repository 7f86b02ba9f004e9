//! The third floor: comparisons become sentences, tables and a glossary. Claims get their words.

pub(crate) mod claims;
pub(crate) mod glossary;
pub(crate) mod prose;
pub(crate) mod table;
pub(crate) mod tables;

use upright_runs::records::PerSet;

/// The two sets of rows, as the page names them.
pub(crate) const SET_NAMES: PerSet<&str> = PerSet {
    held_out: "held-out rows",
    training: "training rows",
};
