//! Attention over the tree of spans, forward and backward, without score matrices in memory.
use crate::pack::Pack;
/// Where the vector of a head of a token lies: at `token * row + head * head + offset`.
#[derive(Clone, Copy, Debug)]
pub struct HeadLayout {
    /// Distance between tokens.
    pub row: usize,
    /// Distance between heads.
    pub head: usize,
    /// First head's distance from the token's start.
    pub offset: usize,
}
/// Sizes of attention.
#[derive(Clone, Copy, Debug)]
pub struct Shape { pub heads: usize, pub kv_heads: usize, pub head_size: usize, pub window: Option<usize>, pub scale: f32 }
pub fn forward(_: &Pack, _: &Shape, _: &[f32], _: HeadLayout, _: HeadLayout, _: HeadLayout, _: &mut [f32], _: &mut [f32]) {}
pub fn backward(_: &Pack, _: &Shape, _: &[f32], _: HeadLayout, _: HeadLayout, _: HeadLayout, _: &[f32], _: &[f32], _: &[f32], _: &mut [f32]) {}
