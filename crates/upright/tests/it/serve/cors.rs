//! Pages of other origins.

use super::client::Server;
use crate::fixture::{Done, Place};

/// What a browser sends before a page's request.
fn preflight(server: &Server, origin: &str) -> super::client::Answer {
    let headers = format!(
        "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n"
    );
    server.send("OPTIONS", "/v1/completions", &headers, "")
}

#[test]
fn pages_of_allowed_origins_may_use_the_server() {
    let place = Place::new();
    let words = "--model model --cors http://localhost:3000 --cors https://chat.example \
                 --api-key-env PATH";
    let server = Server::start(&place, words);
    for origin in ["http://localhost:3000", "https://chat.example"] {
        // A browser sends no key with a preflight.
        let answer = preflight(&server, origin);
        assert_eq!(answer.status, 200, "{answer:?}");
        for line in [
            &format!("access-control-allow-origin: {origin}"),
            "access-control-allow-methods: get,post",
            "access-control-allow-headers: authorization,content-type,x-stainless-os",
            "access-control-max-age: 600",
        ] {
            assert!(answer.head.contains(line), "{line}: {answer:?}");
        }
        // The page can read every answer, errors included.
        let answer = server.send("GET", "/v1/models", &format!("Origin: {origin}\r\n"), "");
        assert_eq!(answer.status, 401);
        let line = format!("access-control-allow-origin: {origin}");
        assert!(answer.head.contains(&line), "{answer:?}");
        assert!(answer.head.contains("vary: origin"), "{answer:?}");
    }
    for origin in ["http://localhost:3001", "http://chat.example", "null"] {
        let answer = preflight(&server, origin);
        let is_allowed = answer.head.contains("access-control-allow-origin");
        assert!(!is_allowed, "{answer:?}");
    }
}

#[test]
fn pages_may_not_use_a_server_without_being_allowed() {
    let place = Place::new();
    let server = Server::start(&place, "--model model");
    let answer = preflight(&server, "http://localhost:3000");
    assert_eq!(answer.status, 405);
    assert!(!answer.head.contains("access-control"), "{answer:?}");

    let server = Server::start(&place, "--model model --cors *");
    let answer = preflight(&server, "https://any.example");
    assert!(
        answer.head.contains("access-control-allow-origin: *"),
        "{answer:?}"
    );
    // The server still answers to its own name alone.
    let foreign = "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(server.raw(foreign.as_bytes()).status, 403);

    let done = Done::of(place.command("serve --model model --port 0 --cors localhost:3000"));
    assert!(
        done.error()
            .contains("cors: `localhost:3000` is not an origin"),
        "{done:?}"
    );
    let done = Done::of(place.command("serve --model model --port 0 --host 0.0.0.0 --cors *"));
    assert!(done.error().contains("has no API key"), "{done:?}");
}
