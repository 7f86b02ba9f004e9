//! Prints operations and bytes of the attention kernels per token, for the shape of Llama 3 8B.

#![allow(clippy::print_stdout, reason = "an example")]

use upright_kernels::{
    attention::{KeyTables, QueryTables, Span, instance},
    work::Layer,
};

/// A pack of `trees` trees, each a prompt with answers.
fn pack(trees: usize, prompt: usize, answers: &[usize]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut start = 0;
    for _ in 0..trees {
        let root = spans.len();
        spans.push(Span {
            start,
            len: prompt,
            parent: None,
        });
        start += prompt;
        for &len in answers {
            spans.push(Span {
                start,
                len,
                parent: Some(root),
            });
            start += len;
        }
    }
    spans
}

fn main() {
    let layer = Layer {
        heads: 32,
        kv_heads: 8,
        size: 128,
        window: None,
    };
    let instance = instance(layer.size).expect("an instance for 128");
    println!("| pack | kernel | MFLOP per token | of it useful | kB per token |");
    println!("|---|---|---|---|---|");
    for (name, spans) in [
        ("rows of 200", pack(40, 200, &[])),
        ("rows of 400", pack(20, 400, &[])),
        ("rows of 2,048", pack(4, 2048, &[])),
        ("pairs: 200 + 2 x 120", pack(18, 200, &[120, 120])),
    ] {
        let queries = QueryTables::new(&spans, &[]);
        let keys = KeyTables::new(&spans, &queries, layer.window);
        let tokens: usize = spans.iter().map(|span| span.len).sum();
        for (kernel, work) in [
            ("forward", layer.forward(&queries, instance)),
            ("delta", layer.delta(&queries)),
            ("queries", layer.backward_queries(&queries, instance)),
            ("keys", layer.backward_keys(&queries, &keys, instance)),
        ] {
            let per_token = |value: u64| value as f64 / tokens as f64;
            let share = 100.0 * work.useful as f64 / work.operations.max(1) as f64;
            let operations = per_token(work.operations) / 1e6;
            println!(
                "| {name} | {kernel} | {operations:.2} | {share:.0}% | {:.1} |",
                per_token(work.bytes) / 1e3
            );
        }
    }
}
