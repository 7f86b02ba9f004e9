//! The questions of one form, encoded and packed once. Base and adapters score the same packs, so
//! their answers to a question can be compared one by one.

use std::sync::atomic::{AtomicBool, Ordering};

use upright_base::{Error, Result, counted, parallel, progress::Progress};
use upright_data::{
    Tokenizer,
    mmlu::{Form, Prompt, Question, Subject, SubjectName, Wording, prompt::LETTERS},
};
use upright_engine::DeviceAdapter;
use upright_math::random::splitmix;
use upright_train::{
    choices::{self, EncodedQuestion, PackedQuestions, best, is_near_tie},
    run::Model,
};

/// Default tokens in a pack. Five shots take up to 2500 tokens, and each pack holds them once.
pub const TOKEN_BUDGET: usize = 8192;

/// Score of a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Log-probability of each answer, in nats.
    pub logp: Vec<f64>,
    /// Whether the right answer has the largest log-probability; `acc` of lm-eval.
    pub is_right: bool,
    /// Whether the right answer has the largest log-probability per character; `acc_norm` of
    /// lm-eval.
    pub is_right_by_length: bool,
    /// Whether the two largest log-probabilities are almost equal.
    pub is_near_tie: bool,
}

impl Score {
    fn new(form: Form, row: &Question, logp: Vec<f64>) -> Self {
        let mut by_length = Vec::with_capacity(logp.len());
        for (value, answer) in logp.iter().zip(form.answers(row)) {
            by_length.push(value / answer.chars().count() as f64);
        }
        Self {
            is_right: best(&logp) == row.answer,
            is_right_by_length: best(&by_length) == row.answer,
            is_near_tie: is_near_tie(&logp),
            logp,
        }
    }
}

/// Scores of a subject's questions, in the order of its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskScores {
    /// The subject.
    pub about: &'static SubjectName,
    /// One score per question.
    pub scores: Vec<Score>,
}

/// The questions of one form.
pub struct Sheet<'s> {
    /// How they are worded.
    pub wording: Wording<'s>,
    subjects: &'s [Subject],
    /// Maximum number of questions per subject.
    limit: usize,
    /// Packs of every subject.
    packs: Vec<Vec<PackedQuestions>>,
    /// Number of questions.
    pub questions: usize,
    /// Number of questions whose prompt exceeds the context and lost its beginning.
    pub truncated: usize,
    /// Number of questions whose description the chat template rejected.
    pub lacking_description: usize,
    /// Tokens of an answer behind those that all answers have in common, if a letter takes several.
    pub letter_tokens: Option<usize>,
    /// Tokens of one forward pass over all packs.
    pub forward_tokens: usize,
    /// Tokens that lm-eval's `hf` backend would run forward for the same questions.
    pub harness_tokens: usize,
}

/// How a sheet is encoded and packed.
pub struct Limits {
    /// Maximum number of questions per subject, the first ones.
    pub questions: usize,
    /// Maximum number of inputs of a question: the positions of the model.
    pub positions: usize,
    /// Maximum rows in a pack.
    pub token_budget: usize,
    /// Threads for encoding.
    pub threads: usize,
}

impl<'s> Sheet<'s> {
    /// Words, encodes and packs the questions of subjects.
    ///
    /// # Errors
    /// A prompt cannot be rendered or encoded, two letters have the same token ids, or the observer
    /// requested a stop. The message names subject and row.
    pub fn new(
        subjects: &'s [Subject],
        wording: Wording<'s>,
        tokenizer: &Tokenizer,
        limits: &Limits,
        observer: &mut dyn Progress,
    ) -> Result<Self> {
        let mut rows: Vec<(usize, usize)> = Vec::new();
        for (index, subject) in subjects.iter().enumerate() {
            for row in 0..subject.test.len().min(limits.questions) {
                rows.push((index, row));
            }
        }
        let is_stopped = AtomicBool::new(false);
        let work = |index: usize| -> Result<(EncodedQuestion, bool)> {
            if is_stopped.load(Ordering::Relaxed) {
                return Err(Error::interrupted("while encoding questions"));
            }
            let (subject, row) = rows[index];
            let subject = &subjects[subject];
            let at = |error: Error| error.at(format!("{}: test row {row}", subject.about.name));
            let prompt = wording.prompt(subject, &subject.test[row]).map_err(at)?;
            let encoded = EncodedQuestion::new(
                tokenizer,
                &prompt.context,
                &prompt.continuations,
                limits.positions,
            )
            .map_err(at)?;
            if wording.form == Form::Letters {
                check_letters(&encoded, &prompt).map_err(at)?;
            }
            Ok((encoded, prompt.lacks_description))
        };
        let stop = observer.stop();
        observer.begin(&format!("encoding {}", wording.form.name()), rows.len());
        let encoded = parallel::map(rows.len(), limits.threads, work, &mut |done| {
            observer.advance(done, "");
            if stop.is_requested() {
                is_stopped.store(true, Ordering::Relaxed);
            }
        });
        observer.end();
        let encoded = encoded?;
        let mut sheet = Self {
            wording,
            subjects,
            limit: limits.questions,
            packs: Vec::new(),
            questions: rows.len(),
            truncated: 0,
            lacking_description: 0,
            letter_tokens: None,
            forward_tokens: 0,
            harness_tokens: 0,
        };
        let mut by_subject: Vec<Vec<EncodedQuestion>> =
            subjects.iter().map(|_| Vec::new()).collect();
        for ((subject, _), (question, lacks_description)) in rows.iter().zip(encoded) {
            sheet.truncated += usize::from(question.is_truncated);
            sheet.lacking_description += usize::from(lacks_description);
            sheet.harness_tokens += question.harness_tokens();
            if wording.form == Form::Letters {
                sheet.letter_tokens = sheet.letter_tokens.max(letter_tokens(&question));
            }
            by_subject[*subject].push(question);
        }
        for questions in &by_subject {
            let packs = choices::pack(questions, limits.token_budget);
            for packed in &packs {
                sheet.forward_tokens += packed.pack.tokens.len();
            }
            sheet.packs.push(packs);
        }
        Ok(sheet)
    }

