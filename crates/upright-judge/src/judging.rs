//! Judging pairs: several requests at a time, within a budget, each reply kept before it is read.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use serde_json::{Map, Value};
use upright_base::{Error, ErrorKind, Result, counted, progress::Progress};

use crate::{
    Pair, Protocol,
    client::{Client, Key},
    cost::{Price, Tokens},
    replies::{self, Replies, Reply, lock},
};

/// How often progress is shown and a stop is noticed.
const TICK: Duration = Duration::from_millis(100);
/// Time that replies under way get after a stop.
const LAST_REPLIES: Duration = Duration::from_secs(10);

/// A judge, and how it is asked.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Address of its API, such as `https://host/v1`.
    pub url: String,
    /// Its name in requests.
    pub model: String,
    /// Key that is sent with requests.
    pub key: Option<Key>,
    /// What it is asked.
    pub protocol: Protocol,
    /// AlpacaEval's seed of the order of answers.
    pub seed: u64,
    /// Fields of requests to replace; a null removes one.
    pub options: Map<String, Value>,
    /// Requests at a time.
    pub parallel: usize,
    /// Time in which a request must be answered.
    pub timeout: Duration,
    /// Pause before a request is repeated; doubles with each attempt.
    pub pause: Duration,
    /// Prices, if they are known.
    pub price: Option<Price>,
    /// Maximum cost in US dollars of the requests that a session sends. Needs prices.
    pub max_cost: Option<f64>,
    /// File of replies.
    pub replies: PathBuf,
}

/// The judge's opinion of a pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// One verdict per order; none if both answers are equal.
    pub verdicts: Vec<Verdict>,
}

/// The judge's opinion of a pair in one order.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether the model's answer was shown first.
    pub is_swapped: bool,
    /// The preference, from 1 (the reference is better) to 2 (the model is); `None` if the reply has
    /// no verdict.
    pub preference: Option<f64>,
    /// What AlpacaEval keeps of the reply.
    pub kept: Value,
    /// Tokens of request and reply.
    pub tokens: Tokens,
    /// Seconds that the reply took.
    pub seconds: f64,
}

impl Judged {
    /// The pair's preference: the mean over the orders; `None` if a verdict is missing.
    pub fn preference(&self) -> Option<f64> {
        if self.verdicts.is_empty() {
            return Some(1.5);
        }
        let mut sum = 0.0;
        for verdict in &self.verdicts {
            sum += verdict.preference?;
        }
        Some(sum / self.verdicts.len() as f64)
    }
}

/// The requests that some pairs need.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Plan {
    /// Requests in all.
    pub calls: usize,
    /// Requests whose replies are known.
    pub known: usize,
    /// Estimated tokens of the other requests.
    pub tokens: Tokens,
}

/// A judge that is being asked.
#[derive(Debug)]
pub struct Session {
    judge: Judge,
    shared: Arc<Shared>,
}

/// What the threads of a session share.
#[derive(Debug)]
struct Shared {
    client: Client,
    replies: Replies,
    budget: Mutex<Budget>,
    stop: AtomicBool,
}

/// Costs in US dollars.
#[derive(Debug)]
struct Budget {
    price: Option<Price>,
    max: Option<f64>,
    /// Cost of replies, by the tokens that they report.
    spent: f64,
    /// Estimated cost of requests under way.
    reserved: f64,
}

/// A request for one order of a pair.
struct Call {
    pair: usize,
    is_swapped: bool,
    key: String,
    request: Value,
}

/// A request that a thread sends.
struct Task {
    number: usize,
    key: String,
    request: Value,
}

impl Budget {
    /// Sets aside the estimated cost of a request.
    fn reserve(&mut self, tokens: Tokens) -> Result<f64> {
        let Some(price) = self.price else {
            return Ok(0.0);
        };
        let cost = price.of(tokens);
        if let Some(max) = self.max
            && self.spent + self.reserved + cost > max
        {
            return Err(Error::failure(format!(
                "max-cost {max} USD is reached: {:.4} USD are spent",
                self.spent
            ))
            .hint("run the same command with a higher --max-cost; replies so far are kept"));
        }
        self.reserved += cost;
        Ok(cost)
    }

    /// Replaces the estimated cost by the cost of the reply, if there was one.
    fn settle(&mut self, reserved: f64, tokens: Option<Tokens>) {
        self.reserved -= reserved;
        if let (Some(price), Some(tokens)) = (self.price, tokens) {
            self.spent += price.of(tokens);
        }
    }
}

