//! What the host prepares for attention: tiles of queries with their paths, tiles of keys with their readers, and which
//! kernels take which head size. `cuda/attention.h` has the same structs.

use bytemuck::{Pod, Zeroable};

/// Rows of a tile.
pub const TILE: usize = 64;

/// A run of consecutive tokens of a pack, as in `upright_model::pack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Row of the first token.
    pub start: usize,
    /// Number of tokens.
    pub len: usize,
    /// Index of the span that this one continues, below its own.
    pub parent: Option<usize>,
}

/// Up to [`TILE`] queries of one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Tile {
    /// Row of the first query among the queries.
    pub row: i32,
    /// Number of queries.
    pub count: i32,
    /// Position of the first query along its path.
    pub position: i32,
    /// First run of the path.
    pub runs: i32,
    /// End of the path's runs.
    pub runs_end: i32,
}

/// Positions of a path that lie in consecutive rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Run {
    /// First position.
    pub position: i32,
    /// Row of its key and value.
    pub row: i32,
}

/// Up to [`TILE`] keys of one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct KeyTile {
    /// Row of the first key.
    pub row: i32,
    /// Number of keys.
    pub count: i32,
    /// Position of the first key.
    pub position: i32,
    /// First of the tiles of queries that see one of these keys.
    pub readers: i32,
    /// End of these tiles.
    pub readers_end: i32,
}

/// Tiles of queries with their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryTables {
    /// Tiles in order of their rows.
    pub tiles: Vec<Tile>,
    /// The paths of all spans, one after another.
    pub runs: Vec<Run>,
    /// Span of each tile.
    pub spans: Vec<usize>,
}

/// Tiles of keys with their readers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyTables {
    /// Tiles in order of their rows.
    pub tiles: Vec<KeyTile>,
    /// Indices of tiles of queries, ascending for each tile of keys.
    pub readers: Vec<i32>,
}

impl QueryTables {
    /// Tables of a pack. `known` has, for every span, how many of its first tokens have no query, because an earlier pass
    /// computed them; empty means none. The rows of queries count the other tokens, and the rows of keys count all.
    ///
    /// # Panics
    /// If a number does not fit 31 bits, or `known` has another length or a larger number than its span has tokens.
    pub fn new(spans: &[Span], known: &[usize]) -> Self {
        let mut tables = Self::default();
        let positions = positions(spans);
        assert!(
            known.is_empty() || known.len() == spans.len(),
            "a number for every span"
        );
        let mut row = 0;
        for (index, span) in spans.iter().enumerate() {
            let known = known.get(index).copied().unwrap_or(0);
            assert!(known <= span.len, "known tokens are tokens of their span");
            let runs = tables.runs.len();
            for at in path(spans, index) {
                tables.runs.push(Run {
                    position: int(positions[at]),
                    row: int(spans[at].start),
                });
            }
            for first in (known..span.len).step_by(TILE) {
                let count = TILE.min(span.len - first);
                tables.tiles.push(Tile {
                    row: int(row),
                    count: int(count),
                    position: int(positions[index] + first),
                    runs: int(runs),
                    runs_end: int(tables.runs.len()),
                });
                tables.spans.push(index);
                row += count;
            }
        }
        tables
    }
}

impl KeyTables {
    /// Tables of a pack without known tokens. A query sees `window` positions, its own included, or all up to its own.
    pub fn new(spans: &[Span], queries: &QueryTables, window: Option<usize>) -> Self {
        let mut tables = Self::default();
        let positions = positions(spans);
        for (index, span) in spans.iter().enumerate() {
            for first in (0..span.len).step_by(TILE) {
                let count = TILE.min(span.len - first);
                let position = positions[index] + first;
                let readers = tables.readers.len();
                for (reader, tile) in queries.tiles.iter().enumerate() {
                    if !path(spans, queries.spans[reader]).contains(&index) {
                        continue;
                    }
                    let (from, count_of) = (tile.position as usize, tile.count as usize);
                    let lowest = (from + 1).saturating_sub(window.unwrap_or(usize::MAX));
                    if position < from + count_of && position + count > lowest {
                        tables.readers.push(int(reader));
                    }
                }
                tables.tiles.push(KeyTile {
                    row: int(span.start + first),
                    count: int(count),
                    position: int(position),
                    readers: int(readers),
                    readers_end: int(tables.readers.len()),
                });
            }
        }
        tables
    }
}

