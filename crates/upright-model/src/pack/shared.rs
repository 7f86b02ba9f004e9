//! Stores common prefixes of roots once: the rest of each root becomes a child of its prefix.

use std::ops::Range;

use super::{Pack, Span, Target};

/// A stretch of tokens that roots have in common, and the stretches that follow it.
struct Node {
    /// The roots that share the stretch, ascending.
    roots: Vec<usize>,
    /// Range of the tokens, counted from the start of a root.
    stretch: Range<usize>,
    /// The roots that end with this stretch.
    ends: Vec<usize>,
    below: Vec<Node>,
}

pub(super) fn share(pack: Pack, least: usize) -> Pack {
    let roots: Vec<usize> = (0..pack.spans.len())
        .filter(|&span| pack.spans[span].parent.is_none())
        .collect();
    if roots.is_empty() {
        return pack;
    }
    let mut tops = Vec::new();
    group(&pack, roots, 0, least.max(1), &mut tops);
    tops.sort_by_key(|node| node.roots[0]);
    if tops
        .iter()
        .all(|node| node.below.is_empty() && node.roots.len() == 1)
    {
        return pack;
    }
    let mut continued = vec![Vec::new(); pack.spans.len()];
    let mut root_of: Vec<usize> = Vec::with_capacity(pack.spans.len());
    for (index, span) in pack.spans.iter().enumerate() {
        root_of.push(span.parent.map_or(index, |parent| root_of[parent]));
        if span.parent.is_some() {
            continued[root_of[index]].push(index);
        }
    }
    let (span, row) = (vec![0; pack.spans.len()], vec![0; pack.tokens.len()]);
    let mut laid = Laid {
        pack: Pack::default(),
        continued,
        span,
        row,
    };
    tops.iter().for_each(|node| laid.lay(&pack, node, None));
    let targets = pack
        .targets
        .iter()
        .map(|target| Target {
            row: laid.row[target.row],
            ..*target
        })
        .collect();
    Pack {
        targets,
        ..laid.pack
    }
}

fn root_tokens(pack: &Pack, root: usize) -> &[u32] {
    let Span { start, len, .. } = pack.spans[root];
    &pack.tokens[start..start + len]
}

/// Builds the nodes of roots that are equal before `from` and continue there.
fn group(pack: &Pack, roots: Vec<usize>, from: usize, least: usize, nodes: &mut Vec<Node>) {
    let tokens = |root: usize| root_tokens(pack, root);
    let (first, others) = roots.split_first().expect("a group has a root");
    let common = |root: &usize| {
        tokens(*first)
            .iter()
            .zip(tokens(*root))
            .take_while(|(a, b)| a == b)
            .count()
    };
    let to = others
        .iter()
        .map(common)
        .min()
        .unwrap_or(tokens(*first).len());
    let (ends, on): (Vec<usize>, Vec<usize>) =
        roots.iter().partition(|&&root| tokens(root).len() == to);
    if roots.len() == 1 || to - from >= least {
        let mut below = Vec::new();
        parts(pack, on, to)
            .into_iter()
            .for_each(|part| group(pack, part, to, least, &mut below));
        below.sort_by_key(|node| node.roots[0]);
        nodes.push(Node {
            roots,
            stretch: from..to,
            ends,
            below,
        });
        return;
    }
    // Too little to share: roots with more in common stay together, with their own copy of these
    // few tokens.
    for root in ends {
        nodes.push(Node {
            roots: vec![root],
            stretch: from..to,
            ends: vec![root],
            below: Vec::new(),
        });
    }
    parts(pack, on, to)
        .into_iter()
        .for_each(|part| group(pack, part, from, least, nodes));
}

/// Groups roots by their token at the index `at`, which all of them have.
fn parts(pack: &Pack, roots: Vec<usize>, at: usize) -> Vec<Vec<usize>> {
    let mut parts: std::collections::BTreeMap<u32, Vec<usize>> = std::collections::BTreeMap::new();
    for root in roots {
        parts
            .entry(root_tokens(pack, root)[at])
            .or_default()
            .push(root);
    }
    parts.into_values().collect()
}

/// The new pack under construction, and the new indices of the old spans and rows.
struct Laid {
    pack: Pack,
    /// Spans of the old pack below each of its roots, ascending.
    continued: Vec<Vec<usize>>,
    span: Vec<usize>,
    row: Vec<usize>,
}

