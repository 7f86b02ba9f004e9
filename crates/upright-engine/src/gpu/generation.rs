//! Generation on a device. Keys and values of all sequences lie in pages of one array per block, so attention reads a sequence as
//! a path of runs, one per page. The mirror of `cpu/generation.rs`.

use std::{collections::BTreeMap, sync::Arc};

use half::bf16;
use upright_base::Result;
use upright_kernels::attention::{QueryTables, Run, Tile};

use super::{
    array::Array,
    block::Block,
    decoder::{Decoder, State},
    device::Device,
    kernels::{
        attention::Attention,
        head::MOST,
        rows::{self, Rows, gather, scatter},
    },
    tables::{DeviceTargets, Tables, int, spans},
    weights::Heads,
};
use crate::{
    adapter::Held,
    backend::Sequences,
    next::{Following, Next, Want},
    prefill::{NewPrompt, Prefill, readings, wanted_rows},
};

/// Tokens of a page.
const PAGE: usize = 64;

/// How keys and values of a token lie in its row of queries, keys and values, and in a row of a cache. A row is moved in
/// `groups` parts.
#[derive(Clone, Copy, Debug)]
struct Layout {
    groups: usize,
    /// Values of a part.
    width: usize,
    /// First value of keys and values in a row of W values.
    start: usize,
    /// Values from one part to the next there.
    stride: usize,
    /// First key and first value in a row of a cache.
    starts: [usize; 2],
    /// Values from one head to the next in a row of a cache.
    head: usize,
}

impl Layout {
    fn of(heads: &Heads) -> Self {
        let (d, kv) = (heads.size, heads.keys);
        if heads.grouped {
            // Key and value of each head, side by side.
            return Self {
                groups: kv,
                width: 2 * d,
                start: d,
                stride: 3 * d,
                starts: [0, d],
                head: 2 * d,
            };
        }
        Self {
            groups: 1,
            width: 2 * kv * d,
            start: heads.out_width(),
            stride: heads.width(),
            starts: [0, kv * d],
            head: d,
        }
    }

    /// Values of a row of a cache.
    fn row(&self) -> usize {
        self.groups * self.width
    }

    /// Indices of all parts of some rows; -1 stays -1.
    fn parts(&self, device: &Arc<dyn Device>, rows: &[i32]) -> Result<Array<i32>> {
        let groups = int(self.groups);
        let mut parts = Vec::with_capacity(rows.len() * self.groups);
        for row in rows {
            for group in 0..groups {
                parts.push(if *row < 0 { -1 } else { row * groups + group });
            }
        }
        Array::from(device, &parts)
    }

    /// Rows of keys and values beside queries.
    fn beside<'a>(&self, qkv: &'a Array<bf16>) -> Rows<'a, bf16> {
        Rows {
            values: qkv,
            stride: self.stride,
        }
    }

    /// Rows of a cache.
    fn cached<'a>(&self, cache: &'a Array<bf16>) -> Rows<'a, bf16> {
        Rows {
            values: cache,
            stride: self.width,
        }
    }

    /// Attention with queries of `qkv` and keys and values of a cache. Counts it.
    fn attend(
        &self,
        block: &Block<'_>,
        qkv: &Array<bf16>,
        cache: &Array<bf16>,
        run: impl FnOnce(&Attention<'_>) -> Result<()>,
    ) -> Result<()> {
        let [k, v] = self.starts.map(|start| cache.at(start));
        let attention = Attention {
            kv_strides: [self.row(), self.head],
            ..block.attention([qkv, &k, &v])
        };
        block.count_attention(&attention, 2);
        run(&attention)
    }
}

/// Keys and values of all sequences.
struct Cache {
    /// `[pages * PAGE, row]` for every block.
    blocks: Vec<Array<bf16>>,
    pages: usize,
    unused: Vec<usize>,
}

/// One sequence.
#[derive(Clone, Debug, Default)]
struct Sequence {
    pages: Vec<usize>,
    length: usize,
}

impl Sequence {
    /// Row of a position in the cache.
    fn row(&self, position: usize) -> i32 {
        int(self.pages[position / PAGE] * PAGE + position % PAGE)
    }

    /// Runs of the whole sequence.
    fn runs(&self, runs: &mut Vec<Run>) {
        for (index, page) in self.pages.iter().enumerate() {
            runs.push(Run {
                position: int(index * PAGE),
                row: int(page * PAGE),
            });
        }
    }
}