    /// The subjects, each with the questions that are asked.
    pub fn asked(&self) -> impl Iterator<Item = (&'s Subject, &'s [Question])> {
        let limit = self.limit;
        self.subjects
            .iter()
            .map(move |subject| (subject, &subject.test[..subject.test.len().min(limit)]))
    }

    /// Identifies the questions as they are asked: the tokens of all packs.
    pub fn key(&self) -> u64 {
        let mut key = 0;
        for packed in self.packs.iter().flatten() {
            for token in &packed.pack.tokens {
                key = splitmix(key ^ u64::from(*token));
            }
        }
        key
    }

    /// Scores all questions under the base model with an adapter or alone; the model's ranks share them. `what` names the model in
    /// the progress.
    ///
    /// # Errors
    /// A log-probability is not finite, or the observer requested a stop.
    pub fn score(
        &self,
        model: &Model,
        adapter: Option<&DeviceAdapter>,
        what: &str,
        observer: &mut dyn Progress,
    ) -> Result<Vec<TaskScores>> {
        observer.begin(what, self.questions);
        let tasks = self.score_tasks(model, adapter, observer);
        observer.end();
        tasks
    }

    fn score_tasks(
        &self,
        model: &Model,
        adapter: Option<&DeviceAdapter>,
        observer: &mut dyn Progress,
    ) -> Result<Vec<TaskScores>> {
        let mut packs = Vec::new();
        for (of_subject, (subject, _)) in self.packs.iter().zip(self.asked()) {
            packs.extend(of_subject.iter().map(|packed| (packed, subject.about.name)));
        }
        let sums = choices::score(&packs, &model.decoder, adapter, &model.world, observer)?;
        let mut sums = sums.into_iter();
        let mut tasks = Vec::with_capacity(self.packs.len());
        for (subject, rows) in self.asked() {
            let mut scores = Vec::with_capacity(rows.len());
            for row in rows {
                let logp = sums.next().expect("a sum for every question");
                scores.push(Score::new(self.wording.form, row, logp));
            }
            tasks.push(TaskScores {
                about: subject.about,
                scores,
            });
        }
        Ok(tasks)
    }
}

/// Rejects a tokenizer that gives two letters the same ids: the first of them would always win.
fn check_letters(encoded: &EncodedQuestion, prompt: &Prompt) -> Result<()> {
    for later in 1..LETTERS.len() {
        for earlier in 0..later {
            if encoded.answer(earlier) == encoded.answer(later) {
                let texts = &prompt.continuations;
                return Err(Error::input(format!(
                    "the tokenizer gives {:?} and {:?} the same ids, {:?}",
                    texts[earlier],
                    texts[later],
                    encoded.answer(later)
                ))
                .hint("use --form cloze, or check the model's tokenizer.json"));
            }
        }
    }
    Ok(())
}

/// Tokens of the longest letter behind those that all letters have in common; `None` if each is one
/// token.
fn letter_tokens(question: &EncodedQuestion) -> Option<usize> {
    let letters: Vec<&[u32]> = (0..LETTERS.len())
        .map(|index| question.answer(index))
        .collect();
    let shortest = letters.iter().map(|letter| letter.len()).min().unwrap_or(0);
    let mut common = 0;
    while common < shortest
        && letters
            .iter()
            .all(|letter| letter[common] == letters[0][common])
    {
        common += 1;
    }
    let longest = letters.iter().map(|letter| letter.len() - common).max();
    longest.filter(|longest| *longest > 1)
}

impl Sheet<'_> {
    /// What a user should know about the prompts; one sentence each.
    pub fn notes(&self, positions: usize) -> Vec<String> {
        let mut notes = Vec::new();
        let prompts = counted(self.questions, "prompt");
        if self.truncated > 0 {
            let verb = if self.truncated == 1 {
                "exceeds"
            } else {
                "exceed"
            };
            let its = if self.truncated == 1 {
                "loses its"
            } else {
                "lose their"
            };
            notes.push(format!(
                "warning: {} of {prompts} {verb} the {positions} positions of the model and {its} beginning, as in \
                 lm-eval",
                self.truncated
            ));
        }
        if self.lacking_description > 0 {
            notes.push(format!(
                "the chat template rejects a system message; {} of {prompts} have no description, as in lm-eval",
                self.lacking_description
            ));
        }
        if let Some(tokens) = self.letter_tokens {
            notes.push(format!(
                "the tokenizer splits letters into up to {tokens} tokens; each letter is scored as a sequence"
            ));
        }
        notes
    }
}
