//! Arithmetic and traffic of the attention kernels, computed from their tables and block sizes.

use crate::attention::{Instance, KeyTables, QueryTables, TILE};

/// Work of one kernel over a pack, for all heads of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Floating-point operations on tensor cores: a product and a sum are two. Masked pairs and padding count.
    pub operations: u64,
    /// Operations for pairs of a query and a key that it sees, without padding.
    pub useful: u64,
    /// Bytes that blocks read from and write to global memory. What several blocks read counts for each, so the level-2 cache
    /// saves a part.
    pub bytes: u64,
}

/// Sizes of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Values of a head.
    pub size: usize,
    /// Positions that a query sees, its own included; `None` means all up to its own.
    pub window: Option<usize>,
}

impl Layer {
    /// First position that the query at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        (position + 1).saturating_sub(self.window.unwrap_or(usize::MAX))
    }

    /// Pairs of a query and a key that it sees, over all tiles, for one head.
    fn pairs(&self, queries: &QueryTables) -> usize {
        let mut pairs = 0;
        for tile in &queries.tiles {
            for position in tile.position..tile.position + tile.count {
                pairs += position as usize + 1 - self.first_seen(position as usize);
            }
        }
        pairs
    }

    /// Work of `products` products per pair, in blocks of `TILE` times `block` pairs of which there are `blocks` per head.
    fn work(
        &self,
        instance: &Instance,
        products: usize,
        pairs: usize,
        blocks: usize,
        block: usize,
        bytes: usize,
    ) -> Work {
        let one = 2 * products * self.heads;
        Work {
            operations: (one * blocks * TILE * block * instance.size) as u64,
            useful: (one * pairs * self.size) as u64,
            bytes: bytes as u64,
        }
    }

    /// Blocks of keys of all tiles of queries, and keys in them, for one head.
    fn walked(&self, queries: &QueryTables, block: usize) -> (usize, usize) {
        let (mut blocks, mut keys) = (0, 0);
        for tile in &queries.tiles {
            let first = self.first_seen(tile.position as usize) / block * block;
            let last = (tile.position + tile.count) as usize;
            blocks += (last - first).div_ceil(block);
            keys += last - first;
        }
        (blocks, keys)
    }

    /// Queries of all tiles.
    fn rows(queries: &QueryTables) -> usize {
        queries.tiles.iter().map(|tile| tile.count as usize).sum()
    }

    /// The forward kernel: scores and outputs.
    pub fn forward(&self, queries: &QueryTables, instance: &Instance) -> Work {
        let (blocks, keys) = self.walked(queries, instance.forward_keys);
        // Queries and outputs in bf16, a log-sum-exp, and a key and a value in bf16 per query's tile.
        let bytes = self.heads * (Self::rows(queries) * (4 * self.size + 4) + keys * 4 * self.size);
        self.work(
            instance,
            2,
            self.pairs(queries),
            blocks,
            instance.forward_keys,
            bytes,
        )
    }

    /// The kernel of row sums: it reads outputs and their gradients.
    pub fn delta(&self, queries: &QueryTables) -> Work {
        let rows = self.heads * Self::rows(queries);
        Work {
            bytes: (rows * (4 * self.size + 4)) as u64,
            ..Work::default()
        }
    }

    /// The kernel of the queries' gradient: scores, gradients of the weights, and sums over keys.
    pub fn backward_queries(&self, queries: &QueryTables, instance: &Instance) -> Work {
        let (blocks, keys) = self.walked(queries, instance.backward_keys_block);
        // Queries and the output's gradient in bf16, two numbers, and the result in f32.
        let bytes = self.heads * (Self::rows(queries) * (8 * self.size + 8) + keys * 4 * self.size);
        self.work(
            instance,
            3,
            self.pairs(queries),
            blocks,
            instance.backward_keys_block,
            bytes,
        )
    }

    /// The kernel of the gradients of keys and values: scores, gradients of the weights, and two sums over queries.
    pub fn backward_keys(
        &self,
        queries: &QueryTables,
        keys: &KeyTables,
        instance: &Instance,
    ) -> Work {
        let block = instance.backward_queries_block;
        let (mut blocks, mut read, mut rows) = (0, 0, 0);
        for tile in &keys.tiles {
            rows += tile.count as usize;
            for reader in &keys.readers[tile.readers as usize..tile.readers_end as usize] {
                let count = queries.tiles[*reader as usize].count as usize;
                blocks += count.div_ceil(block);
                read += count;
            }
        }
        let parts = instance.column_parts as usize;
        // A block of a large head computes all scores and a part of the columns of the sums.
        let own = self.kv_heads * rows * (4 * self.size * parts + 8 * self.size);
        let bytes = own + self.heads * read * (4 * self.size + 8) * parts;
        let mut work = self.work(instance, 4, self.pairs(queries), blocks, block, bytes);
        work.operations = work.operations / 4 * (2 * parts as u64 + 2);
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{Span, instance};

    #[test]
    fn work_of_one_full_tile() {
        let spans = [Span {
            start: 0,
            len: 64,
            parent: None,
        }];
        let queries = QueryTables::new(&spans, &[]);
        let keys = KeyTables::new(&spans, &queries, None);
        let layer = Layer {
            heads: 4,
            kv_heads: 2,
            size: 64,
            window: None,
        };
        let instance = instance(64).unwrap();
        let pairs = 64 * 65 / 2;
        let found = layer.forward(&queries, instance);
        assert_eq!(found.operations, 4 * 2 * 2 * 64 * 64 * 64);
        assert_eq!(found.useful, 4 * 2 * 2 * pairs * 64);
        // Queries, keys, values and outputs of 64 rows in bf16, and log-sum-exps.
        assert_eq!(found.bytes, 4 * (4 * 64 * 64 * 2 + 64 * 4));
        let found = layer.backward_queries(&queries, instance);
        assert_eq!(
            (found.operations, found.useful),
            (4 * 3 * 2 * 64 * 64 * 64, 4 * 3 * 2 * pairs * 64)
        );
        let found = layer.backward_keys(&queries, &keys, instance);
        assert_eq!(
            (found.operations, found.useful),
            (4 * 4 * 2 * 64 * 64 * 64, 4 * 4 * 2 * pairs * 64)
        );
        assert_eq!(
            found.bytes,
            2 * (64 * 64 * 4 + 64 * 64 * 8) + 4 * 64 * (4 * 64 + 8)
        );
    }

    #[test]
    fn a_window_and_a_large_head_count() {
        let spans = [Span {
            start: 0,
            len: 300,
            parent: None,
        }];
        let queries = QueryTables::new(&spans, &[]);
        let layer = |window| Layer {
            heads: 1,
            kv_heads: 1,
            size: 256,
            window,
        };
        let instance = instance(256).unwrap();
        assert_eq!(
            layer(Some(1)).forward(&queries, instance).useful,
            300 * 256 * 4
        );
        let all = layer(None).forward(&queries, instance);
        assert!(layer(Some(100)).forward(&queries, instance).operations < all.operations);
        let keys = KeyTables::new(&spans, &queries, None);
        let found = layer(None).backward_keys(&queries, &keys, instance);
        // Two blocks compute the scores of a pair: 6 products instead of 4.
        assert!(found.operations as f64 > 1.5 * found.useful as f64);
    }
}
