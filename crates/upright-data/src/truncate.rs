//! Truncates a row to the maximum length by a configurable rule, and reports what it truncated.

use serde::{Deserialize, Serialize};

use upright_base::{Error, Result};

use super::Response;

/// What to truncate in a row that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TooLong {
    /// The prompt, from the left, down to the minimum; then the responses, from the right. If
    /// several turns of a conversation are trained on, the end, as with
    /// [`CutResponse`](Self::CutResponse): everything but the opening belongs to the response.
    CutPrompt,
    /// The responses, from the right, down to the minimum; then the prompt, from the left.
    CutResponse,
    /// Nothing; the row is dropped.
    Drop,
}

impl TooLong {
    /// All rules, in the order of the help texts.
    pub const ALL: &'static [Self] = &[Self::CutPrompt, Self::CutResponse, Self::Drop];

    /// Name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::CutPrompt => "cut-prompt",
            Self::CutResponse => "cut-response",
            Self::Drop => "drop",
        }
    }
}

/// The maximum length of a row, and how to truncate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// Maximum number of tokens of prompt, response and EOS together.
    pub max_length: usize,
    /// Minimum number of tokens to keep of the side that is truncated first, if it has that many.
    pub min_prompt: usize,
    /// What to truncate.
    pub rule: TooLong,
}

/// A row that fits the maximum length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// The prompt, the same for every response.
    pub prompt: Vec<u32>,
    /// The responses, with EOS unless truncated. A truncated one may end with masked tokens.
    pub responses: Vec<Response>,
    /// Whether the prompt is truncated.
    pub prompt_cut: bool,
    /// Number of truncated responses, which have no EOS.
    pub responses_cut: usize,
}

impl Truncation {
    /// Default minimum.
    pub fn usual_min_prompt(max_length: usize) -> usize {
        (max_length / 4).clamp(1, 64)
    }

    /// # Errors
    /// The maximum leaves no room for one token of each side, or the minimum leaves no room for the
    /// other side.
    pub fn check(&self) -> Result<()> {
        if self.max_length < 2 {
            return Err(Error::input(format!(
                "a maximum length of {} is too short",
                self.max_length
            ))
            .hint("a row needs at least 1 prompt token and 1 response token; 2048 is common"));
        }
        if self.min_prompt >= self.max_length {
            return Err(Error::input(format!(
                "a minimum of {} prompt tokens leaves no room for a response in rows of at most {} tokens",
                self.min_prompt, self.max_length
            ))
            .hint("choose a smaller minimum or a larger maximum length"));
        }
        Ok(())
    }

    /// Truncates a prompt and its responses, which come without EOS. The first `bos` tokens of the
    /// prompt are kept. The longest response decides how much of the prompt is truncated, so that a
    /// pair keeps one prompt. `None` if the rule drops the row.
    ///
    /// Neither the prompt nor a response may be empty, and [`check`](Self::check) must have passed.
    pub fn fit(
        &self,
        prompt: Vec<u32>,
        bos: usize,
        mut responses: Vec<Response>,
        eos: u32,
    ) -> Option<Truncated> {
        let lengths = responses.iter().map(|response| response.tokens.len());
        let longest = 1 + lengths.max().unwrap_or(0);
        let (mut prompt_room, mut response_room) = (prompt.len(), longest);
        if prompt.len() + longest > self.max_length {
            match self.rule {
                TooLong::Drop => return None,
                TooLong::CutPrompt => {
                    let least = self.min_prompt.max(1).min(prompt.len());
                    prompt_room = self.max_length.saturating_sub(longest).max(least);
                    response_room = self.max_length - prompt_room;
                }
                TooLong::CutResponse => {
                    let least = self.min_prompt.max(1).min(longest);
                    response_room = self.max_length.saturating_sub(prompt.len()).max(least);
                    prompt_room = prompt.len().min(self.max_length - response_room);
                }
            }
        }
        let mut responses_cut = 0;
        for response in &mut responses {
            if response.tokens.len() < response_room {
                response.tokens.push(eos);
            } else {
                response.truncate(response_room);
                responses_cut += 1;
            }
        }
        let prompt_cut = prompt_room < prompt.len();
        let prompt = if prompt_cut {
            cut_left(&prompt, bos, prompt_room)
        } else {
            prompt
        };
        Some(Truncated {
            prompt,
            responses,
            prompt_cut,
            responses_cut,
        })
    }
}

