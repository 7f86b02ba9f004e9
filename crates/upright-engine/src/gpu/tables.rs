//! What kernels read about a pack: positions and angles, tiles of queries and keys, rows with targets. Plain numbers first, then
//! the same on a device.

use std::sync::Arc;

use upright_base::Result;
use upright_kernels::attention::{KeyTables, QueryTables, Span};
use upright_model::{
    config::Rotary,
    pack::{Pack, Target},
};

use super::{
    array::Array,
    device::Device,
    kernels::{
        attention::{KeyTiles, Tiles},
        head::Targets,
    },
};

/// A number of a table.
///
/// # Panics
/// If it does not fit 31 bits.
pub(super) fn int(number: usize) -> i32 {
    i32::try_from(number).expect("rows and positions fit 31 bits")
}

fn ints(numbers: &[usize]) -> Vec<i32> {
    numbers.iter().map(|number| int(*number)).collect()
}

/// The spans of a pack, as the tables of attention take them.
pub(super) fn spans(pack: &Pack) -> Vec<Span> {
    let mut spans = Vec::with_capacity(pack.spans.len());
    for span in &pack.spans {
        spans.push(Span {
            start: span.start,
            len: span.len,
            parent: span.parent,
        });
    }
    spans
}

/// Cosines and sines of positions from 0 on, `[positions, half]`, as f32 of values in f64.
#[derive(Debug)]
pub(super) struct Angles {
    positions: usize,
    pub(super) half: usize,
    pub(super) tables: [Array<f32>; 2],
}

impl Angles {
    /// Tables of no position.
    pub(super) fn new(device: &Arc<dyn Device>, rotary: &Rotary) -> Result<Self> {
        Ok(Self {
            positions: 0,
            half: rotary.frequencies.len(),
            tables: [Array::new(device, 0)?, Array::new(device, 0)?],
        })
    }

    /// Extends the tables to at least `positions` positions.
    pub(super) fn extend(
        &mut self,
        device: &Arc<dyn Device>,
        rotary: &Rotary,
        positions: usize,
    ) -> Result<()> {
        if positions <= self.positions {
            return Ok(());
        }
        let positions = positions.next_power_of_two();
        let mut cosines = Vec::with_capacity(positions * self.half);
        let mut sines = Vec::with_capacity(positions * self.half);
        for position in 0..positions {
            for frequency in &rotary.frequencies {
                let angle = position as f64 * frequency;
                cosines.push(angle.cos() as f32);
                sines.push(angle.sin() as f32);
            }
        }
        self.tables = [Array::from(device, &cosines)?, Array::from(device, &sines)?];
        self.positions = positions;
        Ok(())
    }
}

/// Targets grouped by row, in ascending order of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TargetsByRow {
    /// First target of each row, and the number of targets at the end.
    pub(super) first: Vec<i32>,
    /// Tokens, row by row.
    pub(super) tokens: Vec<i32>,
    /// Index in the pack of each of them.
    pub(super) order: Vec<usize>,
}

impl TargetsByRow {
    /// Groups targets. `scored` lists their rows, ascending.
    ///
    /// # Panics
    /// If a target's row is not listed.
    pub(super) fn new(scored: &[usize], targets: &[Target]) -> Self {
        let mut by_row = Vec::with_capacity(targets.len());
        for (index, target) in targets.iter().enumerate() {
            let row = scored
                .binary_search(&target.row)
                .expect("a target's row is listed");
            by_row.push((row, index));
        }
        by_row.sort_unstable();
        let mut first = vec![0; scored.len() + 1];
        let mut tokens = Vec::with_capacity(targets.len());
        let mut order = Vec::with_capacity(targets.len());
        for (row, index) in by_row {
            tokens.push(targets[index].token.cast_signed());
            order.push(index);
            first[row + 1] = int(order.len());
        }
        for row in 0..scored.len() {
            first[row + 1] = first[row + 1].max(first[row]);
        }
        Self {
            first,
            tokens,
            order,
        }
    }

    /// Brings one value per target from the order of rows into the pack's.
    pub(super) fn in_order(&self, by_row: Vec<f64>) -> Vec<f64> {
        let mut values = vec![0.0; by_row.len()];
        for (value, index) in by_row.into_iter().zip(&self.order) {
            values[*index] = value;
        }
        values
    }
}

/// Rows of a pack that the last block computes.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The rows, ascending.
    pub(super) rows: Array<i32>,
    /// For every computed row its index among them, or -1.
    pub(super) spread: Array<i32>,
    pub(super) count: usize,
}

impl Wanted {
    /// Tables of some of `tokens` rows.
    pub(super) fn new(device: &Arc<dyn Device>, rows: &[usize], tokens: usize) -> Result<Self> {
        let mut spread = vec![-1; tokens];
        for (index, row) in rows.iter().enumerate() {
            spread[*row] = int(index);
        }
        Ok(Self {
            rows: Array::from(device, &ints(rows))?,
            spread: Array::from(device, &spread)?,
            count: rows.len(),
        })
    }
}

