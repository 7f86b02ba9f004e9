//! A scripted judge on a thread, which keeps the requests that it gets. Tests of the program use it too.

#[path = "../../examples/scripted_judge/server.rs"]
pub(crate) mod server;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use server::Answer;

/// A judge that answers by a script.
pub(crate) struct Scripted {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The requests so far.
    pub(crate) requests: Arc<Mutex<Vec<Value>>>,
}

impl Scripted {
    /// Starts a judge. The script gets the number of the request and its body.
    pub(crate) fn new(
        script: impl Fn(usize, &Value) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            let count = AtomicUsize::new(0);
            server::serve(&listener, &|request| {
                seen.lock().unwrap().push(request.clone());
                script(count.fetch_add(1, Ordering::SeqCst), request)
            });
        });
        Self { address, requests }
    }

    /// Number of requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}
