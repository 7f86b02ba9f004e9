//! A scripted judge: an OpenAI-compatible server on the loopback that prefers polite answers.
//!
//!     cargo run -p upright-judge --example scripted_judge -- [--port 8123]
//!
//! It stands in for a language model where the way from answers to a win rate is what matters.

#![allow(clippy::print_stdout, reason = "an example prints its address")]

mod server;

use std::net::TcpListener;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => 8123,
        (Some("--port"), Some(port)) => port.parse().map_err(std::io::Error::other)?,
        _ => return Err(std::io::Error::other("usage: scripted_judge [--port PORT]")),
    };
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("judging at http://{}/v1", listener.local_addr()?);
    server::serve(&listener, &server::polite);
    Ok(())
}
