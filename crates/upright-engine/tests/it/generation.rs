//! Generation from key-value caches gives the same next-token predictions as scoring the whole
//! sequence.

use upright_base::ErrorKind;
use upright_engine::{
    Decoder, DeviceAdapter, Options,
    generation::{Prompt, SequenceId, Want},
};
use upright_model::{
    pack::{Pack, Target},
    peft,
};

use super::{goldens, machine};

fn open(name: &str, options: &Options) -> (Decoder, DeviceAdapter) {
    let dir = goldens::folder(name);
    let decoder = Decoder::open(&dir, options).unwrap();
    let folder = peft::read(&dir.join("adapter"), decoder.config()).unwrap();
    let adapter = decoder.load(folder.adapter).unwrap();
    (decoder, adapter)
}

/// Log-probability of every token of the vocabulary after `sequence`, by scoring the whole
/// sequence.
fn whole(decoder: &Decoder, adapter: &DeviceAdapter, sequence: &[u32]) -> Vec<f64> {
    let mut pack = Pack::default();
    pack.root(sequence);
    let row = sequence.len() - 1;
    pack.targets = (0..decoder.config().vocab as u32)
        .map(|token| Target { row, token })
        .collect();
    decoder.score(&pack, Some(adapter)).unwrap().logp
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|z| f64::from(z - largest).exp()).sum();
    logits
        .iter()
        .map(|z| f64::from(z - largest) - sum.ln())
        .collect()
}

/// Log-probabilities of every token of the vocabulary after every prefix of some sequences: from
/// key-value caches, and by scoring whole sequences.
fn along_sequences(name: &str, options: &Options) -> [Vec<f64>; 2] {
    let (decoder, adapter) = open(name, options);
    let [mut cached, mut scored] = [Vec::new(), Vec::new()];
    // The windows of mistral, qwen2 and qwen2_wide are 8 tokens: the sequences run past them.
    let mut sequences: Vec<Vec<u32>> = vec![vec![5, 9, 31, 7, 2, 60], vec![11], (1..12).collect()];
    let prompts: Vec<&[u32]> = sequences.iter().map(|s| &s[..]).collect();
    let mut generation = decoder.generation(Some(&adapter), None);
    let mut live = generation.join(&prompts, Want::Logits).unwrap();
    let ids: Vec<SequenceId> = live.iter().map(|(id, _)| *id).collect();
    for step in 0..8 {
        let mut added: Vec<(SequenceId, [u32; 1])> = Vec::new();
        for (id, next) in &live {
            let index = ids.iter().position(|other| other == id).unwrap();
            let logits = next.logits();
            assert!(logits.iter().all(|z| z.is_finite()));
            cached.extend(log_softmax(logits));
            scored.extend(whole(&decoder, &adapter, &sequences[index]));
            // The same token on every device.
            let token = (7 * step + index) as u32 + 3;
            sequences[index].push(token);
            added.push((*id, [token]));
        }
        // The second sequence leaves halfway.
        if step == 3 {
            generation.leave(ids[1]);
            added.retain(|(id, _)| *id != ids[1]);
        }
        let tokens: Vec<(SequenceId, &[u32])> =
            added.iter().map(|(id, token)| (*id, &token[..])).collect();
        let next = generation.advance(&tokens, Want::Logits).unwrap();
        live = added.iter().map(|(id, _)| *id).zip(next).collect();
    }
    assert_eq!(generation.length(ids[1]), None);
    let unknown = generation.advance(&[(ids[0], &[u32::MAX])], Want::Logits);
    assert_eq!(unknown.unwrap_err().kind, ErrorKind::Input);
    [cached, scored]
}

