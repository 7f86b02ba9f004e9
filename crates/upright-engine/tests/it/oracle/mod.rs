//! A textbook decoder: one sequence at a time, one token after another, everything in f64, no
//! packs, no trees, no backward pass. It shares no code with the engine, not even for reading a
//! model folder, so that a result on which both agree is right. Shapes: T tokens, K inputs and N
//! outputs of a linear, R rank.

use std::{collections::BTreeMap, f64::consts::PI, fs, path::Path};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// One vector per token.
type Rows = Vec<Vec<f64>>;

/// A vector, or a matrix.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

/// A LoRA adapter: `<module>.lora_A.weight` `[R, K]` and `<module>.lora_B.weight` `[N, R]`, and the
/// scale of their product.
#[derive(Clone)]
pub(crate) struct Lora {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) scale: f64,
}

/// Precision of the base weights.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Base {
    /// As stored in the files.
    Exact,
    /// Matrices rounded to bf16, as in the engine; norms and biases as stored in the files.
    Bf16,
}

pub(crate) struct Oracle {
    config: Value,
    neox: bool,
    heads: usize,
    kv_heads: usize,
    head_size: usize,
    /// Angle per position of each rotating pair of dimensions.
    frequencies: Vec<f64>,
    vectors: BTreeMap<String, Vec<f64>>,
    /// Transposed, `[K, N]`.
    matrices: BTreeMap<String, Matrix>,
}

struct Matrix {
    outputs: usize,
    values: Vec<f64>,
}

/// Every tensor of a safetensors file, widened.
pub(crate) fn read_tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let widen = |dtype: Dtype, data: &[u8]| -> Vec<f64> {
        let pairs = || data.chunks_exact(2).map(|b| [b[0], b[1]]);
        match dtype {
            Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(b).to_f64()).collect(),
            Dtype::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f64()).collect(),
            Dtype::F32 => data
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()).into())
                .collect(),
            other => panic!("{}: {other:?}", path.display()),
        }
    };
    let tensors = file.tensors().into_iter();
    tensors
        .map(|(name, t)| {
            (
                name,
                Tensor {
                    shape: t.shape().to_vec(),
                    values: widen(t.dtype(), t.data()),
                },
            )
        })
        .collect()
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

impl Lora {
    /// Whether all tensors of a PEFT folder have the scale `lora_alpha / r`.
    pub(crate) fn is_supported(dir: &Path) -> bool {
        let config = read_json(&dir.join("adapter_config.json"));
        let has_patterns = ["rank_pattern", "alpha_pattern"]
            .iter()
            .any(|key| !config[key].as_object().unwrap().is_empty());
        let is_variant = ["use_rslora", "use_dora", "fan_in_fan_out"]
            .iter()
            .any(|key| config[key] != false);
        !has_patterns && !is_variant
    }

    /// Reads a PEFT folder.
    pub(crate) fn read(dir: &Path) -> Self {
        assert!(Self::is_supported(dir), "{}", dir.display());
        let config = read_json(&dir.join("adapter_config.json"));
        let scale = config["lora_alpha"].as_f64().unwrap() / config["r"].as_f64().unwrap();
        let tensors = read_tensors(&dir.join("adapter_model.safetensors")).into_iter();
        let tensors = tensors.map(|(name, t)| {
            (
                name.strip_prefix("base_model.model.").unwrap().to_owned(),
                t,
            )
        });
        Self {
            tensors: tensors.collect(),
            scale,
        }
    }
}

