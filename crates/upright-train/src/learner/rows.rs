//! Losses of rows, as ranks send them to each other. Every rank adds up the rows of all ranks in the order of packs, so sums have the
//! same bits on any number of ranks.

use upright_base::{Error, Result};
use upright_core::objectives::RowLoss;

/// The loss and the metrics of a row, as bytes.
pub(super) fn write(row: &RowLoss, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&row.loss.to_le_bytes());
    for metric in &row.metrics {
        bytes.extend_from_slice(&metric.to_le_bytes());
    }
}

/// What one rank sent.
pub(super) struct Reader<'b> {
    left: &'b [u8],
}

/// Readers of what all ranks sent.
pub(super) fn readers(all: &[Vec<u8>]) -> Vec<Reader<'_>> {
    let mut readers = Vec::with_capacity(all.len());
    for bytes in all {
        readers.push(Reader::new(bytes));
    }
    readers
}

impl<'b> Reader<'b> {
    /// Reads from the first byte on.
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { left: bytes }
    }

    /// The next number.
    ///
    /// # Errors
    /// Nothing is left.
    pub(super) fn number(&mut self) -> Result<u64> {
        let Some((number, left)) = self.left.split_first_chunk() else {
            return Err(Error::failure("a rank sent the losses of too few rows"));
        };
        self.left = left;
        Ok(u64::from_le_bytes(*number))
    }

    /// The next row with this number of metrics. It has no slopes.
    ///
    /// # Errors
    /// Nothing is left.
    pub(super) fn row(&mut self, metrics: usize) -> Result<RowLoss> {
        let loss = f64::from_bits(self.number()?);
        let mut values = Vec::with_capacity(metrics);
        for _ in 0..metrics {
            values.push(f64::from_bits(self.number()?));
        }
        Ok(RowLoss {
            loss,
            slopes: Vec::new(),
            metrics: values,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_bits() {
        let rows = [(0.1, vec![-0.0, 3.5]), (f64::NAN, vec![1e-310, f64::MAX])];
        let mut bytes = 7u64.to_le_bytes().to_vec();
        for (loss, metrics) in &rows {
            let row = RowLoss {
                loss: *loss,
                slopes: vec![1.0],
                metrics: metrics.clone(),
            };
            write(&row, &mut bytes);
        }
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.number().unwrap(), 7);
        for (loss, metrics) in &rows {
            let row = reader.row(2).unwrap();
            assert_eq!(row.loss.to_bits(), loss.to_bits());
            let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&row.metrics), bits(metrics));
        }
        assert!(reader.row(0).is_err());
    }
}
