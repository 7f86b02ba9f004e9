//! Errors as OpenAI's clients expect them: a status, and `{"error": {message, type, param, code}}`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use upright_base::{Error, ErrorKind};

/// An error that a client gets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    status: StatusCode,
    /// OpenAI's class of errors.
    kind: &'static str,
    message: String,
    /// The field of the request that is wrong.
    param: Option<String>,
    code: Option<&'static str>,
    /// Seconds after which the request may succeed.
    retry_after: Option<u32>,
}

/// Class of errors that the client can correct.
const INVALID: &str = "invalid_request_error";
/// Class of errors of the server.
const SERVER: &str = "server_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            param: None,
            code: None,
            retry_after: None,
        }
    }

    /// A field with a value that is wrong or not supported.
    pub(crate) fn field(name: &str, problem: impl AsRef<str>) -> Self {
        let message = format!("{name}: {}", problem.as_ref());
        Self {
            param: Some(name.to_owned()),
            ..Self::new(StatusCode::BAD_REQUEST, INVALID, message)
        }
    }

    /// A request that cannot be read.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, message)
    }

    /// A prompt that does not fit with its answer.
    pub(crate) fn too_long(name: &str, message: impl Into<String>) -> Self {
        Self {
            param: Some(name.to_owned()),
            code: Some("context_length_exceeded"),
            ..Self::new(StatusCode::BAD_REQUEST, INVALID, message)
        }
    }

    /// A model name that the server does not have.
    pub(crate) fn unknown_model(name: &str, known: &[&str]) -> Self {
        let message = format!(
            "the model `{name}` does not exist; this server has {}",
            known.join(", ")
        );
        Self {
            param: Some("model".to_owned()),
            code: Some("model_not_found"),
            ..Self::new(StatusCode::NOT_FOUND, INVALID, message)
        }
    }

    /// An adapter name that the server does not have.
    pub(crate) fn unknown_adapter(name: &str, known: &[&str]) -> Self {
        let known = match known {
            [] => "no adapter".to_owned(),
            known => known.join(", "),
        };
        Self {
            param: Some("lora_name".to_owned()),
            code: Some("model_not_found"),
            ..Self::new(
                StatusCode::NOT_FOUND,
                INVALID,
                format!("lora_name: no adapter `{name}` is loaded; this server has {known}"),
            )
        }
    }

    /// A request to load or unload an adapter where no folder is allowed.
    pub(crate) fn loading_not_allowed() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            INVALID,
            "requests may not load or unload adapters; start the server with --allow-adapters DIR",
        )
    }

    /// A path that leads out of the allowed folder, or nowhere. The message is the same, so that it
    /// does not tell which files the machine has.
    pub(crate) fn path_not_allowed() -> Self {
        Self {
            param: Some("lora_path".to_owned()),
            ..Self::new(
                StatusCode::FORBIDDEN,
                INVALID,
                "lora_path: no folder below the folder of --allow-adapters has this path",
            )
        }
    }

    /// A folder whose adapter cannot be used.
    pub(crate) fn of_path(error: &Error) -> Self {
        if error.kind != ErrorKind::Input {
            return Self::failure(error.message.clone());
        }
        let mut problem = error.message.clone();
        if !error.hint.is_empty() {
            problem += &format!("; {}", error.hint);
        }
        Self::field("lora_path", problem)
    }

    /// No room for another adapter, because unloaded ones still answer.
    pub(crate) fn adapters_still_answer() -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                SERVER,
                "unloaded adapters are still answering, so there is no room for another; try again \
                 later",
            )
        }
    }

    /// A missing or wrong key.
    pub(crate) fn unauthorized() -> Self {
        Self {
            code: Some("invalid_api_key"),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                INVALID,
                "missing or wrong API key; send `Authorization: Bearer KEY`",
            )
        }
    }

    /// A `Host` header that is not a name of this machine.
    pub(crate) fn foreign_host() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            INVALID,
            "invalid Host header: this server answers requests to localhost only",
        )
    }

    /// A path that does not exist.
    pub(crate) fn unknown_path(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID,
            format!("unknown path {path}"),
        )
    }

    /// A path that exists, with another method.
    pub(crate) fn wrong_method(method: &str, path: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            INVALID,
            format!("{path} does not accept {method}"),
        )
    }

    /// A body that is not declared as JSON. A web page cannot send such a declaration to another
    /// origin without asking first.
    pub(crate) fn not_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            INVALID,
            "the body must be JSON, with the header `Content-Type: application/json`",
        )
    }

    /// A body above the limit.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            INVALID,
            format!("the body exceeds the limit of {limit} bytes"),
        )
    }

    /// A body that does not arrive in time.
    pub(crate) fn too_slow(seconds: u64) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            INVALID,
            format!("the body did not arrive within {seconds} s"),
        )
    }

    /// A full queue.
    pub(crate) fn busy(limit: usize) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                SERVER,
                format!("the queue is full ({limit} prompts); try again later"),
            )
        }
    }

    /// A request that took too long.
    pub(crate) fn timeout(seconds: u64) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                SERVER,
                format!("the request was not finished within {seconds} s"),
            )
        }
    }

    /// A failure of the server.
    pub(crate) fn failure(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, message)
    }

    /// The same error, about a field inside `place`.
    pub(crate) fn within(mut self, place: &str) -> Self {
        self.param = self.param.map(|param| format!("{place}.{param}"));
        self.message = format!("{place}.{}", self.message);
        self
    }

    /// The body of the response.
    pub(crate) fn body(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }})
    }

    /// The status of the response.
    #[cfg(test)]
    pub(crate) fn status(&self) -> u16 {
        self.status.as_u16()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            let seconds = HeaderValue::from(seconds);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
