//! Which pages of other origins a browser lets use the server.

use std::time::Duration;

use axum::http::{HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use upright_base::{Error, Result};

/// Time for which a browser may remember what it was allowed.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The layer that answers browsers which ask whether a page may use the server; `None` without
/// origins. `*` stands for every origin.
///
/// # Errors
/// A text is not an origin.
pub(crate) fn layer(origins: &[String]) -> Result<Option<CorsLayer>> {
    if origins.is_empty() {
        return Ok(None);
    }
    let mut values = Vec::with_capacity(origins.len());
    for given in origins {
        if given != "*" {
            values.push(origin(given)?);
        }
    }
    let allowed = if values.len() < origins.len() {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(values)
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        // OpenAI's client for JavaScript sends headers of its own.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::RETRY_AFTER])
        .max_age(REMEMBERED);
    Ok(Some(layer))
}

/// An origin as browsers send it: a scheme, a host in lower case, and perhaps a port.
fn origin(given: &str) -> Result<HeaderValue> {
    let lower = given.to_ascii_lowercase();
    let host = lower.split_once("://").map_or("", |(_, host)| host);
    let is_host = !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ',']);
    let is_plain = lower.bytes().all(|byte| byte.is_ascii_graphic());
    match HeaderValue::from_str(&lower) {
        Ok(value) if is_host && is_plain => Ok(value),
        _ => Err(
            Error::input(format!("cors: `{given}` is not an origin")).hint(
                "give a scheme and a host without a path, e.g. --cors http://localhost:3000, or *",
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_a_host_alone() {
        for given in [
            "http://localhost:3000",
            "https://Chat.Example",
            "tauri://localhost",
            "http://[::1]:80",
        ] {
            let value = origin(given).unwrap();
            assert_eq!(value, given.to_ascii_lowercase().as_str());
        }
        for given in [
            "",
            "localhost:3000",
            "http://",
            "http://a/",
            "http://a/b",
            "http://*.a",
            "http://a, http://b",
            "http://\u{e4}",
            "null",
        ] {
            assert!(origin(given).is_err(), "{given}");
        }
        assert!(layer(&[]).unwrap().is_none());
    }
}
