//! Settings of TRL, transformers, PEFT, LLaMA-Factory, Axolotl and Unsloth by their own names, and what to use here.

/// What `upright` has in place of a setting of another trainer.
struct Peer {
    /// Names in other trainers, without dashes in front, with `-` for `_`.
    names: &'static [&'static str],
    /// What to do here; completes a hint.
    answer: &'static str,
}

const PEERS: &[Peer] = &[
    Peer {
        names: &["lr"],
        answer: "use --learning-rate",
    },
    Peer {
        names: &["num-train-epochs", "num-epochs", "n-epochs"],
        answer: "use --epochs",
    },
    Peer {
        names: &["max-steps", "num-steps", "train-steps", "iters"],
        answer: "use --steps",
    },
    Peer {
        names: &[
            "per-device-train-batch-size",
            "train-batch-size",
            "batch-size",
            "micro-batch-size",
            "batch",
        ],
        answer: "use --sft-batch and --dpo-batch: rows per step of each objective",
    },
    Peer {
        names: &["gradient-accumulation-steps", "gradient-accumulation"],
        answer: "no accumulation is needed: --sft-batch and --dpo-batch count rows per step, and a batch is computed in \
                 packs of --token-budget tokens",
    },
    Peer {
        names: &["per-device-eval-batch-size", "eval-batch-size"],
        answer: "evaluation is computed in packs of --token-budget tokens; --eval-rows limits its rows",
    },
    Peer {
        names: &[
            "load-in-4bit",
            "load-in-8bit",
            "quantization-bit",
            "bits",
            "quantization",
            "qlora",
        ],
        answer: "quantized base models are not supported; base weights stay in 16 bits, memory-mapped and shared between \
                 processes",
    },
    Peer {
        names: &[
            "bf16",
            "fp16",
            "fp32",
            "tf32",
            "torch-dtype",
            "dtype",
            "mixed-precision",
        ],
        answer: "the arithmetic follows the processor, and `upright doctor` shows it; UPRIGHT_CPU=portable computes in f32",
    },
    Peer {
        names: &["push-to-hub", "hub-model-id", "hub-token", "hub-strategy"],
        answer: "upright does not upload; run `hf upload ORG/NAME RUN/adapter` after training",
    },
    Peer {
        names: &["token", "hf-token", "use-auth-token"],
        answer: "set the environment variable HF_TOKEN, or log in with `hf auth login`",
    },
    Peer {
        names: &["wandb", "wandb-project", "use-wandb"],
        answer: "W&B is not supported; use --tensorboard and import the event files with `wandb sync`",
    },
    Peer {
        names: &["report-to", "logging-dir", "log-with"],
        answer: "use --tensorboard for TensorBoard event files, which `wandb sync` imports; steps.jsonl and evals.jsonl in the \
                 run folder hold every number",
    },
    Peer {
        names: &["logging-steps", "logging-strategy", "plot-loss"],
        answer: "every step is recorded in steps.jsonl of the run folder, and the run's report draws it",
    },
    Peer {
        names: &["run-name", "output-dir", "save-dir", "output"],
        answer: "use --out",
    },
    Peer {
        names: &["overwrite-output-dir"],
        answer: "a run is never overwritten; use another --out, or --resume to continue the run",
    },
    Peer {
        names: &["lora-r", "r", "rank"],
        answer: "use --lora-rank",
    },
    Peer {
        names: &["alpha"],
        answer: "use --lora-alpha",
    },
    Peer {
        names: &[
            "lora-target",
            "lora-target-modules",
            "target-modules",
            "lora-target-linear",
            "lora-modules",
        ],
        answer: "use --lora-targets, with names or all-linear",
    },
    Peer {
        names: &["lora-dropout", "dropout"],
        answer: "LoRA dropout is not supported; leave it out, which is a dropout of 0",
    },
    Peer {
        names: &["use-rslora", "use-dora", "lora-plus", "loraplus-lr-ratio"],
        answer: "only plain LoRA is trained; --lora-alpha sets its scale",
    },
    Peer {
        names: &[
            "full",
            "full-finetuning",
            "finetuning-type",
            "use-peft",
            "use-lora",
            "freeze",
        ],
        answer: "upright trains LoRA adapters only; full fine-tuning is not supported",
    },
    Peer {
        names: &[
            "max-seq-length",
            "max-seq-len",
            "cutoff-len",
            "sequence-len",
            "max-prompt-length",
            "max-completion-length",
            "model-max-length",
        ],
        answer: "use --max-length for a prompt with one response, and --min-prompt for what truncation keeps of the prompt",
    },
    Peer {
        names: &["lr-scheduler-type", "lr-scheduler", "scheduler"],
        answer: "use --schedule constant, linear or cosine",
    },
    Peer {
        names: &["warmup-steps", "warmup-ratio"],
        answer: "use --warmup with a number of steps, not a share",
    },
    Peer {
        names: &[
            "max-grad-norm",
            "gradient-clipping",
            "grad-clip",
            "clip-grad",
        ],
        answer: "use --clip",
    },
    Peer {
        names: &[
            "adam-beta1",
            "adam-beta2",
            "adam-epsilon",
            "optim",
            "optimizer",
        ],
        answer: "the optimizer is AdamW with betas 0.9 and 0.95; --learning-rate, --weight-decay and --clip are its settings",
    },
    Peer {
        names: &[
            "model-name-or-path",
            "model-name",
            "base-model",
            "pretrained-model-name-or-path",
        ],
        answer: "use --model",
    },
    Peer {
        names: &["adapter-name-or-path", "adapter", "lora-model-dir"],
        answer: "use --init-adapter to continue an adapter, or --reference to compare with one",
    },
    Peer {
        names: &["ref-model", "ref-adapter", "reference-model", "model-ref"],
        answer: "use --reference",
    },
    Peer {
        names: &[
            "dataset",
            "dataset-name",
            "datasets",
            "data",
            "data-path",
            "dataset-dir",
            "train-file",
            "training-file",
        ],
        answer: "use --sft for instruction rows and --dpo for preference rows",
    },
    Peer {
        names: &[
            "eval-dataset",
            "validation-file",
            "eval-file",
            "test-datasets",
        ],
        answer: "use --sft-eval and --dpo-eval",
    },
    Peer {
        names: &["val-set-size", "val-size", "test-size", "validation-split"],
        answer: "use --held-out with a share of the prompts",
    },
    Peer {
        names: &["max-samples", "max-train-samples", "num-samples", "limit"],
        answer: "use --sft-rows and --dpo-rows",
    },
    Peer {
        names: &["template", "chat-template", "chat-template-path"],
        answer: "use --sft-template and --dpo-template",
    },
    Peer {
        names: &["loss-type", "pref-loss", "rl"],
        answer: "use --dpo-loss sigmoid, ipo, rpo, orpo or simpo",
    },
    Peer {
        names: &["pref-beta", "dpo-beta"],
        answer: "use --beta",
    },
    Peer {
        names: &["pref-ftx", "rpo-alpha", "loss-weights"],
        answer: "use --dpo-loss rpo with --dpo-alpha",
    },
    Peer {
        names: &["simpo-gamma", "cpo-alpha"],
        answer: "use --dpo-loss simpo with --dpo-gamma",
    },
    Peer {
        names: &["dpo-label-smoothing", "label-smoothing-factor"],
        answer: "use --label-smoothing",
    },
    Peer {
        names: &["save-steps", "save-strategy", "save-interval"],
        answer: "use --checkpoint-every",
    },
    Peer {
        names: &["save-total-limit"],
        answer: "use --keep",
    },
    Peer {
        names: &["eval-steps", "eval-strategy", "evaluation-strategy"],
        answer: "use --eval-every",
    },
    Peer {
        names: &["load-best-model-at-end"],
        answer: "the adapter is the one of the last step; --keep also keeps the checkpoint with the lowest held-out loss",
    },
    Peer {
        names: &["early-stopping", "early-stopping-patience"],
        answer: "use --stop-at with losses on training rows",
    },
    Peer {
        names: &["resume-from-checkpoint", "auto-resume-from-checkpoints"],
        answer: "use --resume; it takes the newest checkpoint of --out",
    },
    Peer {
        names: &["gradient-checkpointing", "use-gradient-checkpointing"],
        answer: "use --recompute on; auto uses it if memory is short",
    },
    Peer {
        names: &[
            "packing",
            "sample-packing",
            "pad-to-sequence-len",
            "group-by-length",
            "padding-free",
        ],
        answer: "rows are always packed, without padding and without attention between rows",
    },
    Peer {
        names: &[
            "flash-attn",
            "flash-attention",
            "attn-implementation",
            "use-liger-kernel",
            "torch-compile",
        ],
        answer: "nothing to choose: upright brings its own kernels",
    },
    Peer {
        names: &[
            "deepspeed",
            "fsdp",
            "num-gpus",
            "nproc-per-node",
            "device-map",
            "gpu",
            "gpus",
            "tensor-parallel",
        ],
        answer: "this build trains on the CPUs of one machine; --threads sets their number",
    },
    Peer {
        names: &["cpu", "use-cpu", "no-cuda"],
        answer: "use --device cpu; it is the only device of this build",
    },
    Peer {
        names: &[
            "dataloader-num-workers",
            "num-workers",
            "preprocessing-num-workers",
            "dataset-num-proc",
        ],
        answer: "use --threads",
    },
    Peer {
        names: &[
            "completion-only-loss",
            "assistant-only-loss",
            "train-on-inputs",
            "train-on-prompt",
            "mask-history",
            "roles-to-train",
        ],
        answer: "only responses are in the loss; --sft-turns last or all chooses the turns",
    },
    Peer {
        names: &["neftune-noise-alpha"],
        answer: "NEFTune is not supported",
    },
    Peer {
        names: &["stage", "do-train", "do-eval", "sft-and-dpo"],
        answer: "one run trains on --sft and --dpo together; --method sequential trains them one after the other",
    },
    Peer {
        names: &["trust-remote-code"],
        answer: "upright runs no code of a model repository",
    },
    Peer {
        names: &["data-seed", "random-seed"],
        answer: "use --seed",
    },
    Peer {
        names: &["max-new-tokens", "max-length-generation"],
        answer: "use --max-tokens of upright generate",
    },
];

/// What to use in place of another trainer's setting: `--lr`, `lora_r=16` and `num_train_epochs` are all understood.
pub fn answer(name: &str) -> Option<&'static str> {
    let name = name.trim_start_matches('-').split('=').next()?;
    let name = name.to_lowercase().replace('_', "-");
    let peer = PEERS.iter().find(|peer| peer.names.contains(&&name[..]))?;
    Some(peer.answer)
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
        for peer in PEERS {
            for word in peer
                .answer
                .split(|c: char| !c.is_alphanumeric() && c != '-')
            {
                if let Some(flag) = word.strip_prefix("--") {
                    let exists = known.iter().any(|key| key == flag) || elsewhere.contains(&flag);
                    assert!(exists, "{}: no flag {word}", peer.names[0]);
                }
            }
        }
    }

    #[test]
    fn every_name_is_listed_once_and_is_no_setting_of_ours() {
        let known = Config::keys();
        let mut seen = HashSet::new();
        for name in PEERS.iter().flat_map(|peer| peer.names) {
            assert!(seen.insert(name), "{name} is listed twice");
            assert!(!known.contains(&(*name).to_owned()), "{name} is ours");
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
