//! Paths, and the answer of each.

use std::{
    collections::hash_map::RandomState,
    convert::Infallible,
    hash::{BuildHasher, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State as Extract},
    http::{HeaderMap, Method, Uri, header},
    middleware,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event as Message, KeepAlive},
    },
    routing::{get, post},
};
use futures_util::stream::unfold;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower_http::cors::CorsLayer;
use upright_base::Result as BaseResult;
use upright_data::Template;

use crate::{
    allowed::AllowedFolder,
    answers::{Ask, Form, PromptTokens},
    engine::{self, Engine},
    guard, loading,
    metrics::Metrics,
    models::{Model, Models, Served},
    protocol::{
        chat::ChatRequest,
        completions::{CompletionRequest, PromptField},
        error::ApiError,
        fields::Fields,
        sampling::SamplingFields,
        tokens::{Detokenize, Tokenize},
    },
    server::InFlight,
    settings::Settings,
};

/// What all routes share.
pub(crate) struct State {
    pub(crate) models: Arc<Models>,
    /// The folder below which requests may name adapters, if there is one.
    pub(crate) allowed: Option<AllowedFolder>,
    pub(crate) engine: Engine,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: Settings,
    /// Whether the server listens on a loopback address.
    pub(crate) is_loopback: bool,
    /// Digest of the key.
    pub(crate) key: Option<[u8; 32]>,
    /// Source of ids and of seeds that a request leaves open.
    random: RandomState,
    requests: AtomicU64,
}

/// [`State`], shared by connections.
pub(crate) type Shared = Arc<State>;

/// Tokens of a chat's answer that sets no maximum. Memory for all of them is reserved before the answer
/// begins.
const USUAL_TOKENS: usize = 2048;

impl State {
    /// # Errors
    /// Two models have the same name, or the folder that requests may name is none.
    pub(crate) fn new(
        served: Served,
        engine: Engine,
        metrics: Arc<Metrics>,
        settings: Settings,
        is_loopback: bool,
    ) -> BaseResult<Self> {
        let allowed = settings.allow_adapters.as_deref();
        let allowed = allowed.map(AllowedFolder::new).transpose()?;
        let models = Models::new(served, settings.max_adapters, &engine)?;
        Ok(Self {
            models: Arc::new(models),
            allowed,
            engine,
            metrics,
            is_loopback,
            key: settings.api_key.as_deref().map(guard::digest),
            settings,
            random: RandomState::new(),
            requests: AtomicU64::new(0),
        })
    }

    /// A number that no client can predict.
    fn fresh(&self) -> u64 {
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.requests.fetch_add(1, Ordering::Relaxed));
        hasher.finish()
    }

    /// Checks that ids are tokens of the model.
    fn check_ids(&self, name: &str, ids: &[u32]) -> Result<(), ApiError> {
        let vocabulary = self.models.vocabulary;
        match ids.iter().find(|id| **id as usize >= vocabulary) {
            None => Ok(()),
            Some(id) => Err(ApiError::field(
                name,
                format!("token id {id} is outside the model's vocabulary of {vocabulary} tokens"),
            )),
        }
    }

    /// Checks that a prompt with its answer fits, and that its ids are tokens of the model.
    fn check_prompt(&self, name: &str, ids: &[u32], max_tokens: usize) -> Result<(), ApiError> {
        self.check_ids(name, ids)?;
        if ids.is_empty() {
            return Err(ApiError::field(name, "the prompt has no tokens"));
        }
        // The last token of an answer takes no position.
        let needed = ids.len().saturating_add(max_tokens.saturating_sub(1));
        let positions = self.models.positions;
        if needed > positions {
            return Err(ApiError::too_long(
                name,
                format!(
                    "the model's maximum length is {positions} tokens, but {} were requested: {} of \
                     the prompt and {max_tokens} of the answer",
                    ids.len() + max_tokens,
                    ids.len()
                ),
            ));
        }
        let most = self.engine.most_tokens();
        if max_tokens > 1 && needed > most {
            return Err(ApiError::too_long(
                name,
                format!(
                    "the prompt and its answer may have {needed} tokens, but the server's key-value \
                     caches hold {most}"
                ),
            ));
        }
        Ok(())
    }
}

