//! Counts launches, products, bytes and memory of a training step on a card, and predicts its time on an H100. Nothing is computed, so
//! no card and no weights are needed.
//!
//! ```sh
//! cargo run --release -p upright-engine --example gpu_step [MODEL_FOLDER]
//! ```

#![allow(clippy::print_stdout, reason = "an example")]

use std::{path::PathBuf, sync::Arc};

use upright_base::Result;
use upright_engine::work::{self, StepWork, Work};
use upright_kernels::{
    attention::{KeyTables, QueryTables, Span, instance},
    work::Layer,
};
use upright_model::{
    Recompute,
    adapter::{AdapterLayout, LoraConfig},
    config::DecoderConfig,
    pack::Pack,
};

/// Rates of an H100 that the prediction assumes, in FLOP/s and bytes/s: sustained bf16 products, attention, memory. Those of attention
/// are what FlashAttention-2 reaches at rows of about 500 tokens, counted over visible pairs.
const PRODUCTS: f64 = 650e12;
const ATTENTION_FORWARD: f64 = 200e12;
const ATTENTION_BACKWARD: f64 = 150e12;
const MEMORY: f64 = 2.6e12;
/// Peak of an H100 with dense bf16 products, the base of model FLOP utilization.
const PEAK: f64 = 989e12;

/// Attention of one block, forward and backward: FLOP over visible pairs, with two and five products per pair, and bytes.
struct AttentionWork {
    useful: [f64; 2],
    bytes: [f64; 2],
}

/// Products per pair of our backward pass over those of one with atomics.
const DETERMINISTIC: f64 = 7.0 / 5.0;

fn attention(config: &DecoderConfig, pack: &Pack) -> AttentionWork {
    let mut spans = Vec::with_capacity(pack.spans.len());
    for span in &pack.spans {
        spans.push(Span {
            start: span.start,
            len: span.len,
            parent: span.parent,
        });
    }
    let layer = Layer {
        heads: config.heads,
        kv_heads: config.kv_heads,
        size: config.head_size,
        window: config.windows[0],
    };
    let instance = instance(config.head_size).expect("kernels for the head size");
    let queries = QueryTables::new(&spans, &[]);
    let keys = KeyTables::new(&spans, &queries, layer.window);
    let forward = layer.forward(&queries, instance);
    let backward = [
        layer.delta(&queries),
        layer.backward_queries(&queries, instance),
        layer.backward_keys(&queries, &keys, instance),
    ];
    let bytes: u64 = backward.iter().map(|work| work.bytes).sum();
    AttentionWork {
        useful: [forward.useful as f64, forward.useful as f64 * 2.5],
        bytes: [forward.bytes as f64, bytes as f64],
    }
}

/// Rows of `len` tokens, of which the second half is scored.
fn rows(count: usize, len: usize) -> Pack {
    let mut pack = Pack::default();
    let tokens: Vec<u32> = (0..=len).map(|i| i as u32 % 1000).collect();
    for _ in 0..count {
        pack.tree(&tokens[..len / 2], &[&tokens[len / 2..]]);
    }
    pack
}

/// The part of a kernel's name that its rows of the table share.
fn group(kernel: &str) -> &str {
    let parts: Vec<&str> = kernel.split('_').collect();
    match parts[..] {
        ["thin", "copy", ..] => "copies of A and B",
        ["thin", "gradient", ..] => "gradients of A and B",
        ["thin", ..] => "u and du",
        ["attention", ..] => "attention",
        ["swiglu" | "gelu", ..] => "activation",
        ["rotary" | "head", "rounded" | "norm", ..] => "rotary and head norms",
        ["head", ..] => "head",
        ["rms" | "layer", ..] => "norms",
        ["gather" | "scatter", ..] => "rows that move",
        _ => "optimizer",
    }
}

fn tell_launches(name: &str, work: &Work, attention: Option<(f64, usize)>, tokens: f64) {
    let mut groups: Vec<(&str, usize, f64)> = Vec::new();
    for (kernel, (count, bytes)) in &work.launches {
        let group = group(kernel);
        match groups.iter_mut().find(|(other, ..)| *other == group) {
            Some(found) => {
                found.1 += count;
                found.2 += *bytes as f64;
            }
            None => groups.push((group, *count, *bytes as f64)),
        }
    }
    for (group, count, mut bytes) in groups {
        if let (Some((of_layer, layers)), "attention") = (attention, group) {
            bytes = of_layer * layers as f64;
        }
        println!(
            "| {name} | {group} | {count} | {:.1} |",
            bytes / tokens / 1e3
        );
    }
}

