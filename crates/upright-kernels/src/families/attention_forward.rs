//! `cuda/attention_forward.cu`: attention over a tree of spans, forward.

use super::{Family, entry, family};
use crate::signature::{
    Element::{Bf16, F32, I32},
    Parameter, float, input, int, output,
};

const PARAMETERS: &[Parameter] = &[
    input("tiles", I32),
    input("runs", I32),
    input("q", Bf16),
    input("k", Bf16),
    input("v", Bf16),
    output("out", Bf16),
    output("lse", F32),
    int("q_row"),
    int("q_head"),
    int("kv_row"),
    int("kv_head"),
    int("out_row"),
    int("heads"),
    int("group"),
    int("size"),
    int("window"),
    float("scale"),
];

/// Attention, forward.
pub(super) const FAMILY: Family = family!(
    "attention_forward",
    &[
        entry("attention_forward_32", 128, 15_360, PARAMETERS),
        entry("attention_forward_64", 128, 27_648, PARAMETERS),
        entry("attention_forward_80", 128, 33_792, PARAMETERS),
        entry("attention_forward_96", 128, 39_936, PARAMETERS),
        entry("attention_forward_128", 128, 52_224, PARAMETERS),
        entry("attention_forward_256", 128, 67_584, PARAMETERS),
    ]
);
