//! What a model family declares.

use std::fmt;

/// The normalization before attention, MLP and head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// Subtract the mean, divide by the standard deviation, scale, add a bias.
    Layer,
    /// Divide by the root mean square, scale.
    Rms,
}

/// The MLP's nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `down(gelu(up(x)))` with the exact (erf) GELU.
    Gelu,
    /// `down(gelu(up(x)))` with the tanh approximation.
    GeluTanh,
    /// `down(silu(gate(x)) * up(x))`.
    SwiGlu,
}

/// A model family: how its `config.json` is read, and the names of its tensors. Defaults for missing keys are those of transformers.
/// One decoder computes every family, so a family is plain data. Families of the same name are equal.
pub struct Family {
    /// Name of the family, unique in the table.
    pub name: &'static str,
    /// Values of `model_type` in `config.json`.
    pub model_types: &'static [&'static str],
    /// Kind of every norm except those of heads.
    pub norm: NormKind,
    /// Added to the variance in every norm, under the square root.
    pub norm_eps: NumberKey,
    /// Number of key-value heads.
    pub kv_heads: KvHeads,
    /// Size of a head.
    pub head_size: HeadSize,
    /// Default of `max_position_embeddings`.
    pub max_positions: usize,
    /// Rotary embedding, in the two-halves layout.
    pub rotary: RotaryKeys,
    /// Blocks with a sliding window.
    pub window: SlidingWindow,
    /// Whether q, k and v have biases.
    pub qkv_bias: Switch,
    /// Whether attention's output projection has a bias.
    pub output_bias: Switch,
    /// Whether the MLP's linears have biases.
    pub mlp_bias: Switch,
    /// Whether attention and MLP of a block both read the block's input.
    pub parallel_residual: Switch,
    /// Supported values of `hidden_act`.
    pub activation: ActivationNames,
    /// Default of `tie_word_embeddings`.
    pub tied_head: bool,
    /// Default of `bos_token_id`.
    pub bos: Option<u32>,
    /// Default of `eos_token_id`.
    pub eos: Option<u32>,
    /// Names of the tensors.
    pub tensors: TensorNames,
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Family {}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Family").field(&self.name).finish()
    }
}

/// A number above 0 in `config.json`.
pub struct NumberKey {
    /// Key at the top level of the file.
    pub key: &'static str,
    /// Value if the key is missing.
    pub default: f64,
}

/// A property that the architecture fixes, or that a key of `config.json` decides.
pub enum Switch {
    /// Always off, whatever the file says.
    Off,
    /// Always on, whatever the file says.
    On,
    /// Decided by a key whose value is `true` or `false`.
    Key {
        /// Key at the top level of the file.
        key: &'static str,
        /// Value if the key is missing.
        default: bool,
    },
}

/// How the number of key-value heads is found.
pub enum KvHeads {
    /// Every query head has its own key-value head. `num_key_value_heads` is ignored.
    OnePerHead,
    /// The value of `num_key_value_heads`; `null` means as many as query heads.
    Key {
        /// Value if the key is missing; `None` means as many as query heads.
        default: Option<usize>,
    },
}

/// How the size of a head is found.
pub enum HeadSize {
    /// `hidden_size / num_attention_heads`. Another value of `head_dim` is rejected.
    Quotient,
    /// The value of `head_dim`; `null` means `hidden_size / num_attention_heads`.
    Key {
        /// Value if the key is missing; `None` means `hidden_size / num_attention_heads`.
        default: Option<usize>,
    },
}

/// Keys of the rotary embedding at the top level of `config.json`. The names inside `rope_parameters` are common to all families.
pub struct RotaryKeys {
    /// Base of the angles.
    pub theta: NumberKey,
    /// Share of a head that rotates, at most 1.
    pub fraction: NumberKey,
    /// Whether the share may be below 1. Otherwise transformers ignores its key and rotates whole heads, so another value than 1 is
    /// rejected.
    pub is_partial: bool,
}

/// Which blocks have the window of `sliding_window`. In all families `layer_types` may list the type of every block.
pub enum SlidingWindow {
    /// None. `sliding_window` is ignored.
    Never,
    /// Every block, unless `sliding_window` is `null`. A `layer_types` that lists other blocks is rejected.
    EveryBlock {
        /// Value of `sliding_window` in tokens if the key is missing.
        default: usize,
    },
    /// None unless `use_sliding_window` is `true`. Then those of `layer_types`, or all blocks from number `max_window_layers` on.
    UpperBlocks {
        /// Value of `sliding_window` in tokens if the key is missing.
        default: usize,
        /// Value of `max_window_layers` if the key is missing.
        first: usize,
    },
}

/// Values of `hidden_act`.
pub struct ActivationNames {
    /// Value if the key is missing; one of `known`.
    pub default: &'static str,
    /// Supported values, with their meaning.
    pub known: &'static [(&'static str, Activation)],
    /// The supported values that errors list, such as `gelu or gelu_new`.
    pub expected: &'static str,
}

/// Names of the tensors of a checkpoint, as in transformers. Names of matrices outside of the blocks end in `.weight`; names of
/// linears and norms are those of their modules.
pub struct TensorNames {
    /// Prefix of the base model inside the whole model. Exports of only the base model omit it.
    pub prefix: &'static str,
    /// Token embedding, with prefix.
    pub embedding: &'static str,
    /// List of the blocks, with prefix: block 3 of `model.layers` is `model.layers.3`.
    pub blocks: &'static str,
    /// Norm before the head, with prefix.
    pub final_norm: &'static str,
    /// Head: the name in files first, then other names in use.
    pub heads: &'static [&'static str],
    /// Norm before attention, below the block.
    pub attention_norm: &'static str,
    /// Norm before the MLP, below the block.
    pub mlp_norm: &'static str,
    /// Root-mean-square norms over each head of q and of k before rotary embedding, below the block; `None` if heads are not
    /// normalized.
    pub head_norms: Option<[&'static str; 2]>,
    /// Projections to queries, keys and values, below the block.
    pub qkv: QkvNames,
    /// Attention's output projection, below the block.
    pub output: &'static str,
    /// SwiGLU's gate, below the block; `None` for other activations.
    pub gate: Option<&'static str>,
    /// MLP up, below the block.
    pub up: &'static str,
    /// MLP down, below the block.
    pub down: &'static str,
    /// Endings of buffers that a checkpoint may store, and that are computed instead of read.
    pub buffers: &'static [&'static str],
}

/// How the projections to queries, keys and values are stored.
pub enum QkvNames {
    /// One linear whose rows are laid out `[head, (q, k, v), head_size]`. It requires [`KvHeads::OnePerHead`].
    Fused(&'static str),
    /// Linears of queries, of keys and of values.
    Split([&'static str; 3]),
}

impl QkvNames {
    /// Whether query, key and value of a head lie side by side, rather than all queries before all keys.
    pub fn is_fused(&self) -> bool {
        matches!(self, Self::Fused(_))
    }
}

/// Buffers that older versions of transformers stored in every block: frequencies of the rotary embedding, causal masks.
pub const OLD_BUFFERS: &[&str] = &[
    "rotary_emb.inv_freq",
    "attention.bias",
    "attention.masked_bias",
];
