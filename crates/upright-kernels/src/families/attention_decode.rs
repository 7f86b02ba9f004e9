//! `cuda/attention_decode.cu`: attention of one new token per sequence.

use super::{Family, entry, family};
use crate::signature::{
    Element::{Bf16, I32},
    Parameter, float, input, int, output,
};

const PARAMETERS: &[Parameter] = &[
    input("tiles", I32),
    input("runs", I32),
    input("q", Bf16),
    input("k", Bf16),
    input("v", Bf16),
    output("out", Bf16),
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

/// Attention of one new token per sequence.
pub(super) const FAMILY: Family = family!(
    "attention_decode",
    &[
        entry("attention_decode_64", 128, 1056, PARAMETERS),
        entry("attention_decode_128", 128, 2080, PARAMETERS),
        entry("attention_decode_256", 128, 4128, PARAMETERS),
    ]
);