impl Laid {
    fn lay(&mut self, old: &Pack, node: &Node, parent: Option<usize>) {
        let (row, stretch) = (self.pack.tokens.len(), node.stretch.clone());
        let span = self
            .pack
            .span(&root_tokens(old, node.roots[0])[stretch.clone()], parent);
        for &root in &node.roots {
            let start = old.spans[root].start;
            stretch
                .clone()
                .for_each(|i| self.row[start + i] = row + i - stretch.start);
        }
        for &root in &node.ends {
            self.span[root] = span;
            for index in std::mem::take(&mut self.continued[root]) {
                let Span { start, len, parent } = old.spans[index];
                let (parent, row) = (
                    parent.map(|parent| self.span[parent]),
                    self.pack.tokens.len(),
                );
                self.span[index] = self.pack.span(&old.tokens[start..start + len], parent);
                (0..len).for_each(|i| self.row[start + i] = row + i);
            }
        }
        node.below
            .iter()
            .for_each(|below| self.lay(old, below, Some(span)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every token with the tokens before it on its path.
    fn contexts(pack: &Pack) -> Vec<Vec<u32>> {
        let mut contexts: Vec<Vec<u32>> = Vec::new();
        for span in &pack.spans {
            let mut context = span.parent.map_or(Vec::new(), |p| {
                contexts[pack.spans[p].start + pack.spans[p].len - 1].clone()
            });
            for &token in &pack.tokens[span.start..span.start + span.len] {
                context.push(token);
                contexts.push(context.clone());
            }
        }
        contexts
    }

    fn asked(pack: &Pack) -> Vec<(Vec<u32>, u32)> {
        let contexts = contexts(pack);
        pack.targets
            .iter()
            .map(|target| (contexts[target.row].clone(), target.token))
            .collect()
    }

    #[test]
    fn a_beginning_in_common_is_there_once() {
        let mut pack = Pack::default();
        pack.tree(&[1, 2, 3, 4, 5, 6], &[&[7, 8], &[9, 8]]);
        pack.tree(&[9, 9, 9], &[&[1, 2]]);
        pack.tree(&[1, 2, 3, 4, 5, 7], &[&[7, 8, 9]]);
        pack.tree(&[1, 2, 3, 4, 5, 7], &[&[6, 5], &[4, 3]]);
        pack.tree(&[1, 2, 3], &[&[5, 5]]);
        let late = pack.child(0, &[9, 5]);
        assert_eq!(
            pack.spans[late].parent,
            Some(0),
            "a child need not follow its root directly"
        );
        let shared = pack.clone().with_shared_beginnings(3);
        assert_eq!(asked(&shared), asked(&pack));
        let stretches: Vec<&[u32]> = shared
            .spans
            .iter()
            .map(|s| &shared.tokens[s.start..s.start + s.len])
            .collect();
        assert_eq!(
            stretches,
            [
                &[1, 2, 3][..],
                &[5],
                &[4, 5, 6],
                &[7],
                &[9],
                &[9, 5],
                &[4, 5, 7],
                &[7, 8],
                &[6],
                &[4],
                &[9, 9, 9],
                &[1]
            ]
        );
        let parents: Vec<_> = shared.spans.iter().map(|span| span.parent).collect();
        let (top, first, second, alone) = (Some(0), Some(2), Some(6), Some(10));
        assert_eq!(
            parents,
            [
                None, top, top, first, first, first, top, second, second, second, None, alone
            ]
        );
    }

    #[test]
    fn packs_without_one_stay_as_they_are() {
        let mut pack = Pack::default();
        pack.tree(&[1, 2, 3, 4], &[&[7, 8], &[9, 8]]);
        pack.tree(&[1, 2, 9], &[&[1]]);
        pack.tree(&[1, 2], &[&[1]]);
        assert_eq!(pack.clone().with_shared_beginnings(3), pack);
        assert_eq!(Pack::default().with_shared_beginnings(1), Pack::default());
    }

    #[test]
    fn whatever_is_asked_is_asked_still() {
        // Short prompts over two token ids have long common prefixes.
        let mut state = 1u64;
        let mut draw = |n: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for least in [1, 2, 3, 5] {
            for _ in 0..200 {
                let mut pack = Pack::default();
                for _ in 0..1 + draw(9) {
                    let mut text = |most: u64| {
                        (0..1 + draw(most))
                            .map(|_| draw(2) as u32)
                            .collect::<Vec<u32>>()
                    };
                    let (prompt, chosen, rejected) = (text(9), text(4), text(4));
                    pack.tree(&prompt, &[&chosen, &rejected]);
                }
                let shared = pack.clone().with_shared_beginnings(least);
                assert_eq!(asked(&shared), asked(&pack));
                assert!(shared.tokens.len() <= pack.tokens.len());
                let mut end = 0;
                for (index, span) in shared.spans.iter().enumerate() {
                    assert!(
                        span.start == end
                            && span.len > 0
                            && span.parent.is_none_or(|parent| parent < index)
                    );
                    end += span.len;
                }
                assert_eq!(end, shared.tokens.len());
            }
        }
    }
}
