//! Attention over the tree of spans, forward and backward, without score matrices in memory.
