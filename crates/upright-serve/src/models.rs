//! The models of a server: a base and its adapters, each with the name that requests use.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use upright_base::{Error, Result};
use upright_data::{Template, Tokenizer};
use upright_engine::DeviceAdapter;
use upright_train::run::Model as Base;

use crate::{
    engine::{Engine, Handle},
    protocol::error::ApiError,
};

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

/// Opens the adapter in a PEFT folder or a run folder.
pub type OpenAdapter = Box<dyn Fn(&Path) -> Result<(DeviceAdapter, Speech)> + Send + Sync>;

/// What a server serves.
pub struct Served {
    /// The name of the base that requests use.
    pub name: String,
    /// Where the base comes from, for the list of models.
    pub root: String,
    /// The base.
    pub base: Arc<Base>,
    /// How the base takes part in conversations.
    pub speech: Speech,
    /// The adapters.
    pub adapters: Vec<ServedAdapter>,
    /// Opens further adapters, by request.
    pub open: OpenAdapter,
}

/// A model without its weights.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) template: std::result::Result<Template, String>,
    pub(crate) ends: Arc<[u32]>,
    /// Seconds since 1970 at which the model was loaded.
    pub(crate) created: u64,
    /// The model of the engine's thread.
    pub(crate) handle: Arc<Handle>,
}

/// The models without their weights.
pub(crate) struct Models {
    pub(crate) base: Arc<Model>,
    adapters: Mutex<Adapters>,
    /// One permit for each adapter that may be in memory.
    room: Arc<Semaphore>,
    /// Adapters that may be in memory.
    most: usize,
    pub(crate) root: String,
    opened: Arc<Base>,
    /// Opens further adapters.
    pub(crate) open: OpenAdapter,
    /// Positions of the base.
    pub(crate) positions: usize,
    /// Tokens of the base.
    pub(crate) vocabulary: usize,
}

#[derive(Default)]
struct Adapters {
    /// Adapters that requests can use, in the order in which they were loaded.
    loaded: Vec<Arc<Model>>,
    /// Names of adapters that are being loaded.
    loading: Vec<String>,
}

/// A name that is taken for an adapter until the adapter is loaded, or this is dropped.
pub(crate) struct Reservation {
    models: Arc<Models>,
    name: String,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut adapters = self.models.adapters();
        adapters.loading.retain(|name| *name != self.name);
    }
}

impl Reservation {
    /// Lists the adapter under the name. An adapter that had the name is unloaded.
    pub(crate) fn publish(self, speech: Speech, handle: Arc<Handle>) {
        let model = Arc::new(Model::new(self.name.clone(), speech, handle));
        let mut adapters = self.models.adapters();
        adapters.loaded.retain(|loaded| loaded.name != self.name);
        adapters.loaded.push(model);
        // Dropping the reservation takes the lock again.
        drop(adapters);
    }
}

impl Model {
    fn new(name: String, speech: Speech, handle: Arc<Handle>) -> Self {
        Self {
            name,
            template: speech.template,
            ends: speech.ends.into(),
            created: unix_seconds(),
            handle,
        }
    }
}

impl Models {
    /// The models of a server, of which the engine gets the adapters. At most `most` adapters may be
    /// in memory, or as many as there are now.
    ///
    /// # Errors
    /// Two models have the same name, or a name is empty.
    pub(crate) fn new(served: Served, most: usize, engine: &Engine) -> Result<Self> {
        let most = most.max(served.adapters.len());
        let most = most.min(Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(most));
        let base = Arc::new(Model::new(served.name, served.speech, engine.base()));
        let mut loaded: Vec<Arc<Model>> = Vec::with_capacity(served.adapters.len());
        for ServedAdapter {
            name,
            adapter,
            speech,
        } in served.adapters
        {
            let is_taken = base.name == name || loaded.iter().any(|other| other.name == name);
            if name.is_empty() || is_taken {
                return Err(Error::input(format!(
                    "two models are named `{name}`, or a name is empty"
                ))
                .hint("give every adapter its own name: --adapter NAME=DIR"));
            }
            let permit = Arc::clone(&room).try_acquire_owned();
            let permit = permit.expect("there is room for all adapters");
            let handle = engine.add(adapter, permit);
            loaded.push(Arc::new(Model::new(name, speech, handle)));
        }
        let config = served.base.decoder.config();
        let positions = config.max_positions;
        let vocabulary = config.vocab;
        Ok(Self {
            base,
            adapters: Mutex::new(Adapters {
                loaded,
                loading: Vec::new(),
            }),
            room,
            most,
            root: served.root,
            opened: served.base,
            open: served.open,
            positions,
            vocabulary,
        })
    }

