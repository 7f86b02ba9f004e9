//! The page headers of a Parquet file, read before any page. The `parquet` crate allocates the size
//! that a header claims, up to 2 GB, before it reads the page; so claimed sizes are compared with
//! the size of the file first.
//!
//! A header is a struct in Thrift's compact protocol. Its first fields are the page's type, its
//! unpacked size and its size in the file. Of the other fields only the length matters.

use parquet::file::metadata::ParquetMetaData;

/// Maximum nesting of structs in a header; real headers have three levels.
const MAX_DEPTH: usize = 16;

/// The largest unpacked size that any page of the file claims. `None` if a header does not follow
/// the format: the reader would guess its meaning, perhaps differently.
pub(super) fn largest(metadata: &ParquetMetaData, file: &[u8]) -> Option<u64> {
    let mut largest = 0;
    for group in metadata.row_groups() {
        for column in group.columns() {
            let (start, length) = column.byte_range();
            let mut at = start;
            let end = start.saturating_add(length);
            while at < end {
                let page = Page::read(file.get(usize::try_from(at).ok()?..)?)?;
                largest = largest.max(page.unpacked);
                at = at.saturating_add(page.header).saturating_add(page.packed);
            }
        }
    }
    Some(largest)
}

/// Sizes of a page, in bytes.
#[derive(Debug, PartialEq)]
struct Page {
    header: u64,
    packed: u64,
    unpacked: u64,
}

impl Page {
    /// Reads the header at the start of some bytes. `None` if there is none.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Compact { rest: bytes };
        let [mut unpacked, mut packed] = [None, None];
        let mut id = 0;
        while let Some((field, kind)) = reader.field(&mut id)? {
            match (field, kind) {
                (2, 5) => unpacked = Some(reader.size()?),
                (3, 5) => packed = Some(reader.size()?),
                (2 | 3, _) => return None,
                _ => reader.skip(kind, 0)?,
            }
        }
        Some(Self {
            header: (bytes.len() - reader.rest.len()) as u64,
            packed: packed?,
            unpacked: unpacked?,
        })
    }
}

/// A reader of Thrift's compact protocol.
struct Compact<'b> {
    rest: &'b [u8],
}

impl Compact<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn advance(&mut self, count: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(count).ok()?..)?;
        Some(())
    }

    /// A number of seven bits per byte, lowest bits first.
    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A size: 32 bits, not negative.
    fn size(&mut self) -> Option<u64> {
        let value = i32::try_from(self.signed()?).ok()?;
        u64::try_from(value).ok()
    }

    /// A number whose sign is in its lowest bit.
    fn signed(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The number and the type of the next field; the inner `None` ends a struct. `before` is the
    /// number of the previous field.
    fn field(&mut self, before: &mut i64) -> Option<Option<(i64, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *before = match byte >> 4 {
            0 => self.signed()?,
            step => before.checked_add(i64::from(step))?,
        };
        Some(Some((*before, byte & 0x0f)))
    }

    /// Skips a value of a type.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match kind {
            // Booleans of a field have no bytes of their own.
            1 | 2 => Some(()),
            3 => self.advance(1),
            4..=6 => self.unsigned().map(|_| ()),
            7 => self.advance(8),
            8 => {
                let length = self.unsigned()?;
                self.advance(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = match byte >> 4 {
                    15 => self.unsigned()?,
                    count => u64::from(count),
                };
                for _ in 0..count {
                    match byte & 0x0f {
                        1 | 2 => self.advance(1)?,
                        kind => self.skip(kind, depth + 1)?,
                    }
                }
                Some(())
            }
            12 => {
                let mut id = 0;
                while let Some((_, kind)) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            // No header has maps.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// type = 0, uncompressed_page_size = 300, compressed_page_size = 20, data_page_header = { num_values = 3, encoding = 0 }.
    const HEADER: [u8; 14] = [
        0x15, 0, 0x15, 0xd8, 0x04, 0x15, 40, 0x2c, 0x15, 6, 0x15, 0, 0, 0,
    ];

    #[test]
    fn sizes_are_read_and_the_rest_is_skipped() {
        let mut bytes = HEADER.to_vec();
        bytes.extend([9; 30]);
        let page = Page::read(&bytes).unwrap();
        let expected = Page {
            header: HEADER.len() as u64,
            packed: 20,
            unpacked: 300,
        };
        assert_eq!(page, expected);
    }

    #[test]
    fn what_is_no_header_is_none() {
        assert_eq!(Page::read(&[]), None);
        assert_eq!(Page::read(&HEADER[..9]), None, "it ends within a struct");
        assert_eq!(Page::read(&[0x15, 0, 0]), None, "no sizes");
        assert_eq!(
            Page::read(&[0x15, 0, 0x15, 1, 0x15, 40, 0]),
            None,
            "a size below 0"
        );
        assert_eq!(Page::read(&[0x1c; 100]), None, "structs without end");
        assert_eq!(
            Page::read(&[0x19, 0xf5, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            None,
            "a list without end"
        );
    }
}
