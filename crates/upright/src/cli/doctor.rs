//! `upright doctor`: resources of this machine, and whether a model fits.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use upright_base::memory;
use upright_engine::{
    Libraries, Options, Tier,
    decoder::{ActivationBytes, WeightBytes},
};
use upright_model::config::DecoderConfig;

use super::{gigabytes, print, print_json, terminal::Terminal};
use upright_base::{Result, files};
use upright_hub::Hub;
use upright_runs::{
    plan::checks::{count, folder},
    settings::{Number, count_of},
};
use upright_train::run::Model;

/// Shows cores, memory, devices, instruction tiers and the cache; with a model, whether it fits.
#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// Model to check, a folder or a Hub id: opens it and estimates the memory that training needs.
    #[arg(long, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    /// Maximum tokens in a pack, for the memory estimate.
    #[arg(
        long,
        value_name = "N",
        default_value = "2048",
        allow_hyphen_values = true
    )]
    token_budget: Number,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[cfg(feature = "host-device")]
    #[command(flatten)]
    comparison: super::compare::Comparison,
}

/// Memory that a model needs for training, in bytes.
struct Needs {
    config: DecoderConfig,
    mapped: usize,
    owned: usize,
    kept: usize,
    recomputed: usize,
}

fn needs(model: &Path, token_budget: usize) -> Result<Needs> {
    // Opens the tokenizer too, because every other command requires it.
    let Model { decoder, .. } = Model::open(model, &Options::default(), &mut Terminal::new())?;
    let ActivationBytes { kept, recomputed } = decoder.bytes_per_token(0);
    let WeightBytes { mapped, owned } = decoder.weight_bytes();
    Ok(Needs {
        mapped,
        owned,
        kept: kept.saturating_mul(token_budget),
        recomputed: (recomputed + kept / decoder.config().layers.max(1))
            .saturating_mul(token_budget),
        config: decoder.config().clone(),
    })
}

