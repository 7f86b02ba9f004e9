//! Every setting of a training run, declared once: its type, its flag and key, its default and range, what it affects, and its help
//! text. Methods and losses declare their own settings ([`declared`]). Defaults are applied by [`crate::plan`].

pub mod declared;
mod file;
pub mod peers;
mod table;
mod value;

pub use file::located;
pub use upright_data::one_or_many;
pub use value::{List, Number};

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use upright_core::{
    methods, objectives,
    settings::{ABOVE_0, FROM_0, Range},
};

use declared::{Given, OfLosses, OfMethods, OfObjective};
use table::{choice, count, heading, number, own, settings, unset};

pub use table::{Accepts, Declaration, Effect, count_of, help, named_of, number_of};

use crate::trackers;

/// Name of the file in a run folder that holds the settings the run was started with.
pub const FILE: &str = "config.toml";

/// Shares below 1.
const SHARE: Range = Range {
    must: "be at least 0 and below 1",
    fits: |x| (0.0..1.0).contains(&x),
};

/// Weights of one of two objectives.
const WEIGHT: Range = Range {
    must: "lie in [0, 1]",
    fits: |x| (0.0..=1.0).contains(&x),
};

settings! {
    /// Settings of a run, from flags and a TOML file.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
    #[serde(default, rename_all = "kebab-case")]
    pub struct Config, RUN

    "" {
        config: Option<PathBuf> [value_name = "FILE"] [skip]
            = unset(), Records,
            "TOML file with these settings, one key per flag. Flags override the file; paths in it are relative to \
             the current directory";
        out: Option<PathBuf> [value_name = "DIR"] []
            = unset(), Places,
            "Run folder, for the adapter, the records and the checkpoints";
        resume: bool [] [skip_serializing_if = "std::ops::Not::not"]
            = unset(), Records,
            "Resume the run in --out from its newest checkpoint, or start it if there is no checkpoint. Without \
             --model and --config, the run keeps the settings it was started with";
        json: bool [] [skip_serializing_if = "std::ops::Not::not"]
            = unset(), Records,
            "Print the result as JSON";
    }
    "Model" {
        model: Option<PathBuf> [value_name = "DIR|ID"] []
            = unset(), Places,
            "Base model: a folder in Hugging Face layout, or a Hub id, ORG/NAME[@REVISION]";
        init_adapter: Option<PathBuf> [value_name = "DIR|ID"] []
            = own("a new adapter"), Places,
            "Adapter that the policy starts from: a PEFT folder, a run folder, or a Hub id";
        lora_rank: Option<Number> [value_name = "R", allow_hyphen_values = true] []
            = count(1, 16), Results in "lora.rank",
            "LoRA rank";
        lora_alpha: Option<Number> [value_name = "A", allow_hyphen_values = true] []
            = own("the rank"), Results in "lora.alpha",
            "LoRA alpha; the adapter is scaled by alpha / rank";
        lora_targets: Option<List> [value_name = "NAMES"] []
            = own("all-linear"), Results in "lora.targets",
            "Linear layers to adapt, e.g. q_proj,v_proj, or all-linear";
    }
    "Data" {
        sft: Vec<String> [value_name = "FILE|ID[:SHARE]"] [with = "one_or_many", skip_serializing_if = "Vec::is_empty"]
            = unset(), Places in "",
            "Instruction data for the objective sft: a .json or .jsonl file (may be gzipped), a .parquet file, or a \
             Hub dataset, ORG/NAME[@REVISION][:SPLIT or :FILE]. Repeat the flag to mix datasets; :SHARE sets the \
             share of an epoch's rows that a dataset supplies";
        dpo: Vec<String> [value_name = "FILE|ID[:SHARE]"] [with = "one_or_many", skip_serializing_if = "Vec::is_empty"]
            = unset(), Places in "",
            "Preference data for the objective dpo: a .json or .jsonl file (may be gzipped), a .parquet file, or a \
             Hub dataset, ORG/NAME[@REVISION][:SPLIT or :FILE]. Repeat the flag to mix datasets; :SHARE sets the \
             share of an epoch's rows that a dataset supplies";
        sft_map: Option<List> [value_name = "NAME=COLUMN,..."] []
            = own("no renaming"), Data in "",
            "Rename columns of the instruction data, e.g. prompt=question,completion=answer; tools= ignores the \
             column tools";
        dpo_map: Option<List> [value_name = "NAME=COLUMN,..."] []
            = own("no renaming"), Data in "",
            "Rename columns of the preference data, e.g. prompt=question,chosen=good,rejected=bad; tools= ignores \
             the column tools";
        sft_eval: Option<PathBuf> [value_name = "FILE|ID"] []
            = own("split off by --held-out"), Places in "",
            "Held-out instruction rows";
        dpo_eval: Option<PathBuf> [value_name = "FILE|ID"] []
            = own("split off by --held-out"), Places in "",
            "Held-out preference rows";
        sft_template: Option<String> [value_name = "NAME"] []
            = own("chat if the model has a chat template, else raw for HH-RLHF, else user-assistant"), Data in "",
            "Prompt template of the instruction rows: chat (the model's chat template; also chat:NAME or \
             chat@YYYY-MM-DD), alpaca, user-assistant, raw, or a .jinja file";
        dpo_template: Option<String> [value_name = "NAME"] []
            = own("chat if the model has a chat template, else raw for HH-RLHF, else user-assistant"), Data in "",
            "Prompt template of the preference rows: chat (the model's chat template; also chat:NAME or \
             chat@YYYY-MM-DD), alpaca, user-assistant, raw, or a .jinja file";
        sft_turns: Option<String> [value_name = "TURNS"] []
            = choice(&["last", "all"]), Data in "",
            "Assistant turns to train on in instruction data: last, all";
        sft_rows: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = own("all"), Data in "",
            "Use the first N usable instruction rows of each file or Hub split";
        dpo_rows: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = own("all"), Data in "",
            "Use the first N usable preference rows of each file or Hub split";
        sft_batch: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = own("8"), Results in "",
            "Instruction rows per step";
        dpo_batch: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = own("4"), Results in "",
            "Preference pairs per step";
        held_out: Option<Number> [value_name = "SHARE", allow_hyphen_values = true] []
            = number(0.05, SHARE), Data,
            "Share of the prompts to hold out for evaluation; 0 holds out none";
        max_length: Option<Number> [value_name = "TOKENS", allow_hyphen_values = true] []
            = count(2, 2048), Data,
            "Maximum length in tokens of a prompt plus one response";
        min_prompt: Option<Number> [value_name = "TOKENS", allow_hyphen_values = true] []
            = own("64, at most a quarter of --max-length"), Data,
            "Minimum prompt tokens to keep when truncating; with cut-response, minimum response tokens";
        too_long: Option<String> [value_name = "RULE"] []
            = choice(&["cut-prompt", "cut-response", "drop"]), Data,
            "How to fit rows that exceed --max-length: cut-prompt (truncate the prompt from the left, then the \
             response from the right; a conversation trained on several turns loses its last turns), cut-response \
             (truncate the response from the right), drop";
        unpack_all: bool [] [skip_serializing_if = "std::ops::Not::not"]
            = own("up to 64 MB, or 100 times the file size; for Parquet 1000 times"), Places in "",
            "Read compressed rows of any unpacked size";
    }
    "Method" {
        method: Option<String> [value_name = "METHOD"] []
            = own("alright"), Results,
            method_help();
        lambda: Option<Number> [value_name = "L", allow_hyphen_values = true] []
            = number(0.5, WEIGHT), Results in "",
            "Weight of DPO, from 0 (SFT alone) to 1 (DPO alone)";
        stages: Option<List> [value_name = "STAGES"] []
            = own("dpo, then sft, with the steps split by --lambda"), Results,
            "Stages of sequential, e.g. dpo:100,sft:3e for 100 steps of dpo, then 3 epochs of the sft data";
        optimum: Option<List> [value_name = "OPTIMA"] []
            = own("0"), Results in "",
            optimum_help();
        optimum_eval: Option<List> [value_name = "OPTIMA"] []
            = own("no gaps"), Records in "",
            "Optimal held-out loss per objective, used to report gaps";
        stop_at: Vec<String> [value_name = "LOSSES"] [with = "one_or_many", skip_serializing_if = "Vec::is_empty"]
            = own("no early stopping"), Results in "stop.points",
            "Stop when an evaluation finds every listed training loss at or below its value, e.g. sft=1.6,dpo=0.2. \
             Repeat the flag for alternatives; meeting any one of them stops the run";
        stop_within: Option<Number> [value_name = "LOSS", allow_hyphen_values = true] []
            = number(1e-4, FROM_0), Results in "stop.within",
            "Tolerance of --stop-at: a loss may exceed its value by this much";
    }
    "Preference loss" {
        dpo_loss: Option<String> [value_name = "LOSS"] []
            = own("sigmoid"), Results in "",
            dpo_loss_help();
        reference: Option<String> [value_name = "DIR|ID|none|train:chosen|train:sft"] []
            = own("none"), Results,
            "Reference model: an adapter (a PEFT folder, a run folder, or a Hub id); none, the base model; \
             train:chosen or train:sft, an adapter trained first on the chosen responses or on the instruction data";
        reference_epochs: Option<Number> [value_name = "E", allow_hyphen_values = true] []
            = number(1.0, ABOVE_0), Results in "reference.train.epochs",
            "Epochs to train the reference model for";
        reference_rows: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = own("the rows of the objective"), Results in "reference.train.rows",
            "Train the reference model on the first N usable rows of each file";
        reference_learning_rate: Option<Number> [value_name = "RATE", allow_hyphen_values = true] []
            = own("--learning-rate"), Results in "reference.train.learning-rate",
            "Learning rate of the reference model's training. With a number, runs with other rates share the \
             reference";
        reference_batch: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = own("8; for train:sft the batch of the instruction data"), Results in "reference.train.batch",
            "Rows per step when training the reference model";
    }
    "Optimizer" {
        steps: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = unset(), Results in "length.steps",
            "Number of updates; 0 evaluates the adapter of --init-adapter without training";
        epochs: Option<Number> [value_name = "E", allow_hyphen_values = true] []
            = own("1"), Results in "length.epochs",
            "Length in epochs of the dataset with the most steps, instead of --steps";
        learning_rate: Option<Number> [value_name = "RATE", allow_hyphen_values = true] []
            = number(1e-4, ABOVE_0), Results in "optimizer.learning-rate",
            "Peak learning rate of AdamW";
        schedule: Option<String> [value_name = "CURVE"] []
            = choice(&["constant", "linear", "cosine"]), Results in "optimizer.schedule",
            "Learning-rate schedule after the warm-up, over each stage: constant, linear, cosine";
        warmup: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = count(0, 0), Results in "optimizer.warmup",
            "Warm-up steps of each stage, over which the learning rate rises from 0";
        weight_decay: Option<Number> [value_name = "D", allow_hyphen_values = true] []
            = number(0.0, FROM_0), Results in "optimizer.adamw.weight-decay",
            "Weight decay of AdamW";
        clip: Option<Number> [value_name = "NORM", allow_hyphen_values = true] []
            = number(1.0, FROM_0), Results in "optimizer.clip",
            "Clip the gradient norm to this value; 0 disables clipping";
        average: Option<String> [value_name = "AVERAGE"] []
            = choice(&["none", "polynomial"]), Records,
            "Average of the adapters of all steps, kept and evaluated beside the last adapter: none, polynomial \
             (late steps weigh more; at high learning rates it was better on held-out rows in our studies)";
        export_iterate: Option<String> [value_name = "ITERATE"] []
            = choice(&["last", "average"]), Records,
            "With --average: which adapter goes to adapter/ in the run folder: last, average";
        seed: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = own("42"), Results,
            "Seed of the initial adapter, the row order and the draws of the method";
    }
    "Records" {
        eval_every: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = count(1, 50), Records,
            "Evaluate every N steps, and at the start and the end";
        eval_rows: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = count(1, 64), Data,
            "Maximum rows per objective in an evaluation: N held-out rows and N training rows";
        checkpoint_every: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = count(1, 50), Places,
            "Write a checkpoint every N steps";
        keep: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = count(1, 2), Places,
            "Newest checkpoints to keep, in addition to the best by held-out loss";
        report_to: Option<List> [value_name = "NAMES"] []
            = own("none"), Records in "",
            trackers::help();
        tensorboard: bool [] [skip_serializing_if = "std::ops::Not::not"]
            = unset(), Records in "",
            "Short form of --report-to tensorboard";
        no_report: bool [] [skip_serializing_if = "std::ops::Not::not"]
            = unset(), Records in "",
            "Do not write the report page to report/ in the run folder; upright report can write it later";
    }
    "Machine" {
        threads: Option<Number> [value_name = "N", allow_hyphen_values = true] []
            = own("one per core"), Speed,
            "Number of CPU threads";
        token_budget: Option<Number> [value_name = "TOKENS", allow_hyphen_values = true] []
            = own("2048; 8192 on a GPU"), Results,
            "Maximum tokens in a pack; a longer row gets its own pack";
        device: Option<String> [value_name = "DEVICE"] []
            = own("auto"), Speed,
            "Device to run on: auto, cpu, cuda, cuda:N";
        recompute: Option<String> [value_name = "WHEN"] []
            = choice(&["auto", "on", "off"]), Speed,
            "Gradient checkpointing, which recomputes blocks in the backward pass to save memory: auto, on, off";
    }
    and {
        /// Settings of methods.
        #[command(flatten)]
        #[serde(flatten)]
        pub method_settings: Given<OfMethods>,
        /// Settings of preference losses.
        #[command(flatten)]
        #[serde(flatten)]
        pub loss_settings: Given<OfLosses>,
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
}

settings! {
    /// An `[[objective]]` table of the TOML file.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
    #[serde(default, rename_all = "kebab-case")]
    pub struct ObjectiveConfig, OBJECTIVE

    "" {
        name: Option<String> [] []
            = unset(), Results,
            "Name in flags, records and plots: lowercase letters, digits, - and _";
        loss: Option<String> [] []
            = unset(), Results,
            loss_help();
        data: Vec<String> [] [with = "one_or_many", skip_serializing_if = "Vec::is_empty"]
            = unset(), Places,
            "Training rows: a file, a Hub dataset, or a list of them. FILE:SHARE sets the share of an epoch's rows \
             that a dataset supplies";
        map: Option<List> [] []
            = own("no renaming"), Data,
            "Renamed columns, e.g. { prompt = \"question\" }";
        eval: Option<PathBuf> [] []
            = own("split off by held-out"), Places in "eval-data",
            "Held-out rows";
        template: Option<String> [] []
            = own("chat if the model has a chat template, else raw for HH-RLHF, else user-assistant"), Data,
            "Prompt template";
        turns: Option<String> [] []
            = choice(&["last", "all"]), Data,
            "Assistant turns to train on, for the loss sft: last, all";
        rows: Option<Number> [] []
            = own("all"), Data,
            "Use the first N usable rows of each file or Hub split";
        weight: Option<Number> [] []
            = own("equal weights"), Results,
            "Weight relative to the other objectives, such as 4, 3 and 3, or 0.4, 0.3 and 0.3";
        batch: Option<Number> [] []
            = own("8, or 4 pairs"), Results,
            "Rows per step";
        optimum: Option<Number> [] []
            = unset(), Results,
            "Optimal training loss";
        optimum_eval: Option<Number> [] []
            = unset(), Records,
            "Optimal held-out loss";
    }
    and {
        /// Settings of the loss.
        #[command(flatten)]
        #[serde(flatten)]
        pub settings: Given<OfObjective>,
    }
}

/// Names as a list for a help text.
fn list(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn method_help() -> String {
    let names = list(methods::all().iter().map(|method| method.name));
    format!("Method that chooses the objectives to train on: {names}")
}

fn optimum_help() -> String {
    let users = methods::all().iter().filter(|method| method.uses_optima);
    let names = list(users.map(|method| method.name)).replace(", ", " and ");
    format!(
        "Optimal training loss per objective, e.g. sft=1.49,dpo=0.06; used by {names}, which assume 0 for an objective without an \
         optimum. auto trains each objective alone first and keeps the optima for later runs"
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
    format!("Preference loss of --dpo: {tied}; without a reference model {free}")
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
