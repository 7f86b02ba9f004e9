//! Which linears an adapter covers. Names are resolved as in PEFT.

use super::{ALL_LINEAR, AdapterLayout, LinearSpec, LoraConfig, LoraTarget, Slot, linears};
use crate::config::DecoderConfig;
use crate::families::families;
use upright_base::{Error, Result};

/// Maximum rank: far above any rank in use, and small enough that no size overflows.
pub(crate) const MAX_RANK: usize = 1 << 16;

fn setting(problem: String, hint: impl Into<String>) -> Error {
    Error::input(problem).hint(hint.into())
}

/// PEFT's rule for a name in `target_modules`: the full module name, or its last parts after a dot.
pub(crate) fn names_module(name: &str, module: &str) -> bool {
    module
        .strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// PEFT's rule for a key of `rank_pattern`: the regular expression `(.*\.)?(key)$`, of which dots are supported.
fn pattern_matches(key: &str, module: &str) -> bool {
    let Some(start) = module.len().checked_sub(key.len()) else {
        return false;
    };
    let (before, rest) = (&module.as_bytes()[..start], &module.as_bytes()[start..]);
    before.last().is_none_or(|&b| b == b'.')
        && key.bytes().zip(rest).all(|(k, m)| k == b'.' || k == *m)
}

/// The value of the first key that matches, as PEFT looks it up.
pub(crate) fn first_match<'a, V>(
    pattern: impl IntoIterator<Item = (&'a String, V)>,
    module: &str,
) -> Option<V> {
    pattern
        .into_iter()
        .find(|(key, _)| pattern_matches(key, module))
        .map(|(_, value)| value)
}

/// Whether a module that is not a linear of a block has the name of the head or of the embedding in any family.
pub(crate) fn head_or_embedding(module: &str) -> Option<&'static str> {
    let name = module.rsplit('.').next().unwrap_or(module);
    for family in families() {
        let names = &family.tensors;
        for head in names.heads {
            if last_part_of_module(head) == name {
                return Some("the head");
            }
        }
        if last_part_of_module(names.embedding) == name {
            return Some("the embedding");
        }
    }
    None
}

/// The last part of the module that a matrix belongs to, such as `lm_head` for `lm_head.weight`.
fn last_part_of_module(tensor: &str) -> &str {
    let module = tensor.strip_suffix(".weight").unwrap_or(tensor);
    module.rsplit('.').next().unwrap_or(module)
}

/// The character of a pattern's key that makes it a regular expression.
pub(crate) fn regex_character(key: &str) -> Option<char> {
    key.chars()
        .find(|c| !(c.is_alphanumeric() || *c == '_' || *c == '.'))
}

impl LoraConfig {
    /// Rank of a module.
    pub fn rank_of(&self, module: &str) -> usize {
        first_match(&self.rank_pattern, module)
            .copied()
            .unwrap_or(self.rank)
    }

    /// alpha of a module.
    pub fn alpha_of(&self, module: &str) -> f64 {
        first_match(&self.alpha_pattern, module)
            .copied()
            .unwrap_or(self.alpha)
    }

    /// Scale of a module's adapter: `alpha / R`, or `alpha / sqrt(R)` with rsLoRA.
    pub fn scale_of(&self, module: &str) -> f32 {
        let rank = self.rank_of(module) as f64;
        (self.alpha_of(module) / if self.use_rslora { rank.sqrt() } else { rank }) as f32
    }

    /// Checks what does not depend on a model: ranks, alphas and the keys of patterns.
    ///
    /// # Errors
    /// Bad input, naming the value.
    pub fn check(&self) -> Result<()> {
        let ranks = self
            .rank_pattern
            .iter()
            .map(|(key, rank)| (format!("rank of `{key}`"), *rank));
        for (what, rank) in std::iter::once(("LoRA rank".to_owned(), self.rank)).chain(ranks) {
            if rank == 0 || rank > MAX_RANK {
                return Err(setting(
                    format!("{what} is {rank}"),
                    format!("set it to a whole number between 1 and {MAX_RANK}"),
                ));
            }
        }
        let alphas = self
            .alpha_pattern
            .iter()
            .map(|(key, alpha)| (format!("alpha of `{key}`"), *alpha));
        for (what, alpha) in std::iter::once(("LoRA alpha".to_owned(), self.alpha)).chain(alphas) {
            if !(alpha as f32).is_finite() {
                return Err(setting(
                    format!("{what} is {alpha}"),
                    "set it to a finite number, often 1 or 2 times the rank",
                ));
            }
        }
        for key in self.rank_pattern.keys().chain(self.alpha_pattern.keys()) {
            if let Some(c) = regex_character(key) {
                let problem =
                    format!("the pattern `{key}` contains `{c}`, as in a regular expression");
                return Err(setting(
                    problem,
                    "use the end of a module name, such as `q_proj` or `0.self_attn.q_proj`",
                ));
            }
        }
        Ok(())
    }
}

