//! The third floor: comparisons become words and tables.

pub(crate) mod claims;
pub(crate) mod glossary;
pub(crate) mod prose;
pub(crate) mod table;
pub(crate) mod tables;
