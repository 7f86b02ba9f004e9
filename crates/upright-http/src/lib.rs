//! Agents for requests over HTTP and HTTPS, with one set of rules: no redirect is followed unasked,
//! a status is not an error, and certificates come from `SSL_CERT_FILE` or from Mozilla's list.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use upright_base::{Error, Result};
use ureq::{
    Agent,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

/// Maximum time until a connection is open.
const CONNECT: Duration = Duration::from_secs(10);

/// Time limits of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeouts {
    /// Until the header of the response arrives.
    pub response: Option<Duration>,
    /// Between two reads of the body.
    pub silence: Option<Duration>,
    /// Until the whole response is there.
    pub total: Option<Duration>,
}

/// An agent for `url`. Its proxy comes from `HTTPS_PROXY` and its like, but loopback addresses are
/// reached directly. It follows no redirects, and no status is an error.
///
/// # Errors
/// The file of certificates cannot be read or has none.
pub fn agent(url: &str, certificates: Option<&Path>, timeouts: Timeouts) -> Result<Agent> {
    let mut tls = TlsConfig::builder();
    if let Some(path) = certificates {
        tls = tls.root_certs(RootCerts::new_with_certs(&read_certificates(path)?));
    }
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        // ureq ignores the port when it decides whether a redirect gets the credentials.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(timeouts.response)
        .timeout_per_read(timeouts.silence)
        .timeout_global(timeouts.total)
        .user_agent(concat!("upright/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build());
    if is_loopback(url) {
        config = config.proxy(None);
    }
    Ok(config.build().into())
}

/// The file of certificates in `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE`, if one is set.
pub fn certificates_in_environment() -> Option<PathBuf> {
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"] {
        if let Some(path) = std::env::var_os(name).filter(|path| !path.is_empty()) {
            return Some(path.into());
        }
    }
    None
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let bytes = fs::read(path).map_err(|error| Error::io(path, "read", error))?;
    let mut roots = Vec::new();
    for item in parse_pem(&bytes) {
        if let Ok(PemItem::Certificate(certificate)) = item {
            roots.push(certificate);
        }
    }
    if roots.is_empty() {
        return Err(Error::file(
            path,
            "has no certificate",
            "set SSL_CERT_FILE to a file of certificates in PEM format",
        ));
    }
    Ok(roots)
}

/// Scheme, host and port of a URL.
pub fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    match url[start..].find('/') {
        Some(at) => &url[..start + at],
        None => url,
    }
}

/// Whether a URL leads to this machine.
pub fn is_loopback(url: &str) -> bool {
    let origin = origin(url);
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_address = host
        .parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    host.eq_ignore_ascii_case("localhost") || is_address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_ports_and_users() {
        assert_eq!(origin("http://hub:81/a/b"), "http://hub:81");
        assert_ne!(origin("http://hub:81/a"), origin("http://hub:82/a"));
        assert_ne!(origin("http://hub/a"), origin("https://hub/a"));
        assert_ne!(origin("http://hub@cdn/a"), origin("http://hub/a"));
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for url in [
            "http://127.0.0.1:8000/v1",
            "http://localhost/v1",
            "https://LOCALHOST:1",
            "http://[::1]:8000/v1",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "https://api.example.com/v1",
            "http://127.0.0.1.example.com",
            "http://localhost@example.com/",
            "http://10.0.0.1",
            "http://[2001:db8::1]:80",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
