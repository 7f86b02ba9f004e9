//! The paper's claims as questions to the numbers in front of us: each holds here or does not.

use serde::Serialize;

use super::Compared;
use crate::metrics::Spread;

/// A claim of the paper, asked of the runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claim {
    /// What is claimed.
    pub text: String,
    /// Whether it holds on held-out rows and on training rows; the same twice where rows play no part.
    pub holds: [bool; 2],
    /// The numbers that decide, on training rows.
    pub because: String,
}

/// How much more time than Sequential still counts as about the same.
const ABOUT_THE_SAME: f64 = 1.25;

fn method<'a>(all: &'a [Compared], name: &str) -> &'a Compared {
    all.iter().find(|compared| compared.method == name).expect("every method was run")
}

fn figure(spread: &Spread) -> String {
    format!("{:.3} ± {:.3}", spread.mean, spread.error)
}

/// Asks every claim of the methods compared.
pub fn claims(all: &[Compared]) -> Vec<Claim> {
    let (dpo_first, sft_first) = (method(all, "dpo, then sft"), method(all, "sft, then dpo"));
    let (mix, alright, maxright) = (method(all, "mix"), method(all, "alright"), method(all, "maxright"));
    let joint = [alright, maxright];
    let each = |asked: &dyn Fn(usize) -> bool| [asked(0), asked(1)];

    let forgets_dpo = Claim {
        text: "DPO, then SFT forgets the preferences: its DPO gap is larger than ALRIGHT's and MAXRIGHT's".into(),
        holds: each(&|set| joint.iter().all(|method| method.dpo_gap[set].clearly_below(&dpo_first.dpo_gap[set]))),
        because: format!(
            "{} against {} and {}",
            figure(&dpo_first.dpo_gap[1]),
            figure(&alright.dpo_gap[1]),
            figure(&maxright.dpo_gap[1])
        ),
    };
    let forgets_sft = Claim {
        text: "SFT, then DPO forgets the instructions: its SFT gap is larger than ALRIGHT's and MAXRIGHT's".into(),
        holds: each(&|set| joint.iter().all(|method| method.sft_gap[set].clearly_below(&sft_first.sft_gap[set]))),
        because: format!(
            "{} against {} and {}",
            figure(&sft_first.sft_gap[1]),
            figure(&alright.sft_gap[1]),
            figure(&maxright.sft_gap[1])
        ),
    };
    let nearer = Claim {
        text: "ALRIGHT and MAXRIGHT end nearer to the ideal point than Sequential in either order".into(),
        holds: each(&|set| {
            let sequential = [dpo_first, sft_first];
            joint.iter().all(|method| {
                sequential.iter().all(|other| method.ideal_distance[set].clearly_below(&other.ideal_distance[set]))
            })
        }),
        because: format!(
            "{} and {} against {} and {}",
            figure(&alright.ideal_distance[1]),
            figure(&maxright.ideal_distance[1]),
            figure(&dpo_first.ideal_distance[1]),
            figure(&sft_first.ideal_distance[1])
        ),
    };
    let nearest = Claim {
        text: "MAXRIGHT ends nearest to the ideal point of all".into(),
        holds: each(&|set| {
            let others = all.iter().filter(|other| other.method != maxright.method);
            others.into_iter().all(|other| maxright.ideal_distance[set].mean < other.ideal_distance[set].mean)
        }),
        because: all
            .iter()
            .map(|m| format!("{} {}", m.method, figure(&m.ideal_distance[1])))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let sequential = (dpo_first.seconds.mean + sft_first.seconds.mean) / 2.0;
    let cost = |compared: &Compared| compared.seconds.mean / sequential;
    let cheap = joint.iter().all(|method| cost(method) < ABOUT_THE_SAME) && cost(mix) > ABOUT_THE_SAME;
    let cost = Claim {
        text: format!(
            "ALRIGHT and MAXRIGHT cost about what Sequential costs (less than {ABOUT_THE_SAME} times), Mix more"
        ),
        holds: [cheap; 2],
        because: format!("time against Sequential: {:.2}, {:.2}; Mix {:.2}", cost(alright), cost(maxright), cost(mix)),
    };
    vec![forgets_dpo, forgets_sft, nearer, nearest, cost]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A method with these gaps on both sets and these seconds.
    fn compared(method: &str, sft_gap: f64, dpo_gap: f64, seconds: f64) -> Compared {
        let both = |mean: f64| [Spread { mean, error: 0.01 }; 2];
        Compared {
            method: method.into(),
            sft: both(1.0 + sft_gap),
            dpo: both(dpo_gap),
            sft_gap: both(sft_gap),
            dpo_gap: both(dpo_gap),
            ideal_distance: both(sft_gap.hypot(dpo_gap)),
            seconds: Spread { mean: seconds, error: 0.0 },
            tokens: Spread { mean: 1e4, error: 0.0 },
        }
    }

    fn story(maxright: (f64, f64), mix_seconds: f64) -> Vec<bool> {
        let all = [
            compared("dpo, then sft", 0.1, 0.9, 10.0),
            compared("sft, then dpo", 0.8, 0.1, 10.0),
            compared("mix", 0.2, 0.2, mix_seconds),
            compared("alright", 0.3, 0.2, 10.0),
            compared("maxright", maxright.0, maxright.1, 11.0),
        ];
        claims(&all).into_iter().map(|claim| claim.holds[1]).collect()
    }

    #[test]
    fn claims_hold_where_the_numbers_say_so_and_only_there() {
        assert_eq!(story((0.1, 0.1), 18.0), [true; 5]);
        // MAXRIGHT as bad as DPO, then SFT at preferences: it keeps nothing, is not nearer, and not nearest.
        assert_eq!(story((0.1, 0.9), 18.0), [false, true, false, false, true]);
        // Between: nearer than Sequential, not nearer than Mix.
        assert_eq!(story((0.3, 0.25), 18.0), [true, true, true, false, true]);
        assert_eq!(story((0.1, 0.1), 12.0), [true, true, true, true, false]);
    }
}