impl Oracle {
    /// Reads a Hugging Face folder.
    pub(crate) fn open(dir: &Path, base: Base) -> Self {
        let config = read_json(&dir.join("config.json"));
        let (mut vectors, mut matrices) = (BTreeMap::new(), BTreeMap::new());
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap();
            if !(file.starts_with("model") && file.ends_with(".safetensors")) {
                continue;
            }
            for (name, tensor) in read_tensors(&path) {
                if let [outputs, inputs] = tensor.shape[..] {
                    let transposed =
                        (0..inputs).flat_map(|k| (0..outputs).map(move |n| n * inputs + k));
                    let values = transposed.map(|index| match base {
                        Base::Exact => tensor.values[index],
                        // No file holds more than f32 precision, and `bf16::from_f64` ignores the
                        // last bits.
                        Base::Bf16 => bf16::from_f32(tensor.values[index] as f32).to_f64(),
                    });
                    matrices.insert(
                        name,
                        Matrix {
                            outputs,
                            values: values.collect(),
                        },
                    );
                } else {
                    vectors.insert(name, tensor.values);
                }
            }
        }
        let neox = config["model_type"] == "gpt_neox";
        let number = |key: &str| config[key].as_u64().map(|n| n as usize);
        let heads = number("num_attention_heads").unwrap();
        let kv_heads = number("num_key_value_heads").unwrap_or(heads);
        let head_size =
            number("head_dim").unwrap_or_else(|| number("hidden_size").unwrap() / heads);
        let frequencies = frequencies(&config, neox, head_size);
        Self {
            neox,
            heads,
            kv_heads,
            head_size,
            frequencies,
            vectors,
            matrices,
            config,
        }
    }

    /// Log-probability of every token of a response to a prompt.
    pub(crate) fn logp(&self, prompt: &[u32], response: &[u32], lora: Option<&Lora>) -> Vec<f64> {
        let [embedding, norm, head] = if self.neox {
            [
                "gpt_neox.embed_in.weight",
                "gpt_neox.final_layer_norm",
                "embed_out.weight",
            ]
        } else {
            ["model.embed_tokens.weight", "model.norm", "lm_head.weight"]
        };
        let tokens = [prompt, response].concat();
        let embedding = &self.matrices[embedding];
        let head = if self.config["tie_word_embeddings"] == true {
            embedding
        } else {
            &self.matrices[head]
        };
        let inputs = &tokens[..tokens.len() - 1];
        let mut x: Rows = inputs
            .iter()
            .map(|&token| embedding.row(token as usize))
            .collect();
        for layer in 0..self.config["num_hidden_layers"].as_u64().unwrap() as usize {
            x = self.block(layer, &x, lora);
        }
        let scored = prompt.len() - 1..inputs.len();
        scored
            .map(|i| log_softmax(&head.times(&self.norm(norm, &x[i])))[tokens[i + 1] as usize])
            .collect()
    }

    fn block(&self, layer: usize, x: &Rows, lora: Option<&Lora>) -> Rows {
        let at = if self.neox {
            format!("gpt_neox.layers.{layer}")
        } else {
            format!("model.layers.{layer}")
        };
        let norms = |name: &str, x: &Rows| {
            x.iter()
                .map(|row| self.norm(&format!("{at}.{name}"), row))
                .collect()
        };
        let attention = self.attention(layer, &at, &norms("input_layernorm", x), lora);
        let after: Rows = x.iter().zip(&attention).map(|(x, y)| plus(x, y)).collect();
        let parallel = self.neox && self.config["use_parallel_residual"] != false;
        let mlp = self.mlp(
            &at,
            &norms(
                "post_attention_layernorm",
                if parallel { x } else { &after },
            ),
            lora,
        );
        after.iter().zip(&mlp).map(|(x, y)| plus(x, y)).collect()
    }

    fn attention(&self, layer: usize, at: &str, x: &Rows, lora: Option<&Lora>) -> Rows {
        // q[head][token], k[head][token] and v[head][token].
        let (mut q, mut k, v) = if self.neox {
            // The rows of the fused matrix: head by head, and in a head queries, keys, values.
            let fused = self.split(&format!("{at}.attention.query_key_value"), x, lora);
            let part = |part: usize| {
                (0..self.heads)
                    .map(|head| fused[3 * head + part].clone())
                    .collect::<Vec<Rows>>()
            };
            (part(0), part(1), part(2))
        } else {
            let part = |name: &str| self.split(&format!("{at}.self_attn.{name}_proj"), x, lora);
            (part("q"), part("k"), part("v"))
        };
        for (heads, norm) in [(&mut q, "self_attn.q_norm"), (&mut k, "self_attn.k_norm")] {
            let norm = format!("{at}.{norm}");
            for head in heads {
                for (position, row) in head.iter_mut().enumerate() {
                    if self.vectors.contains_key(&format!("{norm}.weight")) {
                        *row = self.norm(&norm, row);
                    }
                    self.rotate(position, row);
                }
            }
        }
        let window = self.window(layer).unwrap_or(usize::MAX);
        let mut attended = vec![Vec::new(); x.len()];
        for (head, q) in q.iter().enumerate() {
            let shared = head / (self.heads / self.kv_heads);
            for (i, q) in q.iter().enumerate() {
                let seen = (i + 1).saturating_sub(window)..=i;
                let scores = k[shared][seen.clone()]
                    .iter()
                    .map(|k| dot(q, k) / (self.head_size as f64).sqrt());
                let weights = log_softmax(&scores.collect::<Vec<_>>());
                let mut sum = vec![0.0; self.head_size];
                for (weight, v) in weights.iter().zip(&v[shared][seen]) {
                    add_scaled(&mut sum, weight.exp(), v);
                }
                attended[i].extend(sum);
            }
        }
        let output = if self.neox {
            "attention.dense"
        } else {
            "self_attn.o_proj"
        };
        attended
            .iter()
            .map(|row| self.linear(&format!("{at}.{output}"), row, lora))
            .collect()
    }

    fn mlp(&self, at: &str, x: &Rows, lora: Option<&Lora>) -> Rows {
        let linear = |name: &str, row: &[f64]| self.linear(&format!("{at}.mlp.{name}"), row, lora);
        let map = |f: &dyn Fn(&Vec<f64>) -> Vec<f64>| x.iter().map(f).collect();
        if self.neox {
            let gelu = match self.config["hidden_act"].as_str().unwrap() {
                "gelu" => |x: f64| x / 2.0 * (1.0 + erf(x / 2f64.sqrt())),
                "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => |x: f64| {
                    x / 2.0 * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
                },
                other => panic!("{other}"),
            };
            map(&|x| {
                linear(
                    "dense_4h_to_h",
                    &linear("dense_h_to_4h", x)
                        .into_iter()
                        .map(gelu)
                        .collect::<Vec<_>>(),
                )
            })
        } else {
            let silu = |x: f64| x / (1.0 + (-x).exp());
            map(&|x| {
                let gated = linear("gate_proj", x).into_iter().zip(linear("up_proj", x));
                linear(
                    "down_proj",
                    &gated.map(|(gate, up)| silu(gate) * up).collect::<Vec<_>>(),
                )
            })
        }
    }

    /// A linear's outputs split into heads: `[head][token]`.
    fn split(&self, module: &str, x: &Rows, lora: Option<&Lora>) -> Vec<Rows> {
        let rows: Rows = x.iter().map(|row| self.linear(module, row, lora)).collect();
        let heads = rows[0].len() / self.head_size;
        let slice = |row: &Vec<f64>, head: usize| {
            row[head * self.head_size..(head + 1) * self.head_size].to_vec()
        };
        (0..heads)
            .map(|head| rows.iter().map(|row| slice(row, head)).collect())
            .collect()
    }

    /// `W x + b + scale B A x`.
    fn linear(&self, module: &str, x: &[f64], lora: Option<&Lora>) -> Vec<f64> {
        let mut y = self.matrices[&format!("{module}.weight")].times(x);
        if let Some(bias) = self.vectors.get(&format!("{module}.bias")) {
            y = plus(&y, bias);
        }
        let lora = lora
            .and_then(|lora| Some((lora, lora.tensors.get(&format!("{module}.lora_A.weight"))?)));
        if let Some((lora, a)) = lora {
            let b = &lora.tensors[&format!("{module}.lora_B.weight")];
            let inner: Vec<f64> = a.values.chunks(a.shape[1]).map(|a| dot(a, x)).collect();
            let delta: Vec<f64> = b
                .values
                .chunks(b.shape[1])
                .map(|b| dot(b, &inner))
                .collect();
            add_scaled(&mut y, lora.scale, &delta);
        }
        y
    }

    /// Layer norm for GPT-NeoX, root-mean-square norm for the others.
    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let scale = &self.vectors[&format!("{name}.weight")];
        let eps = self.config[if self.neox {
            "layer_norm_eps"
        } else {
            "rms_norm_eps"
        }]
        .as_f64()
        .unwrap();
        let center = if self.neox { mean(x) } else { 0.0 };
        let x: Vec<f64> = x.iter().map(|x| x - center).collect();
        let deviation = (mean(&x.iter().map(|x| x * x).collect::<Vec<_>>()) + eps).sqrt();
        let y: Vec<f64> = x
            .iter()
            .zip(scale)
            .map(|(x, scale)| x / deviation * scale)
            .collect();
        if self.neox {
            plus(&y, &self.vectors[&format!("{name}.bias")])
        } else {
            y
        }
    }

    /// Dimension `i` rotates with dimension `i + half`; dimensions after both halves stay.
    fn rotate(&self, position: usize, row: &mut [f64]) {
        let half = self.frequencies.len();
        for (i, frequency) in self.frequencies.iter().enumerate() {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let (x, y) = (row[i], row[i + half]);
            (row[i], row[i + half]) = (x * cos - y * sin, y * cos + x * sin);
        }
    }

    /// Number of tokens that a token attends to, itself included; `None` means all tokens up to
    /// itself.
    fn window(&self, layer: usize) -> Option<usize> {
        let config = &self.config;
        let sliding = match config["model_type"].as_str().unwrap() {
            _ if config["layer_types"].is_array() => {
                config["layer_types"][layer] == "sliding_attention"
            }
            "mistral" => true,
            "qwen2" | "qwen3" => {
                let full = config["max_window_layers"].as_u64();
                config["use_sliding_window"] == true && layer as u64 >= full.unwrap()
            }
            _ => false,
        };
        config["sliding_window"]
            .as_u64()
            .filter(|_| sliding)
            .map(|window| window as usize)
    }
}

