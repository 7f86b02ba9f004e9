//! Connections: the server accepts them, limits them and ends them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::FromRequestParts,
    http::{Request, request::Parts},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
};
use tower::ServiceExt;
use upright_base::{Error, Result};

use crate::{
    cors,
    engine::{self, Limits},
    metrics::Metrics,
    models::Served,
    routes::{self, State},
    settings::Settings,
};

/// Files that stay free for other uses.
const OTHER_FILES: u64 = 64;
/// Most connections, whatever the system allows.
const MOST_CONNECTIONS: u64 = 1 << 16;
/// Time without a request after which a connection may be closed for a new one.
const IDLE: Duration = Duration::from_secs(1);
/// Time that answers in progress get after a signal.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// A server that listens and has not answered yet.
pub struct Server {
    listener: StdListener,
    address: SocketAddr,
    router: Router,
    receive_timeout: Duration,
    connections: usize,
}

/// A connection, as the others see it.
struct Connection {
    /// Requests in progress, and answers that are still streamed.
    in_flight: AtomicUsize,
    /// When the last request began or ended.
    active: Mutex<Instant>,
    /// Closes the connection.
    close: Notify,
}

impl Connection {
    fn touch(&self) {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last_active(&self) -> Instant {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in progress. Its connection is not closed for another one.
#[derive(Clone)]
pub(crate) struct InFlight {
    _request: Arc<OneRequest>,
}

struct OneRequest(Arc<Connection>);

impl InFlight {
    fn new(connection: &Arc<Connection>) -> Self {
        connection.in_flight.fetch_add(1, Ordering::Relaxed);
        connection.touch();
        Self {
            _request: Arc::new(OneRequest(Arc::clone(connection))),
        }
    }
}

impl Drop for OneRequest {
    fn drop(&mut self) {
        self.0.touch();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: Sync> FromRequestParts<S> for InFlight {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> std::result::Result<Self, Self::Rejection> {
        let found = parts.extensions.get::<Self>();
        Ok(found.expect("every request has it").clone())
    }
}

/// All open connections, in the order in which they were accepted.
#[derive(Default)]
struct Connections {
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

impl Connections {
    fn add(&self, number: u64) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            in_flight: AtomicUsize::new(0),
            active: Mutex::new(Instant::now()),
            close: Notify::new(),
        });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, Arc::clone(&connection));
        connection
    }

    fn remove(&self, number: u64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&number);
    }

    /// Closes the connection that has been without a request for the longest time.
    fn close_idle(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_idle = |connection: &&Arc<Connection>| {
            connection.in_flight.load(Ordering::Relaxed) == 0
                && connection.last_active().elapsed() >= IDLE
        };
        let oldest = open
            .values()
            .filter(is_idle)
            .min_by_key(|one| one.last_active());
        if let Some(oldest) = oldest {
            oldest.close.notify_one();
        }
    }
}

/// Checks the settings, starts the engine's thread and listens.
///
/// # Errors
/// The address is not a loopback address and there is no key, the address is in use, an origin or the
/// folder of adapters is wrong, two models have the same name, or a thread cannot be started.
pub fn bind(settings: Settings, served: Served) -> Result<Server> {
    let place = format!("{}:{}", settings.host, settings.port);
    let given = (settings.host.trim_matches(['[', ']']), settings.port);
    let address = given
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| {
            Error::input(format!("host: `{}` is not an address", settings.host))
                .hint("use --host 127.0.0.1")
        })?;
    let is_loopback = address.ip().is_loopback();
    if !is_loopback && settings.api_key.is_none() {
        return Err(Error::input(format!(
            "{place} can be reached from other machines, and the server has no API key"
        ))
        .hint("name an environment variable that holds a key with --api-key-env, or use --host 127.0.0.1"));
    }
    let cors = cors::layer(&settings.cors)?;
    let unusable = |error: std::io::Error| {
        Error::input(format!("cannot listen on {place}: {error}"))
            .hint("choose another --port; 0 takes a free port")
    };
    let listener = StdListener::bind(address).map_err(unusable)?;
    listener.set_nonblocking(true).map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;