/// Kernels of one size of heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Largest head size.
    pub size: usize,
    /// Forward pass: grid of tiles and heads.
    pub forward: &'static str,
    /// Gradient of the queries: grid of tiles and heads.
    pub backward_queries: &'static str,
    /// Gradients of keys and values: grid of key tiles, heads of keys and values, and `column_parts`.
    pub backward_keys: &'static str,
    /// Blocks that share the columns of a head.
    pub column_parts: u32,
    /// Keys that the forward kernel takes at a time.
    pub forward_keys: usize,
    /// Keys that `backward_queries` takes at a time.
    pub backward_keys_block: usize,
    /// Queries that `backward_keys` takes at a time.
    pub backward_queries_block: usize,
    /// One token per sequence: grid of sequences and heads.
    pub decode: &'static str,
}

macro_rules! instance {
    ($size:literal, $parts:literal, $decode:literal, $blocks:expr) => {
        Instance {
            size: $size,
            forward: concat!("attention_forward_", $size),
            backward_queries: concat!("attention_backward_queries_", $size),
            backward_keys: concat!("attention_backward_keys_", $size),
            column_parts: $parts,
            forward_keys: $blocks[0],
            backward_keys_block: $blocks[1],
            backward_queries_block: $blocks[2],
            decode: concat!("attention_decode_", $decode),
        }
    };
}

/// All instances, by size.
pub const INSTANCES: [Instance; 6] = [
    instance!(32, 1, 64, [64, 64, 64]),
    instance!(64, 1, 64, [64, 64, 64]),
    instance!(80, 1, 128, [64, 32, 32]),
    instance!(96, 1, 128, [64, 32, 32]),
    instance!(128, 1, 128, [64, 32, 32]),
    instance!(256, 2, 256, [32, 16, 16]),
];

/// The kernels for heads of `size` values, which is a multiple of 8: other sizes are padded with zeros when the model is opened.
/// `None` if the size is 0, no multiple of 8 or above 256.
pub fn instance(size: usize) -> Option<&'static Instance> {
    if size == 0 || !size.is_multiple_of(8) {
        return None;
    }
    INSTANCES.iter().find(|instance| size <= instance.size)
}

/// Spans on the path of a span, from the root down to itself.
fn path(spans: &[Span], span: usize) -> Vec<usize> {
    let mut path = vec![span];
    while let Some(parent) = spans[path[path.len() - 1]].parent {
        path.push(parent);
    }
    path.reverse();
    path
}

/// Position of the first token of every span along its path.
fn positions(spans: &[Span]) -> Vec<usize> {
    let mut positions: Vec<usize> = Vec::new();
    for span in spans {
        let before = span
            .parent
            .map_or(0, |parent| positions[parent] + spans[parent].len);
        positions.push(before);
    }
    positions
}

