//! Log-probabilities of the answers of multiple-choice questions, as lm-eval's `hf` backend defines
//! them, with fewer forward tokens: questions of a pack share their beginnings, and answers of one
//! token share a row.

use std::ops::Range;

use upright_base::{Error, Result, progress::Progress};
use upright_data::{Tokenizer, mmlu::prompt::trim_end};
use upright_engine::{Decoder, DeviceAdapter};
use upright_model::pack::{Pack, SHARED, Target};
use upright_ranks::World;

use crate::{not_finite::not_finite, ranks::in_rounds};

/// Gap between the two best answers, in nats, below which a question is a near tie: another order
/// of additions may swap them.
pub const NEAR_TIE: f64 = 1e-4;

/// A question as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedQuestion {
    /// Different inputs of the answers: context and answer without its last token, from which
    /// nothing is predicted. Answers of one token have the same inputs.
    inputs: Vec<Vec<u32>>,
    /// The answers, in order.
    answers: Vec<EncodedAnswer>,
    /// Whether a context is truncated.
    pub is_truncated: bool,
}

/// An answer as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
struct EncodedAnswer {
    /// Index of its inputs.
    inputs: usize,
    /// Its tokens, at least one. The last of the inputs predict them.
    tokens: Vec<u32>,
}

impl EncodedQuestion {
    /// Encodes a context and its continuations. lm-eval's `_encode_pair`: white space at the end of
    /// the context belongs to the continuation; context and continuation are encoded as one text,
    /// and the continuation is what follows as many tokens as the context has alone. If there are
    /// more than `max_length` inputs, the last ones are kept, and BOS is truncated like any other
    /// token.
    ///
    /// # Errors
    /// A continuation has no tokens, or leaves no room for a token of the context.
    pub fn new(
        tokenizer: &Tokenizer,
        context: &str,
        continuations: &[String],
        max_length: usize,
    ) -> Result<Self> {
        let trimmed = trim_end(context);
        let context_ids = tokenizer.prompt(trimmed)?;
        let mut encoded = Self {
            inputs: Vec::new(),
            answers: Vec::new(),
            is_truncated: false,
        };
        for continuation in continuations {
            let whole = tokenizer.prompt(&format!("{context}{continuation}"))?;
            let tokens = whole.get(context_ids.len()..).unwrap_or_default().to_vec();
            encoded.add(&context_ids, tokens, max_length)?;
        }
        Ok(encoded)
    }

    fn add(&mut self, context: &[u32], tokens: Vec<u32>, max_length: usize) -> Result<()> {
        let Some((_, before_last)) = tokens.split_last() else {
            return Err(Error::input("an answer has no tokens"));
        };
        let mut inputs = [context, before_last].concat();
        if inputs.len() > max_length {
            inputs.drain(..inputs.len() - max_length);
            self.is_truncated = true;
        }
        if inputs.len() < tokens.len() {
            return Err(match context.is_empty() {
                true => Error::input("the context has no tokens"),
                false => Error::input(format!(
                    "an answer of {} tokens leaves no room for its context in the {max_length} positions of the model",
                    tokens.len()
                )),
            });
        }
        let known = self.inputs.iter().position(|known| *known == inputs);
        let index = known.unwrap_or(self.inputs.len());
        if known.is_none() {
            self.inputs.push(inputs);
        }
        self.answers.push(EncodedAnswer {
            inputs: index,
            tokens,
        });
        Ok(())
    }

    /// Tokens of an answer.
    pub fn answer(&self, index: usize) -> &[u32] {
        &self.answers[index].tokens
    }

    /// Forward tokens that lm-eval's `hf` backend spends on the question. It shares a forward pass
    /// between answers with the same inputs, and nothing between questions.
    pub fn harness_tokens(&self) -> usize {
        self.inputs.iter().map(Vec::len).sum()
    }

    /// Number of rows that the question takes on its own: at most, if answers diverge more than
    /// once.
    fn rows(&self) -> usize {
        let first = &self.inputs[0];
        let mut rows = first.len();
        for inputs in &self.inputs[1..] {
            rows += inputs.len() - shared(first, inputs);
        }
        rows
    }
}

/// Length of the common prefix of two sequences that a pack stores once.
fn shared(a: &[u32], b: &[u32]) -> usize {
    let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    if common < SHARED { 0 } else { common }
}

