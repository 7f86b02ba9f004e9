//! Every setting of a training run, declared once. A field is a flag and a TOML key of the same
//! name; its doc comment is the help text. Values are not checked here and defaults are not
//! applied: that is the job of [`crate::plan`].

pub mod declared;
mod file;
pub mod peers;
mod value;

pub use file::located;
pub use upright_data::one_or_many;
pub use value::{List, Number};

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use upright_core::{methods, objectives};

use declared::{Given, OfLosses, OfMethods, OfObjective};

use crate::trackers;

/// Name of the file in a run folder that holds the settings the run was started with.
pub const FILE: &str = "config.toml";

/// Settings of a run, from flags and a TOML file.
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "brackets in the help mark optional parts"
)]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, rename_all = "kebab-case")]
pub struct Config {
    /// TOML file with these settings, one key per flag. Flags override the file; paths in it are
    /// relative to the current directory
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Run folder, for the adapter, the records and the checkpoints
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Resume the run in --out from its newest checkpoint, or start it if there is no checkpoint.
    /// Without --model and --config, the run keeps the settings it was started with
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resume: bool,
    /// Print the result as JSON
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub json: bool,

    /// Base model: a folder in Hugging Face layout, or a Hub id, ORG/NAME[@REVISION]
    #[arg(long, value_name = "DIR|ID", help_heading = "Model")]
    pub model: Option<PathBuf>,
    /// Adapter that the policy starts from: a PEFT folder, a run folder, or a Hub id [default: a
    /// new adapter]
    #[arg(long, value_name = "DIR|ID", help_heading = "Model")]
    pub init_adapter: Option<PathBuf>,
    /// LoRA rank [default: 16]
    #[arg(
        long,
        value_name = "R",
        help_heading = "Model",
        allow_hyphen_values = true
    )]
    pub lora_rank: Option<Number>,
    /// LoRA alpha; the adapter is scaled by alpha / rank [default: the rank]
    #[arg(
        long,
        value_name = "A",
        help_heading = "Model",
        allow_hyphen_values = true
    )]
    pub lora_alpha: Option<Number>,
    /// Linear layers to adapt, e.g. q_proj,v_proj, or all-linear [default: all-linear]
    #[arg(long, value_name = "NAMES", help_heading = "Model")]
    pub lora_targets: Option<List>,

    /// Instruction data for the objective sft: a .json or .jsonl file (may be gzipped), a .parquet
    /// file, or a Hub dataset, ORG/NAME[@REVISION][:SPLIT or :FILE]. Repeat the flag to mix
    /// datasets; :SHARE sets the share of an epoch's rows that a dataset supplies
    #[arg(long, value_name = "FILE|ID[:SHARE]", help_heading = "Data")]
    #[serde(with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub sft: Vec<String>,
    /// Preference data for the objective dpo: a .json or .jsonl file (may be gzipped), a .parquet
    /// file, or a Hub dataset, ORG/NAME[@REVISION][:SPLIT or :FILE]. Repeat the flag to mix
    /// datasets; :SHARE sets the share of an epoch's rows that a dataset supplies
    #[arg(long, value_name = "FILE|ID[:SHARE]", help_heading = "Data")]
    #[serde(with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub dpo: Vec<String>,
    /// Rename columns of the instruction data, e.g. prompt=question,completion=answer; tools=
    /// ignores the column tools [default: no renaming]
    #[arg(long, value_name = "NAME=COLUMN,...", help_heading = "Data")]
    pub sft_map: Option<List>,
    /// Rename columns of the preference data, e.g. prompt=question,chosen=good,rejected=bad; tools=
    /// ignores the column tools [default: no renaming]
    #[arg(long, value_name = "NAME=COLUMN,...", help_heading = "Data")]
    pub dpo_map: Option<List>,
    /// Held-out instruction rows [default: split off by --held-out]
    #[arg(long, value_name = "FILE|ID", help_heading = "Data")]
    pub sft_eval: Option<PathBuf>,
    /// Held-out preference rows [default: split off by --held-out]
    #[arg(long, value_name = "FILE|ID", help_heading = "Data")]
    pub dpo_eval: Option<PathBuf>,
    /// Prompt template of the instruction rows: chat (the model's chat template; also chat:NAME or
    /// chat@YYYY-MM-DD), alpaca, user-assistant, raw, or a .jinja file [default: chat if the model
    /// has a chat template, else raw for HH-RLHF, else user-assistant]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub sft_template: Option<String>,
    /// Prompt template of the preference rows: chat (the model's chat template; also chat:NAME or
    /// chat@YYYY-MM-DD), alpaca, user-assistant, raw, or a .jinja file [default: chat if the model
    /// has a chat template, else raw for HH-RLHF, else user-assistant]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub dpo_template: Option<String>,
    /// Assistant turns to train on in instruction data: last, all [default: last]
    #[arg(long, value_name = "TURNS", help_heading = "Data")]
    pub sft_turns: Option<String>,
    /// Use the first N usable instruction rows of each file or Hub split [default: all]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub sft_rows: Option<Number>,
    /// Use the first N usable preference rows of each file or Hub split [default: all]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub dpo_rows: Option<Number>,
    /// Instruction rows per step [default: 8]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub sft_batch: Option<Number>,
    /// Preference pairs per step [default: 4]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub dpo_batch: Option<Number>,
    /// Share of the prompts to hold out for evaluation; 0 holds out none [default: 0.05]
    #[arg(
        long,
        value_name = "SHARE",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub held_out: Option<Number>,
    /// Maximum length in tokens of a prompt plus one response [default: 2048]
    #[arg(
        long,
        value_name = "TOKENS",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub max_length: Option<Number>,
    /// Minimum prompt tokens to keep when truncating; with cut-response, minimum response tokens
    /// [default: 64, at most a quarter of --max-length]
    #[arg(
        long,
        value_name = "TOKENS",
        help_heading = "Data",
        allow_hyphen_values = true
    )]
    pub min_prompt: Option<Number>,
    /// How to fit rows that exceed --max-length: cut-prompt (truncate the prompt from the left,
    /// then the response from the right; a conversation trained on several turns loses its last
    /// turns), cut-response (truncate the response from the right), drop [default: cut-prompt]
    #[arg(long, value_name = "RULE", help_heading = "Data")]
    pub too_long: Option<String>,
    /// Read compressed rows of any unpacked size [default: up to 64 MB, or 100 times the file size;
    /// for Parquet 1000 times]
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unpack_all: bool,

    /// Method that chooses the objectives to train on.
    #[arg(long, value_name = "METHOD", help_heading = "Method", help = method_help())]
    pub method: Option<String>,
    /// Weight of DPO, from 0 (SFT alone) to 1 (DPO alone) [default: 0.5]
    #[arg(
        long,
        value_name = "L",
        help_heading = "Method",
        allow_hyphen_values = true
    )]
    pub lambda: Option<Number>,
    /// Stages of sequential, e.g. dpo:100,sft:3e for 100 steps of dpo, then 3 epochs of the sft
    /// data [default: dpo, then sft, with the steps split by --lambda]
    #[arg(long, value_name = "STAGES", help_heading = "Method")]
    pub stages: Option<List>,
    /// Settings of methods.
    #[command(flatten)]
    #[serde(flatten)]
    pub method_settings: Given<OfMethods>,
    /// Optimal training loss per objective, e.g. sft=1.49,dpo=0.06; used by methods that compare
    /// gaps.
    #[arg(long, value_name = "OPTIMA", help_heading = "Method", help = optimum_help())]
    pub optimum: Option<List>,
    /// Optimal held-out loss per objective, used to report gaps [default: no gaps]
    #[arg(long, value_name = "OPTIMA", help_heading = "Method")]
    pub optimum_eval: Option<List>,

    /// Stop when an evaluation finds every listed training loss at or below its value, e.g.
    /// sft=1.6,dpo=0.2. Repeat the flag for alternatives; meeting any one of them stops the run
    /// [default: no early stopping]
    #[arg(long, value_name = "LOSSES", help_heading = "Method")]
    #[serde(with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub stop_at: Vec<String>,
    /// Tolerance of --stop-at: a loss may exceed its value by this much [default: 1e-4]
    #[arg(
        long,
        value_name = "LOSS",
        help_heading = "Method",
        allow_hyphen_values = true
    )]
    pub stop_within: Option<Number>,

    /// Preference loss of --dpo.
    #[arg(long, value_name = "LOSS", help_heading = "Preference loss", help = dpo_loss_help())]
    pub dpo_loss: Option<String>,
    /// Settings of preference losses.
    #[command(flatten)]
    #[serde(flatten)]
    pub loss_settings: Given<OfLosses>,
    /// Reference model: an adapter (a PEFT folder, a run folder, or a Hub id); none, the base
    /// model; train:chosen or train:sft, an adapter trained first on the chosen responses or on the
    /// instruction data [default: none]
    #[arg(
        long,
        value_name = "DIR|ID|none|train:chosen|train:sft",
        help_heading = "Preference loss"
    )]
    pub reference: Option<String>,
    /// Epochs to train the reference model for [default: 1]
    #[arg(
        long,
        value_name = "E",
        help_heading = "Preference loss",
        allow_hyphen_values = true
    )]
    pub reference_epochs: Option<Number>,
    /// Train the reference model on the first N usable rows of each file [default: the rows of the
    /// objective]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Preference loss",
        allow_hyphen_values = true
    )]
    pub reference_rows: Option<Number>,
    /// Learning rate of the reference model's training. With a number, runs with other rates share
    /// the reference [default: --learning-rate]
    #[arg(
        long,
        value_name = "RATE",
        help_heading = "Preference loss",
        allow_hyphen_values = true
    )]
    pub reference_learning_rate: Option<Number>,
    /// Rows per step when training the reference model [default: 8; for train:sft the batch of the
    /// instruction data]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Preference loss",
        allow_hyphen_values = true
    )]
    pub reference_batch: Option<Number>,

    /// Number of updates; 0 evaluates the adapter of --init-adapter without training
    #[arg(
        long,
        value_name = "N",
        help_heading = "Optimizer",
        allow_hyphen_values = true
    )]
    pub steps: Option<Number>,
    /// Length in epochs of the dataset with the most steps, instead of --steps [default: 1]
    #[arg(
        long,
        value_name = "E",
        help_heading = "Optimizer",
        allow_hyphen_values = true
    )]
    pub epochs: Option<Number>,
    /// Peak learning rate of AdamW [default: 1e-4]
    #[arg(
        long,
        value_name = "RATE",
        help_heading = "Optimizer",
        allow_hyphen_values = true
    )]
    pub learning_rate: Option<Number>,
    /// Learning-rate schedule after the warm-up, over each stage: constant, linear, cosine
    /// [default: constant]
    #[arg(long, value_name = "CURVE", help_heading = "Optimizer")]
    pub schedule: Option<String>,
    /// Warm-up steps of each stage, over which the learning rate rises from 0 [default: 0]
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
    /// Clip the gradient norm to this value; 0 disables clipping [default: 1]
    #[arg(
        long,
        value_name = "NORM",
        help_heading = "Optimizer",
        allow_hyphen_values = true
    )]
    pub clip: Option<Number>,
    /// Average of the adapters of all steps, kept and evaluated beside the last adapter: none,
    /// polynomial (late steps weigh more; at high learning rates it was better on held-out rows in
    /// our studies) [default: none]
    #[arg(long, value_name = "AVERAGE", help_heading = "Optimizer")]
    pub average: Option<String>,
    /// With --average: which adapter goes to adapter/ in the run folder: last, average
    /// [default: last]
    #[arg(long, value_name = "ITERATE", help_heading = "Optimizer")]
    pub export_iterate: Option<String>,
    /// Seed of the initial adapter, the row order and the draws of the method [default: 42]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Optimizer",
        allow_hyphen_values = true
    )]
    pub seed: Option<Number>,

    /// Evaluate every N steps, and at the start and the end [default: 50]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Records",
        allow_hyphen_values = true
    )]
    pub eval_every: Option<Number>,
    /// Maximum rows per objective in an evaluation: N held-out rows and N training rows
    /// [default: 64]
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
    /// Newest checkpoints to keep, in addition to the best by held-out loss [default: 2]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Records",
        allow_hyphen_values = true
    )]
    pub keep: Option<Number>,

    /// Names of the trackers that receive every record, besides the run folder.
    #[arg(long, value_name = "NAMES", help_heading = "Records", help = trackers::help())]
    pub report_to: Option<List>,
    /// Short form of --report-to tensorboard
    #[arg(long, help_heading = "Records")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tensorboard: bool,

    /// Do not write the report page to report/ in the run folder; upright report can write it later
    #[arg(long, help_heading = "Records")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_report: bool,

    /// Number of CPU threads [default: one per core]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Machine",
        allow_hyphen_values = true
    )]
    pub threads: Option<Number>,
    /// Maximum tokens in a pack; a longer row gets its own pack [default: 2048; 8192 on a GPU]
    #[arg(
        long,
        value_name = "TOKENS",
        help_heading = "Machine",
        allow_hyphen_values = true
    )]
    pub token_budget: Option<Number>,
    /// Device to run on: auto, cpu, cuda, cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Machine")]
    pub device: Option<String>,
    /// Gradient checkpointing, which recomputes blocks in the backward pass to save memory: auto,
    /// on, off [default: auto]
    #[arg(long, value_name = "WHEN", help_heading = "Machine")]
    pub recompute: Option<String>,

    /// Any number of objectives, instead of --sft and --dpo.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objective: Vec<ObjectiveConfig>,

    /// Local files of every Hub dataset that the settings name, by id. Filled in by
    /// `upright_train::fetch::fetched`.
    #[arg(skip)]
    #[serde(skip)]
    pub files: BTreeMap<PathBuf, Vec<PathBuf>>,
}