impl AdapterLayout {
    /// The layout of an adapter on a model. A linear is a target if its name is one of
    /// `lora.targets`, or ends in a dot and such a name; `all-linear` selects every linear but the
    /// head.
    ///
    /// # Errors
    /// Bad input: a target or a pattern matches no linear of the model (the hint lists the names),
    /// no target is given, or a rank or alpha is out of range.
    pub fn new(config: &DecoderConfig, lora: &LoraConfig) -> Result<Self> {
        lora.check()?;
        let all = linears(config);
        let choose = || {
            format!(
                "targets in this model: {}; `{ALL_LINEAR}` selects all of them",
                short_names(config).join(", ")
            )
        };
        if lora.targets.is_empty() {
            return Err(setting("no LoRA targets are given".to_owned(), choose()));
        }
        for name in &lora.targets {
            if name != ALL_LINEAR && !all.iter().any(|linear| names_module(name, &linear.module)) {
                let problem = match head_or_embedding(name) {
                    Some(part) => {
                        format!("LoRA target `{name}`: adapters on {part} are not supported")
                    }
                    None => format!("LoRA target `{name}` is not a linear of this model"),
                };
                return Err(setting(problem, choose()));
            }
        }
        let is_target = |module: &str| {
            lora.targets
                .iter()
                .any(|name| name == ALL_LINEAR || names_module(name, module))
        };
        let chosen: Vec<LinearSpec> = all
            .into_iter()
            .filter(|linear| is_target(&linear.module))
            .collect();
        for key in lora.rank_pattern.keys().chain(lora.alpha_pattern.keys()) {
            if !chosen
                .iter()
                .any(|linear| pattern_matches(key, &linear.module))
            {
                return Err(setting(
                    format!("the pattern `{key}` matches none of the LoRA targets"),
                    choose(),
                ));
            }
        }
        Ok(Self::assemble(chosen, lora))
    }

    /// Lays out A and B of linears that are sorted by layer and slot.
    pub(crate) fn assemble(linears: Vec<LinearSpec>, lora: &LoraConfig) -> Self {
        let mut len = 0;
        let place = |linear: LinearSpec| {
            let (rank, scale) = (lora.rank_of(&linear.module), lora.scale_of(&linear.module));
            let LinearSpec {
                layer,
                slot,
                module,
                inputs,
                outputs,
            } = linear;
            let target = LoraTarget {
                module,
                layer,
                slot,
                inputs,
                outputs,
                rank,
                scale,
                offset: len,
            };
            len = target.b().end;
            target
        };
        let targets = linears.into_iter().map(place).collect();
        Self { targets, len }
    }
}

/// Last parts of the names of a model's linears, without duplicates, in the order of a block.
pub(crate) fn short_names(config: &DecoderConfig) -> Vec<&'static str> {
    let names = linears_of_block(config)
        .map(|(_, shape)| shape.name.rsplit('.').next().unwrap_or(shape.name));
    names.collect()
}

/// Slots and shapes of the linears of every block, sorted by slot.
pub(crate) fn linears_of_block(
    config: &DecoderConfig,
) -> impl Iterator<Item = (Slot, crate::weights::names::LinearShape)> {
    let shape = crate::weights::names::block_shape(config);
    let slots: &[Slot] = match shape.qkv.len() {
        1 => &[Slot::Qkv],
        _ => &[Slot::Q, Slot::K, Slot::V],
    };
    let qkv = slots.iter().copied().zip(shape.qkv);
    let gate = shape.gate.map(|gate| (Slot::Gate, gate));
    qkv.chain([(Slot::Output, shape.output)])
        .chain(gate)
        .chain([(Slot::Up, shape.up), (Slot::Down, shape.down)])
}