/// Rows of a pass: which tokens, at which positions, and how queries find their keys.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) tokens: Array<i32>,
    pub(super) positions: Array<i32>,
    /// One more than the largest position.
    pub(super) end: usize,
    pub(super) tiles: Tiles,
    /// Numbers from 0 on: at least one per token.
    pub(super) identity: Array<i32>,
    /// The rows that the last block computes; `None` means all.
    pub(super) wanted: Option<Wanted>,
    /// Pairs of a query and a key that it sees, by window.
    pairs: Vec<(Option<usize>, usize)>,
}

impl Tables {
    /// Tables of computed rows, given the tiles of their queries. `wanted` lists the rows that the last block computes.
    pub(super) fn new(
        device: &Arc<dyn Device>,
        tokens: &[u32],
        positions: &[usize],
        queries: &QueryTables,
        windows: &[Option<usize>],
        wanted: &[usize],
    ) -> Result<Self> {
        let ids: Vec<i32> = tokens.iter().map(|token| token.cast_signed()).collect();
        let identity: Vec<i32> = (0..int(tokens.len())).collect();
        let mut pairs: Vec<(Option<usize>, usize)> = Vec::new();
        for window in windows {
            if pairs.iter().any(|(other, _)| other == window) {
                continue;
            }
            let seen = |position: &usize| (position + 1).min(window.unwrap_or(usize::MAX));
            pairs.push((*window, positions.iter().map(seen).sum()));
        }
        let wanted = (wanted.len() < tokens.len())
            .then(|| Wanted::new(device, wanted, tokens.len()))
            .transpose()?;
        Ok(Self {
            tokens: Array::from(device, &ids)?,
            positions: Array::from(device, &ints(positions))?,
            end: positions.iter().max().map_or(0, |last| last + 1),
            tiles: upload_tiles(device, queries)?,
            identity: Array::from(device, &identity)?,
            wanted,
            pairs,
        })
    }

    /// Tables of a whole pack.
    pub(super) fn of_pack(
        device: &Arc<dyn Device>,
        pack: &Pack,
        windows: &[Option<usize>],
        wanted: &[usize],
    ) -> Result<Self> {
        let queries = QueryTables::new(&spans(pack), &[]);
        let positions = pack.positions();
        Self::new(device, &pack.tokens, &positions, &queries, windows, wanted)
    }

    /// Pairs of a query and a key that it sees in a block with this window.
    pub(super) fn pairs(&self, window: Option<usize>) -> usize {
        let found = self.pairs.iter().find(|(other, _)| *other == window);
        found.expect("the window of a block").1
    }
}

/// Tiles and runs on a device.
fn upload_tiles(device: &Arc<dyn Device>, queries: &QueryTables) -> Result<Tiles> {
    Ok(Tiles {
        count: queries.tiles.len(),
        tiles: Array::from(device, bytemuck::cast_slice(&queries.tiles))?,
        runs: Array::from(device, bytemuck::cast_slice(&queries.runs))?,
    })
}

/// Tiles of keys, by window.
#[derive(Debug)]
pub(super) struct Keys(Vec<(Option<usize>, KeyTiles)>);

impl Keys {
    /// Tables of a pack for the backward pass of blocks with these windows.
    pub(super) fn new(
        device: &Arc<dyn Device>,
        pack: &Pack,
        windows: &[Option<usize>],
    ) -> Result<Self> {
        let spans = spans(pack);
        let queries = QueryTables::new(&spans, &[]);
        let mut found: Vec<(Option<usize>, KeyTiles)> = Vec::new();
        for window in windows {
            if found.iter().any(|(other, _)| other == window) {
                continue;
            }
            let keys = KeyTables::new(&spans, &queries, *window);
            let tiles = KeyTiles {
                count: keys.tiles.len(),
                tiles: Array::from(device, bytemuck::cast_slice(&keys.tiles))?,
                readers: Array::from(device, &keys.readers)?,
            };
            found.push((*window, tiles));
        }
        Ok(Self(found))
    }

    /// Tiles for a block with this window.
    pub(super) fn of(&self, window: Option<usize>) -> &KeyTiles {
        let found = self.0.iter().find(|(other, _)| *other == window);
        &found.expect("the window of a block").1
    }
}

/// The targets of a pack, grouped by row, on a device.
#[derive(Debug)]
pub(super) struct DeviceTargets {
    pub(super) by_row: TargetsByRow,
    pub(super) targets: Targets,
}

impl DeviceTargets {
    /// Groups and uploads targets.
    pub(super) fn new(
        device: &Arc<dyn Device>,
        scored: &[usize],
        targets: &[Target],
    ) -> Result<Self> {
        let by_row = TargetsByRow::new(scored, targets);
        Ok(Self {
            targets: Targets {
                first: Array::from(device, &by_row.first)?,
                tokens: Array::from(device, &by_row.tokens)?,
            },
            by_row,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_grouped_by_row_and_keep_their_order_within_one() {
        let target = |row, token| Target { row, token };
        let targets = [target(7, 1), target(2, 2), target(7, 3), target(4, 4)];
        let found = TargetsByRow::new(&[2, 4, 5, 7], &targets);
        assert_eq!(found.first, [0, 1, 2, 2, 4]);
        assert_eq!(found.tokens, [2, 4, 1, 3]);
        assert_eq!(found.order, [1, 3, 0, 2]);
        let none = TargetsByRow::new(&[], &[]);
        assert_eq!((none.first, none.tokens.len()), (vec![0], 0));
    }
}