impl Judge {
    /// Usual pause before a request is repeated for the first time.
    pub const PAUSE: Duration = Duration::from_millis(500);

    /// Opens the file of replies and prepares the connection. Sends nothing.
    ///
    /// # Errors
    /// The address is not usable, the file cannot be opened, or a stop was requested.
    pub fn open(self, observer: &mut dyn Progress) -> Result<Session> {
        let replies = Replies::open(&self.replies, observer)?;
        self.session(replies)
    }

    /// A session that only plans. It writes nothing, and waits for no other process.
    ///
    /// # Errors
    /// The address is not usable, or the file cannot be read.
    pub fn open_to_plan(self, observer: &mut dyn Progress) -> Result<Session> {
        let replies = Replies::read(&self.replies, observer)?;
        self.session(replies)
    }

    fn session(self, replies: Replies) -> Result<Session> {
        let certificates = upright_http::certificates_in_environment();
        let client = Client::new(
            &self.url,
            self.key.clone(),
            [self.timeout, self.pause],
            certificates.as_deref(),
        )?;
        if self.max_cost.is_some() && self.price.is_none() {
            return Err(Error::input("max-cost needs the judge's prices")
                .hint("give them in USD per million tokens: --judge-price PROMPT,REPLY"));
        }
        let shared = Shared {
            client,
            replies,
            budget: Mutex::new(Budget {
                price: self.price,
                max: self.max_cost,
                spent: 0.0,
                reserved: 0.0,
            }),
            stop: AtomicBool::new(false),
        };
        Ok(Session {
            judge: self,
            shared: Arc::new(shared),
        })
    }

    fn calls(&self, pairs: &[Pair]) -> Vec<Call> {
        let mut calls = Vec::new();
        for (index, pair) in pairs.iter().enumerate() {
            for is_swapped in self.protocol.orders(pair, self.seed) {
                let request = self
                    .protocol
                    .request(&self.model, pair, is_swapped, &self.options);
                calls.push(Call {
                    pair: index,
                    is_swapped,
                    key: replies::key(&self.url, &self.model, &request),
                    request,
                });
            }
        }
        calls
    }
}

impl Session {
    /// The judge.
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Cost so far in US dollars, by the tokens that replies report; 0 without prices.
    pub fn spent(&self) -> f64 {
        lock(&self.shared.budget).spent
    }

    /// A kept reply that has a verdict. Replies without one are asked for again.
    fn known(&self, key: &str) -> Option<Reply> {
        let reply = self.shared.replies.get(key)?;
        let has_verdict = self.judge.protocol.preference(&reply.body).is_some();
        has_verdict.then_some(reply)
    }

    /// The requests that some pairs need.
    pub fn plan(&self, pairs: &[Pair]) -> Plan {
        let mut plan = Plan::default();
        for call in self.judge.calls(pairs) {
            plan.calls += 1;
            if self.known(&call.key).is_some() {
                plan.known += 1;
            } else {
                plan.tokens = plan.tokens.plus(Tokens::estimated(&call.request));
            }
        }
        plan
    }

    /// Refuses work whose estimated cost exceeds the budget.
    ///
    /// # Errors
    /// The estimate exceeds `max_cost`.
    pub fn check_cost(&self, tokens: Tokens) -> Result<()> {
        let (Some(price), Some(max)) = (self.judge.price, self.judge.max_cost) else {
            return Ok(());
        };
        let cost = price.of(tokens);
        if cost > max {
            return Err(Error::input(format!(
                "the judge would cost about {cost:.4} USD, but max-cost is {max}"
            ))
            .hint("raise --max-cost, or judge fewer pairs with --limit"));
        }
        Ok(())
    }

    /// Judges pairs of answers. Asks only for verdicts that are not known. `what` names the model in
    /// the progress.
    ///
    /// # Errors
    /// The judge refuses a request or does not answer, a reply cannot be kept, the budget is spent,
    /// or a stop was requested. Replies so far are kept.
    pub fn ask(
        &self,
        what: &str,
        pairs: &[Pair],
        observer: &mut dyn Progress,
    ) -> Result<Vec<Judged>> {
        let calls = self.judge.calls(pairs);
        let mut tasks = VecDeque::new();
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        for call in &calls {
            let is_new = !numbers.contains_key(&call.key[..]);
            if is_new && self.known(&call.key).is_none() {
                let number = tasks.len();
                numbers.insert(&call.key, number);
                tasks.push_back(Task {
                    number,
                    key: call.key.clone(),
                    request: call.request.clone(),
                });
            }
        }
        let total = tasks.len();
        observer.begin(&format!("judging {what}"), total);
        let fresh = self.answers(tasks, observer);
        observer.end();
        let fresh = fresh?;
        let mut judged = vec![
            Judged {
                verdicts: Vec::new(),
            };
            pairs.len()
        ];
        for call in &calls {
            let reply = match numbers.get(&call.key[..]) {
                Some(number) => fresh[*number].clone(),
                None => self.known(&call.key),
            };
            let reply = reply.ok_or_else(|| Error::failure("a reply of the judge got lost"))?;
            judged[call.pair].verdicts.push(self.verdict(call, &reply));
        }
        Ok(judged)
    }

