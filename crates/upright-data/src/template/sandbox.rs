//! Templates are programs written by the authors of a model, and the engine that runs them cannot
//! limit their stack, memory and time. The binary therefore renders in child processes, with limits
//! that the operating system enforces.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::date::Date;
use super::jinja::{Complaint, Jinja, Marked};
use upright_base::quiet;

/// The hidden subcommand that runs [`serve`].
pub const COMMAND: &str = "render-templates";

/// Stack size of a child, in bytes.
const STACK: usize = 16_000_000;

/// Base memory limit of a child in bytes, its stack included, without that for the size of the
/// conversation.
const MEMORY: u64 = 100_000_000;

/// Further bytes of memory per byte of a conversation.
const MEMORY_PER_BYTE: u64 = 32;

/// Bytes of a conversation per further second of processor time.
const BYTES_PER_SECOND: u64 = 1_000_000;

/// The program that runs [`serve`]. If unset, templates are rendered in this process, under the
/// engine's own limits only.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Renders templates in child processes from now on, which run `program` with [`COMMAND`].
pub fn isolate(program: PathBuf) {
    let _ = PROGRAM.set(program);
}

/// The first request to a child.
#[derive(Deserialize, Serialize)]
struct Setup<'a> {
    source: std::borrow::Cow<'a, str>,
    date: String,
}

/// The response of a child.
#[derive(Deserialize, Serialize)]
enum Answer {
    /// The template is compiled; whether it marks the model's text.
    Ready(bool),
    /// A rendered text.
    Text(Marked),
    /// What is wrong.
    Complaint(Complaint),
}

/// A template that is ready to render.
pub(super) struct Renderer {
    /// Whether the template marks the model's text.
    pub(super) marks: bool,
    place: Place,
}

/// Where a template is rendered.
enum Place {
    Here(Box<Jinja>),
    Apart(Pool),
}

/// Children that render one template, as many as there are threads that send requests.
struct Pool {
    program: PathBuf,
    source: String,
    date: Date,
    idle: Mutex<Vec<Worker>>,
}

impl Renderer {
    /// Compiles a template.
    pub(super) fn new(source: &str, date: Date) -> Result<Self, Complaint> {
        let Some(program) = PROGRAM.get() else {
            let jinja = compiled(source, date)?;
            return Ok(Self {
                marks: jinja.marks,
                place: Place::Here(Box::new(jinja)),
            });
        };
        let (first, marks) = Worker::start(program, source, date)?;
        let idle = Mutex::new(vec![first]);
        let pool = Pool {
            program: program.clone(),
            source: source.to_owned(),
            date,
            idle,
        };
        Ok(Self {
            marks,
            place: Place::Apart(pool),
        })
    }

    /// Renders a conversation.
    pub(super) fn render(&self, context: &Map<String, Value>) -> Result<Marked, Complaint> {
        let pool = match &self.place {
            Place::Here(jinja) => return rendered(jinja, context, size_of(context)),
            Place::Apart(pool) => pool,
        };
        let idle = pool
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        if let Some(mut worker) = idle {
            match worker.ask(context) {
                Ok(answer) => return pool.answered(worker, answer),
                Err(complaint) if !worker.has_rendered => return Err(complaint),
                // It may have ended because of what it kept from earlier conversations, not because
                // of this one.
                Err(_) => {}
            }
        }
        let (mut worker, _) = Worker::start(&pool.program, &pool.source, pool.date)?;
        let answer = worker.ask(context)?;
        pool.answered(worker, answer)
    }
}

impl Pool {
    /// Keeps a child for later, and returns its response.
    fn answered(&self, mut worker: Worker, answer: Answer) -> Result<Marked, Complaint> {
        worker.has_rendered = true;
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(worker);
        match answer {
            Answer::Text(marked) => Ok(marked),
            Answer::Complaint(complaint) => Err(complaint),
            Answer::Ready(_) => Err(Complaint::Broken("it answered out of turn".to_owned())),
        }
    }
}

/// A panic of the engine counts as a template that it cannot evaluate.
fn compiled(source: &str, date: Date) -> Result<Jinja, Complaint> {
    quiet::catch(|| Jinja::new(source, date)).unwrap_or_else(|_| Err(failed()))
}

fn rendered(jinja: &Jinja, context: &Map<String, Value>, size: u64) -> Result<Marked, Complaint> {
    quiet::catch(|| jinja.render(context, size)).unwrap_or_else(|_| Err(failed()))
}

fn failed() -> Complaint {
    Complaint::Refused("the template engine failed on it".to_owned())
}

/// Bytes of a conversation as JSON.
fn size_of(context: &Map<String, Value>) -> u64 {
    serde_json::to_vec(context).map_or(0, |bytes| bytes.len() as u64)
}

/// A child that renders one template.
struct Worker {
    child: Child,
    /// Set to `None` to let the child end.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    has_rendered: bool,
}

impl Worker {
    /// Starts a child; also returns whether the template marks the model's text.
    fn start(program: &PathBuf, source: &str, date: Date) -> Result<(Self, bool), Complaint> {
        let mut command = Command::new(program);
        command
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // The parent handles Ctrl-C.
        command.process_group(0);
        let broken = |error: std::io::Error| Complaint::Broken(error.to_string());
        let mut child = command.spawn().map_err(broken)?;
        let requests = child.stdin.take();
        let answers = child
            .stdout
            .take()
            .ok_or_else(|| Complaint::Broken("it has no stdout".to_owned()))?;
        let mut worker = Self {
            child,
            requests,
            answers: BufReader::new(answers),
            has_rendered: false,
        };
        match worker.ask(&Setup {
            source: source.into(),
            date: date.to_string(),
        })? {
            Answer::Ready(marks) => Ok((worker, marks)),
            Answer::Complaint(complaint) => Err(complaint),
            Answer::Text(_) => Err(Complaint::Broken("it answered out of turn".to_owned())),
        }
    }

