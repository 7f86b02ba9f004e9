//! The third floor: comparisons become sentences, tables and a glossary. Claims get their words.

pub(crate) mod claims;
pub(crate) mod glossary;
pub(crate) mod prose;
pub(crate) mod table;
pub(crate) mod tables;

/// The two sets of rows, as the page names them.
pub(crate) const SET_NAMES: [&str; 2] = ["held-out rows", "training rows"];
