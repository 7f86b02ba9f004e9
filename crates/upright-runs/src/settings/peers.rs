//! Settings of TRL, transformers, PEFT, LLaMA-Factory, Axolotl and Unsloth by their own names, and what to use here.

/// Names in other trainers, separated by spaces, without dashes in front and with `-` for `_`, and what to do here. The answer
/// completes a hint.
const PEERS: &[(&str, &str)] = &[
    ("lr", "use --learning-rate"),
    ("num-train-epochs num-epochs n-epochs", "use --epochs"),
    ("max-steps num-steps train-steps iters", "use --steps"),
    (
        "per-device-train-batch-size train-batch-size batch-size micro-batch-size batch",
        "use --sft-batch and --dpo-batch: rows per step of each objective",
    ),
    (
        "gradient-accumulation-steps gradient-accumulation",
        "no accumulation is needed: --sft-batch and --dpo-batch count rows per step, and a batch is computed in \
                 packs of --token-budget tokens",
    ),
    (
        "per-device-eval-batch-size eval-batch-size",
        "evaluation is computed in packs of --token-budget tokens; --eval-rows limits its rows",
    ),
    (
        "load-in-4bit load-in-8bit quantization-bit bits quantization qlora",
        "quantized base models are not supported; base weights stay in 16 bits, memory-mapped and shared between \
                 processes",
    ),
    (
        "bf16 fp16 fp32 tf32 torch-dtype dtype mixed-precision",
        "the arithmetic follows the processor, and `upright doctor` shows it; UPRIGHT_CPU=portable computes in f32",
    ),
    (
        "push-to-hub hub-model-id hub-token hub-strategy",
        "upright does not upload; run `hf upload ORG/NAME RUN/adapter` after training",
    ),
    (
        "token hf-token use-auth-token",
        "set the environment variable HF_TOKEN, or log in with `hf auth login`",
    ),
    (
        "wandb wandb-project use-wandb",
        "W&B is not supported; use --report-to tensorboard and import the event files with `wandb sync`",
    ),
    (
        "logging-dir log-with mlflow trackio comet-ml clearml neptune swanlab dvclive",
        "use --report-to tensorboard for TensorBoard event files, which `wandb sync` imports; steps.jsonl and evals.jsonl in the \
                 run folder hold every number",
    ),
    (
        "logging-steps logging-strategy plot-loss",
        "every step is recorded in steps.jsonl of the run folder, and the run's report draws it",
    ),
    ("run-name output-dir save-dir output", "use --out"),
    (
        "overwrite-output-dir",
        "a run is never overwritten; use another --out, or --resume to continue the run",
    ),
    ("lora-r r rank", "use --lora-rank"),
    ("alpha", "use --lora-alpha"),
    (
        "lora-target lora-target-modules target-modules lora-target-linear lora-modules",
        "use --lora-targets, with names or all-linear",
    ),
    (
        "lora-dropout dropout",
        "LoRA dropout is not supported; leave it out, which is a dropout of 0",
    ),
    (
        "use-rslora use-dora lora-plus loraplus-lr-ratio",
        "only plain LoRA is trained; --lora-alpha sets its scale",
    ),
    (
        "full full-finetuning finetuning-type use-peft use-lora freeze",
        "upright trains LoRA adapters only; full fine-tuning is not supported",
    ),
    (
        "max-seq-length max-seq-len cutoff-len sequence-len max-prompt-length max-completion-length model-max-length",
        "use --max-length for a prompt with one response, and --min-prompt for what truncation keeps of the prompt",
    ),
    (
        "lr-scheduler-type lr-scheduler scheduler",
        "use --schedule constant, linear or cosine",
    ),
    (
        "warmup-steps warmup-ratio",
        "use --warmup with a number of steps, not a share",
    ),
    (
        "max-grad-norm gradient-clipping grad-clip clip-grad",
        "use --clip",
    ),
    (
        "adam-beta1 adam-beta2 adam-epsilon optim optimizer",
        "the optimizer is AdamW with betas 0.9 and 0.95; --learning-rate, --weight-decay and --clip are its settings",
    ),
    (
        "model-name-or-path model-name base-model pretrained-model-name-or-path",
        "use --model",
    ),
    (
        "adapter-name-or-path adapter lora-model-dir",
        "use --init-adapter to continue an adapter, or --reference to compare with one",
    ),
    (
        "ref-model ref-adapter reference-model model-ref",
        "use --reference",
    ),
    (
        "dataset dataset-name datasets data data-path dataset-dir train-file training-file",
        "use --sft for instruction rows and --dpo for preference rows",
    ),
    (
        "eval-dataset validation-file eval-file test-datasets",
        "use --sft-eval and --dpo-eval",
    ),
    (
        "val-set-size val-size test-size validation-split",
        "use --held-out with a share of the prompts",
    ),
    (
        "max-samples max-train-samples num-samples limit",
        "use --sft-rows and --dpo-rows",
    ),
    (
        "template chat-template chat-template-path",
        "use --sft-template and --dpo-template",
    ),
    (
        "loss-type pref-loss rl",
        "use --dpo-loss sigmoid, ipo, rpo, orpo or simpo",
    ),
    ("pref-beta dpo-beta", "use --beta"),
    (
        "pref-ftx rpo-alpha loss-weights",
        "use --dpo-loss rpo with --dpo-alpha",
    ),
    (
        "simpo-gamma cpo-alpha",
        "use --dpo-loss simpo with --dpo-gamma",
    ),
    (
        "dpo-label-smoothing label-smoothing-factor",
        "use --label-smoothing",
    ),
    (
        "save-steps save-strategy save-interval",
        "use --checkpoint-every",
    ),
    ("save-total-limit", "use --keep"),
    (
        "eval-steps eval-strategy evaluation-strategy",
        "use --eval-every",
    ),
    (
        "load-best-model-at-end",
        "the adapter is the one of the last step; --keep also keeps the checkpoint with the lowest held-out loss",
    ),
    (
        "early-stopping early-stopping-patience",
        "use --stop-at with losses on training rows",
    ),
    (
        "resume-from-checkpoint auto-resume-from-checkpoints",
        "use --resume; it takes the newest checkpoint of --out",
    ),
    (
        "gradient-checkpointing use-gradient-checkpointing",
        "use --recompute on; auto uses it if memory is short",
    ),
    (
        "packing sample-packing pad-to-sequence-len group-by-length padding-free",
        "rows are always packed, without padding and without attention between rows",
    ),
    (
        "flash-attn flash-attention attn-implementation use-liger-kernel torch-compile",
        "nothing to choose: upright brings its own kernels",
    ),
    (
        "deepspeed fsdp num-gpus nproc-per-node device-map gpu gpus tensor-parallel",
        "this build trains on the CPUs of one machine; --threads sets their number",
    ),
    (
        "cpu use-cpu no-cuda",
        "use --device cpu; it is the only device of this build",
    ),
    (
        "dataloader-num-workers num-workers preprocessing-num-workers dataset-num-proc",
        "use --threads",
    ),
    (
        "completion-only-loss assistant-only-loss train-on-inputs train-on-prompt mask-history roles-to-train",
        "only responses are in the loss; --sft-turns last or all chooses the turns",
    ),
    ("neftune-noise-alpha", "NEFTune is not supported"),
    (
        "stage do-train do-eval sft-and-dpo",
        "one run trains on --sft and --dpo together; --method sequential trains them one after the other",
    ),
    (
        "trust-remote-code",
        "upright runs no code of a model repository",
    ),
    ("data-seed random-seed", "use --seed"),
    (
        "max-new-tokens max-length-generation",
        "use --max-tokens of upright generate",
    ),
];