/// The router with all routes. Browsers get their answers before the guard.
pub(crate) fn router(state: Shared, cors: Option<CorsLayer>) -> Router {
    let router = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/load_lora_adapter", post(loading::load))
        .route("/v1/unload_lora_adapter", post(loading::unload))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/tokenizer_info", get(tokenizer_info))
        .route("/health", get(health))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&state),
            guard::check,
        ))
        .with_state(state);
    match cors {
        None => router,
        Some(cors) => router.layer(cors),
    }
}

async fn unknown(uri: Uri) -> ApiError {
    ApiError::unknown_path(uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::wrong_method(method.as_str(), uri.path())
}

async fn health(Extract(state): Extract<Shared>) -> Result<Json<Value>, ApiError> {
    if state.engine.is_running() {
        Ok(Json(json!({"status": "ok"})))
    } else {
        Err(engine::stopped())
    }
}

async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

async fn metrics(Extract(state): Extract<Shared>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.metrics.text()).into_response()
}

/// A model's entry in the list of models.
fn listed(state: &State, model: &Model) -> Value {
    let base = &state.models.base.name;
    let is_base = model.name == *base;
    json!({
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "upright",
        "root": if is_base { &state.models.root } else { &model.name },
        "parent": (!is_base).then_some(base),
        "max_model_len": state.models.positions,
    })
}

async fn models(Extract(state): Extract<Shared>) -> Json<Value> {
    let all = state.models.all();
    let mut data = Vec::with_capacity(all.len());
    for model in &all {
        data.push(listed(&state, model));
    }
    Json(json!({"object": "list", "data": data}))
}

async fn model(
    Extract(state): Extract<Shared>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let model = state.models.find(&name)?;
    Ok(Json(listed(&state, &model)))
}

async fn tokenizer_info(Extract(state): Extract<Shared>) -> Result<Json<Value>, ApiError> {
    let tokenizer = state.models.tokenizer();
    let texts = tokenizer.special_texts();
    let template = state.models.base.template.as_ref().ok();
    let mut info = json!({"chat_template": template.and_then(Template::source)});
    for name in ["bos_token", "eos_token", "pad_token"] {
        info[name] = texts.get(name).cloned().unwrap_or(Value::Null);
    }
    if info["eos_token"].is_null() {
        let text = tokenizer.decode(&[tokenizer.eos()]);
        info["eos_token"] = json!(text.map_err(failed)?);
    }
    Ok(Json(info))
}

async fn tokenize(
    Extract(state): Extract<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let request = Tokenize::parse(guard::fields(&state, &headers, body).await?)?;
    if let Some(model) = &request.model {
        state.models.find(model)?;
    }
    let positions = state.models.positions;
    let ids = blocking(move || encode(&state, &request.prompt, request.add_special_tokens)).await?;
    Ok(Json(json!({
        "tokens": ids,
        "count": ids.len(),
        "max_model_len": positions,
    })))
}

async fn detokenize(
    Extract(state): Extract<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let request = Detokenize::parse(guard::fields(&state, &headers, body).await?)?;
    if let Some(model) = &request.model {
        state.models.find(model)?;
    }
    state.check_ids("tokens", &request.tokens)?;
    let text = blocking(move || {
        state
            .models
            .tokenizer()
            .decode(&request.tokens)
            .map_err(failed)
    })
    .await?;
    Ok(Json(json!({ "prompt": text })))
}

fn failed(error: upright_base::Error) -> ApiError {
    ApiError::failure(error.to_string())
}

/// Ids of a text.
fn encode(state: &State, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, ApiError> {
    let tokenizer = state.models.tokenizer();
    let ids = if add_special_tokens {
        tokenizer.prompt(text)
    } else {
        tokenizer.verbatim(text)
    };
    ids.map_err(|error| ApiError::field("prompt", error.to_string()))
}

/// Runs work that takes long on a thread of its own.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, ApiError> + Send + 'static,
) -> Result<R, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::failure("the request could not be processed")),
    }
}

async fn completions(
    Extract(state): Extract<Shared>,
    in_flight: InFlight,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(state, in_flight, headers, body, completion).await
}