fn rms(a: &[f64], b: &[f64]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

#[test]
fn a_cached_step_is_a_whole_pass_in_every_family() {
    for name in &goldens::names() {
        let [cached, truth] = along_sequences(name, &machine::exact());
        let off = cached
            .iter()
            .zip(&truth)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(off < 1e-4, "{name}: off by {off:e}");
        for options in machine::rounding()
            .into_iter()
            .filter(|options| machine::takes(options, name))
        {
            // A cache rounds what a whole pass rounds, and no more.
            let device = machine::name(&options);
            let [cached, scored] = along_sequences(name, &options).map(|found| rms(&found, &truth));
            println!(
                "{name}, {device}: root mean square error {cached:.5} cached, {scored:.5} scored"
            );
            assert!(
                cached > 0.0 && cached < 1.1 * scored,
                "{name}, {device}: {cached} against {scored}"
            );
        }
    }
}

/// Two continuations of a prefix that is computed once, several tokens at a time, beside a sequence
/// that joins late: the same bits as each of them alone, one token at a time.
#[test]
fn a_prefix_can_be_kept_and_neighbors_change_nothing() {
    for options in machine::all() {
        for name in goldens::names()
            .iter()
            .filter(|name| machine::runs_often(&options, name))
        {
            let device = machine::name(&options);
            let (decoder, adapter) = open(name, &options);
            let prefix = [5u32, 9, 31, 7, 2, 60, 11, 3, 8];
            let suffixes: [&[u32]; 2] = [&[4, 17, 22], &[6]];
            let mut alone = Vec::new();
            for suffix in suffixes {
                let mut generation = decoder.generation(Some(&adapter), None);
                let joined = generation.join(&[&prefix], Want::Logits).unwrap();
                let mut next = joined[0].1.clone();
                for token in suffix {
                    let tokens = [(joined[0].0, std::slice::from_ref(token))];
                    next = generation.advance(&tokens, Want::Logits).unwrap().remove(0);
                }
                alone.push(next);
            }
            let mut generation = decoder.generation(Some(&adapter), None);
            let kept = generation.join(&[&prefix], Want::Best(1)).unwrap()[0].0;
            let first = generation.fork(kept).unwrap();
            let second = generation.fork(kept).unwrap();
            let late = generation.join(&[&[40, 41]], Want::Best(1)).unwrap()[0].0;
            let tokens = [
                (second, suffixes[1]),
                (late, &[9][..]),
                (first, suffixes[0]),
            ];
            let next = generation.advance(&tokens, Want::Logits).unwrap();
            assert_eq!(next[0], alone[1], "{name}, {device}");
            assert_eq!(next[2], alone[0], "{name}, {device}");
            assert_eq!(generation.length(kept), Some(prefix.len()));
            assert_eq!(generation.length(first), Some(prefix.len() + 3));
        }
    }
}

/// A prompt of which an earlier sequence knows a part, beside others, has the bits of the same prompt
/// alone: every log-probability, the candidates, the next token and the steps after it. The
/// log-probabilities are those of a scored pack.
#[test]
fn a_known_beginning_changes_no_bit() {
    for options in machine::all() {
        for name in goldens::names()
            .iter()
            .filter(|name| machine::runs_often(&options, name))
        {
            let place = format!("{name}, {}", machine::name(&options));
            let (decoder, adapter) = open(name, &options);
            let text: Vec<u32> = (0..70).map(|i| (i * 7 + i * i) % 61).collect();
            let other: Vec<u32> = text[..40].iter().copied().chain([1, 2, 3]).collect();
            let alone = |tokens: &[u32]| {
                let mut generation = decoder.generation(Some(&adapter), None);
                let prompt = Prompt {
                    tokens,
                    after: None,
                    keep: true,
                };
                let reading = generation
                    .read(&[prompt], Some(3), Want::Logits)
                    .unwrap()
                    .remove(0);
                let added = [(reading.sequence.unwrap(), &[9u32, 8][..])];
                let later = generation.advance(&added, Want::Logits).unwrap();
                (reading, later)
            };
            let (whole, later) = alone(&text);
            let (whole_other, later_other) = alone(&other);

            let mut pack = Pack::default();
            pack.tree(&text[..1], &[&text[1..]]);
            let scores = decoder.score(&pack, Some(&adapter)).unwrap();
            let logp: Vec<f64> = whole.following.iter().map(|one| one.logp).collect();
            assert_eq!(logp, scores.logp, "{place}");
            for (one, token) in whole.following.iter().zip(&text[1..]) {
                let listed = one.best.iter().find(|best| best.token == *token);
                assert!(listed.is_none_or(|best| best.logp == one.logp), "{place}");
                let greedy = one.best[0].logp;
                assert!(one.logp <= greedy && one.best[1].logp <= greedy, "{place}");
            }

            for known in [1, 8, 33, 40, 69] {
                let mut generation = decoder.generation(Some(&adapter), None);
                let earlier = generation.join(&[&text], Want::Best(1)).unwrap()[0].0;
                let stranger = [5u32, 6, 7];
                let prompt = |tokens, after| Prompt {
                    tokens,
                    after,
                    keep: true,
                };
                let prompts = [
                    prompt(&text[..], Some((earlier, known))),
                    prompt(&stranger[..], None),
                    prompt(&other[..], Some((earlier, known.min(38)))),
                ];
                let read = generation.read(&prompts, Some(3), Want::Logits).unwrap();
                assert_eq!(read[0].following, whole.following[known..], "{place}");
                assert_eq!(read[0].next, whole.next, "{place}");
                let from = known.min(38);
                assert_eq!(read[2].following, whole_other.following[from..], "{place}");
                assert_eq!(read[2].next, whole_other.next, "{place}");
                let added = [
                    (read[0].sequence.unwrap(), &[9u32, 8][..]),
                    (read[2].sequence.unwrap(), &[9u32, 8][..]),
                ];
                let after = generation.advance(&added, Want::Logits).unwrap();
                assert_eq!(after[0], later[0], "{place}");
                assert_eq!(after[1], later_other[0], "{place}");
            }
        }
    }
}

#[test]
fn keys_and_values_stay_within_their_limit() {
    let (decoder, adapter) = open("llama", &machine::exact());
    let prompt: Vec<u32> = (1..60).collect();
    let one = {
        let mut generation = decoder.generation(Some(&adapter), None);
        generation.join(&[&prompt], Want::Best(1)).unwrap();
        generation.bytes()
    };
    let mut generation = decoder.generation(Some(&adapter), Some(2 * one));
    assert!(generation.fits(&[prompt.len(), prompt.len()], 0));
    assert!(!generation.fits(&[prompt.len(), prompt.len()], 60));
    let joined = generation.join(&[&prompt, &prompt], Want::Best(1)).unwrap();
    let error = generation.join(&[&prompt], Want::Best(1)).unwrap_err();
    assert!(error.message.contains("and the limit is"), "{error}");
    assert!(generation.fork(joined[0].0).is_err());
    // A sequence may grow within its allocated memory, and no further.
    generation
        .advance(&[(joined[0].0, &[1])], Want::Best(1))
        .unwrap();
    let many = [1u32; 64];
    assert!(
        generation
            .advance(&[(joined[0].0, &many)], Want::Best(1))
            .is_err()
    );
    generation.leave(joined[1].0);
    generation
        .advance(&[(joined[0].0, &many)], Want::Best(1))
        .unwrap();
}