fn tell(config: &DecoderConfig, pack: &Pack, step: &StepWork) {
    let tokens = pack.tokens.len() as f64;
    let layers = config.layers;
    let of_layer = attention(config, pack);
    println!("| pass | kernels | launches | kB per token |");
    println!("|---|---|---|---|");
    let [forward, backward] = of_layer.bytes;
    tell_launches("forward", &step.forward, Some((forward, layers)), tokens);
    tell_launches("backward", &step.backward, Some((backward, layers)), tokens);
    tell_launches("update", &step.update, None, tokens);
    let passes = [&step.forward, &step.backward, &step.update];
    let launches: usize = passes.iter().map(|work| work.launch_count()).sum();
    let products: usize = passes.iter().flat_map(|work| work.products.values()).sum();
    println!("\n{launches} launches and {products} products per step");
    println!("\n| product [m, n, k] | forward | backward | TFLOP |");
    println!("|---|---|---|---|");
    let mut shapes: Vec<[usize; 3]> = step.forward.products.keys().copied().collect();
    shapes.extend(step.backward.products.keys().copied());
    shapes.sort_unstable();
    shapes.dedup();
    for shape in shapes {
        let count = |work: &Work| work.products.get(&shape).copied().unwrap_or(0);
        let (forward, backward) = (count(&step.forward), count(&step.backward));
        let flop = 2.0 * shape.iter().product::<usize>() as f64 * (forward + backward) as f64;
        println!(
            "| {shape:?} | {forward} | {backward} | {:.2} |",
            flop / 1e12
        );
    }

    // Time: products, attention and memory one after another, as on one stream.
    let multiply_adds: u64 = passes.iter().map(|work| work.multiply_adds()).sum();
    let products = 2.0 * multiply_adds as f64 / PRODUCTS;
    let layers = layers as f64;
    let [forward, backward] = of_layer.useful;
    let attention =
        layers * (forward / ATTENTION_FORWARD + DETERMINISTIC * backward / ATTENTION_BACKWARD);
    let bytes: u64 = passes
        .iter()
        .map(|work| work.launch_bytes() + work.copies.1)
        .sum();
    let memory = bytes as f64 / MEMORY;
    let total = products + attention + memory;
    // Useful: the frozen products forward and for the gradient of their input, the head on scored rows, and visible attention.
    let (h, i, d) = (config.hidden, config.intermediate, config.head_size);
    let qkv = (config.heads + 2 * config.kv_heads) * d;
    let block = h * (qkv + config.heads * d + 3 * i);
    let scored = pack.scored_rows().len() as f64;
    let useful = 4.0 * tokens * layers * block as f64
        + 4.0 * scored * (config.vocab * h) as f64
        + layers * (of_layer.useful[0] + of_layer.useful[1]);
    println!("\n| part | us per token |");
    println!("|---|---|");
    for (name, seconds) in [
        ("products", products),
        ("attention", attention),
        ("other kernels", memory),
        ("all", total),
    ] {
        println!("| {name} | {:.1} |", 1e6 * seconds / tokens);
    }
    println!(
        "\n{:.0} tokens/s, {:.1} GFLOP per token, {:.1}% MFU, {:.1} GB weights, {:.1} GB peak",
        tokens / total,
        useful / tokens / 1e9,
        100.0 * useful / total / PEAK,
        step.weights as f64 / 1e9,
        step.peak as f64 / 1e9,
    );
}

fn main() -> Result<()> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/llama-3-8b");
    let folder = std::env::args().nth(1).map_or(default, PathBuf::from);
    let config = DecoderConfig::read(&folder)?;
    let lora = LoraConfig::new(16, 16.0, vec!["all-linear".to_owned()]);
    let layout = Arc::new(AdapterLayout::new(&config, &lora)?);
    let pack = rows(20, 400);
    for recompute in [Recompute::Off, Recompute::On] {
        println!(
            "\n## Recompute {recompute:?}, {} tokens\n",
            pack.tokens.len()
        );
        let step = work::of_step(&config, &layout, &pack, recompute)?;
        tell(&config, &pack, &step);
    }
    Ok(())
}
