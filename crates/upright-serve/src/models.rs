//! The models of a server: a base and its adapters, each with the name that requests use.

use std::sync::Arc;

use upright_base::{Error, Result};
use upright_data::{Template, Tokenizer};
use upright_engine::{Decoder, DeviceAdapter};

use crate::protocol::error::ApiError;

/// How a model takes part in conversations.
pub struct Speech {
    /// The template of conversations; `Err` says why there is none.
    pub template: std::result::Result<Template, String>,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
}

/// An adapter to serve.
pub struct ServedAdapter {
    /// The name that requests use.
    pub name: String,
    /// The adapter.
    pub adapter: DeviceAdapter,
    /// How it takes part in conversations.
    pub speech: Speech,
}

/// What a server serves.
pub struct Served {
    /// The name of the base that requests use.
    pub name: String,
    /// Where the base comes from, for the list of models.
    pub root: String,
    /// The base.
    pub decoder: Decoder,
    /// The tokenizer of the base.
    pub tokenizer: Tokenizer,
    /// How the base takes part in conversations.
    pub speech: Speech,
    /// The adapters.
    pub adapters: Vec<ServedAdapter>,
}

/// A model without its weights.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) template: std::result::Result<Template, String>,
    pub(crate) ends: Arc<[u32]>,
}

/// The models without their weights.
pub(crate) struct Models {
    /// The base, then every adapter.
    pub(crate) all: Vec<Model>,
    pub(crate) root: String,
    pub(crate) tokenizer: Tokenizer,
    /// Positions of the base.
    pub(crate) positions: usize,
    /// Tokens of the base.
    pub(crate) vocabulary: usize,
}

impl Model {
    fn new(name: String, speech: Speech) -> Self {
        Self {
            name,
            template: speech.template,
            ends: speech.ends.into(),
        }
    }
}

impl Models {
    /// Index of a model in [`Models::all`].
    ///
    /// # Errors
    /// There is no such model.
    pub(crate) fn index(&self, name: &str) -> std::result::Result<usize, ApiError> {
        let known: Vec<&str> = self.all.iter().map(|model| &model.name[..]).collect();
        let found = known.iter().position(|known| *known == name);
        found.ok_or_else(|| ApiError::unknown_model(name, &known))
    }
}

impl Served {
    /// Separates the models from what the engine's thread owns.
    ///
    /// # Errors
    /// Two models have the same name, or a name is empty.
    pub(crate) fn split(self) -> Result<(Models, Arc<Decoder>, Vec<DeviceAdapter>)> {
        let mut all = vec![Model::new(self.name, self.speech)];
        let mut adapters = Vec::with_capacity(self.adapters.len());
        for ServedAdapter {
            name,
            adapter,
            speech,
        } in self.adapters
        {
            if name.is_empty() || all.iter().any(|model| model.name == name) {
                return Err(Error::input(format!(
                    "two models are named `{name}`, or a name is empty"
                ))
                .hint("give every adapter its own name: --adapter NAME=DIR"));
            }
            all.push(Model::new(name, speech));
            adapters.push(adapter);
        }
        let config = self.decoder.config();
        let models = Models {
            all,
            root: self.root,
            tokenizer: self.tokenizer,
            positions: config.max_positions,
            vocabulary: config.vocab,
        };
        Ok((models, Arc::new(self.decoder), adapters))
    }
}
