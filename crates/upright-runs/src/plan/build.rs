//! Resolves a config into a plan, setting by setting.

use super::declared;
use super::objective::{is_auto, losses, objectives};
use super::report_to::named_trackers;
use super::stages::{length, stages};
use super::{
    GRADIENT_EXPONENT, Length, LoraPlan, ObjectivePlan, OptimizerPlan, Plan, ReferencePlan,
    ReferenceRows, StopPlan,
};
use crate::settings::checks::{count, folder, named, no_such, positive, wrong};
use crate::settings::shared::{device, threads, token_budget_of, truncation};
use crate::settings::{self, Config, List, count_of, named_of, number_of};
use upright_base::{Error, Result, files};
use upright_core::methods::{self, ALRIGHT, MethodSpec};
use upright_core::optimizer::{Average, Iterate, adamw};
use upright_core::settings::{Value, Values};
use upright_data::{Truncation, source};
use upright_model::adapter::ALL_LINEAR;

impl Plan {
    /// Resolves a config. Reads the file system only to check that the named files and folders
    /// exist.
    pub fn from_config(config: &Config) -> Result<Self> {
        if config.unpack_all {
            source::unpack_all();
        }
        // A run opens its trackers late, so an unknown name is told here.
        named_trackers(config)?;
        let Some(model) = &config.model else {
            let hint = match &config.out {
                Some(out) if out.join(settings::FILE).is_file() => {
                    format!(
                        "to resume the run with its settings, give --resume --out {}",
                        files::quoted(out)
                    )
                }
                _ => "give the folder of the base model: --model DIR".to_owned(),
            };
            return Err(Error::input("model is missing").hint(hint));
        };
        let model_hint =
            "give the folder that holds config.json, tokenizer.json and the .safetensors files";
        let objectives = objectives(config)?;
        let method = match config.method.as_deref() {
            None => &ALRIGHT,
            Some(name) => named("method", name, methods::all(), |method| method.name)?,
        };
        let method_settings = declared::of_method(method, &config.method_settings)?;
        check_batches(method, &method_settings, &objectives)?;
        let length = length(config)?;
        let Truncation {
            max_length,
            min_prompt,
            rule: too_long,
        } = truncation(
            config.max_length.as_ref(),
            config.min_prompt.as_ref(),
            config.too_long.as_deref(),
        )?;
        let seed = config.seed.as_ref().map_or(Some(42), |seed| seed.whole());
        let out = config
            .out
            .clone()
            .filter(|path| !path.as_os_str().is_empty());
        Ok(Self {
            model: folder("model", model, model_hint)?,
            init_adapter: match &config.init_adapter {
                Some(path) => Some(folder("init-adapter", path, "give a PEFT adapter folder")?),
                None => None,
            },
            method,
            length,
            stages: stages(config, method, &objectives)?,
            stop: stop(config, &objectives)?,
            method_settings,
            finds_optima: finds_optima(config, length, &objectives)?,
            average: average(config)?,
            export_iterate: export_iterate(config)?,
            held_out: number_of("held-out", config.held_out.as_ref())?,
            max_length,
            min_prompt,
            too_long,
            seed: seed.ok_or_else(|| {
                wrong(
                    "seed",
                    "be a whole number from 0 to 2^63 - 1",
                    config.seed.as_ref().expect("given"),
                )
            })?,
            eval_every: count_of("eval-every", config.eval_every.as_ref())?,
            eval_rows: count_of("eval-rows", config.eval_rows.as_ref())?,
            checkpoint_every: count_of("checkpoint-every", config.checkpoint_every.as_ref())?,
            keep: count_of("keep", config.keep.as_ref())?,
            threads: threads(config.threads.as_ref())?,
            token_budget: count(
                "token-budget",
                config.token_budget.as_ref(),
                token_budget_of(device(config.device.as_deref())?),
            )?,
            recompute: named_of("recompute", config.recompute.as_deref())?,
            device: Some(device(config.device.as_deref())?),
            reference: reference(config, &objectives)?,
            lora: lora(config)?,
            optimizer: optimizer(config)?,
            out: out.ok_or_else(|| {
                Error::input("out is missing").hint("give the folder of the run: --out DIR")
            })?,
            objectives,
        })
    }
}