/// An `[[objective]]` table of the TOML file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, rename_all = "kebab-case")]
pub struct ObjectiveConfig {
    /// Name in flags, records and plots: lowercase letters, digits, - and _
    #[arg(long)]
    pub name: Option<String>,
    /// Loss.
    #[arg(long, help = loss_help())]
    pub loss: Option<String>,
    /// Training rows: a file, a Hub dataset, or a list of them. FILE:SHARE sets the share of an
    /// epoch's rows that a dataset supplies
    #[arg(long)]
    #[serde(with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<String>,
    /// Renamed columns, e.g. { prompt = "question" } [default: no renaming]
    #[arg(long)]
    pub map: Option<List>,
    /// Held-out rows [default: split off by held-out]
    #[arg(long)]
    pub eval: Option<PathBuf>,
    /// Prompt template [default: chat if the model has a chat template, else raw for HH-RLHF, else
    /// user-assistant]
    #[arg(long)]
    pub template: Option<String>,
    /// Assistant turns to train on, for the loss sft: last, all [default: last]
    #[arg(long)]
    pub turns: Option<String>,
    /// Use the first N usable rows of each file or Hub split [default: all]
    #[arg(long)]
    pub rows: Option<Number>,
    /// Weight relative to the other objectives, such as 4, 3 and 3, or 0.4, 0.3 and 0.3
    /// [default: equal weights]
    #[arg(long)]
    pub weight: Option<Number>,
    /// Rows per step [default: 8, or 4 pairs]
    #[arg(long)]
    pub batch: Option<Number>,
    /// Settings of the loss.
    #[command(flatten)]
    #[serde(flatten)]
    pub settings: Given<OfObjective>,
    /// Optimal training loss
    #[arg(long)]
    pub optimum: Option<Number>,
    /// Optimal held-out loss
    #[arg(long)]
    pub optimum_eval: Option<Number>,
}