    fn ask(&mut self, request: &impl Serialize) -> Result<Answer, Complaint> {
        let mut line =
            serde_json::to_vec(request).map_err(|error| Complaint::Broken(error.to_string()))?;
        line.push(b'\n');
        let sent = self
            .requests
            .as_mut()
            .map(|requests| requests.write_all(&line));
        let mut answer = String::new();
        let received = self.answers.read_line(&mut answer);
        match (sent, received) {
            (Some(Ok(())), Ok(_)) if answer.ends_with('\n') => {
                serde_json::from_str(&answer).map_err(|error| Complaint::Broken(error.to_string()))
            }
            _ => Err(self.cause_of_death(line.len() as u64)),
        }
    }

    /// Why the child ended while it worked on a request of `size` bytes.
    fn cause_of_death(&mut self, size: u64) -> Complaint {
        self.requests = None;
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = stderr.take(10_000).read_to_string(&mut said);
        }
        match self.child.wait() {
            Ok(status) => ended(status, &said, size),
            Err(error) => Complaint::Broken(error.to_string()),
        }
    }
}

/// The meaning of a child's exit status.
fn ended(status: ExitStatus, said: &str, size: u64) -> Complaint {
    let signal = status.signal();
    let is = |wanted: Signal| signal == Some(wanted.as_raw());
    if said.contains("overflowed its stack") || is(Signal::SEGV) {
        let what = format!(
            "its expressions or values are nested too deeply for a stack of {} MB",
            STACK / 1_000_000
        );
        Complaint::Limit(what)
    } else if is(Signal::XCPU) {
        Complaint::Limit(format!(
            "one conversation takes more than {} s of processor time",
            seconds(size)
        ))
    } else if said.contains("memory allocation of") || is(Signal::KILL) {
        Complaint::Limit(format!(
            "one conversation takes more than {} MB of memory",
            memory(size) / 1_000_000
        ))
    } else {
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        Complaint::Broken(format!(
            "it ended with {status}: {}",
            said.chars().take(200).collect::<String>()
        ))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time for a conversation of `size` bytes, in seconds.
fn seconds(size: u64) -> u64 {
    1 + size / BYTES_PER_SECOND
}

/// Memory for a conversation of `size` bytes, in bytes.
fn memory(size: u64) -> u64 {
    MEMORY.saturating_add(size.saturating_mul(MEMORY_PER_BYTE))
}

/// Sets a limit of this process, as far as its parent's limits allow.
fn limit(resource: Resource, wanted: u64) -> Result<(), String> {
    let Rlimit { maximum, .. } = getrlimit(resource);
    let current = Some(maximum.map_or(wanted, |maximum| wanted.min(maximum)));
    setrlimit(resource, Rlimit { current, maximum })
        .map_err(|error| format!("{resource:?}: {error}"))
}

/// Sets the limits for this process's next request, of `size` bytes. Processor time is limited in
/// whole seconds since the process started, so the limit may be off by half a second.
fn limit_work(size: u64) -> Result<(), String> {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let used = used.tv_sec as u64 + u64::from(used.tv_nsec >= 500_000_000);
    limit(Resource::Cpu, used + seconds(size))?;
    limit(Resource::Data, memory(size))
}

/// Serves one template: one line of setup, then one line per conversation, and one line of response
/// for each line.
///
/// # Errors
/// A limit cannot be set, or a request of the parent is not understood.
pub fn serve(
    requests: impl Read + Send + 'static,
    answers: impl Write + Send + 'static,
) -> Result<(), String> {
    limit(Resource::Core, 0)?;
    let serving = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || answer_all(requests, answers));
    let serving = serving.map_err(|error| error.to_string())?;
    serving
        .join()
        .unwrap_or_else(|_| Err("the template engine failed".to_owned()))
}

fn answer_all(requests: impl Read, mut answers: impl Write) -> Result<(), String> {
    let mut requests = BufReader::new(requests);
    let mut line = Vec::new();
    let mut jinja = None;
    loop {
        line.clear();
        // The parent limits the size of its rows.
        let read = requests
            .read_until(b'\n', &mut line)
            .map_err(|error| error.to_string())?;
        if read == 0 {
            return Ok(());
        }
        let size = line.len() as u64;
        limit_work(size)?;
        let answer = match &jinja {
            None => {
                let setup: Setup<'_> =
                    serde_json::from_slice(&line).map_err(|error| error.to_string())?;
                let date = setup
                    .date
                    .parse()
                    .map_err(|error: upright_base::Error| error.message)?;
                match compiled(&setup.source, date) {
                    Ok(compiled) => Answer::Ready(jinja.insert(compiled).marks),
                    Err(complaint) => Answer::Complaint(complaint),
                }
            }
            Some(jinja) => match serde_json::from_slice(&line) {
                Ok(context) => match rendered(jinja, &context, size) {
                    Ok(marked) => Answer::Text(marked),
                    Err(complaint) => Answer::Complaint(complaint),
                },
                Err(error) => Answer::Complaint(Complaint::Refused(error.to_string())),
            },
        };
        let mut answer = serde_json::to_vec(&answer).map_err(|error| error.to_string())?;
        answer.push(b'\n');
        answers
            .write_all(&answer)
            .and_then(|()| answers.flush())
            .map_err(|error| error.to_string())?;
        limit(Resource::Data, u64::MAX)?;
    }
}