/// Checks that the method can divide the batch of every objective.
fn check_batches(
    method: &MethodSpec,
    settings: &Values,
    objectives: &[ObjectivePlan],
) -> Result<()> {
    let divisor = (method.batch_divisor)(settings);
    // The choice that asks for it.
    let mut choice = method.name.to_owned();
    let mut flag = String::from("--method");
    for setting in method.settings {
        if let Some(Value::Choice(name)) = settings.get(setting.name)
            && settings.get(setting.name) != Some(&setting.default())
        {
            choice = format!("{} {name}", setting.name);
            flag = format!("--{}", setting.name);
        }
    }
    for objective in objectives {
        let batch = objective.batch;
        let below = batch / divisor * divisor;
        if below == batch {
            continue;
        }
        let key = objective.setting("batch");
        let key = key.trim_start_matches('-');
        let multiple = if divisor == 2 {
            "be even".to_owned()
        } else {
            format!("be a multiple of {divisor}")
        };
        let fitting = if below == 0 {
            divisor.to_string()
        } else {
            format!("{below} or {}", below + divisor)
        };
        return Err(wrong(key, &format!("{multiple} with {choice}"), batch)
            .hint(format!("give {fitting}, or leave {flag} out")));
    }
    Ok(())
}

/// Whether optima are found before the run. A run of one objective trains it alone anyway.
fn finds_optima(
    config: &Config,
    length: Option<Length>,
    objectives: &[ObjectivePlan],
) -> Result<bool> {
    if !is_auto(config.optimum.as_ref()) {
        return Ok(false);
    }
    if length == Some(Length::Steps(0)) {
        let mut losses = Vec::new();
        for objective in objectives {
            losses.push(format!("{}=LOSS", objective.name));
        }
        return Err(Error::input(
            "optimum auto needs steps to train each objective alone, but steps is 0",
        )
        .hint(format!(
            "give the optima, --optimum {}, or leave --optimum out",
            losses.join(",")
        )));
    }
    Ok(objectives.len() > 1)
}

fn average(config: &Config) -> Result<Average> {
    named_of("average", config.average.as_deref())
}

fn export_iterate(config: &Config) -> Result<Iterate> {
    let key = "export-iterate";
    let iterate = named_of(key, config.export_iterate.as_deref())?;
    if iterate == Iterate::Average && average(config)?.is_none() {
        return Err(
            Error::input("export-iterate average is given, but the run keeps no average")
                .hint("give --average polynomial, or leave --export-iterate out"),
        );
    }
    Ok(iterate)
}

fn stop(config: &Config, objectives: &[ObjectivePlan]) -> Result<Option<StopPlan>> {
    let within = number_of("stop-within", config.stop_within.as_ref())?;
    if config.stop_at.is_empty() {
        return match &config.stop_within {
            None => Ok(None),
            Some(within) => Err(Error::input(format!(
                "stop-within {within} is given without stop-at"
            ))
            .hint("give --stop-at NAME=LOSS,..., or leave --stop-within out")),
        };
    }
    let mut points = vec![];
    for written in &config.stop_at {
        let mut point = vec![f64::INFINITY; objectives.len()];
        let list = List::from(&written[..]);
        losses("stop-at", Some(&list), objectives)?
            .into_iter()
            .for_each(|(i, loss)| point[i] = loss);
        points.push(point);
    }
    Ok(Some(StopPlan { points, within }))
}

fn lora(config: &Config) -> Result<LoraPlan> {
    let rank = count_of("lora-rank", config.lora_rank.as_ref())?;
    let targets = match &config.lora_targets {
        Some(targets) => targets.0.clone(),
        None => vec![ALL_LINEAR.to_owned()],
    };
    let listed = || config.lora_targets.clone().unwrap_or_default();
    if targets.iter().any(String::is_empty) {
        return Err(wrong("lora-targets", "not contain empty names", listed()));
    }
    if (1..targets.len()).any(|i| targets[..i].contains(&targets[i])) {
        return Err(wrong("lora-targets", "name every layer once", listed()));
    }
    Ok(LoraPlan {
        rank,
        alpha: positive("lora-alpha", config.lora_alpha.as_ref(), rank as f64)?,
        targets,
    })
}

