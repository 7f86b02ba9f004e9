//! Python's `random.Random(text).random()`: the Mersenne Twister MT19937 (Matsumoto and Nishimura
//! 1998), seeded from a string as CPython's version 2 does. AlpacaEval decides with it which answer
//! of a pair is shown first.

use sha2::{Digest, Sha512};

/// Words of the state.
const SIZE: usize = 624;
/// Distance of the words that are mixed.
const MIDDLE: usize = 397;

/// The first number that `random.Random(text).random()` gives, in [0, 1).
pub(crate) fn first_number(text: &str) -> f64 {
    let mut state = seeded(&key(text));
    // A double takes the upper 27 and 26 bits of two outputs.
    let high = next(&mut state, 0) >> 5;
    let low = next(&mut state, 1) >> 6;
    (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
}

/// A string as the generator's key: its bytes and their SHA-512 are one big-endian integer, cut into
/// words of 32 bits, the lowest first.
fn key(text: &str) -> Vec<u32> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.extend(Sha512::digest(text.as_bytes()));
    let mut words = Vec::with_capacity(bytes.len() / 4 + 1);
    for chunk in bytes.rchunks(4) {
        let mut word = 0;
        for byte in chunk {
            word = word << 8 | u32::from(*byte);
        }
        words.push(word);
    }
    while words.len() > 1 && words.last() == Some(&0) {
        words.pop();
    }
    words
}

/// `init_by_array` of MT19937.
fn seeded(key: &[u32]) -> [u32; SIZE] {
    let mut state = [0_u32; SIZE];
    state[0] = 19_650_218;
    for i in 1..SIZE {
        let before = state[i - 1];
        let mixed = before ^ (before >> 30);
        state[i] = mixed.wrapping_mul(1_812_433_253).wrapping_add(i as u32);
    }
    let mut i = 1;
    let mut j = 0;
    for _ in 0..SIZE.max(key.len()) {
        let before = state[i - 1];
        let mixed = (before ^ (before >> 30)).wrapping_mul(1_664_525);
        state[i] = (state[i] ^ mixed)
            .wrapping_add(key[j])
            .wrapping_add(j as u32);
        i += 1;
        j = (j + 1) % key.len();
        if i == SIZE {
            state[0] = state[SIZE - 1];
            i = 1;
        }
    }
    for _ in 1..SIZE {
        let before = state[i - 1];
        let mixed = (before ^ (before >> 30)).wrapping_mul(1_566_083_941);
        state[i] = (state[i] ^ mixed).wrapping_sub(i as u32);
        i += 1;
        if i == SIZE {
            state[0] = state[SIZE - 1];
            i = 1;
        }
    }
    state[0] = 0x8000_0000;
    state
}

/// Output number `index` of a seeded generator, for the first `SIZE - MIDDLE` outputs, which need no
/// word that was computed before.
fn next(state: &mut [u32; SIZE], index: usize) -> u32 {
    let joined = (state[index] & 0x8000_0000) | (state[index + 1] & 0x7FFF_FFFF);
    let mut word = state[index + MIDDLE] ^ (joined >> 1);
    if joined & 1 == 1 {
        word ^= 0x9908_B0DF;
    }
    state[index] = word;
    word ^= word >> 11;
    word ^= (word << 7) & 0x9D2C_5680;
    word ^= (word << 15) & 0xEFC6_0000;
    word ^ (word >> 18)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_python() {
        // python3 -c 'import random; print(random.Random("is_switched_outputs" + text + "0").random())'
        for (text, expected) in [
            ("What is 2+2?", 0.056_319_243_920_208_04),
            ("Name a colour.", 0.702_098_229_508_372_3),
            ("garbage in", 0.595_886_002_145_476_9),
            ("Same?", 0.513_039_058_590_283_5),
        ] {
            let text = format!("is_switched_outputs{text}0");
            assert_eq!(first_number(&text), expected, "{text}");
        }
        // Empty, beyond ASCII, a key longer than the state, a leading zero byte.
        let long = "x".repeat(3000);
        for (text, expected) in [
            ("", 0.960_225_652_564_187_5),
            ("a", 0.272_029_537_753_475_7),
            (
                "Gr\u{fc}\u{df}e, \u{4e16}\u{754c} \u{1f994}",
                0.409_011_219_499_990_3,
            ),
            (&long, 0.474_222_979_127_289_83),
            ("\0zero", 0.131_453_984_449_035_22),
        ] {
            assert_eq!(first_number(text), expected, "{text}");
        }
    }
}