/// Sequences in generation.
pub(crate) struct DeviceSequences<'a> {
    decoder: &'a Decoder,
    adapter: Option<Held<'a>>,
    layout: Layout,
    sequences: BTreeMap<usize, Sequence>,
    cache: Cache,
}

/// Copies that add the tokens of a pass to the cache: rows of this pass, and rows of other sequences.
struct Appended {
    computed: Moves,
    known: Moves,
}

/// Rows that go to other rows.
struct Moves {
    count: usize,
    from: Array<i32>,
    to: Array<i32>,
}

impl Moves {
    fn new(device: &Arc<dyn Device>, layout: &Layout, moves: &[(i32, i32)]) -> Result<Self> {
        let from: Vec<i32> = moves.iter().map(|(from, _)| *from).collect();
        let to: Vec<i32> = moves.iter().map(|(_, to)| *to).collect();
        Ok(Self {
            count: moves.len() * layout.groups,
            from: layout.parts(device, &from)?,
            to: layout.parts(device, &to)?,
        })
    }

    /// Moves rows of `x` into a cache.
    fn run(&self, layout: &Layout, x: Rows<'_, bf16>, cache: &Array<bf16>) -> Result<()> {
        let (count, width) = (self.count, layout.width);
        let between = Array::new(cache.device(), count * width)?;
        let between = Rows {
            values: &between,
            stride: width,
        };
        gather(count, width, x, &self.from, between)?;
        scatter(count, width, between, &self.to, layout.cached(cache))
    }
}

/// Keys and values of a pack's known tokens, and where the computed ones go among them.
struct Joined {
    tokens: usize,
    /// For every token its row in the cache, or -1.
    known: Array<i32>,
    /// Row of every computed token.
    computed: Array<i32>,
}

impl<'a> DeviceSequences<'a> {
    pub(super) fn new(decoder: &'a Decoder, adapter: Option<Held<'a>>) -> Self {
        Self {
            decoder,
            adapter,
            layout: Layout::of(&Heads::of(&decoder.config)),
            sequences: BTreeMap::new(),
            cache: Cache {
                blocks: Vec::new(),
                pages: 0,
                unused: Vec::new(),
            },
        }
    }

    /// Gives a sequence pages for `length` tokens.
    fn grow(&mut self, sequence: &mut Sequence, length: usize) -> Result<()> {
        while sequence.pages.len() * PAGE < length {
            if self.cache.unused.is_empty() {
                self.add_pages()?;
            }
            sequence.pages.extend(self.cache.unused.pop());
        }
        sequence.length = length;
        Ok(())
    }

    /// Makes the cache half as large again. One block at a time, so that little memory is taken twice.
    fn add_pages(&mut self) -> Result<()> {
        let device = &self.decoder.device;
        let cache = &mut self.cache;
        let pages = (cache.pages + cache.pages / 2).max(4);
        for layer in 0..self.decoder.config.layers {
            let larger = Array::new(device, pages * PAGE * self.layout.row())?;
            match cache.blocks.get_mut(layer) {
                Some(block) => {
                    let place = block.place();
                    device.copy(place, larger.place(), place.bytes)?;
                    *block = larger;
                }
                None => cache.blocks.push(larger),
            }
        }
        cache.unused.extend((cache.pages..pages).rev());
        cache.pages = pages;
        Ok(())
    }

    /// The next-token prediction of every row of `x`, `[rows, H]`.
    fn next(&self, state: &State, x: &Array<f32>, want: Want) -> Result<Vec<Next>> {
        let head = self.decoder.head(state);
        let rows = x.len() / self.decoder.config.hidden;
        if let Want::Best(count) = want
            && count <= MOST
        {
            let targets = DeviceTargets::new(&self.decoder.device, &vec![0; rows], &[])?;
            let (_, found) = head.best(x, &targets, count)?;
            return Ok(found.into_iter().map(Next::Best).collect());
        }
        let logits = head.logits(x)?;
        let mut next = Vec::with_capacity(rows);
        for logits in logits.chunks(self.decoder.config.vocab) {
            next.push(Next::of_logits(logits, want));
        }
        Ok(next)
    }