fn optimizer(config: &Config) -> Result<OptimizerPlan> {
    Ok(OptimizerPlan {
        learning_rate: number_of("learning-rate", config.learning_rate.as_ref())?,
        schedule: named_of("schedule", config.schedule.as_deref())?,
        warmup: count_of("warmup", config.warmup.as_ref())?,
        clip: number_of("clip", config.clip.as_ref())?,
        gradient_exponent: Some(GRADIENT_EXPONENT),
        adamw: adamw::AdamWConfig {
            weight_decay: number_of("weight-decay", config.weight_decay.as_ref())?,
            ..adamw::AdamWConfig::default()
        },
    })
}

/// The reference model. If no loss uses one, the setting is checked and then ignored.
fn reference(config: &Config, objectives: &[ObjectivePlan]) -> Result<ReferencePlan> {
    let needed = objectives.iter().any(|objective| objective.loss.reference);
    let epochs = number_of("reference-epochs", config.reference_epochs.as_ref())?;
    let batch = |default| count("reference-batch", config.reference_batch.as_ref(), default);
    batch(1)?;
    let rows = config
        .reference_rows
        .as_ref()
        .map(|rows| count("reference-rows", Some(rows), 0))
        .transpose()?;
    let learning_rate = match &config.reference_learning_rate {
        Some(rate) => Some(positive("reference-learning-rate", Some(rate), 0.0)?),
        None => None,
    };
    let train = |on, batch| {
        Ok(ReferencePlan::Train {
            on,
            epochs,
            batch,
            rows,
            learning_rate,
        })
    };
    match config.reference.as_deref() {
        None | Some("none") => Ok(ReferencePlan::Base),
        Some("train:chosen" | "train:sft") if !needed => Ok(ReferencePlan::Base),
        Some("train:chosen") => {
            only(ReferenceRows::Chosen, objectives)?;
            train(ReferenceRows::Chosen, batch(8)?)
        }
        Some("train:sft") => train(
            ReferenceRows::Sft,
            batch(only(ReferenceRows::Sft, objectives)?.batch)?,
        ),
        Some(other) if other.starts_with("train:") => Err(no_such(
            "reference",
            other,
            ["none", "train:chosen", "train:sft", "an adapter folder"],
        )),
        Some(path) => {
            let hint = "give a PEFT adapter folder, none, train:chosen or train:sft";
            let folder = folder("reference", path.as_ref(), hint)?;
            Ok(if needed {
                ReferencePlan::Folder(folder)
            } else {
                ReferencePlan::Base
            })
        }
    }
}

/// The objective whose rows the reference model is trained on.
fn only(on: ReferenceRows, objectives: &[ObjectivePlan]) -> Result<&ObjectivePlan> {
    let (word, kind) = match on {
        ReferenceRows::Chosen => ("train:chosen", "preference"),
        ReferenceRows::Sft => ("train:sft", "instruction"),
    };
    let candidates: Vec<&ObjectivePlan> = objectives
        .iter()
        .filter(|objective| on.are_of(objective))
        .collect();
    match candidates[..] {
        // Several losses on the same rows have one reference.
        [objective, ref others @ ..] if others.iter().all(|other| other.same_rows(objective)) => {
            Ok(objective)
        }
        [] => Err(wrong("reference", "train on data of this run", word)
            .hint("there is no instruction data: give --sft, or --reference train:chosen")),
        _ => {
            let names: Vec<&str> = candidates
                .iter()
                .map(|objective| &objective.name[..])
                .collect();
            Err(Error::input(format!(
                "reference {word} needs one set of {kind} rows, but these objectives have different \
                 rows: {}",
                names.join(", ")
            ))
            .hint(
                "train the reference in its own run and give the adapter folder: --reference DIR",
            ))
        }
    }
}
