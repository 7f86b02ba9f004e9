//! The answers of a request's jobs, collected into one object.

use std::{sync::Arc, time::Instant};

use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use upright_engine::generation::{Candidate, Following};
use upright_train::generate::Sampling;

use crate::{
    engine::{Event, Finish, Generated, Job, stopped},
    models::{Model, unix_seconds},
    protocol::{
        chat, completions,
        error::ApiError,
        logprobs::{self, Scored},
        sampling::SamplingFields,
    },
    routes::State,
    text::{AnswerText, Offsets},
};

/// Which route is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `/v1/completions`.
    Completion,
    /// `/v1/chat/completions`.
    Chat,
}

/// A prompt as the engine gets it.
#[derive(Clone, Debug)]
pub(crate) struct PromptTokens {
    /// Token ids, at least one.
    pub(crate) ids: Arc<[u32]>,
    /// The text, if the request had text.
    pub(crate) text: Option<String>,
}

/// A request whose prompts are encoded and checked.
pub(crate) struct Ask {
    pub(crate) form: Form,
    pub(crate) model: Arc<Model>,
    pub(crate) prompts: Vec<PromptTokens>,
    /// Most tokens of each answer.
    pub(crate) max_tokens: usize,
    /// Whether an answer begins with its prompt.
    pub(crate) echo: bool,
    /// Candidates per position, if log-probabilities are requested.
    pub(crate) logprobs: Option<usize>,
    pub(crate) sampling: SamplingFields,
    /// Seed of the draws.
    pub(crate) seed: u64,
    /// Identifies the answer.
    pub(crate) id: String,
    pub(crate) began: Instant,
}

/// An answer so far.
pub(crate) struct Answer<'a> {
    /// What follows each token of the prompt but the last.
    pub(crate) following: Vec<Following>,
    pub(crate) generated: Vec<Generated>,
    pub(crate) text: AnswerText<'a>,
    /// Offsets of the tokens whose log-probabilities were listed.
    pub(crate) offsets: Offsets<'a>,
}

/// The receiving end of a job.
pub(crate) type Events = UnboundedReceiver<Event>;

impl Ask {
    /// Sends one job per answer.
    ///
    /// # Errors
    /// There are more answers than the queue holds, or the queue is full.
    pub(crate) fn send(&self, state: &State) -> Result<Vec<Events>, ApiError> {
        let count = self.prompts.len().saturating_mul(self.sampling.n);
        let most = state.engine.most_jobs();
        if count > most {
            let problem = format!("{count} answers are requested, but a request may have {most}");
            return Err(ApiError::field("n", problem));
        }
        let mut jobs = Vec::new();
        let mut receivers = Vec::new();
        for prompt in &self.prompts {
            for answer in 0..self.sampling.n {
                let (events, received) = mpsc::unbounded_channel();
                receivers.push(received);
                jobs.push(Job {
                    model: Arc::clone(&self.model.handle),
                    prompt: Arc::clone(&prompt.ids),
                    score: self.logprobs.filter(|_| self.echo),
                    sampling: Sampling {
                        max_tokens: self.max_tokens,
                        temperature: self.sampling.temperature,
                        top_p: self.sampling.top_p,
                        seed: self.seed,
                    },
                    answer,
                    ends: if self.sampling.ignore_eos {
                        Arc::from([])
                    } else {
                        Arc::clone(&self.model.ends)
                    },
                    candidates: self.logprobs,
                    events,
                });
            }
        }
        state.engine.send(jobs)?;
        Ok(receivers)
    }

    /// The prompt of an answer.
    pub(crate) fn prompt_of(&self, index: usize) -> &PromptTokens {
        &self.prompts[index / self.sampling.n]
    }

    /// An answer to which nothing has come yet.
    pub(crate) fn empty<'a>(&'a self, state: &'a State) -> Answer<'a> {
        Answer {
            following: Vec::new(),
            generated: Vec::new(),
            text: AnswerText::new(state.models.tokenizer(), &self.sampling.stop),
            offsets: Offsets::new(state.models.tokenizer()),
        }
    }

    /// Adds an event to an answer. Returns why the answer has ended, if it has.
    pub(crate) fn take(
        &self,
        state: &State,
        answer: &mut Answer<'_>,
        event: Event,
    ) -> Result<Option<Finish>, ApiError> {
        match event {
            Event::Prompt(following) => answer.following = following,
            Event::Token(generated) => {
                if answer.generated.is_empty() {
                    state.metrics.first_token(self.began.elapsed());
                }
                let token = generated.token;
                answer.generated.push(generated);
                let ends = &self.model.ends;
                let is_end = !self.sampling.ignore_eos && ends.contains(&token);
                if !is_end && answer.text.push(token).map_err(undecodable)? {
                    return Ok(Some(Finish::Stop));
                }
            }
            Event::Done(finish) => {
                answer.text.finish().map_err(undecodable)?;
                return Ok(Some(finish));
            }
            Event::Failed(error) => return Err(error),
        }
        Ok(None)
    }

