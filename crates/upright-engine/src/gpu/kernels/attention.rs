//! `attention_*.cu`: attention over a tree of spans.

use half::bf16;
use upright_base::Result;
use upright_kernels::attention::Instance;

use crate::gpu::{
    array::Array,
    device::{Arg, int, launch},
    weights::Heads,
};

/// Queries, keys and values, and which positions a query sees.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct Attention<'a> {
    pub(in crate::gpu) heads: &'a Heads,
    /// Kernels for the size of the heads.
    pub(in crate::gpu) instance: &'static Instance,
    /// Positions that a query sees, its own included; `None` means all up to its own.
    pub(in crate::gpu) window: Option<usize>,
    /// Rows of queries, keys and values, from the first of each on.
    pub(in crate::gpu) q: &'a Array<bf16>,
    pub(in crate::gpu) k: &'a Array<bf16>,
    pub(in crate::gpu) v: &'a Array<bf16>,
    /// Values from a row of queries to the next, and from a head to the next.
    pub(in crate::gpu) q_strides: [usize; 2],
    /// The same of keys and values.
    pub(in crate::gpu) kv_strides: [usize; 2],
}

/// Tiles of queries and their paths.
#[derive(Clone, Debug)]
pub(in crate::gpu) struct Tiles {
    pub(in crate::gpu) count: usize,
    pub(in crate::gpu) tiles: Array<i32>,
    pub(in crate::gpu) runs: Array<i32>,
}

/// Tiles of keys and their readers.
#[derive(Clone, Debug)]
pub(in crate::gpu) struct KeyTiles {
    pub(in crate::gpu) count: usize,
    pub(in crate::gpu) tiles: Array<i32>,
    pub(in crate::gpu) readers: Array<i32>,
}

impl Attention<'_> {
    fn inputs(&self) -> [Arg; 3] {
        [self.q.input(), self.k.input(), self.v.input()]
    }

    fn strides(&self) -> [Arg; 4] {
        let ([q_row, q_head], [kv_row, kv_head]) = (self.q_strides, self.kv_strides);
        [int(q_row), int(q_head), int(kv_row), int(kv_head)]
    }

    fn numbers(&self) -> [Arg; 5] {
        let heads = self.heads;
        [
            int(heads.queries),
            int(heads.queries / heads.keys),
            int(heads.size),
            int(self.window.unwrap_or(0)),
            Arg::F32(heads.scale),
        ]
    }

    /// Outputs, in rows that are `out_row` apart, and log-sum-exps `[rows, heads]`.
    pub(in crate::gpu) fn forward(
        &self,
        tiles: &Tiles,
        out: &Array<bf16>,
        out_row: usize,
        lse: &Array<f32>,
    ) -> Result<()> {
        if tiles.count == 0 {
            return Ok(());
        }
        let mut args = vec![tiles.tiles.input(), tiles.runs.input()];
        args.extend(self.inputs());
        args.extend([out.output(), lse.output()]);
        args.extend(self.strides());
        args.push(int(out_row));
        args.extend(self.numbers());
        let grid = [tiles.count, self.heads.queries, 1];
        launch(self.q.device(), self.instance.forward, grid, &args)
    }

    /// Outputs of one new token per tile.
    pub(in crate::gpu) fn decode(
        &self,
        tiles: &Tiles,
        out: &Array<bf16>,
        out_row: usize,
    ) -> Result<()> {
        if tiles.count == 0 {
            return Ok(());
        }
        let mut args = vec![tiles.tiles.input(), tiles.runs.input()];
        args.extend(self.inputs());
        args.push(out.output());
        args.extend(self.strides());
        args.push(int(out_row));
        args.extend(self.numbers());
        let grid = [tiles.count, self.heads.queries, 1];
        launch(self.q.device(), self.instance.decode, grid, &args)
    }

    /// Gradients of queries, keys and values, in the layout of `q`'s rows: `d` `[rows, W]`. `d_out` is `[rows, heads d]`, and
    /// `starts` are the first columns of queries, keys and values.
    #[allow(clippy::too_many_arguments, reason = "operands of one operation")]
    pub(in crate::gpu) fn backward(
        &self,
        tiles: &Tiles,
        keys: &KeyTiles,
        (out, out_row): (&Array<bf16>, usize),
        lse: &Array<f32>,
        d_out: &Array<bf16>,
        d: &Array<f32>,
        starts: [usize; 3],
    ) -> Result<()> {
        if tiles.count == 0 {
            return Ok(());
        }
        let device = self.q.device();
        let heads = self.heads;
        let count = lse.len();
        let delta = Array::<f32>::new(device, count)?;
        launch(
            device,
            "attention_delta",
            [count.div_ceil(4), 1, 1],
            &[
                d_out.input(),
                out.input(),
                delta.output(),
                int(out_row),
                int(heads.queries),
                int(heads.size),
                int(count),
            ],
        )?;
        let [d_row, d_head] = self.q_strides;
        let mut args = vec![tiles.tiles.input(), tiles.runs.input()];
        args.extend(self.inputs());
        args.extend([d_out.input(), lse.input(), delta.input()]);
        args.push(d.at(starts[0]).output());
        args.extend(self.strides());
        args.extend([int(d_row), int(d_head)]);
        args.extend(self.numbers());
        let grid = [tiles.count, heads.queries, 1];
        launch(device, self.instance.backward_queries, grid, &args)?;

        let mut args = vec![
            tiles.tiles.input(),
            keys.tiles.input(),
            keys.readers.input(),
        ];
        args.extend(self.inputs());
        args.extend([d_out.input(), lse.input(), delta.input(), d.output()]);
        args.extend(self.strides());
        args.extend([int(d_row), int(d_head), int(starts[1]), int(starts[2])]);
        args.extend(self.numbers());
        let parts = self.instance.column_parts as usize;
        let grid = [keys.count, heads.keys, parts];
        launch(device, self.instance.backward_keys, grid, &args)
    }
}