/// Names as a list for a help text.
fn list(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn method_help() -> String {
    let names = list(methods::all().iter().map(|method| method.name));
    format!(
        "Method that chooses the objectives to train on: {names}. In the study of SmolLM2-135M at equal tokens, maxright and \
         compromise fitted training rows best, and mix overfitted least [default: alright]"
    )
}

fn optimum_help() -> String {
    let users = methods::all().iter().filter(|method| method.uses_optima);
    let names = list(users.map(|method| method.name)).replace(", ", " and ");
    format!(
        "Optimal training loss per objective, e.g. sft=1.49,dpo=0.06; used by {names}, which assume 0 for an objective without an \
         optimum. auto trains each objective alone first and keeps the optima for later runs [default: 0]"
    )
}

/// The preference losses with or without a reference, by their names as flags or in files, for help texts.
pub fn preferences(reference: bool, as_flags: bool) -> String {
    let losses = objectives::all()
        .iter()
        .filter(|loss| loss.is_preference() && loss.reference == reference);
    list(losses.map(|loss| {
        if as_flags {
            loss.flag_name()
        } else {
            loss.name
        }
    }))
}

fn dpo_loss_help() -> String {
    let tied = preferences(true, true);
    let free = preferences(false, true);
    format!("Preference loss of --dpo: {tied}; without a reference model {free} [default: sigmoid]")
}

fn loss_help() -> String {
    let instructions = objectives::all()
        .iter()
        .filter(|loss| !loss.is_preference());
    let instructions = list(instructions.map(|loss| loss.name));
    let tied = preferences(true, false);
    let free = preferences(false, false);
    format!("Loss: {instructions}; on pairs {tied}; on pairs without a reference model {free}")
}