    /// The whole answer, as one object.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) async fn collect(&self, state: &State) -> Result<Value, ApiError> {
        let receivers = self.send(state)?;
        let mut collecting = Vec::with_capacity(receivers.len());
        for (index, events) in receivers.into_iter().enumerate() {
            collecting.push(self.collect_one(state, index, events));
        }
        let mut choices = Vec::with_capacity(collecting.len());
        let mut generated = 0;
        for (choice, tokens) in try_join_all(collecting).await? {
            choices.push(choice);
            generated += tokens;
        }
        let mut object = self.object(choices);
        object["usage"] = self.usage(generated);
        Ok(object)
    }

    async fn collect_one(
        &self,
        state: &State,
        index: usize,
        mut events: Events,
    ) -> Result<(Value, usize), ApiError> {
        let mut answer = self.empty(state);
        let finish = loop {
            let event = events.recv().await.ok_or_else(stopped)?;
            if let Some(finish) = self.take(state, &mut answer, event)? {
                break finish;
            }
        };
        drop(events);
        let choice = self.choice(state, index, &mut answer, finish)?;
        Ok((choice, answer.generated.len()))
    }

    /// A complete answer as an entry of `choices`.
    fn choice(
        &self,
        state: &State,
        index: usize,
        answer: &mut Answer<'_>,
        finish: Finish,
    ) -> Result<Value, ApiError> {
        let prompt = self.prompt_of(index);
        let mut text = String::new();
        if self.echo {
            text = self.prompt_text(state, prompt)?;
        }
        text += answer.text.whole();
        let logprobs = match self.logprobs {
            None => None,
            Some(_) => {
                let following = self.echo.then_some(&answer.following[..]);
                let offsets = &mut answer.offsets;
                Some(self.logprobs_of(state, prompt, following, &answer.generated, offsets)?)
            }
        };
        let finish = Some(finish.name());
        let mut choice = match self.form {
            Form::Completion => completions::choice(index, &text, logprobs, finish),
            Form::Chat => chat::choice(index, &text, logprobs, finish),
        };
        if self.sampling.return_token_ids {
            choice["token_ids"] = json!(answer.text.tokens());
            choice["prompt_token_ids"] = json!(&prompt.ids[..]);
        }
        Ok(choice)
    }

    /// The text of a prompt.
    pub(crate) fn prompt_text(
        &self,
        state: &State,
        prompt: &PromptTokens,
    ) -> Result<String, ApiError> {
        match &prompt.text {
            Some(text) => Ok(text.clone()),
            None => state
                .models
                .tokenizer()
                .decode(&prompt.ids)
                .map_err(undecodable),
        }
    }

    /// The log-probabilities of some tokens of an answer, after those of its prompt if `following` is
    /// given.
    pub(crate) fn logprobs_of(
        &self,
        state: &State,
        prompt: &PromptTokens,
        following: Option<&[Following]>,
        generated: &[Generated],
        offsets: &mut Offsets<'_>,
    ) -> Result<Value, ApiError> {
        let text = |token: u32| {
            state
                .models
                .tokenizer()
                .decode(&[token])
                .map_err(undecodable)
        };
        let with_texts = |best: &[Candidate]| -> Result<Vec<(Candidate, String)>, ApiError> {
            let mut listed = Vec::with_capacity(best.len());
            for candidate in best {
                listed.push((*candidate, text(candidate.token)?));
            }
            Ok(listed)
        };
        let mut tokens = Vec::new();
        if let Some(following) = following {
            tokens.push(Scored {
                token: prompt.ids[0],
                text: text(prompt.ids[0])?,
                logp: None,
                best: Vec::new(),
            });
            for (token, one) in prompt.ids[1..].iter().zip(following) {
                tokens.push(Scored {
                    token: *token,
                    text: text(*token)?,
                    logp: Some(one.logp),
                    best: with_texts(&one.best)?,
                });
            }
        }
        for one in generated {
            tokens.push(Scored {
                token: one.token,
                text: text(one.token)?,
                logp: Some(one.logp),
                best: with_texts(&one.best)?,
            });
        }
        if self.form == Form::Chat {
            return Ok(logprobs::of_chat(&tokens));
        }
        let mut places = Vec::with_capacity(tokens.len());
        for token in &tokens {
            places.push(offsets.push(token.token).map_err(undecodable)?);
        }
        Ok(logprobs::of_completion(&tokens, &places))
    }

    /// The answer's object around some choices.
    pub(crate) fn object(&self, choices: Vec<Value>) -> Value {
        let kind = match (self.form, self.sampling.stream) {
            (Form::Completion, _) => "text_completion",
            (Form::Chat, false) => "chat.completion",
            (Form::Chat, true) => "chat.completion.chunk",
        };
        json!({
            "id": self.id,
            "object": kind,
            "created": unix_seconds(),
            "model": self.model.name,
            "choices": choices,
        })
    }

    /// The tokens of all prompts and answers.
    pub(crate) fn usage(&self, generated: usize) -> Value {
        let prompts: usize = self.prompts.iter().map(|prompt| prompt.ids.len()).sum();
        json!({
            "prompt_tokens": prompts,
            "completion_tokens": generated,
            "total_tokens": prompts + generated,
        })
    }
}

fn undecodable(error: upright_base::Error) -> ApiError {
    ApiError::failure(error.to_string())
}
