//! Packs examples end to end, up to a token budget.

use std::cmp::Reverse;
use std::ops::Range;

use upright_data::Example;
use upright_model::pack::{Pack, SHARED};

/// The targets of one response in a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of the example among those that were packed.
    pub example: usize,
    /// Index of the response in the example: 0 is the only or the chosen one, 1 the rejected one.
    pub response: usize,
    /// Its targets in the pack, one per token of the response that is in the loss.
    pub targets: Range<usize>,
}

/// A pack and the meaning of its targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedRows {
    /// The pack.
    pub pack: Pack,
    /// All responses in the pack, in the order of its targets. Together they cover all targets.
    pub segments: Vec<Segment>,
}

/// Tokens of some examples; a prompt that responses share counts once.
pub(crate) fn tokens<'e>(examples: impl IntoIterator<Item = &'e Example>) -> usize {
    examples.into_iter().map(Example::tokens).sum()
}

/// Rows that an example takes on its own: every token but the last of each response, from which
/// nothing is predicted.
pub fn rows_of(example: &Example) -> usize {
    example.tokens() - example.responses.len()
}

/// Packs examples, each undivided and once, into packs of at most `budget` rows; a larger example
/// gets its own pack. First fit, longest first: deterministic, and within about a fifth of the
/// minimum number of packs. Prompts of a pack share their common prefixes.
pub fn pack(examples: &[&Example], budget: usize) -> Vec<PackedRows> {
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|&index| (Reverse(rows_of(examples[index])), index));
    let mut bins: Vec<(usize, Vec<usize>)> = Vec::new();
    for index in order {
        let rows = rows_of(examples[index]);
        match bins.iter_mut().find(|(used, _)| used + rows <= budget) {
            Some((used, members)) => {
                *used += rows;
                members.push(index);
            }
            None => bins.push((rows, vec![index])),
        }
    }
    bins.into_iter()
        .map(|(_, members)| lay(examples, members))
        .collect()
}

/// Adds an example to a pack, with a target per token of its responses, masked or not.
pub(crate) fn add(pack: &mut Pack, example: &Example) {
    let mut responses: Vec<&[u32]> = Vec::with_capacity(example.responses.len());
    for response in &example.responses {
        responses.push(&response.tokens);
    }
    pack.tree(&example.prompt, &responses);
}