fn int(value: usize) -> i32 {
    i32::try_from(value).expect("rows and positions fit 31 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: usize, len: usize, parent: Option<usize>) -> Span {
        Span { start, len, parent }
    }

    /// A prompt of 70 tokens, two answers, an answer to the first answer, and another root.
    fn spans() -> [Span; 5] {
        [
            span(0, 70, None),
            span(70, 5, Some(0)),
            span(75, 130, Some(0)),
            span(205, 3, Some(1)),
            span(208, 1, None),
        ]
    }

    #[test]
    fn tiles_cover_every_query_once_and_runs_follow_the_path() {
        let spans = spans();
        let tables = QueryTables::new(&spans, &[]);
        let found: Vec<_> = tables
            .tiles
            .iter()
            .map(|t| (t.row, t.count, t.position))
            .collect();
        assert_eq!(
            found,
            [
                (0, 64, 0),
                (64, 6, 64),
                (70, 5, 70),
                (75, 64, 70),
                (139, 64, 134),
                (203, 2, 198),
                (205, 3, 75),
                (208, 1, 0)
            ]
        );
        let tile = tables.tiles[6];
        let runs = &tables.runs[tile.runs as usize..tile.runs_end as usize];
        let runs: Vec<_> = runs.iter().map(|run| (run.position, run.row)).collect();
        assert_eq!(runs, [(0, 0), (70, 70), (75, 205)]);
    }

    #[test]
    fn known_tokens_have_keys_and_no_queries() {
        let spans = [span(0, 70, None), span(70, 66, Some(0))];
        let tables = QueryTables::new(&spans, &[70, 1]);
        let found: Vec<_> = tables
            .tiles
            .iter()
            .map(|t| (t.row, t.count, t.position))
            .collect();
        assert_eq!(found, [(0, 64, 71), (64, 1, 135)]);
        assert_eq!(
            tables.runs[2],
            Run {
                position: 70,
                row: 70
            }
        );
    }

    /// A reader is listed if, and only if, one of its queries sees one of the keys.
    #[test]
    fn readers_are_the_tiles_that_see_a_key() {
        let spans = spans();
        let queries = QueryTables::new(&spans, &[]);
        let positions = positions(&spans);
        for window in [None, Some(1), Some(7), Some(64), Some(65), Some(100)] {
            let keys = KeyTables::new(&spans, &queries, window);
            let rows: i32 = keys.tiles.iter().map(|tile| tile.count).sum();
            assert_eq!(rows, 209);
            for tile in &keys.tiles {
                let is_in = |span: &Span| {
                    (span.start..span.start + span.len).contains(&(tile.row as usize))
                };
                let span = spans.iter().position(is_in).unwrap();
                assert_eq!(
                    tile.position as usize,
                    positions[span] + tile.row as usize - spans[span].start
                );
                let mut want = Vec::new();
                for (index, reader) in queries.tiles.iter().enumerate() {
                    let mut sees = false;
                    for query in reader.position..reader.position + reader.count {
                        for key in tile.position..tile.position + tile.count {
                            let near = window.is_none_or(|window| key > query - window as i32);
                            sees |= key <= query && near;
                        }
                    }
                    if sees && path(&spans, queries.spans[index]).contains(&span) {
                        want.push(index as i32);
                    }
                }
                let found = &keys.readers[tile.readers as usize..tile.readers_end as usize];
                assert_eq!(found, want, "{window:?}");
            }
        }
    }

    #[test]
    fn instances_are_those_of_the_sources() {
        let forward = include_str!("../cuda/attention_forward.cu");
        let backward = include_str!("../cuda/attention_backward.cu");
        for instance in INSTANCES {
            let (size, columns) = (
                instance.size,
                instance.size / instance.column_parts as usize,
            );
            let line = format!("FORWARD({size}, {})\n", instance.forward_keys);
            assert!(forward.contains(&line), "no {line}");
            let (keys, queries) = (
                instance.backward_keys_block,
                instance.backward_queries_block,
            );
            let line = format!("BACKWARD({size}, {keys}, {queries}, {columns}, ");
            assert!(backward.contains(&line), "no {line}");
        }
    }

    #[test]
    fn every_head_size_up_to_256_has_kernels() {
        for size in (8..=256).step_by(8) {
            let instance = instance(size).unwrap();
            assert!(instance.size >= size);
            for name in [
                instance.forward,
                instance.backward_queries,
                instance.backward_keys,
                instance.decode,
            ] {
                assert!(crate::kernel(name).is_some(), "{name}");
            }
        }
        assert!(instance(0).is_none() && instance(12).is_none() && instance(264).is_none());
        assert_eq!(instance(80).unwrap().size, 80);
    }
}
