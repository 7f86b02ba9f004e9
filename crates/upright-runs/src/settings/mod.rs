//! What was written: every setting of a training run, once. A field is a flag, a TOML key of the same name and, with its
//! comment, the help. Nothing is checked here and no default applied: [`crate::plan`] says what a config means.

mod file;
mod value;

pub use file::located;
pub use upright_data::one_or_many;
pub use value::{List, Number};

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The settings that a run was begun with, in its folder.
pub const FILE: &str = "config.toml";

/// Settings of a run as flags and a TOML file give them.
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "brackets in the help mark what may be left out"
)]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// TOML file with these settings, keys named as the flags; flags win. Paths in it start where the command runs
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Folder of the run: adapter, records, checkpoints
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Continue the run in the output folder from its newest checkpoint; without one it simply starts. Without --model and
    /// --config, the settings are those that the run was begun with
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resume: bool,
    /// Print the result as JSON
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub json: bool,

    /// Folder of the base model, as Hugging Face lays it out, or its id on the hub, ORG/NAME[@REVISION]
    #[arg(long, value_name = "DIR|ID", help_heading = "Model")]
    pub model: Option<PathBuf>,
    /// Adapter that the policy starts from, a PEFT folder, a run's, or an id on the hub [default: a fresh one]
    #[arg(long, value_name = "DIR|ID", help_heading = "Model")]
    pub init_adapter: Option<PathBuf>,
    /// Rank of the LoRA adapter [default: 16]
    #[arg(
        long,
        value_name = "R",
        help_heading = "Model",
        allow_hyphen_values = true
    )]
    pub lora_rank: Option<Number>,
    /// The adapter is scaled by alpha / rank [default: the rank]
    #[arg(
        long,
        value_name = "A",
        help_heading = "Model",
        allow_hyphen_values = true
    )]
    pub lora_alpha: Option<Number>,
    /// Linear layers that are adapted, by name, or all-linear [default: those of the model's family]
    #[arg(long, value_name = "NAMES", help_heading = "Model")]
    pub lora_targets: Option<List>,

    /// Instruction data, .json, .jsonl (may be gzipped) or .parquet, or ORG/NAME[@REVISION][:SPLIT or :FILE] on the hub: the
    /// objective sft. May be given several times; with a number after a colon, an epoch takes that share of its rows from it
    #[arg(long, value_name = "FILE|ID[:SHARE]", help_heading = "Data")]
    #[serde(with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub sft: Vec<String>,
    /// Preference data, in the same way: the objective dpo
    #[arg(long, value_name = "FILE|ID[:SHARE]", help_heading = "Data")]
    #[serde(with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub dpo: Vec<String>,
    /// Columns of the instruction data under other names, as prompt=question,completion=answer; tools= leaves one out
    /// [default: as they are]
    #[arg(long, value_name = "NAME=COLUMN,...", help_heading = "Data")]
    pub sft_map: Option<List>,
    /// Columns of the preference data, likewise, as prompt=question,chosen=good,rejected=bad [default: as they are]
    #[arg(long, value_name = "NAME=COLUMN,...", help_heading = "Data")]
    pub dpo_map: Option<List>,
    /// Held-out instruction rows [default: carved off by --held-out]
    #[arg(long, value_name = "FILE|ID", help_heading = "Data")]
    pub sft_eval: Option<PathBuf>,
    /// Held-out preference rows [default: carved off by --held-out]
    #[arg(long, value_name = "FILE|ID", help_heading = "Data")]
    pub dpo_eval: Option<PathBuf>,
    /// Template of the instruction prompts: chat (the model's own; chat:NAME, chat@YYYY-MM-DD), alpaca, user-assistant, raw,
    /// or a .jinja file [default: by the rows]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub sft_template: Option<String>,
    /// Template of the preference prompts, likewise [default: by the rows]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub dpo_template: Option<String>,
    /// Turns of a conversation that instruction data trains: last, or all of the assistant's [default: last]
    #[arg(long, value_name = "TURNS", help_heading = "Data")]
    pub sft_turns: Option<String>,
    /// Use the first N instruction rows of each file, or of each split on the hub [default: all]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub sft_rows: Option<Number>,
    /// Use the first N preference rows of each file, or of each split on the hub [default: all]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub dpo_rows: Option<Number>,
    /// Instruction rows a step [default: 8]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub sft_batch: Option<Number>,
    /// Preference pairs a step [default: 4]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub dpo_batch: Option<Number>,
    /// Share of the prompts that is held out for evaluation; 0: none [default: 0.05]
    #[arg(
        long,
        value_name = "SHARE",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub held_out: Option<Number>,
    /// Most tokens of a prompt with one response [default: 2048]
    #[arg(
        long,
        value_name = "TOKENS",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub max_length: Option<Number>,
    /// Tokens of a prompt that cutting leaves [default: 64, at most a quarter of --max-length]
    #[arg(
        long,
        value_name = "TOKENS",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub min_prompt: Option<Number>,
    /// What happens to a row that is too long: cut-prompt (from the left, then the response from the right; where
    /// --sft-turns all trains several turns, the last of them), cut-response (from the right), drop [default: cut-prompt]
    #[arg(long, value_name = "RULE", help_heading = "Data")]
    pub too_long: Option<String>,
    /// Read compressed rows whatever they unpack to [default: up to 64 MB, or 100 times the file; Parquet 1000 times]
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unpack_all: bool,

    /// Rule over the objectives: sequential, mix, alright, maxright [default: alright]
    #[arg(long, value_name = "METHOD", help_heading = "Method")]
    pub method: Option<String>,
    /// Weight of DPO, 0 to 1: 0 is SFT alone, 1 is DPO alone [default: 0.5]
    #[arg(
        long,
        value_name = "L",
        help_heading = "Method",
        allow_hyphen_values = true
    )]
    pub lambda: Option<Number>,
    /// Stages of sequential, as dpo:100,sft:3e; steps, or with an e epochs of that objective's data [default: dpo, then
    /// sft, the steps split by --lambda]
    #[arg(long, value_name = "STAGES", help_heading = "Method")]
    pub stages: Option<List>,
    /// Maxright looks at the losses of all objectives every K steps [default: 10]
    #[arg(
        long,
        value_name = "K",
        help_heading = "Method",
        allow_hyphen_values = true
    )]
    pub probe_every: Option<Number>,
    /// Smallest losses on training rows, as sft=1.49,dpo=0.06; maxright compares with them [default: 0]
    #[arg(long, value_name = "OPTIMA", help_heading = "Method")]
    pub optimum: Option<List>,
    /// Smallest losses on held-out rows, for the gaps that are reported [default: no gaps]
    #[arg(long, value_name = "OPTIMA", help_heading = "Method")]
    pub optimum_eval: Option<List>,

    /// End the run where an evaluation finds the losses on training rows at or below all of these, as sft=1.6,dpo=0.2. May be
    /// given several times: any of the points will do [default: no such end]
    #[arg(long, value_name = "LOSSES", help_heading = "Method")]
    #[serde(with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub stop_at: Vec<String>,
    /// A loss may be above that of --stop-at by this [default: 1e-4]
    #[arg(
        long,
        value_name = "LOSS",
        help_heading = "Method",
        allow_hyphen_values = true
    )]
    pub stop_within: Option<Number>,

    /// Strength of the tie to the reference; of orpo the weight of the odds ratio, of simpo the scale of the rewards
    /// [default: 0.1, of simpo 2]
    #[arg(
        long,
        value_name = "B",
        help_heading = "Preference loss",
        allow_hyphen_values = true
    )]
    pub beta: Option<Number>,
    /// Preference loss of --dpo: sigmoid, ipo, rpo; without a reference orpo, simpo [default: sigmoid]
    #[arg(long, value_name = "LOSS", help_heading = "Preference loss")]
    pub dpo_loss: Option<String>,
    /// With --dpo-loss rpo: weight of the chosen response's negative log-likelihood a token [default: 1]
    #[arg(
        long,
        value_name = "A",
        help_heading = "Preference loss",
        allow_hyphen_values = true
    )]
    pub dpo_alpha: Option<Number>,
    /// With --dpo-loss simpo: margin that the rewards should have [default: 1]
    #[arg(
        long,
        value_name = "G",
        help_heading = "Preference loss",
        allow_hyphen_values = true
    )]
    pub dpo_gamma: Option<Number>,
    /// Share of pairs taken to be labelled the wrong way round [default: 0]
    #[arg(
        long,
        value_name = "SHARE",
        help_heading = "Preference loss",
        allow_hyphen_values = true
    )]
    pub label_smoothing: Option<Number>,
    /// Reference: an adapter, a PEFT folder, a run's, or an id on the hub; none, the base model itself; train:chosen or train:sft, an
    /// adapter trained first on the chosen responses or on the instruction data [default: none]
    #[arg(
        long,
        value_name = "DIR|ID|none|train:chosen|train:sft",
        help_heading = "Preference loss"
    )]
    pub reference: Option<String>,
    /// Epochs of training the reference [default: 1]
    #[arg(
        long,
        value_name = "E",
        help_heading = "Preference loss",
        allow_hyphen_values = true
    )]
    pub reference_epochs: Option<Number>,
    /// Train the reference on the first N rows of each file [default: those of the objective]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Preference loss",
        allow_hyphen_values = true
    )]
    pub reference_rows: Option<Number>,
    /// Rows a step of training the reference [default: 8; of train:sft those of the instruction data]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Preference loss",
        allow_hyphen_values = true
    )]
    pub reference_batch: Option<Number>,

    /// Updates in all; 0 measures the adapter of --init-adapter and trains nothing
    #[arg(
        long,
        value_name = "N",
        help_heading = "Optimizer",
        allow_hyphen_values = true
    )]
    pub steps: Option<Number>,
    /// The same as epochs of the dataset with the most steps [default: 1]
    #[arg(
        long,
        value_name = "E",
        help_heading = "Optimizer",
        allow_hyphen_values = true
    )]
    pub epochs: Option<Number>,
    /// Largest learning rate of AdamW [default: 5e-5]
    #[arg(
        long,
        value_name = "RATE",
        help_heading = "Optimizer",
        allow_hyphen_values = true
    )]
    pub learning_rate: Option<Number>,
    /// Learning rate after the warm-up, over a stage: constant, linear, cosine [default: constant]
    #[arg(long, value_name = "CURVE", help_heading = "Optimizer")]
    pub schedule: Option<String>,
    /// Steps over which the learning rate rises from 0, in each stage [default: 0]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Optimizer",
        allow_hyphen_values = true
    )]
    pub warmup: Option<Number>,
    /// Weight decay of AdamW [default: 0]
    #[arg(
        long,
        value_name = "D",
        help_heading = "Optimizer",
        allow_hyphen_values = true
    )]
    pub weight_decay: Option<Number>,
    /// Largest norm of the gradient; 0: any [default: 1]
    #[arg(
        long,
        value_name = "NORM",
        help_heading = "Optimizer",
        allow_hyphen_values = true
    )]
    pub clip: Option<Number>,
    /// Seed of the adapter, the order of rows and the draws [default: 42]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Optimizer",
        allow_hyphen_values = true
    )]
    pub seed: Option<Number>,

    /// Evaluate every N steps, besides the start and the end [default: 50]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Records",
        allow_hyphen_values = true
    )]
    pub eval_every: Option<Number>,
    /// Most rows of an objective that an evaluation scores: held-out ones, and as many training rows [default: 64]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Records",
        allow_hyphen_values = true
    )]
    pub eval_rows: Option<Number>,
    /// Write a checkpoint every N steps [default: 50]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Records",
        allow_hyphen_values = true
    )]
    pub checkpoint_every: Option<Number>,
    /// Newest checkpoints that stay, besides the best [default: 2]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Records",
        allow_hyphen_values = true
    )]
    pub keep: Option<Number>,

    /// Write TensorBoard event files too, into tensorboard/ in the run's folder
    #[arg(long, help_heading = "Records")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tensorboard: bool,

    /// Write no page with figures and tables into report/ in the run's folder; upright report makes it later
    #[arg(long, help_heading = "Records")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_report: bool,

    /// Threads [default: one per core]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Machine",
        allow_hyphen_values = true
    )]
    pub threads: Option<Number>,
    /// Tokens computed at once; a longer row has a pack of its own [default: 2048]
    #[arg(
        long,
        value_name = "TOKENS",
        help_heading = "Machine",
        allow_hyphen_values = true
    )]
    pub token_budget: Option<Number>,
    /// Device: auto, cpu, cuda, cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Machine")]
    pub device: Option<String>,
    /// Compute blocks again on the way back, to save memory: auto, on, off [default: auto]
    #[arg(long, value_name = "WHEN", help_heading = "Machine")]
    pub recompute: Option<String>,

    /// Any number of objectives, in place of --sft and --dpo.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objective: Vec<ObjectiveConfig>,

    /// The files of those ids of the hub that stand for rows, once they were looked up by [`Config::fetched`].
    #[arg(skip)]
    #[serde(skip)]
    pub files: BTreeMap<PathBuf, Vec<PathBuf>>,
}