    fn verdict(&self, call: &Call, reply: &Reply) -> Verdict {
        let protocol = self.judge.protocol;
        let shown = protocol.preference(&reply.body);
        let value: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        Verdict {
            is_swapped: call.is_swapped,
            preference: shown.map(|shown| if call.is_swapped { 3.0 - shown } else { shown }),
            kept: protocol.kept(&reply.body),
            tokens: Tokens::reported(&value, Tokens::estimated(&call.request)),
            seconds: reply.seconds,
        }
    }

    /// The replies to some requests, in their order.
    fn answers(
        &self,
        tasks: VecDeque<Task>,
        observer: &mut dyn Progress,
    ) -> Result<Vec<Option<Reply>>> {
        let total = tasks.len();
        let mut answers = vec![None; total];
        if total == 0 {
            return Ok(answers);
        }
        self.shared.stop.store(false, Ordering::Relaxed);
        let threads = self.judge.parallel.clamp(1, total);
        let tasks = Arc::new(Mutex::new(tasks));
        let (sender, received) = mpsc::channel();
        for _ in 0..threads {
            let shared = Arc::clone(&self.shared);
            let tasks = Arc::clone(&tasks);
            let sender = sender.clone();
            // A thread that hangs in a request must not keep the program from ending.
            std::thread::Builder::new()
                .name("judge".into())
                .spawn(move || shared.work(&tasks, &sender))
                .map_err(|error| Error::failure(format!("cannot start a thread: {error}")))?;
        }
        drop(sender);
        let stop = observer.stop();
        let mut done = 0;
        let mut failed: Option<Error> = None;
        let mut deadline: Option<Instant> = None;
        loop {
            match received.recv_timeout(TICK) {
                Ok((number, Ok(reply))) => {
                    answers[number] = Some(reply);
                    done += 1;
                    observer.advance(done, "");
                }
                Ok((_, Err(error))) => {
                    // The first error counts. Threads that stop because of it are no further errors.
                    failed.get_or_insert(error);
                    self.shared.stop.store(true, Ordering::Relaxed);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            if stop.is_requested() && failed.is_none() {
                let when = format!("after {done} of {}", counted(total, "verdict"));
                failed = Some(Error::interrupted(&when));
                self.shared.stop.store(true, Ordering::Relaxed);
            }
            if failed.is_some() {
                let end = *deadline.get_or_insert_with(|| Instant::now() + LAST_REPLIES);
                if Instant::now() >= end {
                    break;
                }
            }
        }
        match failed {
            None => Ok(answers),
            Some(error) if error.kind == ErrorKind::Interrupted => {
                Err(error.hint("run the same command to ask only for what is missing"))
            }
            Some(error) => Err(error),
        }
    }
}

impl Shared {
    /// Sends requests until none is left.
    fn work(&self, tasks: &Mutex<VecDeque<Task>>, sender: &mpsc::Sender<(usize, Result<Reply>)>) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(task) = lock(tasks).pop_front() else {
                return;
            };
            let answered = self.ask(&task);
            let is_over = answered.is_err();
            let was_heard = sender.send((task.number, answered)).is_ok();
            if is_over || !was_heard {
                return;
            }
        }
    }

    fn ask(&self, task: &Task) -> Result<Reply> {
        let estimate = Tokens::estimated(&task.request);
        let reserved = lock(&self.budget).reserve(estimate)?;
        let answered = self.client.ask(&task.request, task.number, &self.stop);
        let tokens = answered.as_ref().ok().map(|answer| {
            let reply: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            Tokens::reported(&reply, estimate)
        });
        lock(&self.budget).settle(reserved, tokens);
        let answer = answered?;
        self.replies.keep(&task.key, &answer.body, answer.seconds)
    }
}
