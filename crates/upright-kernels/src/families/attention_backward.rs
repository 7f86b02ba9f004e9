//! `cuda/attention_backward.cu`: attention over a tree of spans, backward.

use super::{Family, entry, family};
use crate::signature::{
    Element::{Bf16, F32, I32},
    Parameter, float, input, int, output,
};

const DELTA: &[Parameter] = &[
    input("d_out", Bf16),
    input("out", Bf16),
    output("delta", F32),
    int("out_row"),
    int("heads"),
    int("size"),
    int("count"),
];

const QUERIES: &[Parameter] = &[
    input("tiles", I32),
    input("runs", I32),
    input("q", Bf16),
    input("k", Bf16),
    input("v", Bf16),
    input("d_out", Bf16),
    input("lse", F32),
    input("delta", F32),
    output("d", F32),
    int("q_row"),
    int("q_head"),
    int("kv_row"),
    int("kv_head"),
    int("d_row"),
    int("d_head"),
    int("heads"),
    int("group"),
    int("size"),
    int("window"),
    float("scale"),
];

const KEYS: &[Parameter] = &[
    input("tiles", I32),
    input("key_tiles", I32),
    input("readers", I32),
    input("q", Bf16),
    input("k", Bf16),
    input("v", Bf16),
    input("d_out", Bf16),
    input("lse", F32),
    input("delta", F32),
    output("d", F32),
    int("q_row"),
    int("q_head"),
    int("kv_row"),
    int("kv_head"),
    int("d_row"),
    int("d_head"),
    int("k_start"),
    int("v_start"),
    int("heads"),
    int("group"),
    int("size"),
    int("window"),
    float("scale"),
];

/// Attention, backward.
pub(super) const FAMILY: Family = family!(
    "attention_backward",
    &[
        entry("attention_delta", 128, 0, DELTA),
        entry("attention_backward_queries_32", 128, 30_720, QUERIES),
        entry("attention_backward_keys_32", 128, 31_232, KEYS),
        entry("attention_backward_queries_64", 128, 55_296, QUERIES),
        entry("attention_backward_keys_64", 128, 55_808, KEYS),
        entry("attention_backward_queries_80", 128, 45_056, QUERIES),
        entry("attention_backward_keys_80", 128, 45_312, KEYS),
        entry("attention_backward_queries_96", 128, 53_248, QUERIES),
        entry("attention_backward_keys_96", 128, 53_504, KEYS),
        entry("attention_backward_queries_128", 128, 69_632, QUERIES),
        entry("attention_backward_keys_128", 128, 69_888, KEYS),
        entry("attention_backward_queries_256", 128, 84_480, QUERIES),
        entry("attention_backward_keys_256", 128, 84_608, KEYS),
    ]
);