fn completion(state: &State, fields: Fields, began: Instant) -> Result<Ask, ApiError> {
    let request = CompletionRequest::parse(fields)?;
    let model = state.models.find(&request.model)?;
    let mut prompts = Vec::with_capacity(request.prompts.len());
    for prompt in request.prompts {
        let (ids, text) = match prompt {
            PromptField::Ids(ids) => (ids, None),
            PromptField::Text(text) => {
                let ids = encode(state, &text, request.add_special_tokens)?;
                (ids, Some(text))
            }
        };
        state.check_prompt("prompt", &ids, request.max_tokens)?;
        prompts.push(PromptTokens {
            ids: ids.into(),
            text,
        });
    }
    Ok(Ask {
        form: Form::Completion,
        model,
        prompts,
        max_tokens: request.max_tokens,
        echo: request.echo,
        logprobs: request.logprobs,
        seed: seed(state, &request.sampling),
        sampling: request.sampling,
        id: format!("cmpl-{:016x}", state.fresh()),
        began,
    })
}

async fn chat(
    Extract(state): Extract<Shared>,
    in_flight: InFlight,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(state, in_flight, headers, body, conversation).await
}

fn conversation(state: &State, fields: Fields, began: Instant) -> Result<Ask, ApiError> {
    let request = ChatRequest::parse(fields)?;
    let model = state.models.find(&request.model)?;
    let template = model.template.as_ref();
    let template = template.map_err(|why| ApiError::invalid(why.clone()))?;
    let wrong = |error: upright_base::Error| ApiError::field("messages", error.to_string());
    let text = template
        .prompt(&request.row(template.has_turns()))
        .map_err(wrong)?;
    let ids = template
        .prompt_ids(&text, state.models.tokenizer())
        .map_err(wrong)?;
    let most = state.models.positions.min(state.engine.most_tokens());
    let room = most.saturating_sub(ids.len()).max(1);
    let max_tokens = request.max_tokens.unwrap_or(room.min(USUAL_TOKENS));
    state.check_prompt("messages", &ids, max_tokens)?;
    Ok(Ask {
        form: Form::Chat,
        model,
        prompts: vec![PromptTokens {
            ids: ids.into(),
            text: Some(text),
        }],
        max_tokens,
        echo: false,
        logprobs: request.logprobs,
        seed: seed(state, &request.sampling),
        sampling: request.sampling,
        id: format!("chatcmpl-{:016x}", state.fresh()),
        began,
    })
}

/// The seed of a request, or a new one.
fn seed(state: &State, sampling: &SamplingFields) -> u64 {
    sampling.seed.unwrap_or_else(|| state.fresh())
}

/// Reads a request with `read`, and answers it, whole or as a stream.
async fn answer(
    state: Shared,
    in_flight: InFlight,
    headers: HeaderMap,
    body: Body,
    read: fn(&State, Fields, Instant) -> Result<Ask, ApiError>,
) -> Result<Response, ApiError> {
    let began = Instant::now();
    let fields = guard::fields(&state, &headers, body).await?;
    let owned = Arc::clone(&state);
    let ask = blocking(move || read(&owned, fields, began)).await?;
    let limit = state.settings.answer_timeout;
    if !ask.sampling.stream {
        return match tokio::time::timeout(limit, ask.collect(&state)).await {
            Ok(object) => Ok(Json(object?).into_response()),
            Err(_) => Err(ApiError::timeout(limit.as_secs())),
        };
    }
    let receivers = ask.send(&state)?;
    let (out, pieces) = mpsc::channel(16);
    tokio::spawn(async move {
        let work = ask.stream(&state, receivers, &out);
        let done = match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(ApiError::timeout(limit.as_secs())),
        };
        if let Err(error) = done {
            let _ = out.send(error.body()).await;
        }
        drop(in_flight);
    });
    let next = |(mut pieces, is_over): (mpsc::Receiver<Value>, bool)| async move {
        if is_over {
            return None;
        }
        let (text, is_over) = match pieces.recv().await {
            Some(piece) => (piece.to_string(), false),
            None => ("[DONE]".to_owned(), true),
        };
        let message = Message::default().data(text);
        Some((Ok::<_, Infallible>(message), (pieces, is_over)))
    };
    let events = Sse::new(unfold((pieces, false), next)).keep_alive(KeepAlive::default());
    Ok(events.into_response())
}
