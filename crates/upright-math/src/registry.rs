//! Tables of entries, such as methods or losses, that a program may replace before their first use.

use std::sync::OnceLock;

/// The entries of one table: the built-in ones, or those that [`Registry::install`] put in their place. The table is the same for the
/// whole process, because plans and records name their entries and are read in places that cannot be handed a table.
pub struct Registry<T: 'static> {
    builtin: &'static [&'static T],
    entries: OnceLock<Vec<&'static T>>,
}

impl<T> Registry<T> {
    /// A table with these built-in entries.
    pub const fn new(builtin: &'static [&'static T]) -> Self {
        Self {
            builtin,
            entries: OnceLock::new(),
        }
    }

    /// All entries, in the order of help texts.
    pub fn all(&self) -> &[&'static T] {
        self.entries.get_or_init(|| self.builtin.to_vec())
    }

    /// The built-in entries, whatever was installed.
    pub fn builtin(&self) -> &'static [&'static T] {
        self.builtin
    }

    /// Makes these the entries of the table.
    ///
    /// # Panics
    /// If the table was used or installed before.
    pub fn install(&self, entries: Vec<&'static T>) {
        let installed = self.entries.set(entries);
        assert!(
            installed.is_ok(),
            "tables are installed once, before their first use"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_the_built_in_ones_unless_others_are_installed() {
        let table = Registry::new(&[&1, &2]);
        assert_eq!(table.all(), [&1, &2]);

        let table = Registry::new(&[&1, &2]);
        table.install(vec![&3]);
        assert_eq!(table.all(), [&3]);
        assert_eq!(table.builtin(), [&1, &2]);
    }

    #[test]
    #[should_panic(expected = "before their first use")]
    fn a_table_in_use_stays_as_it_is() {
        let table = Registry::new(&[&1]);
        table.all();
        table.install(vec![&2]);
    }
}
