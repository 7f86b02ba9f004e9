//! Which requests are answered. A page in a browser must not be able to use a server that listens on
//! its user's machine, so the host, the form of the body and the key are checked.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{MatchedPath, Request, State as Extract},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use crate::{
    protocol::{error::ApiError, fields::Fields},
    routes::Shared,
};

/// Names of this machine that a `Host` header may have.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Rejects a request with a foreign host or without the key, and counts every answer.
pub(crate) async fn check(
    Extract(state): Extract<Shared>,
    request: Request,
    next: Next,
) -> Response {
    // Clients cannot make new names: a path without a route has none.
    let route = match request.extensions().get::<MatchedPath>() {
        Some(route) => route.as_str().to_owned(),
        None => "other".to_owned(),
    };
    let is_health = route == "/health";
    let headers = request.headers();
    let response = if state.is_loopback && !has_own_host(headers) {
        ApiError::foreign_host().into_response()
    } else if !is_health && !has_key(headers, state.key.as_ref()) {
        ApiError::unauthorized().into_response()
    } else {
        next.run(request).await
    };
    state.metrics.answered(route, response.status().as_u16());
    response
}

/// Whether the request names this machine, with any port. Without a `Host` header no browser is
/// involved.
fn has_own_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else {
        return true;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    LOOPBACK.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Digest of a key, so that keys are compared in the same time whatever they have in common.
pub(crate) fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn has_key(headers: &HeaderMap, key: Option<&[u8; 32]>) -> bool {
    let Some(key) = key else {
        return true;
    };
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    given.is_some_and(|given| digest(given.trim()) == *key)
}

/// The fields of a request's body.
///
/// # Errors
/// The body is not declared as JSON, is too large or too slow, or is not a JSON object.
pub(crate) async fn fields(
    state: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<Fields, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::not_json());
    }
    let limit = state.settings.body_bytes;
    let declared = headers.get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(ApiError::too_large(limit));
    }
    let timeout = state.settings.receive_timeout;
    let read = tokio::time::timeout(timeout, to_bytes(body, limit));
    let bytes: Bytes = match read.await {
        Err(_) => return Err(ApiError::too_slow(timeout.as_secs())),
        Ok(Ok(bytes)) => bytes,
        // A body of unknown length that exceeds the limit, or a connection that breaks: nobody reads
        // the answer of the latter.
        Ok(Err(_)) => return Err(ApiError::too_large(limit)),
    };
    Fields::parse(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_names_of_this_machine_are_hosts() {
        let own = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            has_own_host(&headers)
        };
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:9",
        ] {
            assert!(own(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "",
            "[::2]:8",
        ] {
            assert!(!own(host), "{host}");
        }
        assert!(has_own_host(&HeaderMap::new()));
    }

    #[test]
    fn a_key_must_be_the_whole_key() {
        let key = digest("secret");
        let given = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            has_key(&headers, Some(&key))
        };
        assert!(given("Bearer secret"));
        assert!(!given("Bearer secre") && !given("secret") && !given("Bearer "));
        assert!(!has_key(&HeaderMap::new(), Some(&key)));
        assert!(has_key(&HeaderMap::new(), None));
    }
}