fn lay(examples: &[&Example], mut members: Vec<usize>) -> PackedRows {
    members.sort_unstable();
    let mut packed = PackedRows {
        pack: Pack::default(),
        segments: Vec::new(),
    };
    for index in members {
        let example = examples[index];
        let mut start = packed.pack.targets.len();
        add(&mut packed.pack, example);
        for (which, response) in example.responses.iter().enumerate() {
            // From the back, so that removing targets does not move the ranges that are still to be
            // removed.
            for masked in response.masked.iter().rev() {
                let targets = start + masked.start..start + masked.end;
                packed.pack.targets.drain(targets);
            }
            let end = start + response.loss_tokens();
            packed.segments.push(Segment {
                example: index,
                response: which,
                targets: start..end,
            });
            start = end;
        }
    }
    packed.pack = packed.pack.with_shared_beginnings(SHARED);
    packed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example(row: usize, prompt: usize, responses: &[usize]) -> Example {
        let token = |i: usize| (row * 31 + i) as u32;
        Example {
            row,
            prompt: (0..prompt).map(token).collect(),
            responses: responses
                .iter()
                .map(|&len| (0..len).map(|i| token(i + 7)).collect::<Vec<_>>().into())
                .collect(),
        }
    }

    fn members(packs: &[PackedRows]) -> Vec<Vec<usize>> {
        let of = |packed: &PackedRows| {
            let mut found: Vec<usize> = packed
                .segments
                .iter()
                .map(|segment| segment.example)
                .collect();
            found.dedup();
            found
        };
        packs.iter().map(of).collect()
    }

    #[test]
    fn longest_first_into_the_first_pack_with_room() {
        let examples = [
            example(0, 2, &[2]),
            example(1, 5, &[4]),
            example(2, 3, &[2, 2]),
            example(3, 9, &[9]),
            example(4, 2, &[1]),
        ];
        assert_eq!(
            examples.iter().map(rows_of).collect::<Vec<_>>(),
            [3, 8, 5, 17, 2]
        );
        let examples: Vec<&Example> = examples.iter().collect();
        let packs = pack(&examples, 10);
        assert_eq!(
            members(&packs),
            [vec![3], vec![1, 4], vec![0, 2]],
            "the oversized example is alone"
        );
        assert_eq!(
            packs[2].segments[1],
            Segment {
                example: 2,
                response: 0,
                targets: 2..4
            }
        );
        assert_eq!(
            packs[2].segments[2],
            Segment {
                example: 2,
                response: 1,
                targets: 4..6
            }
        );
        assert_eq!(packs, pack(&examples, 10));
        assert_eq!(pack(&[], 10), []);
    }

    #[test]
    fn a_masked_token_is_no_target() {
        let mut both = [example(0, 2, &[6]), example(1, 3, &[2, 4])];
        let whole = pack(&both.iter().collect::<Vec<_>>(), 99);
        both[0].responses[0].masked = vec![1..3, 4..5];
        both[1].responses[1].masked = vec![0..2];
        let packs = pack(&both.iter().collect::<Vec<_>>(), 99);
        let segments: Vec<_> = packs[0]
            .segments
            .iter()
            .map(|segment| segment.targets.clone())
            .collect();
        assert_eq!(segments, [0..3, 3..5, 5..7]);
        let kept: Vec<_> = [0, 3, 5, 6, 7, 10, 11]
            .map(|i| whole[0].pack.targets[i])
            .to_vec();
        assert_eq!(
            (&packs[0].pack.targets, &packs[0].pack.tokens),
            (&kept, &whole[0].pack.tokens)
        );
    }

    #[test]
    fn a_system_prompt_is_there_once() {
        let with_system = |row: usize| Example {
            prompt: (1000..1000 + SHARED as u32)
                .chain(example(row, 4, &[]).prompt)
                .collect(),
            ..example(row, 4, &[3, 5])
        };
        let both = [with_system(0), with_system(1), with_system(2)];
        let packs = pack(&both.iter().collect::<Vec<_>>(), 999);
        assert_eq!(
            packs[0].pack.tokens.len(),
            both.iter().map(rows_of).sum::<usize>() - 2 * SHARED
        );
        assert_eq!(
            packs[0]
                .pack
                .spans
                .iter()
                .filter(|span| span.parent.is_none())
                .count(),
            1
        );
        let alone = pack(&[&both[2]], 999);
        let of_third = |packed: &PackedRows| {
            let segments = packed
                .segments
                .iter()
                .filter(|segment| segment.targets.start >= packed.pack.targets.len() - 8);
            let targets =
                segments.flat_map(|segment| packed.pack.targets[segment.targets.clone()].to_vec());
            let positions = packed.pack.positions();
            targets
                .map(|target| {
                    (
                        positions[target.row],
                        packed.pack.tokens[target.row],
                        target.token,
                    )
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(of_third(&packs[0]), of_third(&alone[0]));
    }

    proptest! {
        #[test]
        fn every_token_and_target_is_there_once(
            shapes in prop::collection::vec((1..12usize, prop::collection::vec(1..12usize, 1..3)), 0..30),
            budget in 1..60usize,
        ) {
            let examples: Vec<Example> =
                shapes.iter().enumerate().map(|(row, (prompt, responses))| example(row, *prompt, responses)).collect();
            let borrowed: Vec<&Example> = examples.iter().collect();
            let packs = pack(&borrowed, budget);
            let mut seen = vec![0; examples.len()];
            for packed in &packs {
                let positions = packed.pack.positions();
                let mut next = 0;
                for segment in &packed.segments {
                    prop_assert_eq!(segment.targets.start, next);
                    next = segment.targets.end;
                    let example = &examples[segment.example];
                    let tokens = &example.responses[segment.response].tokens;
                    seen[segment.example] += 1;
                    for (offset, target) in packed.pack.targets[segment.targets.clone()].iter().enumerate() {
                        prop_assert_eq!(target.token, tokens[offset]);
                        prop_assert_eq!(positions[target.row], example.prompt.len() + offset - 1);
                        let before = if offset == 0 { *example.prompt.last().unwrap() } else { tokens[offset - 1] };
                        prop_assert_eq!(packed.pack.tokens[target.row], before);
                    }
                }
                prop_assert_eq!(next, packed.pack.targets.len());
                let rows: usize = members(std::slice::from_ref(packed))[0].iter().map(|&index| rows_of(&examples[index])).sum();
                prop_assert_eq!(packed.pack.tokens.len(), rows);
                prop_assert!(rows <= budget || members(std::slice::from_ref(packed))[0].len() == 1);
            }
            for (example, seen) in examples.iter().zip(seen) {
                prop_assert_eq!(seen, example.responses.len());
            }
        }
    }
}
