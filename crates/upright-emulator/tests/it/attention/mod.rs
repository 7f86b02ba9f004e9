//! Attention over trees of spans.

mod bits;
mod bugs;
mod decode;
mod f64;
mod tree;

use half::bf16;
use upright_emulator::{Arg, Buffer, launch, launch_unit};
use upright_kernels::{
    attention::{KeyTables, QueryTables, Span, instance},
    kernel,
};

/// Sizes of a layer.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kv_heads: usize,
    group: usize,
    size: usize,
    window: Option<usize>,
    /// Queries, keys and values of a head lie together, as in GPT-NeoX. Else all queries, all keys, all values.
    fused: bool,
}

impl Shape {
    fn heads(&self) -> usize {
        self.kv_heads * self.group
    }

    fn scale(&self) -> f32 {
        3.0 / (self.size as f32).sqrt()
    }

    /// Values per row of queries, keys and values.
    fn row(&self) -> usize {
        (self.heads() + 2 * self.kv_heads) * self.size
    }

    /// Distance of heads in a row.
    fn head(&self) -> usize {
        if self.fused { 3 * self.size } else { self.size }
    }

    /// First value of queries, keys and values in a row.
    fn starts(&self) -> [usize; 3] {
        let size = self.size;
        if self.fused {
            assert_eq!(self.group, 1, "a fused layout has no groups");
            [0, size, 2 * size]
        } else {
            [
                0,
                self.heads() * size,
                (self.heads() + self.kv_heads) * size,
            ]
        }
    }
}

/// What the kernels write.
#[derive(Debug)]
struct Results {
    out: Buffer<bf16>,
    lse: Buffer<f32>,
    dq: Buffer<f32>,
    dk: Buffer<f32>,
    dv: Buffer<f32>,
}

/// A source file with kernels: that of the family, or a patched copy.
struct Source<'a> {
    forward: &'a str,
    backward: &'a str,
}

impl Source<'_> {
    const RIGHT: Self = Self {
        forward: "attention_forward",
        backward: "attention_backward",
    };
}

/// Runs a kernel of a unit with the shared memory of its original.
fn run(
    unit: &str,
    name: &str,
    grid: [u32; 3],
    seed: u64,
    args: &mut [Arg<'_>],
) -> Result<(), String> {
    let (family, found) = kernel(name).unwrap();
    if family.name == unit {
        launch(name, grid, seed, args)
    } else {
        launch_unit(unit, name, found.shared, grid, seed, args)
    }
}

/// Forward and backward pass of a pack. `qkv` has a row of queries, keys and values per token, `d_out` a row of all heads.
fn attention(
    source: &Source<'_>,
    spans: &[Span],
    shape: &Shape,
    qkv: &Buffer<bf16>,
    d_out: &Buffer<bf16>,
    seed: u64,
) -> Result<Results, String> {
    let instance = instance(shape.size).unwrap();
    let queries = QueryTables::new(spans, &[]);
    let keys = KeyTables::new(spans, &queries, shape.window);
    let tokens: usize = spans.iter().map(|span| span.len).sum();
    let (heads, kv_heads) = (shape.heads(), shape.kv_heads);
    let ints = |values: &[i32]| Buffer::from(values.to_vec());
    let tiles = ints(bytemuck::cast_slice(&queries.tiles));
    let runs = ints(bytemuck::cast_slice(&queries.runs));
    let key_tiles = ints(bytemuck::cast_slice(&keys.tiles));
    let readers = Buffer::from(keys.readers.clone());
    let row = tokens * heads;
    let mut found = Results {
        out: Buffer::unwritten(row * shape.size),
        lse: Buffer::unwritten(row),
        dq: Buffer::unwritten(row * shape.size),
        dk: Buffer::unwritten(tokens * kv_heads * shape.size),
        dv: Buffer::unwritten(tokens * kv_heads * shape.size),
    };
    let mut delta = Buffer::<f32>::unwritten(row);
    let [q, k, v] = shape.starts();
    let inputs = || [q, k, v].map(|start| qkv.input_from(start));
    let window = shape.window.unwrap_or(0);
    let numbers = || {
        let (row, head) = (shape.row(), shape.head());
        let mut args = Vec::new();
        for number in [row, head, row, head, heads, shape.group, shape.size, window] {
            args.push(Arg::I32(number as i32));
        }
        args.push(Arg::F32(shape.scale()));
        args
    };
    let grid = [queries.tiles.len() as u32, heads as u32, 1];

    let mut args = vec![tiles.input(), runs.input()];
    args.extend(inputs());
    args.extend([found.out.output(), found.lse.output()]);
    args.extend(numbers());
    run(source.forward, instance.forward, grid, seed, &mut args)?;

    let mut args = vec![d_out.input(), found.out.input(), delta.output()];
    args.extend([shape.size, row].map(|number| Arg::I32(number as i32)));
    launch(
        "attention_delta",
        [row.div_ceil(4) as u32, 1, 1],
        seed,
        &mut args,
    )?;

    let mut args = vec![tiles.input(), runs.input()];
    args.extend(inputs());
    args.extend([
        d_out.input(),
        found.lse.input(),
        delta.input(),
        found.dq.output(),
    ]);
    args.extend(numbers());
    run(
        source.backward,
        instance.backward_queries,
        grid,
        seed,
        &mut args,
    )?;

    let mut args = vec![tiles.input(), key_tiles.input(), readers.input()];
    args.extend(inputs());
    args.extend([d_out.input(), found.lse.input(), delta.input()]);
    args.extend([found.dk.output(), found.dv.output()]);
    args.extend(numbers());
    let grid = [
        keys.tiles.len() as u32,
        kv_heads as u32,
        instance.column_parts,
    ];
    run(
        source.backward,
        instance.backward_keys,
        grid,
        seed,
        &mut args,
    )?;

    for (name, unwritten) in [
        ("out", found.out.first_unwritten()),
        ("lse", found.lse.first_unwritten()),
        ("delta", delta.first_unwritten()),
        ("dq", found.dq.first_unwritten()),
        ("dk", found.dk.first_unwritten()),
        ("dv", found.dv.first_unwritten()),
    ] {
        if let Some(at) = unwritten {
            return Err(format!("element {at} of {name} was not written"));
        }
    }
    Ok(found)
}

/// A forest from (parent selector, length) pairs: 0 starts a tree, others continue one of the last spans, at most 4 deep.
fn forest(spans: &[(usize, usize)]) -> Vec<Span> {
    let mut found: Vec<Span> = Vec::new();
    let mut depths: Vec<usize> = Vec::new();
    for &(parent, len) in spans {
        let start = found.last().map_or(0, |span| span.start + span.len);
        let parent = depths
            .len()
            .checked_sub(parent)
            .filter(|&parent| parent < depths.len() && depths[parent] < 4);
        found.push(Span { start, len, parent });
        depths.push(parent.map_or(1, |parent| depths[parent] + 1));
    }
    found
}
