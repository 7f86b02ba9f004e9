//! The answers of a request's jobs, piece by piece, as server-sent events.

use futures_util::stream::{BoxStream, StreamExt, select_all, unfold};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    answers::{Answer, Ask, Events, Form},
    engine::{Event, Finish, stopped},
    protocol::{chat, completions, error::ApiError},
    routes::State,
};

/// An answer of which a part was sent.
struct Sent<'a> {
    answer: Answer<'a>,
    /// Whether the echoed prompt was sent.
    has_prompt: bool,
    /// Tokens of the answer whose log-probabilities were sent.
    tokens: usize,
    is_done: bool,
}

impl Ask {
    /// Sends the answers piece by piece, then the usage if it was requested.
    ///
    /// # Errors
    /// The engine fails, or the client has left.
    pub(crate) async fn stream(
        &self,
        state: &State,
        receivers: Vec<Events>,
        out: &mpsc::Sender<Value>,
    ) -> Result<(), ApiError> {
        let mut all = Vec::with_capacity(receivers.len());
        let mut streams: Vec<BoxStream<'_, (usize, Event)>> = Vec::with_capacity(receivers.len());
        for (index, events) in receivers.into_iter().enumerate() {
            all.push(Sent {
                answer: self.empty(state),
                has_prompt: !self.echo,
                tokens: 0,
                is_done: false,
            });
            let next = move |mut events: Events| async move {
                let event = events.recv().await?;
                Some(((index, event), events))
            };
            streams.push(unfold(events, next).boxed());
            if self.form == Form::Chat {
                let opening = json!({"role": "assistant", "content": ""});
                let piece = chat::delta(index, opening, None, None);
                self.put(out, piece).await?;
            }
        }
        let mut events = select_all(streams);
        let mut open = all.len();
        while open > 0 {
            let (index, event) = events.next().await.ok_or_else(stopped)?;
            let sent = &mut all[index];
            // An answer that ended at a stop text may get further tokens.
            if sent.is_done {
                continue;
            }
            let finish = self.take(state, &mut sent.answer, event)?;
            if finish.is_some() {
                sent.is_done = true;
                open -= 1;
            }
            if let Some(piece) = self.piece(state, index, sent, finish)? {
                self.put(out, piece).await?;
            }
        }
        if self.sampling.stream_usage {
            let generated = all.iter().map(|sent| sent.answer.generated.len()).sum();
            let mut object = self.object(Vec::new());
            object["usage"] = self.usage(generated);
            out.send(object).await.map_err(|_| stopped())?;
        }
        Ok(())
    }

    /// What is new in an answer; `None` if nothing can be said yet.
    fn piece(
        &self,
        state: &State,
        index: usize,
        sent: &mut Sent<'_>,
        finish: Option<Finish>,
    ) -> Result<Option<Value>, ApiError> {
        let prompt = self.prompt_of(index);
        let mut text = String::new();
        let is_opening = !sent.has_prompt;
        if is_opening {
            text = self.prompt_text(state, prompt)?;
            sent.has_prompt = true;
        }
        text += &match finish {
            Some(_) => sent.answer.text.take_rest(),
            None => sent.answer.text.take_certain(),
        };
        if text.is_empty() && finish.is_none() {
            return Ok(None);
        }
        let mut logprobs = None;
        if self.logprobs.is_some() {
            let following = is_opening.then_some(&sent.answer.following[..]);
            let generated = &sent.answer.generated[sent.tokens..];
            let offsets = &mut sent.answer.offsets;
            logprobs = Some(self.logprobs_of(state, prompt, following, generated, offsets)?);
            sent.tokens = sent.answer.generated.len();
        }
        let finish = finish.map(Finish::name);
        Ok(Some(match self.form {
            Form::Completion => completions::choice(index, &text, logprobs, finish),
            Form::Chat => chat::delta(index, json!({ "content": text }), logprobs, finish),
        }))
    }

    async fn put(&self, out: &mpsc::Sender<Value>, choice: Value) -> Result<(), ApiError> {
        let mut object = self.object(vec![choice]);
        if self.sampling.stream_usage {
            object["usage"] = Value::Null;
        }
        out.send(object).await.map_err(|_| stopped())
    }
}