/// Answers of consecutive questions in one pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedQuestions {
    /// The pack.
    pub pack: Pack,
    /// Indices of its questions among those that were packed.
    pub questions: Range<usize>,
    /// Ranges of targets, question by question, answer by answer.
    answers: Vec<Range<usize>>,
}

/// Packs questions in their order, into packs of about `budget` rows at most; a larger question gets
/// its own pack. Common prefixes of a pack are stored once, so questions that share a header belong
/// next to each other.
pub fn pack(questions: &[EncodedQuestion], budget: usize) -> Vec<PackedQuestions> {
    let mut packs = Vec::new();
    let mut start = 0;
    while start < questions.len() {
        let first = &questions[start];
        let mut used = first.rows();
        let mut end = start + 1;
        while let Some(question) = questions.get(end) {
            let rows = question.rows() - shared(&first.inputs[0], &question.inputs[0]);
            if used + rows > budget {
                break;
            }
            used += rows;
            end += 1;
        }
        packs.push(lay(questions, start..end));
        start = end;
    }
    packs
}

fn lay(questions: &[EncodedQuestion], range: Range<usize>) -> PackedQuestions {
    let mut pack = Pack::default();
    let mut answers = Vec::new();
    for question in &questions[range.clone()] {
        let mut ends = Vec::with_capacity(question.inputs.len());
        for inputs in &question.inputs {
            pack.root(inputs);
            ends.push(pack.tokens.len());
        }
        for answer in &question.answers {
            let first_target = pack.targets.len();
            let first_row = ends[answer.inputs] - answer.tokens.len();
            for (offset, &token) in answer.tokens.iter().enumerate() {
                pack.targets.push(Target {
                    row: first_row + offset,
                    token,
                });
            }
            answers.push(first_target..pack.targets.len());
        }
    }
    PackedQuestions {
        pack: pack.with_shared_beginnings(SHARED),
        questions: range,
        answers,
    }
}

impl PackedQuestions {
    /// Log-probabilities of the answers of every question of the pack, in order: the sum over the
    /// answer's tokens, in nats.
    ///
    /// # Errors
    /// A log-probability is not finite.
    pub fn score(
        &self,
        decoder: &Decoder,
        adapter: Option<&DeviceAdapter>,
    ) -> Result<Vec<Vec<f64>>> {
        let scores = decoder.score(&self.pack, adapter)?;
        let per_question = self.answers.len() / self.questions.len();
        let mut sums = Vec::with_capacity(self.questions.len());
        for (index, answers) in self.answers.chunks(per_question).enumerate() {
            let mut of_question = Vec::with_capacity(per_question);
            for targets in answers {
                let sum: f64 = scores.logp[targets.clone()].iter().sum();
                if !sum.is_finite() {
                    let question = self.questions.start + index;
                    let value = format!("the log-probability of an answer of question {question}");
                    return Err(not_finite(value, decoder, &self.pack, adapter));
                }
                of_question.push(sum);
            }
            sums.push(of_question);
        }
        Ok(sums)
    }
}

/// Scores packs, which ranks share. `observer` receives the number of finished questions. Each pack has the name of what its questions
/// belong to, for errors.
///
/// # Errors
/// A log-probability is not finite, or the observer requested a stop.
pub fn score(
    packs: &[(&PackedQuestions, &str)],
    decoder: &Decoder,
    adapter: Option<&DeviceAdapter>,
    world: &World,
    observer: &mut dyn Progress,
) -> Result<Vec<Vec<f64>>> {
    let (mut sums, mut done) = (Vec::new(), 0);
    let stop = observer.stop();
    let mut compute = |(packed, name): &(&PackedQuestions, &str)| -> Result<Vec<f64>> {
        if stop.is_requested() {
            return Err(Error::interrupted("before all questions were scored"));
        }
        let scored = packed.score(decoder, adapter);
        Ok(scored.map_err(|error| error.at(name))?.concat())
    };
    let mut take = |(packed, _): &(&PackedQuestions, &str), logp: &[f64]| -> Result<()> {
        let per_question = packed.answers.len() / packed.questions.len();
        sums.extend(logp.chunks(per_question).map(<[f64]>::to_vec));
        done += packed.questions.len();
        observer.advance(done, "");
        Ok(())
    };
    let count = |(packed, _): &(&PackedQuestions, &str)| packed.answers.len();
    in_rounds(world, packs, &count, &mut compute, &mut take)?;
    Ok(sums)
}