    let available = served.base.decoder.available_bytes().unwrap_or(usize::MAX);
    let limits = Limits {
        memory: settings.cache_bytes.unwrap_or(available / 2),
        token_budget: settings.token_budget,
        queue: settings.queue,
    };
    let metrics = Arc::new(Metrics::new());
    let engine = engine::start(Arc::clone(&served.base), limits, Arc::clone(&metrics))?;
    let receive_timeout = settings.receive_timeout;
    let state = State::new(served, engine, metrics, settings, is_loopback)?;
    Ok(Server {
        listener,
        address,
        router: routes::router(Arc::new(state), cors),
        receive_timeout,
        connections: connections() as usize,
    })
}

/// Number of connections that the system allows, after raising the limit of open files as far as it
/// goes.
fn connections() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    let files = match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.maximum,
        Err(_) => before,
    };
    let files = files.unwrap_or(MOST_CONNECTIONS);
    files.saturating_sub(OTHER_FILES).clamp(1, MOST_CONNECTIONS)
}

impl Server {
    /// The address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until SIGINT or SIGTERM. Answers in progress get a few seconds to finish; a
    /// second signal ends them. Calls `ready` when signals are watched: until then, one kills the
    /// program.
    ///
    /// # Errors
    /// The system cannot start the threads or watch the signals.
    pub fn run(self, ready: impl FnOnce()) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("server")
            .enable_all()
            .build()
            .map_err(|error| Error::failure(format!("cannot start the server: {error}")))?;
        let done = runtime.block_on(async {
            let stop = Arc::new(Notify::new());
            watch_signals(Arc::clone(&stop))?;
            ready();
            self.run_until(&stop).await
        });
        runtime.shutdown_background();
        done
    }

    /// Answers requests until `stop` is notified. A second notification ends answers in progress.
    ///
    /// # Errors
    /// The listener cannot be used.
    async fn run_until(self, stop: &Notify) -> Result<()> {
        let listener = TcpListener::from_std(self.listener)
            .map_err(|error| Error::failure(format!("cannot listen: {error}")))?;
        let permits = Arc::new(Semaphore::new(self.connections));
        let open = Arc::new(Connections::default());
        let graceful = GracefulShutdown::new();
        for number in 0.. {
            let accepted = tokio::select! {
                accepted = accept(&listener, &permits, &open) => accepted,
                () = stop.notified() => break,
            };
            let (stream, permit) = accepted;
            let connection = open.add(number);
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(self.receive_timeout);
            let router = self.router.clone();
            let own = Arc::clone(&connection);
            let service = service_fn(move |request: Request<Incoming>| {
                let in_flight = InFlight::new(&own);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(in_flight.clone());
                let answer = router.clone().oneshot(request);
                async move {
                    let response = answer.await;
                    drop(in_flight);
                    response
                }
            });
            let answering = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
            let open = Arc::clone(&open);
            tokio::spawn(async move {
                // A connection that breaks concerns nobody else.
                tokio::select! {
                    _ = answering => {}
                    () = connection.close.notified() => {}
                }
                open.remove(number);
                drop(permit);
            });
        }
        drop(listener);
        tokio::select! {
            () = graceful.shutdown() => {}
            () = tokio::time::sleep(LAST_ANSWERS) => {}
            () = stop.notified() => {}
        }
        Ok(())
    }
}

/// The next connection. If there are too many, an idle one is closed.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    open: &Connections,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
            open.close_idle();
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                // Pieces of a stream leave at once. Without the option they leave later.
                let _ = stream.set_nodelay(true);
                return (stream, permit);
            }
            // Too many open files, or a connection that was closed before it was accepted.
            Err(_) => {
                open.close_idle();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Notifies `stop` at every SIGINT and SIGTERM.
fn watch_signals(stop: Arc<Notify>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let unwatched =
        |error: std::io::Error| Error::failure(format!("cannot watch signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unwatched)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unwatched)?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stop.notify_one();
        }
    });
    Ok(())
}