/// An `[[objective]]` of the TOML file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// Its name in flags, records and plots: small letters, digits, - and _
    #[arg(long)]
    pub name: Option<String>,
    /// Its loss: sft; of pairs dpo, ipo, rpo; of pairs without a reference orpo, simpo
    #[arg(long)]
    pub loss: Option<String>,
    /// Its rows: a file, or a list of files, as FILE:SHARE where an epoch takes shares from them
    #[arg(long)]
    #[serde(with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<String>,
    /// Columns of its rows under other names, as { prompt = "question" } [default: as they are]
    #[arg(long)]
    pub map: Option<List>,
    /// Its held-out rows [default: carved off by held-out]
    #[arg(long)]
    pub eval: Option<PathBuf>,
    /// Template of its prompts [default: by the rows]
    #[arg(long)]
    pub template: Option<String>,
    /// Turns of a conversation that are trained, where its loss is sft: last, all [default: last]
    #[arg(long)]
    pub turns: Option<String>,
    /// Use its first N rows, of each file or split [default: all]
    #[arg(long)]
    pub rows: Option<Number>,
    /// Its weight; all sum to 1 [default: all the same]
    #[arg(long)]
    pub weight: Option<Number>,
    /// Its rows a step [default: 8, or 4 pairs]
    #[arg(long)]
    pub batch: Option<Number>,
    /// Strength of the tie to the reference; of orpo the weight of the odds ratio, of simpo the scale of the rewards
    /// [default: the run's beta]
    #[arg(long)]
    pub beta: Option<Number>,
    /// Share of pairs taken to be labelled the wrong way round [default: the run's label-smoothing]
    #[arg(long)]
    pub label_smoothing: Option<Number>,
    /// Where its loss is rpo: weight of the chosen response's negative log-likelihood a token [default: 1]
    #[arg(long)]
    pub alpha: Option<Number>,
    /// Where its loss is simpo: margin that the rewards should have [default: 1]
    #[arg(long)]
    pub gamma: Option<Number>,
    /// Its smallest loss on training rows
    #[arg(long)]
    pub optimum: Option<Number>,
    /// Its smallest loss on held-out rows
    #[arg(long)]
    pub optimum_eval: Option<Number>,
}