/// The first `bos` tokens of a prompt and its last `room - bos` tokens. The first tokens are left
/// out if the last ones start with them: BOS of some models opens every turn.
fn cut_left(prompt: &[u32], bos: usize, room: usize) -> Vec<u32> {
    let bos = if bos < room { bos } else { 0 };
    let (head, tail) = (&prompt[..bos], &prompt[prompt.len() - (room - bos)..]);
    if tail.starts_with(head) {
        tail.to_vec()
    } else {
        [head, tail].concat()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EOS: u32 = 99;

    fn whole(responses: &[&[u32]]) -> Vec<Response> {
        let mut whole = Vec::new();
        for response in responses {
            whole.push(response.to_vec().into());
        }
        whole
    }

    fn fit(
        rule: TooLong,
        max_length: usize,
        min_prompt: usize,
        prompt: &[u32],
        bos: usize,
        responses: &[&[u32]],
    ) -> Option<Truncated> {
        let truncation = Truncation {
            max_length,
            min_prompt,
            rule,
        };
        truncation.check().unwrap();
        truncation.fit(prompt.to_vec(), bos, whole(responses), EOS)
    }

    fn fitted(
        prompt: &[u32],
        responses: &[&[u32]],
        prompt_cut: bool,
        responses_cut: usize,
    ) -> Option<Truncated> {
        Some(Truncated {
            prompt: prompt.to_vec(),
            responses: whole(responses),
            prompt_cut,
            responses_cut,
        })
    }

    #[test]
    fn what_fits_is_left_whole() {
        for rule in [TooLong::CutPrompt, TooLong::CutResponse, TooLong::Drop] {
            assert_eq!(
                fit(rule, 5, 1, &[1, 2], 0, &[&[3, 4]]),
                fitted(&[1, 2], &[&[3, 4, EOS]], false, 0)
            );
        }
    }

    #[test]
    fn the_prompt_is_cut_from_the_left_by_the_longer_response() {
        let found = fit(
            TooLong::CutPrompt,
            6,
            2,
            &[1, 2, 3, 4],
            0,
            &[&[5, 6, 7], &[8]],
        );
        assert_eq!(
            found,
            fitted(&[3, 4], &[&[5, 6, 7, EOS], &[8, EOS]], true, 0)
        );
        let found = fit(TooLong::CutPrompt, 6, 2, &[1, 2, 3, 4], 1, &[&[5, 6, 7]]);
        assert_eq!(
            found,
            fitted(&[1, 4], &[&[5, 6, 7, EOS]], true, 0),
            "BOS stays"
        );
        let found = fit(TooLong::CutPrompt, 7, 2, &[1, 2, 1, 3], 1, &[&[5, 6, 7]]);
        assert_eq!(
            found,
            fitted(&[1, 3], &[&[5, 6, 7, EOS]], true, 0),
            "and is not doubled"
        );
        let found = fit(TooLong::CutPrompt, 4, 1, &[1, 2, 3, 4], 1, &[&[5, 6, 7]]);
        assert_eq!(
            found,
            fitted(&[4], &[&[5, 6, 7]], true, 1),
            "a prompt of only BOS would be no prompt"
        );
    }

    #[test]
    fn then_responses_are_cut_from_the_right_and_have_no_eos() {
        let found = fit(
            TooLong::CutPrompt,
            5,
            2,
            &[1, 2, 3],
            0,
            &[&[5, 6, 7, 8], &[9, 9], &[4, 4, 4]],
        );
        assert_eq!(
            found,
            fitted(&[2, 3], &[&[5, 6, 7], &[9, 9, EOS], &[4, 4, 4]], true, 2)
        );
        let found = fit(TooLong::CutPrompt, 4, 3, &[1], 0, &[&[5, 6, 7, 8]]);
        assert_eq!(
            found,
            fitted(&[1], &[&[5, 6, 7]], false, 1),
            "a prompt below the minimum is not truncated"
        );
    }

    #[test]
    fn cut_response_is_the_other_way_round() {
        let found = fit(
            TooLong::CutResponse,
            5,
            1,
            &[1, 2, 3],
            0,
            &[&[5, 6, 7], &[8]],
        );
        assert_eq!(found, fitted(&[1, 2, 3], &[&[5, 6], &[8, EOS]], false, 1));
        let found = fit(
            TooLong::CutResponse,
            4,
            2,
            &[1, 2, 3, 4, 5],
            0,
            &[&[5, 6, 7]],
        );
        assert_eq!(found, fitted(&[4, 5], &[&[5, 6]], true, 1));
    }

    #[test]
    fn drop_drops() {
        assert_eq!(fit(TooLong::Drop, 4, 1, &[1, 2], 0, &[&[3, 4]]), None);
    }

    #[test]
    fn impossible_limits_are_refused() {
        let check = |max_length, min_prompt| {
            Truncation {
                max_length,
                min_prompt,
                rule: TooLong::CutPrompt,
            }
            .check()
        };
        assert_eq!(
            check(1, 0).unwrap_err().message,
            "a maximum length of 1 is too short"
        );
        let error = check(64, 64).unwrap_err();
        assert_eq!(
            error.message,
            "a minimum of 64 prompt tokens leaves no room for a response in rows of at most 64 tokens"
        );
        assert!(error.hint.contains("smaller minimum"));
    }

    proptest! {
        #[test]
        fn rows_fit_share_their_prompt_and_end_with_eos_if_whole(
            prompt in prop::collection::vec(0..90u32, 1..30),
            responses in prop::collection::vec(prop::collection::vec(0..90u32, 1..30), 1..3),
            bos in 0..2usize,
            max_length in 2..50usize,
            min_prompt in 0..50usize,
            cut_prompt: bool,
        ) {
            prop_assume!(min_prompt < max_length);
            let rule = if cut_prompt { TooLong::CutPrompt } else { TooLong::CutResponse };
            let borrowed: Vec<&[u32]> = responses.iter().map(Vec::as_slice).collect();
            let found = Truncation { max_length, min_prompt, rule }.fit(prompt.clone(), bos, whole(&borrowed), EOS).unwrap();
            prop_assert!(!found.prompt.is_empty());
            prop_assert!(prompt.ends_with(&found.prompt[found.prompt.len().min(bos)..]));
            prop_assert!(found.prompt.len() <= bos || prompt[..bos] == found.prompt[..bos]);
            prop_assert_eq!(found.prompt_cut, found.prompt != prompt);
            // If the rest of the prompt starts with BOS anyway, the place of BOS stays empty.
            let spared = if found.prompt_cut && prompt.ends_with(&found.prompt) { bos } else { 0 };
            if cut_prompt {
                prop_assert!(found.prompt.len() + spared >= min_prompt.min(prompt.len()));
            }
            let mut cut = 0;
            let mut fullest = 0;
            for (now, before) in found.responses.iter().zip(&responses) {
                let now = &now.tokens;
                prop_assert!(!now.is_empty() && found.prompt.len() + now.len() <= max_length);
                fullest = fullest.max(found.prompt.len() + now.len());
                if now.last() == Some(&EOS) {
                    prop_assert_eq!(&now[..now.len() - 1], &before[..]);
                } else {
                    cut += 1;
                    prop_assert!(before.starts_with(now));
                }
            }
            prop_assert_eq!(found.responses_cut, cut);
            // Nothing is truncated without need: a truncated row fills the room.
            prop_assert!(!(found.prompt_cut || cut > 0) || fullest == max_length || fullest + spared == max_length);
        }
    }
}