/// What to use in place of another trainer's setting: `--lr`, `lora_r=16` and `num_train_epochs` are all understood.
pub fn answer(name: &str) -> Option<&'static str> {
    let name = name.trim_start_matches('-').split('=').next()?;
    let name = name.to_lowercase().replace('_', "-");
    for (names, answer) in PEERS {
        if names.split(' ').any(|known| known == name) {
            return Some(answer);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::settings::Config;

    #[test]
    fn answers_name_flags_that_exist() {
        let known = Config::keys();
        let elsewhere = ["max-tokens"];
        for (names, answer) in PEERS {
            for word in answer.split(|c: char| !c.is_alphanumeric() && c != '-') {
                if let Some(flag) = word.strip_prefix("--") {
                    let exists = known.iter().any(|key| key == flag) || elsewhere.contains(&flag);
                    assert!(exists, "{names}: no flag {word}");
                }
            }
        }
    }

    #[test]
    fn every_name_is_listed_once_and_is_no_setting_of_ours() {
        let known = Config::keys();
        let mut seen = HashSet::new();
        for name in PEERS.iter().flat_map(|(names, _)| names.split(' ')) {
            assert!(seen.insert(name), "{name} is listed twice");
            assert!(!known.contains(&name.to_owned()), "{name} is ours");
        }
    }

    #[test]
    fn names_are_read_as_flags_and_as_keys() {
        assert_eq!(answer("--lr"), Some("use --learning-rate"));
        assert_eq!(answer("--lora_r=16"), Some("use --lora-rank"));
        assert_eq!(answer("num_train_epochs"), Some("use --epochs"));
        assert_eq!(answer("--Load-In-4bit"), answer("load_in_4bit"));
        assert_eq!(answer("--zebra"), None);
    }
}
