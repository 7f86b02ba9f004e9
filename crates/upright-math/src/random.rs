//! Random numbers as functions of a seed and a position, never of earlier draws. There is no state
//! to save.

/// Increment of the generator's state per output.
pub const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's output (Steele, Lea and Flood 2014) for the state `z`.
pub fn splitmix(z: u64) -> u64 {
    let z = z.wrapping_add(GOLDEN);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Output number `index` of the generator with initial state 0: scatters a counter over 64 bits.
pub fn scattered(index: u64) -> u64 {
    splitmix(index.wrapping_mul(GOLDEN))
}

/// Number `index` of the stream of `seed`, uniform in [0, 1).
pub fn uniform(seed: u64, index: u64) -> f64 {
    let drawn = splitmix(splitmix(seed).wrapping_add(index.wrapping_mul(GOLDEN)));
    (drawn >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_splitmix64() {
        // First outputs of the published generator for seed 1234567.
        let state = |i: u64| 1_234_567u64.wrapping_add(i.wrapping_mul(GOLDEN));
        let found = [0, 1, 2].map(|i| splitmix(state(i)));
        assert_eq!(
            found,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    /// The first outputs from state 0, as published by the generator's author.
    #[test]
    fn a_counter_is_scattered() {
        assert_eq!(scattered(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(scattered(1), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn uniform_numbers_fill_the_interval_evenly() {
        let mean = (0..100_000).map(|i| uniform(42, i)).sum::<f64>() / 1e5;
        assert!((mean - 0.5).abs() < 3e-3);
        assert!((0..1000).all(|i| (0.0..1.0).contains(&uniform(7, i))));
    }
}