    fn adapters(&self) -> MutexGuard<'_, Adapters> {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tokenizer of the base.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.opened.tokenizer
    }

    /// The base, then every loaded adapter.
    pub(crate) fn all(&self) -> Vec<Arc<Model>> {
        let mut all = vec![Arc::clone(&self.base)];
        all.extend_from_slice(&self.adapters().loaded);
        all
    }

    /// The model with this name.
    ///
    /// # Errors
    /// There is no such model.
    pub(crate) fn find(&self, name: &str) -> std::result::Result<Arc<Model>, ApiError> {
        let all = self.all();
        match all.iter().find(|model| model.name == name) {
            Some(model) => Ok(Arc::clone(model)),
            None => {
                let known: Vec<&str> = all.iter().map(|model| &model.name[..]).collect();
                Err(ApiError::unknown_model(name, &known))
            }
        }
    }

    /// Takes a name for an adapter that is about to be loaded. With `in_place`, a loaded adapter may
    /// have the name.
    ///
    /// # Errors
    /// The name is in use, or as many adapters are loaded as may be in memory.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        name: &str,
        in_place: bool,
    ) -> std::result::Result<Reservation, ApiError> {
        let field = "lora_name";
        if name == self.base.name {
            return Err(ApiError::field(field, format!("`{name}` is the base")));
        }
        let mut adapters = self.adapters();
        if adapters.loading.iter().any(|loading| loading == name) {
            return Err(ApiError::field(
                field,
                format!("an adapter with the name `{name}` is being loaded"),
            ));
        }
        if !in_place && adapters.loaded.iter().any(|loaded| loaded.name == name) {
            return Err(ApiError::field(
                field,
                format!(
                    "an adapter with the name `{name}` is loaded; unload it first, or set \
                     load_inplace"
                ),
            ));
        }
        // An adapter that is replaced stays in memory until the new one is loaded.
        if adapters.loaded.len() + adapters.loading.len() >= self.most {
            return Err(ApiError::invalid(format!(
                "the server may have {} adapters in memory, and has them; unload one, or restart the \
                 server with a larger --max-adapters",
                self.most
            )));
        }
        adapters.loading.push(name.to_owned());
        Ok(Reservation {
            models: Arc::clone(self),
            name: name.to_owned(),
        })
    }

    /// Room in memory for one adapter. Waits for adapters that were unloaded and still answer.
    pub(crate) async fn room(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.room).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// Takes an adapter off the list. Its answers in progress go on.
    ///
    /// # Errors
    /// The name is that of the base, or no adapter has it.
    pub(crate) fn unload(&self, name: &str) -> std::result::Result<(), ApiError> {
        if name == self.base.name {
            let problem = format!("`{name}` is the base, which cannot be unloaded");
            return Err(ApiError::field("lora_name", problem));
        }
        let mut adapters = self.adapters();
        let position = adapters.loaded.iter().position(|model| model.name == name);
        let Some(position) = position else {
            let known = adapters.loaded.iter().map(|model| &model.name[..]);
            return Err(ApiError::unknown_adapter(name, &known.collect::<Vec<_>>()));
        };
        adapters.loaded.remove(position);
        Ok(())
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
