//! Settings of the answers that a judge reads, as flags and as keys of a study.

use clap::Args;
use serde::Deserialize;
use upright_base::Result;
use upright_data::{ColumnMap, TemplateName};
use upright_runs::{
    plan,
    settings::{
        Number,
        checks::{count, count_from, real},
    },
};
use upright_train::generate::Sampling;

use super::{MAX_TOKENS, PAPER_PROMPTS, Style};

/// Which prompts a model answers, and how.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct AnswerSettings {
    /// Judge only the first N rows [default: all]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub limit: Option<Number>,
    /// Do what the paper does: 640 prompts, no template, temperature 1, 1024 new tokens, protocol
    /// fn, and references with their label `Assistant:`
    #[arg(long, conflicts_with_all = [
        "limit", "template", "max_tokens", "temperature", "top_p", "protocol", "outputs",
    ])]
    pub as_in_paper: bool,
    /// Rename columns of the prompts, e.g. prompt=question [default: no renaming]
    #[arg(long, value_name = "NAME=COLUMN,...", conflicts_with = "outputs")]
    pub map: Option<String>,
    /// Prompt template: chat (the model's chat template; also chat:NAME or chat@YYYY-MM-DD),
    /// alpaca, user-assistant, raw, or a .jinja file [default: the template of the adapter's run,
    /// else the default of upright train]
    #[arg(long, value_name = "NAME", conflicts_with = "outputs")]
    pub template: Option<String>,
    /// Maximum tokens of an answer [default: 1024]
    #[arg(
        long,
        value_name = "N",
        allow_hyphen_values = true,
        conflicts_with = "outputs"
    )]
    pub max_tokens: Option<Number>,
    /// Sampling temperature of answers; 0 always takes the most likely token [default: 0]
    #[arg(
        long,
        value_name = "T",
        allow_hyphen_values = true,
        conflicts_with = "outputs"
    )]
    pub temperature: Option<Number>,
    /// Sample from the most likely tokens with this total probability [default: 1]
    #[arg(
        long,
        value_name = "P",
        allow_hyphen_values = true,
        conflicts_with = "outputs"
    )]
    pub top_p: Option<Number>,
    /// Seed of the sampling [default: 42]
    #[arg(
        long,
        value_name = "N",
        allow_hyphen_values = true,
        conflicts_with = "outputs"
    )]
    pub seed: Option<Number>,
    /// Number of prompts to answer together [default: 8]
    #[arg(
        long,
        value_name = "N",
        allow_hyphen_values = true,
        conflicts_with = "outputs"
    )]
    pub batch: Option<Number>,
}

impl AnswerSettings {
    /// How answers are sampled.
    ///
    /// # Errors
    /// A setting is out of its range.
    pub fn sampling(&self) -> Result<Sampling> {
        let usual = if self.as_in_paper { 1.0 } else { 0.0 };
        let temperature = self.temperature.as_ref();
        let top_p = self.top_p.as_ref();
        Ok(Sampling {
            max_tokens: count("max-tokens", self.max_tokens.as_ref(), MAX_TOKENS)?,
            temperature: real("temperature", temperature, usual, "be at least 0", |t| {
                t >= 0.0
            })?,
            top_p: real("top-p", top_p, 1.0, "be above 0 and at most 1", |p| {
                p > 0.0 && p <= 1.0
            })?,
            seed: count_from(0, "seed", self.seed.as_ref(), 42)? as u64,
        })
    }

    /// Maximum number of rows.
    ///
    /// # Errors
    /// The limit is not a number above 0.
    pub fn limit(&self) -> Result<usize> {
        match &self.limit {
            Some(limit) => count("limit", Some(limit), 0),
            None if self.as_in_paper => Ok(PAPER_PROMPTS),
            None => Ok(usize::MAX),
        }
    }

    /// Sequences at a time.
    ///
    /// # Errors
    /// The batch is not a number above 0.
    pub fn batch(&self) -> Result<usize> {
        count("batch", self.batch.as_ref(), 8)
    }

    /// The columns to rename.
    ///
    /// # Errors
    /// The list is not one of names.
    pub fn map(&self) -> Result<ColumnMap> {
        match &self.map {
            Some(text) => text
                .parse()
                .map_err(|error: upright_base::Error| error.at("map")),
            None => Ok(ColumnMap::default()),
        }
    }

    /// The requested template.
    ///
    /// # Errors
    /// There is no such template.
    pub fn template(&self) -> Result<Option<TemplateName>> {
        match &self.template {
            Some(name) => plan::template("template", name).map(Some),
            None if self.as_in_paper => plan::template("template", "raw").map(Some),
            None => Ok(None),
        }
    }

    /// How texts are shown to the judge.
    pub fn style(&self) -> Style {
        if self.as_in_paper {
            Style::AsInPaper
        } else {
            Style::Clean
        }
    }
}
