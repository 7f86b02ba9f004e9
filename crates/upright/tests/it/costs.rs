//! What the methods compute, by the engine's own counters, on the embedded demo model: ALRIGHT the products of its SFT and
//! DPO steps and no other, MAXRIGHT besides its updates one forward pass of the loser every k steps.

use std::{ops::ControlFlow, path::Path};

use upright::{
    bench::{Base, Bench, Compared, Meter, StepCounts},
    demo::Demo,
};
use upright_base::progress::Silent;
use upright_core::{
    methods::{ALRIGHT, MAXRIGHT, MIX},
    train::{Method, ObjectiveId, train},
};
use upright_data::{Example, order::OrderState};
use upright_engine::{Counts, Options};
use upright_runs::settings::Config;
use upright_train::{learner::ModelLearner, packing::pack};

const STEPS: usize = 12;

/// A step, and what the next batches were when it began.
struct Seen {
    /// The objectives that were trained on.
    chosen: Vec<usize>,
    counts: StepCounts,
    orders: Vec<OrderState>,
}

fn open(dir: &Path) -> Bench {
    let path = |name: &str| toml::Value::String(dir.join(name).display().to_string());
    // Packs smaller than a batch, so that batches take several; a gap of SFT about as large as that of DPO, so that either wins.
    let text = format!(
        "model = {}\nsft = {}\ndpo = {}\nsft-batch = 6\ndpo-batch = 3\nlora-rank = 4\ntoken-budget = 160\n\
         max-length = 128\noptimum = \"sft=0.2,dpo=0\"\nrecompute = \"off\"\nthreads = 2\nlearning-rate = 1e-3\n",
        path("model"),
        path("instructions.jsonl"),
        path("preferences.jsonl")
    );
    let config = Config::parse(&text, "the test's settings").unwrap();
    Bench::open(&config, Base::Files, STEPS, &mut Silent).unwrap()
}

fn orders(learner: &ModelLearner<'_>) -> Vec<OrderState> {
    learner
        .tasks
        .iter()
        .map(|task| task.order.state())
        .collect()
}

fn restore(learner: &mut ModelLearner<'_>, orders: &[OrderState]) {
    learner
        .tasks
        .iter_mut()
        .zip(orders)
        .for_each(|(task, order)| task.order.restore(order).unwrap());
}

fn run(bench: &Bench, method: &mut dyn Method, steps: usize) -> Vec<Seen> {
    let mut meter = Meter::new(bench.learner().unwrap());
    let (mut seen, mut before) = (Vec::new(), orders(&meter.learner));
    train(&mut meter, method, 0..steps, |step, meter, _| {
        let chosen = (0..2).filter(|i| step.losses[*i].is_some()).collect();
        let orders = std::mem::replace(&mut before, orders(&meter.learner));
        seen.push(Seen {
            chosen,
            counts: meter.take(),
            orders,
        });
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    seen
}

fn total(seen: &[Seen]) -> Counts {
    seen.iter().map(|seen| seen.counts.total()).sum()
}

fn losers(seen: &[Seen]) -> Counts {
    seen.iter().map(|seen| seen.counts.losers()).sum()
}

/// The given objectives, one a step.
struct Given(Vec<usize>);

impl Method for Given {
    fn weights(&mut self, step: usize) -> Vec<f64> {
        (0..2)
            .map(|i| if i == self.0[step] { 1.0 } else { 0.0 })
            .collect()
    }
}

/// The same updates on the same batches, without looking.
fn replay(bench: &Bench, seen: &[Seen]) -> Counts {
    let mut meter = Meter::new(bench.learner().unwrap());
    let mut given = Given(seen.iter().map(|seen| seen.chosen[0]).collect());
    let mut counts = Counts::default();
    train(&mut meter, &mut given, 0..seen.len(), |step, meter, _| {
        counts = counts + meter.take().total();
        if let Some(next) = seen.get(step.index + 1) {
            restore(&mut meter.learner, &next.orders);
        }
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    counts
}

/// Forward passes, and nothing for a gradient, of the batch that an objective had next.
fn forward_passes(bench: &Bench, objective: ObjectiveId, orders: &[OrderState]) -> Counts {
    let mut learner = bench.learner().unwrap();
    restore(&mut learner, orders);
    let task = &learner.tasks[objective.0];
    let examples: Vec<&Example> = task
        .order
        .peek()
        .iter()
        .map(|&row| &task.train[row].example)
        .collect();
    let packs = pack(&examples, learner.token_budget);
    let before = bench.decoder().usage().counts;
    packs.iter().for_each(|packed| {
        _ = bench
            .decoder()
            .score(&packed.pack, Some(&learner.adapter))
            .unwrap();
    });
    let counts = bench.decoder().usage().counts - before;
    assert_eq!(
        counts.tokens_forward as usize,
        packs
            .iter()
            .map(|packed| packed.pack.tokens.len())
            .sum::<usize>()
    );
    assert_eq!(counts.tokens_backward, 0);
    counts
}

#[test]
fn methods_compute_what_they_say_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    Demo::new(dir.path(), &Options::default()).unwrap();
    let bench = open(dir.path());
    let method = |compared, steps| run(&bench, &mut *bench.method(compared), steps);

    let alright = method(Compared::Joint(&ALRIGHT, None), STEPS);
    let steps_of = |objective: usize| {
        alright
            .iter()
            .filter(|seen| seen.chosen == [objective])
            .count()
    };
    assert!(steps_of(0) > 0 && steps_of(1) > 0 && steps_of(0) + steps_of(1) == STEPS);
    let alone =
        [0, 1].map(|objective| total(&method(Compared::Alone(objective), steps_of(objective))));
    assert!(
        alone.iter().all(|counts| counts.products > 0
            && counts.attention > 0
            && counts.tokens_backward > 0)
    );
    assert_eq!(total(&alright), alone[0] + alone[1]);
    assert_eq!(losers(&alright), Counts::default());

    let both = [0, 1].map(|objective| total(&method(Compared::Alone(objective), STEPS)));
    assert_eq!(
        total(&method(Compared::Joint(&MIX, None), STEPS)),
        both[0] + both[1]
    );

    for k in [1, 5, 100] {
        let maxright = method(Compared::Joint(&MAXRIGHT, Some(k)), STEPS);
        let (total, losers) = (total(&maxright), losers(&maxright));
        let updates = replay(&bench, &maxright);
        assert_eq!(total - losers, updates, "k = {k}");
        assert!(
            losers.tokens_backward == 0 && losers.tokens_forward > 0,
            "k = {k}"
        );
        for (step, seen) in maxright.iter().enumerate() {
            let loser = ObjectiveId(1 - seen.chosen[0]);
            let looked = step.is_multiple_of(k);
            let expected = if looked {
                forward_passes(&bench, loser, &seen.orders)
            } else {
                Counts::default()
            };
            assert_eq!(seen.counts.losers(), expected, "k = {k}, step {step}");
        }
        let wins = [0, 1].map(|objective| {
            maxright
                .iter()
                .filter(|seen| seen.chosen == [objective])
                .count()
        });
        assert!(k > 1 || wins.iter().all(|wins| *wins > 0), "{wins:?}");
    }
}