/// Runs the command.
pub(super) fn run(arguments: &Doctor) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (total, available) = (memory::total_bytes(), memory::available_bytes());
    let tiers: Vec<Tier> = [Tier::Portable, Tier::Avx512, Tier::Amx]
        .into_iter()
        .filter(|t| t.available())
        .collect();
    let tier = Tier::from_environment()?;
    let cache = files::cache_dir();
    files::check_own(&cache)?;
    let writable = files::create_dir(&cache).is_ok() && files::check_writable(&cache).is_ok();
    let token_budget = count("token-budget", Some(&arguments.token_budget), 0)?;
    let hub = Hub::from_environment();
    let model = arguments
        .model
        .as_deref()
        .map(|model| hub.model("model", model, &mut Terminal::new()))
        .transpose()?;
    let model = model
        .as_deref()
        .map(|model| folder("model", model, "give a model folder"))
        .transpose()?;
    #[cfg(feature = "host-device")]
    if let (true, Some(model)) = (arguments.comparison.compare_kernels, &model) {
        return super::compare::run(&arguments.comparison, model, arguments.json);
    }
    let needs = model.map(|model| needs(&model, token_budget)).transpose()?;
    let base = needs.as_ref().map(|n| n.mapped + n.owned);
    let fits = |bytes: usize| available.map(|available| bytes < available);
    let kept_fits = needs
        .as_ref()
        .zip(base)
        .and_then(|(n, base)| fits(n.kept.saturating_add(base)));
    let recomputed_fits = needs
        .as_ref()
        .zip(base)
        .and_then(|(n, base)| fits(n.recomputed.saturating_add(base)));
    let devices: Vec<String> = upright_engine::devices()
        .iter()
        .map(ToString::to_string)
        .collect();
    let kernels = upright_kernels::check_images()?;
    let libraries = Libraries::find();
    if arguments.json {
        let model = needs.as_ref().map(|n| {
            json!({
                "model_type": n.config.model_type, "max_positions": n.config.max_positions, "base_bytes": base, "token_budget": token_budget,
                "step_bytes_kept": n.kept, "step_bytes_recomputed": n.recomputed,
                "fits_kept": kept_fits, "fits_recomputed": recomputed_fits,
            })
        });
        return print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"), "cores": cores, "memory_total_bytes": total,
            "memory_available_bytes": available, "tiers": tiers.iter().map(|t| t.name()).collect::<Vec<_>>(),
            "devices": devices, "cuda": cuda_json(libraries), "cuda_kernels": kernels, "mpi": mpi_json(), "nccl": nccl_json(), "tier": tier.name(), "cache": cache, "cache_writable": writable, "model": model,
        }));
    }
    let known = |bytes: Option<usize>| bytes.map_or_else(|| "unknown".to_owned(), gigabytes);
    let mut text = String::new();
    let _ = writeln!(text, "upright      {}", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(text, "cores        {cores}");
    let _ = writeln!(
        text,
        "memory       {} available of {}",
        known(available),
        known(total)
    );
    let _ = writeln!(text, "devices      {}", devices.join(", "));
    text += &cuda_text(libraries, kernels);
    text += &ranks_text();
    let names: Vec<&str> = tiers.iter().map(|t| t.name()).collect();
    let _ = writeln!(
        text,
        "tiers        {} (in use: {tier}; UPRIGHT_CPU selects another)",
        names.join(", ")
    );
    let _ = writeln!(
        text,
        "cache        {}{}",
        cache.display(),
        if writable {
            ""
        } else {
            ": NOT WRITABLE, set UPRIGHT_CACHE"
        }
    );
    if let (Some(n), Some(base)) = (needs, base) {
        let verdict = |fits: Option<bool>| match fits {
            Some(true) => "fits",
            Some(false) => "DOES NOT FIT",
            None => "memory unknown",
        };
        let _ = writeln!(
            text,
            "model        {}: {} layers, hidden {}, vocabulary {}",
            n.config.model_type, n.config.layers, n.config.hidden, n.config.vocab
        );
        let positions = n.config.max_positions;
        let usual = count_of("max-length", None).expect("a default is valid");
        let _ = writeln!(
            text,
            "positions    {positions} (max_position_embeddings){}",
            match positions < usual {
                true => format!(
                    ": below the default --max-length of {usual}; train with --max-length {positions}"
                ),
                false => String::new(),
            }
        );
        let _ = writeln!(
            text,
            "base         {} ({} memory-mapped, {} converted)",
            gigabytes(base),
            gigabytes(n.mapped),
            gigabytes(n.owned)
        );
        let _ = writeln!(
            text,
            "step         {} for a pack of {} tokens: {}",
            gigabytes(n.kept),
            token_budget,
            verdict(kept_fits)
        );
        let _ = writeln!(
            text,
            "             {} with gradient checkpointing: {}",
            gigabytes(n.recomputed),
            verdict(recomputed_fits)
        );
        if recomputed_fits == Some(false) {
            let _ = writeln!(
                text,
                "             lower --token-budget or --max-length, or use a smaller model"
            );
        }
    }
    print(&text)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The lines on libraries for several ranks.
fn ranks_text() -> String {
    let mut text = String::new();
    let mut found = Vec::new();
    for mpi in upright_ranks::mpi::libraries(&environment) {
        if let Ok((path, version)) = mpi.library {
            found.push(format!("{version} ({})", path.display()));
        }
    }
    if found.is_empty() {
        found.push("not found, needed for several machines only".to_owned());
    }
    let _ = writeln!(text, "mpi          {}", found.join(", "));
    if let Ok((path, version)) = upright_ranks::nccl::library(&environment) {
        let _ = writeln!(text, "nccl         {version} ({})", path.display());
    }
    text
}

/// The MPI libraries as JSON.
fn mpi_json() -> Vec<serde_json::Value> {
    let mut all = Vec::new();
    for mpi in upright_ranks::mpi::libraries(&environment) {
        if let Ok((path, version)) = mpi.library {
            all.push(json!({ "path": path, "version": version }));
        }
    }
    all
}

/// NCCL as JSON; null if it is not found.
fn nccl_json() -> serde_json::Value {
    match upright_ranks::nccl::library(&environment) {
        Ok((path, version)) => json!({ "path": path, "version": version }),
        Err(_) => serde_json::Value::Null,
    }
}

/// The lines on NVIDIA's libraries and cards.
fn cuda_text(libraries: &Libraries, kernels: usize) -> String {
    let mut text = String::new();
    match &libraries.driver {
        Ok((major, minor)) => {
            let _ = writeln!(text, "cuda         driver for CUDA {major}.{minor}");
        }
        Err(problem) => {
            let _ = writeln!(text, "cuda         not available: {problem}");
        }
    }
    for card in &libraries.cards {
        let (major, minor) = card.capability;
        let verdict = match libraries.card(card.index) {
            Ok(_) => "experimental: not yet checked on a card".to_owned(),
            Err(error) => format!("CANNOT BE USED: {}; {}", error.message, error.hint),
        };
        let _ = writeln!(
            text,
            "  cuda:{}     {}, compute capability {major}.{minor}, {}: {verdict}",
            card.index,
            card.name,
            gigabytes(card.memory)
        );
    }
    let version = libraries.cublaslt.as_deref().unwrap_or("not found");
    let _ = writeln!(text, "  cuBLASLt   {version}");
    let _ = writeln!(
        text,
        "  kernels    {kernels}, for compute capability 8.0 and later"
    );
    text
}

/// The same as JSON.
fn cuda_json(libraries: &Libraries) -> serde_json::Value {
    let mut cards = Vec::new();
    for card in &libraries.cards {
        let (major, minor) = card.capability;
        cards.push(json!({
            "device": format!("cuda:{}", card.index), "name": card.name,
            "compute_capability": format!("{major}.{minor}"), "memory_bytes": card.memory,
            "usable": libraries.card(card.index).is_ok(),
        }));
    }
    let driver = libraries.driver.as_ref().ok();
    json!({
        "driver": driver.map(|(major, minor)| format!("{major}.{minor}")),
        "cublaslt": libraries.cublaslt.as_ref().ok(), "gpus": cards,
    })
}