/// Index of the largest value, the first of equal ones, as numpy's `argmax`.
///
/// # Panics
/// If there are no values.
pub fn best(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// Whether the two largest values are closer than [`NEAR_TIE`].
pub fn is_near_tie(values: &[f64]) -> bool {
    let best = best(values);
    let mut second = f64::NEG_INFINITY;
    for (index, value) in values.iter().enumerate() {
        if index != best {
            second = second.max(*value);
        }
    }
    values[best] - second < NEAR_TIE
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use upright_engine::{Options, Tier};
    use upright_model::peft;

    use super::*;

    /// A question from its context and answers; at most `max_length` inputs.
    fn question(context: &[u32], answers: &[&[u32]], max_length: usize) -> EncodedQuestion {
        let mut encoded = EncodedQuestion {
            inputs: Vec::new(),
            answers: Vec::new(),
            is_truncated: false,
        };
        for answer in answers {
            encoded.add(context, answer.to_vec(), max_length).unwrap();
        }
        encoded
    }

    /// Tokens before every target along its path, and the target.
    fn asked(packed: &PackedQuestions) -> Vec<(Vec<u32>, u32)> {
        let pack = &packed.pack;
        let mut paths: Vec<Vec<u32>> = Vec::new();
        for span in &pack.spans {
            let mut path = span.parent.map_or(Vec::new(), |parent| {
                let parent = &pack.spans[parent];
                paths[parent.start + parent.len - 1].clone()
            });
            for &token in &pack.tokens[span.start..span.start + span.len] {
                path.push(token);
                paths.push(path.clone());
            }
        }
        let mut asked = Vec::new();
        for target in &pack.targets {
            asked.push((paths[target.row].clone(), target.token));
        }
        asked
    }

    #[test]
    fn answers_of_one_token_share_a_row() {
        let context: Vec<u32> = (0..20).collect();
        let letters = question(&context, &[&[7], &[8], &[9], &[10]], 99);
        assert_eq!(letters.harness_tokens(), 20);
        let packed = &pack(&[letters], 99)[0];
        assert_eq!(packed.pack.tokens, context);
        let rows: Vec<usize> = packed
            .pack
            .targets
            .iter()
            .map(|target| target.row)
            .collect();
        assert_eq!(rows, [19; 4]);
        assert_eq!(packed.answers, [0..1, 1..2, 2..3, 3..4]);
    }

    #[test]
    fn longer_answers_are_children_of_their_context() {
        let context: Vec<u32> = (0..20).collect();
        let texts = question(&context, &[&[7, 1], &[8], &[9, 2, 3], &[9, 2, 4]], 99);
        // Inputs of 21, 20 and 22 tokens; the last two answers have the same inputs.
        assert_eq!(texts.harness_tokens(), 21 + 20 + 22);
        let packed = &pack(&[texts], 99)[0];
        // The context once, then 7, then 9 2.
        assert_eq!(packed.pack.tokens.len(), 20 + 1 + 2);
        let with = |rest: &[u32]| [&context[..], rest].concat();
        assert_eq!(
            asked(packed),
            [
                (with(&[]), 7),
                (with(&[7]), 1),
                (with(&[]), 8),
                (with(&[]), 9),
                (with(&[9]), 2),
                (with(&[9, 2]), 3),
                (with(&[]), 9),
                (with(&[9]), 2),
                (with(&[9, 2]), 4),
            ]
        );
    }

    #[test]
    fn questions_with_one_header_store_it_once_a_pack() {
        let header: Vec<u32> = (100..130).collect();
        let questions: Vec<EncodedQuestion> = (0..5)
            .map(|index| {
                let context = [&header[..], &[index, index + 1, index + 2, 50]].concat();
                question(&context, &[&[7], &[8]], 99)
            })
            .collect();
        // 30 tokens of header, then 4 tokens a question: 3 questions take 42 rows, 4 take 46.
        let packs = pack(&questions, 45);
        let ranges: Vec<Range<usize>> = packs
            .iter()
            .map(|packed| packed.questions.clone())
            .collect();
        assert_eq!(ranges, [0..3, 3..5]);
        assert_eq!(packs[0].pack.tokens.len(), 30 + 3 * 4);
        let mut alone = Vec::new();
        for question in &questions {
            alone.extend(asked(&pack(std::slice::from_ref(question), 1)[0]));
        }
        let together: Vec<_> = packs.iter().flat_map(asked).collect();
        assert_eq!(together, alone);
    }

    #[test]
    fn long_contexts_keep_their_end() {
        let context: Vec<u32> = (0..10).collect();
        let cut = question(&context, &[&[20], &[21, 22, 23]], 4);
        assert!(cut.is_truncated);
        assert_eq!(cut.inputs, [vec![6, 7, 8, 9], vec![8, 9, 21, 22]]);
        let packed = &pack(&[cut], 99)[0];
        assert_eq!(asked(packed)[1], (vec![8, 9], 21));
        // 10 + 1 tokens less the last fit into 10 positions.
        assert!(!question(&context, &[&[20]], 10).is_truncated);
        let mut long = question(&context, &[&[20]], 3);
        let error = long.add(&context, vec![1, 2, 3, 4], 3).unwrap_err();
        assert!(
            error
                .message
                .contains("an answer of 4 tokens leaves no room"),
            "{error}"
        );
        assert!(
            long.add(&[], vec![1], 3)
                .unwrap_err()
                .message
                .contains("context has no tokens")
        );
        assert!(
            long.add(&context, Vec::new(), 3)
                .unwrap_err()
                .message
                .contains("no tokens")
        );
    }

    /// Packs score the same bits as answers that are alone in their pack, with an adapter and
    /// without.
    #[test]
    fn sharing_a_header_changes_no_bit() {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../upright-engine/tests/golden/llama");
        let options = Options {
            threads: 2,
            tier: Some(Tier::Portable),
            ..Options::default()
        };
        let decoder = Decoder::open(&folder, &options).unwrap();
        let adapter = peft::read(&folder.join("adapter"), decoder.config()).unwrap();
        let adapter = decoder.load(adapter.adapter).unwrap();
        let token = |i: usize| (i * 37 % 101) as u32 + 3;
        let header: Vec<u32> = (0..40).map(token).collect();
        let mut questions = Vec::new();
        for index in 0..6 {
            let own: Vec<u32> = (0..9 + index).map(|i| token(i * 7 + index)).collect();
            let context = [&header[..], &own].concat();
            let letters: [&[u32]; 4] = [&[7], &[8], &[9], &[10]];
            let texts: [&[u32]; 4] = [&[7, 8], &[8], &[9, 4, 5], &[9, 4, 6]];
            let answers = if index < 3 { letters } else { texts };
            questions.push(question(&context, &answers, 45 + index));
        }
        let packs = pack(&questions, 300);
        assert!(packs.len() < questions.len());
        for adapter in [None, Some(&adapter)] {
            let mut found = Vec::new();
            for packed in &packs {
                found.extend(packed.score(&decoder, adapter).unwrap());
            }
            for (question, found) in questions.iter().zip(found) {
                for (answer, found) in question.answers.iter().zip(found) {
                    let mut alone = Pack::default();
                    let inputs = &question.inputs[answer.inputs];
                    let first_row = inputs.len() - answer.tokens.len();
                    alone.root(inputs);
                    for (offset, &token) in answer.tokens.iter().enumerate() {
                        let row = first_row + offset;
                        alone.targets.push(Target { row, token });
                    }
                    let scores = decoder.score(&alone, adapter).unwrap();
                    let sum: f64 = scores.logp.iter().sum();
                    assert_eq!(found.to_bits(), sum.to_bits());
                }
            }
        }
    }

    #[test]
    fn the_first_of_equal_values_is_best() {
        assert_eq!(best(&[-3.0, -1.0, -1.0, -2.0]), 1);
        assert_eq!(best(&[f64::NEG_INFINITY, -5.0]), 1);
        assert!(is_near_tie(&[-1.0, -1.00009, -7.0]));
        assert!(!is_near_tie(&[-1.0, -1.00011, -7.0]));
        assert!(is_near_tie(&[-7.0, -1.0, -1.0]));
    }
}
