//! Attention over trees of spans.

mod bits;
mod bugs;
mod decode;
mod f64;
mod tree;

use half::bf16;
use upright_emulator::{Arg, Buffer, Number, launch, launch_unit};
use upright_kernels::{
    Element,
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
    /// Values before each head of the gradients, an even number. A row of outputs has four times as many after its heads.
    gap: usize,
}

/// Where heads are in the rows of queries, keys and values, or of their gradients.
struct Layout {
    /// Values per row.
    row: usize,
    /// Distance of heads.
    head: usize,
    /// First values of queries, keys and values in a row.
    starts: [usize; 3],
}

impl Shape {
    fn heads(&self) -> usize {
        self.kv_heads * self.group
    }

    fn scale(&self) -> f32 {
        3.0 / (self.size as f32).sqrt()
    }

    /// A layout with a gap before each head.
    fn layout(&self, gap: usize) -> Layout {
        let (wide, heads, kv_heads) = (self.size + gap, self.heads(), self.kv_heads);
        let (distance, before) = if self.fused {
            assert_eq!(self.group, 1, "a fused layout has no groups");
            (3, [0, 1, 2])
        } else {
            (1, [0, heads, heads + kv_heads])
        };
        Layout {
            row: (heads + 2 * kv_heads) * wide,
            head: distance * wide,
            starts: before.map(|before| before * wide + gap),
        }
    }

    /// The layout of gradients.
    fn gradient(&self) -> Layout {
        self.layout(self.gap)
    }

    /// Values per row of queries, keys and values.
    fn row(&self) -> usize {
        self.layout(0).row
    }

    /// Distance of heads in a row.
    fn head(&self) -> usize {
        self.layout(0).head
    }

    /// First value of queries, keys and values in a row.
    fn starts(&self) -> [usize; 3] {
        self.layout(0).starts
    }

    /// Values per row of outputs.
    fn out_row(&self) -> usize {
        self.heads() * self.size + 4 * self.gap
    }
}

/// What the kernels write, without what lies between the heads.
#[derive(Debug)]
struct Results {
    out: Buffer<bf16>,
    lse: Buffer<f32>,
    dq: Buffer<f32>,
    dk: Buffer<f32>,
    dv: Buffer<f32>,
}

/// Whether nobody has written a number.
fn is_unwritten<T: Number>(number: &T) -> bool {
    bytemuck::bytes_of(number) == bytemuck::bytes_of(&T::UNWRITTEN)
}

/// Moves heads of `size` values out of rows, as `[rows, heads, size]`. In a row, they begin at `start` and are `head` apart.
fn take<T: Number>(
    rows: &mut Buffer<T>,
    [row, head, start]: [usize; 3],
    heads: usize,
    size: usize,
) -> Buffer<T> {
    let mut taken = Vec::new();
    for row in rows.chunks_mut(row) {
        for index in 0..heads {
            let values = &mut row[start + index * head..][..size];
            taken.extend_from_slice(values);
            values.fill(T::UNWRITTEN);
        }
    }
    Buffer::from(taken)
}

/// An error if a number was written.
fn untouched<T: Number>(name: &str, rows: &[T]) -> Result<(), String> {
    match rows.iter().position(|number| !is_unwritten(number)) {
        Some(at) => Err(format!(
            "element {at} of {name} is between the heads and was written"
        )),
        None => Ok(()),
    }
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
    let gradient = shape.gradient();
    let mut out = Buffer::<bf16>::unwritten(tokens * shape.out_row());
    let mut d = Buffer::<f32>::unwritten(tokens * gradient.row);
    let [mut lse, mut delta] = [(); 2].map(|()| Buffer::<f32>::unwritten(tokens * heads));
    let [q, k, v] = shape.starts();
    let inputs = || [q, k, v].map(|start| qkv.input_from(start));
    let window = shape.window.unwrap_or(0);
    // Numbers, with those of the output between others.
    let numbers = |of_output: &[usize]| {
        let (row, head) = (shape.row(), shape.head());
        let mut args = Vec::new();
        let last = [heads, shape.group, shape.size, window];
        for number in [&[row, head, row, head], of_output, &last].concat() {
            args.push(Arg::I32(number as i32));
        }
        args.push(Arg::F32(shape.scale()));
        args
    };
    let grid = [queries.tiles.len() as u32, heads as u32, 1];

    let mut args = vec![tiles.input(), runs.input()];
    args.extend(inputs());
    args.extend([out.output(), lse.output()]);
    args.extend(numbers(&[shape.out_row()]));
    run(source.forward, instance.forward, grid, seed, &mut args)?;

    let mut args = vec![d_out.input(), out.input(), delta.output()];
    let sizes = [shape.out_row(), heads, shape.size, tokens * heads];
    args.extend(sizes.map(|number| Arg::I32(number as i32)));
    run(
        source.backward,
        "attention_delta",
        [(tokens * heads).div_ceil(4) as u32, 1, 1],
        seed,
        &mut args,
    )?;

    let mut args = vec![tiles.input(), runs.input()];
    args.extend(inputs());
    args.extend([d_out.input(), lse.input(), delta.input()]);
    let [d_q, d_k, d_v] = gradient.starts;
    args.push(Arg::Out(
        Element::F32,
        bytemuck::cast_slice_mut(&mut d[d_q..]),
    ));
    args.extend(numbers(&[gradient.row, gradient.head]));
    run(
        source.backward,
        instance.backward_queries,
        grid,
        seed,
        &mut args,
    )?;

    let mut args = vec![tiles.input(), key_tiles.input(), readers.input()];
    args.extend(inputs());
    args.extend([d_out.input(), lse.input(), delta.input(), d.output()]);
    args.extend(numbers(&[gradient.row, gradient.head, d_k, d_v]));
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

    let mut gradients = |start, heads| {
        let places = [gradient.row, gradient.head, start];
        take(&mut d, places, heads, shape.size)
    };
    let found = Results {
        dq: gradients(d_q, heads),
        dk: gradients(d_k, kv_heads),
        dv: gradients(d_v, kv_heads),
        out: take(
            &mut out,
            [shape.out_row(), shape.size, 0],
            heads,
            shape.size,
        ),
        lse,
    };
    untouched("out", &out)?;
    untouched("the gradients", &d)?;
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