    /// Tables that join the known tokens of a prefill; `None` if there are none.
    fn joined(&self, prefill: &Prefill) -> Result<Option<Joined>> {
        if prefill.known.iter().all(|known| *known == 0) {
            return Ok(None);
        }
        let device = &self.decoder.device;
        let pack = &prefill.pack;
        let mut known = vec![-1; pack.tokens.len()];
        for (index, (span, offset)) in pack.spans.iter().zip(pack.offsets()).enumerate() {
            let Some(source) = prefill.sources[index] else {
                continue;
            };
            let sequence = &self.sequences[&source];
            for token in 0..prefill.known[index] {
                known[span.start + token] = sequence.row(offset + token);
            }
        }
        let computed: Vec<i32> = prefill.computed.iter().map(|row| int(*row)).collect();
        Ok(Some(Joined {
            tokens: pack.tokens.len(),
            known: self.layout.parts(device, &known)?,
            computed: self.layout.parts(device, &computed)?,
        }))
    }

    /// Starts the sequences of the prompts that are kept.
    fn start(&mut self, prompts: &[NewPrompt<'_>], prefill: &Prefill) -> Result<Appended> {
        let (mut computed, mut known) = (Vec::new(), Vec::new());
        for (prompt, path) in prompts.iter().zip(&prefill.paths) {
            let Some(id) = prompt.keep else {
                continue;
            };
            let mut sequence = Sequence::default();
            self.grow(&mut sequence, prompt.tokens.len())?;
            if let Some((source, tokens)) = prompt.after {
                for position in 0..tokens {
                    let from = self.sequences[&source].row(position);
                    known.push((from, sequence.row(position)));
                }
            }
            for (position, row) in path.iter().enumerate().skip(prompt.known()) {
                let from = int(prefill.computed_index(*row));
                computed.push((from, sequence.row(position)));
            }
            self.sequences.insert(id, sequence);
        }
        let device = &self.decoder.device;
        Ok(Appended {
            computed: Moves::new(device, &self.layout, &computed)?,
            known: Moves::new(device, &self.layout, &known)?,
        })
    }

    /// Runs the blocks over prompts. Returns the hidden states of the wanted rows.
    fn prefill(
        &self,
        state: &State,
        tables: &Tables,
        joined: Option<&Joined>,
        appended: &Appended,
    ) -> Result<Array<f32>> {
        let (decoder, layout) = (self.decoder, &self.layout);
        let hidden = decoder.config.hidden;
        let adapted = self.adapter.is_some();
        let mut x = rows::embed(&state.weights.embedding, &tables.tokens, hidden)?;
        for layer in 0..decoder.config.layers {
            let block = decoder.block(state, tables, layer, adapted, false);
            let cache = self.cache.blocks.get(layer);
            let y = block.forward_with(x, |qkv, attended, stride, lse| {
                let parts = qkv.at(layout.start);
                let beside = layout.beside(&parts);
                if let Some(cache) = cache {
                    appended.known.run(layout, layout.cached(cache), cache)?;
                    appended.computed.run(layout, beside, cache)?;
                }
                let Some(joined) = joined else {
                    return block.attend(qkv, attended, stride, lse);
                };
                let cache = cache.expect("known tokens lie in a cache");
                let whole = Array::new(&decoder.device, joined.tokens * layout.row())?;
                let (width, to) = (layout.width, layout.cached(&whole));
                let count = joined.known.len();
                gather(count, width, layout.cached(cache), &joined.known, to)?;
                let count = joined.computed.len();
                scatter(count, width, beside, &joined.computed, to)?;
                layout.attend(&block, qkv, &whole, |attention| {
                    attention.forward(&tables.tiles, attended, stride, lse)
                })
            });
            x = y?.0;
        }
        Ok(x)
    }
}

impl Sequences for DeviceSequences<'_> {
    fn read(
        &mut self,
        prompts: &[NewPrompt<'_>],
        best: Option<usize>,
        want: Want,
    ) -> Result<Vec<(Next, Vec<Following>)>> {
        let decoder = self.decoder;
        let device = &decoder.device;
        let prefill = Prefill::new(prompts);
        let wanted = wanted_rows(prompts, &prefill, best.is_some());
        decoder.counters.forward(prefill.computed.len());
        let (positions, tokens) = prefill.computed_tokens();
        let queries = QueryTables::new(&spans(&prefill.pack), &prefill.known);
        let windows = &decoder.config.windows;
        let tables = Tables::new(device, &tokens, &positions, &queries, windows, &wanted)?;
        let state = decoder.prepared(tables.end, self.adapter.as_deref())?;
        let joined = self.joined(&prefill)?;
        let appended = self.start(prompts, &prefill)?;
        let x = self.prefill(&state, &tables, joined.as_ref(), &appended)?;

        let hidden = decoder.config.hidden;
        let mut last = Vec::with_capacity(prompts.len());
        for path in &prefill.paths {
            last.push(int(prefill.wanted_index(&wanted, path[path.len() - 1])));
        }
        let of_last = Array::new(device, last.len() * hidden)?;
        let last = Array::from(device, &last)?;
        let (from, to) = (rows_of(&x, hidden), rows_of(&of_last, hidden));
        gather(last.len(), hidden, from, &last, to)?;
        let next = self.next(&state, &of_last, want)?;
        let Some(count) = best else {
            return Ok(next.into_iter().map(|next| (next, Vec::new())).collect());
        };
        let targets = prefill.following_targets(prompts, &wanted);
        let scored: Vec<usize> = (0..wanted.len()).collect();
        let by_row = DeviceTargets::new(device, &scored, &targets)?;
        let (logp, found) = decoder.head(&state).best(&x, &by_row, count)?;
        Ok(readings(prompts, next, &targets, logp, &found))
    }

    fn advance(&mut self, tokens: &[(usize, &[u32])], want: Want) -> Result<Vec<Next>> {
        let decoder = self.decoder;
        let device = &decoder.device;
        let layout = self.layout;
        let (mut ids, mut positions, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        let mut cached = Vec::new();
        let mut queries = QueryTables::default();
        for (id, tokens) in tokens {
            let mut sequence = self.sequences.remove(id).expect("a sequence that joined");
            let first = sequence.length;
            let grown = self.grow(&mut sequence, first + tokens.len());
            let runs = queries.runs.len();
            sequence.runs(&mut queries.runs);
            for (position, token) in (first..).zip(*tokens) {
                queries.tiles.push(Tile {
                    row: int(ids.len()),
                    count: 1,
                    position: int(position),
                    runs: int(runs),
                    runs_end: int(queries.runs.len()),
                });
                cached.push(sequence.row(position));
                positions.push(position);
                ids.push(*token);
            }
            wanted.push(ids.len() - 1);
            self.sequences.insert(*id, sequence);
            grown?;
        }
        decoder.counters.forward(ids.len());
        let windows = &decoder.config.windows;
        let tables = Tables::new(device, &ids, &positions, &queries, windows, &wanted)?;
        let cached = layout.parts(device, &cached)?;
        let adapted = self.adapter.is_some();
        let state = decoder.prepared(tables.end, self.adapter.as_deref())?;
        let hidden = decoder.config.hidden;
        let mut x = rows::embed(&state.weights.embedding, &tables.tokens, hidden)?;
        for layer in 0..decoder.config.layers {
            let block = decoder.block(&state, &tables, layer, adapted, false);
            let cache = &self.cache.blocks[layer];
            let y = block.forward_with(x, |qkv, attended, stride, _| {
                let parts = qkv.at(layout.start);
                let (count, width) = (cached.len(), layout.width);
                let to = layout.cached(cache);
                scatter(count, width, layout.beside(&parts), &cached, to)?;
                layout.attend(&block, qkv, cache, |attention| {
                    attention.decode(&tables.tiles, attended, stride)
                })
            });
            x = y?.0;
        }
        self.next(&state, &x, want)
    }

    fn fork(&mut self, from: usize, to: usize) -> Result<()> {
        let source = self.sequences[&from].clone();
        let mut copy = Sequence::default();
        self.grow(&mut copy, source.length)?;
        let page = PAGE * self.layout.row();
        for cache in &self.cache.blocks {
            for (from, to) in source.pages.iter().zip(&copy.pages) {
                let from = cache.at(from * page).place();
                let to = cache.at(to * page).place();
                let bytes = page * size_of::<bf16>();
                cache.device().copy(from, to, bytes)?;
            }
        }
        self.sequences.insert(to, copy);
        Ok(())
    }

    fn leave(&mut self, sequence: usize) {
        if let Some(sequence) = self.sequences.remove(&sequence) {
            self.cache.unused.extend(sequence.pages);
        }
    }

    fn bytes(&self, tokens: usize) -> usize {
        let config = &self.decoder.config;
        let row = 2 * config.kv_heads * config.head_size * size_of::<bf16>();
        config.layers * tokens.next_multiple_of(PAGE) * row
    }
}

/// An array as rows of `width` values.
fn rows_of(values: &Array<f32>, width: usize) -> Rows<'_, f32> {
    Rows {
        values,
        stride: width,
    }
}
