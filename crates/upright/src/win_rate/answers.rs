//! A model's answers to prompts. They are kept in the cache as they are generated, so that a run that
//! is killed continues with the next prompt.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use upright_base::{
    Error, ErrorKind, Result,
    files::{self, Lines, Lock},
    progress::Progress,
};
use upright_data::Template;
use upright_model::adapter::Adapter;
use upright_train::{
    generate::{Generated, Request, Sampling, TokenSink, ends, generate},
    reference,
    run::Model,
};

use super::Questions;

/// A model that answers, with its template and sampling.
pub struct Answerer<'m> {
    /// The base model.
    pub model: &'m Model,
    /// The adapter; none for the base model.
    pub adapter: Option<Adapter>,
    /// The template of prompts.
    pub template: &'m Template,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Sequences at a time.
    pub batch: usize,
}

/// An answer, as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Hash of the prompt's tokens.
    prompt: String,
    /// The answer.
    text: String,
    /// Whether a token ended it, rather than the maximum length.
    ended: bool,
}

/// Answers to all questions.
pub struct Answers {
    /// The texts, in the order of the questions.
    pub texts: Vec<String>,
    /// Answers that reached the maximum length.
    pub cut: usize,
}

impl Answerer<'_> {
    /// Answers all questions. `what` names the model in the progress.
    ///
    /// # Errors
    /// A prompt cannot be rendered, has no tokens or does not fit; the cache cannot be written; or a
    /// stop was requested. Answers so far are kept.
    pub fn answer(
        self,
        what: &str,
        questions: &Questions,
        observer: &mut dyn Progress,
    ) -> Result<Answers> {
        let tokenizer = &self.model.tokenizer;
        let mut prompts = Vec::with_capacity(questions.all.len());
        for question in &questions.all {
            let text = self.template.prompt(&question.row)?;
            let ids = self.template.prompt_ids(&text, tokenizer)?;
            if ids.is_empty() {
                let place = question.row.place();
                return Err(Error::input(format!("{place}: the prompt has no tokens")));
            }
            prompts.push(ids);
        }
        let ends = ends(&self.model.model, self.template, tokenizer)?;
        let hashes: Vec<String> = prompts.iter().map(|ids| hash_of(ids)).collect();
        let path = self.path(&ends, &hashes[0])?;
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        let _lock = Lock::wait(lock.as_ref(), observer)?;
        let mut kept = read(&path, &hashes)?;
        let count = kept.len();
        let line_is_kept = std::cell::Cell::new(0);
        let mut file = Lines::open(&path, |_| {
            let index = line_is_kept.get();
            line_is_kept.set(index + 1);
            index < count
        })?;
        let adapter = self
            .adapter
            .map(|adapter| self.model.decoder.load(adapter))
            .transpose()?;
        if count < prompts.len() {
            let request = Request {
                decoder: &self.model.decoder,
                adapter: adapter.as_ref(),
                ends: &ends,
                prompts: &prompts,
                first: count,
                sampling: &self.sampling,
                batch: self.batch,
            };
            let mut answered = |index: usize, answer: &Generated| {
                let entry = Kept {
                    prompt: hashes[index].clone(),
                    text: tokenizer.decode(&answer.tokens)?,
                    ended: answer.ended,
                };
                let line = serde_json::to_string(&entry)
                    .map_err(|error| Error::failure(error.to_string()))?;
                file.push(&line)?;
                kept.push(entry);
                Ok(())
            };
            let sink = TokenSink {
                heard: &mut |_, _| {},
                answered: &mut answered,
            };
            observer.note(&format!("{what}: generating answers"));
            generate(&request, observer, sink).map_err(|error| match error.kind {
                ErrorKind::Interrupted => error.hint("run the same command to continue"),
                ErrorKind::Input | ErrorKind::Failure => error,
            })?;
            file.sync()?;
        }
        let mut answers = Answers {
            texts: Vec::with_capacity(kept.len()),
            cut: 0,
        };
        for entry in kept {
            answers.cut += usize::from(!entry.ended);
            answers.texts.push(entry.text);
        }
        Ok(answers)
    }

    /// The file of the answers. Its name depends on the model, the sampling and the first prompt, so
    /// that more questions of the same rows continue the file.
    fn path(&self, ends: &[u32], first_prompt: &str) -> Result<PathBuf> {
        let mut hash = Sha256::new();
        hash.update(self.model.fingerprint.as_str());
        hash.update(self.model.decoder.arithmetic());
        if let Some(adapter) = &self.adapter {
            hash.update(reference::digest(adapter));
        }
        let Sampling {
            max_tokens,
            temperature,
            top_p,
            seed,
        } = self.sampling;
        hash.update(format!(
            "{max_tokens} {temperature} {top_p} {seed} {ends:?} {first_prompt}"
        ));
        let name = files::hex(&hash.finalize()[..16]);
        Ok(files::cache("answers")?.join(format!("{name}.jsonl")))
    }
}

/// The kept answers to the first prompts, up to the first that answers another prompt.
fn read(path: &std::path::Path, hashes: &[String]) -> Result<Vec<Kept>> {
    let bytes = files::read_if_there(path)?.unwrap_or_default();
    let mut kept = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if kept.len() == hashes.len() || !line.ends_with(b"\n") {
            break;
        }
        match serde_json::from_slice::<Kept>(line) {
            Ok(entry) if entry.prompt == hashes[kept.len()] => kept.push(entry),
            _ => break,
        }
    }
    Ok(kept)
}

fn hash_of(ids: &[u32]) -> String {
    let mut hash = Sha256::new();
    for id in ids {
        hash.update(id.to_le_bytes());
    }
    files::hex(&hash.finalize()[..16])
}