impl Matrix {
    fn row(&self, output: usize) -> Vec<f64> {
        self.values
            .iter()
            .skip(output)
            .step_by(self.outputs)
            .copied()
            .collect()
    }

    fn times(&self, x: &[f64]) -> Vec<f64> {
        let mut y = vec![0.0; self.outputs];
        for (x, column) in x.iter().zip(self.values.chunks(self.outputs)) {
            add_scaled(&mut y, *x, column);
        }
        y
    }
}

/// Plain, `linear` and `llama3` rotary embeddings, with the keys of transformers 4 and 5.
/// transformers stores the frequencies in f32.
fn frequencies(config: &Value, neox: bool, head_size: usize) -> Vec<f64> {
    let new = &config["rope_parameters"];
    let scaling = if config["rope_scaling"].is_object() {
        &config["rope_scaling"]
    } else {
        new
    };
    let [theta_key, fraction_key] = if neox {
        ["rotary_emb_base", "rotary_pct"]
    } else {
        ["rope_theta", "-"]
    };
    let number = |first: &Value, second: &Value| first.as_f64().or(second.as_f64());
    let theta = number(&new["rope_theta"], &config[theta_key]).unwrap();
    let fraction = number(&new["partial_rotary_factor"], &config[fraction_key]).unwrap_or(1.0);
    let dims = (head_size as f64 * fraction) as usize;
    let kind = scaling["rope_type"]
        .as_str()
        .or(scaling["type"].as_str())
        .unwrap_or("default");
    let setting = |key: &str| scaling[key].as_f64().unwrap();
    let scaled = |frequency: f64| match kind {
        "default" => frequency,
        "linear" => frequency / setting("factor"),
        "llama3" => {
            // Rotations over the original context: frequencies with few rotations are slowed, those
            // with many are kept, and those in between are blended.
            let turns = setting("original_max_position_embeddings") * frequency / (2.0 * PI);
            let (low, high) = (setting("low_freq_factor"), setting("high_freq_factor"));
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            kept * frequency + (1.0 - kept) * frequency / setting("factor")
        }
        other => panic!("{other}"),
    };
    (0..dims / 2)
        .map(|i| f64::from(scaled(theta.powf(-2.0 * i as f64 / dims as f64)) as f32))
        .collect()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn plus(x: &[f64], y: &[f64]) -> Vec<f64> {
    x.iter().zip(y).map(|(x, y)| x + y).collect()
}

fn add_scaled(sum: &mut [f64], factor: f64, x: &[f64]) {
    sum.iter_mut()
        .zip(x)
        .for_each(|(sum, x)| *sum += factor * x);
}

fn log_softmax(x: &[f64]) -> Vec<f64> {
    let maximum = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = maximum + x.iter().map(|x| (x - maximum).exp()).sum::<f64>().ln();
    x.iter().map(|x| x - log_sum).collect()
}

/// `2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (2n+1)!!`: no term changes sign, so nothing cancels.
pub(crate) fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}
