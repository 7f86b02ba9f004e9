//! Configs in TOML and the plans that they resolve to.

mod effects;
mod hostile;
mod mistakes;
mod older;

use std::path::Path;

use clap::Args;

use super::*;
use crate::settings::Config;
use crate::settings::checks::Choice;
use crate::settings::shared::token_budget_of;
use upright_core::objectives::{DPO, IPO, ORPO, RPO, SFT, SIMPO};

/// A folder with all files and folders that a config may name.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["model", "adapter"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in ["sft.json", "dpo.jsonl", "held.json"] {
            std::fs::write(folder.path().join(name), "[]").unwrap();
        }
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// `@` stands for the folder.
    fn config(&self, text: &str) -> Config {
        Config::parse(
            &text.replace('@', self.path().to_str().unwrap()),
            "run.toml",
        )
        .unwrap()
    }

    fn plan(&self, text: &str) -> Plan {
        Plan::from_config(&self.config(text)).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn both(&self, text: &str) -> Plan {
        self.plan(&format!("{BOTH}{text}"))
    }

    fn three(&self, top: &str, text: [&str; 3]) -> Config {
        let [a, b, c] = text;
        self.config(&format!(
            "{BASE}{top}\n[[objective]]\nname='a'\nloss='sft'\ndata='@/sft.json'\n{a}\n[[objective]]\nname='b'\nloss='dpo'\n\
             data='@/dpo.jsonl'\n{b}\n[[objective]]\nname='c'\nloss='ipo'\ndata='@/dpo.jsonl'\n{c}"
        ))
    }

    /// Objectives `a`, `b`, ... with these losses and further settings.
    fn losses(&self, top: &str, losses: &[(&str, &str)]) -> Config {
        let objectives = losses
            .iter()
            .zip("abc".chars())
            .map(|((loss, more), name)| {
                let data = if *loss == "sft" {
                    "sft.json"
                } else {
                    "dpo.jsonl"
                };
                format!("[[objective]]\nname='{name}'\nloss='{loss}'\ndata='@/{data}'\n{more}\n")
            });
        self.config(&format!("{BASE}{top}\n{}", objectives.collect::<String>()))
    }
}

const BASE: &str = "model = '@/model'\nout = '@/run'\n";
const BOTH: &str = "model = '@/model'\nout = '@/run'\nsft = '@/sft.json'\ndpo = '@/dpo.jsonl'\n";

#[test]
fn defaults_are_those_of_the_help() {
    let plan = Place::new().both("");
    let command = Config::augment_args(clap::Command::new("train"));
    let help = |flag: &str| {
        let argument = command
            .get_arguments()
            .find(|argument| argument.get_long() == Some(flag))
            .expect(flag);
        let text = argument.get_help().unwrap().to_string();
        text.split("[default: ")
            .nth(1)
            .unwrap()
            .trim_end_matches(']')
            .to_owned()
    };
    let objective = |i: usize| &plan.objectives[i];
    let OptimizerPlan {
        learning_rate,
        warmup,
        clip,
        adamw,
        ..
    } = plan.optimizer;
    let numbers = [
        ("lora-rank", plan.lora.rank as f64),
        ("sft-batch", objective(0).batch as f64),
        ("dpo-batch", objective(1).batch as f64),
        ("held-out", plan.held_out),
        ("max-length", plan.max_length as f64),
        ("lambda", objective(1).weight),
        (
            "probe-every",
            plan.method_settings.count("probe-every") as f64,
        ),
        ("dpo-alpha", Objective::new(&RPO).settings.number("alpha")),
        ("dpo-gamma", Objective::new(&SIMPO).settings.number("gamma")),
        (
            "label-smoothing",
            objective(1).settings.number("label-smoothing"),
        ),
        ("learning-rate", learning_rate),
        ("warmup", warmup as f64),
        ("weight-decay", adamw.weight_decay),
        ("clip", clip),
        ("seed", plan.seed as f64),
        ("eval-every", plan.eval_every as f64),
        ("eval-rows", plan.eval_rows as f64),
        ("checkpoint-every", plan.checkpoint_every as f64),
        ("keep", plan.keep as f64),
    ];
    for (flag, value) in numbers {
        assert_eq!(help(flag).parse(), Ok(value), "{flag}");
    }
    let on_gpu = token_budget_of(Device::Cuda(0));
    assert_eq!(
        help("token-budget"),
        format!("{}; {on_gpu} on a GPU", plan.token_budget)
    );
    let simpo = Objective::new(&SIMPO).settings.number("beta");
    assert_eq!(
        help("beta"),
        format!(
            "{}; {simpo} for simpo",
            objective(1).settings.number("beta")
        )
    );
    assert!(
        [&IPO, &RPO, &ORPO]
            .iter()
            .all(|loss| Objective::new(loss).settings.number("beta") == 0.1)
    );
    assert_eq!(help("method"), plan.method.name);
    assert_eq!(help("draws"), plan.method_settings.choice("draws"));
    let mix = Place::new().both("method = 'mix'");
    assert_eq!(
        help("mix-batches"),
        mix.method_settings.choice("mix-batches")
    );
    assert_eq!(help("average"), plan.average.name());
    assert_eq!(help("export-iterate"), plan.export_iterate.name());
    let compromise = Place::new().both("method = 'compromise'");
    assert_eq!(
        help("power").parse(),
        Ok(compromise.method_settings.number("power"))
    );
    assert_eq!(plan.method_settings.get("power"), None);
    assert_eq!(help("too-long"), name(plan.too_long));
    assert_eq!(help("schedule"), name(plan.optimizer.schedule));
    assert_eq!(help("recompute"), name(plan.recompute));
    assert_eq!(
        (help("epochs").as_str(), plan.length),
        ("1", Some(Length::Epochs(1.0)))
    );
    assert_eq!(
        (help("reference").as_str(), &plan.reference),
        ("none", &ReferencePlan::Base)
    );
    assert_eq!(
        (help("dpo-loss").as_str(), objective(1).loss),
        ("sigmoid", &DPO)
    );
    assert_eq!((plan.min_prompt, plan.lora.alpha), (64, 16.0));
    assert_eq!(plan.lora.targets, [help("lora-targets")]);
    assert_eq!((adamw.betas, adamw.eps), ([0.9, 0.95], 1e-8));
    assert!(plan.threads >= 1 && plan.init_adapter.is_none() && plan.stages.is_empty());
}

fn name<T: Choice>(value: T) -> String {
    value.name().to_owned()
}

#[test]
fn lambda_is_the_weight_of_dpo_and_dpo_wins_ties() {
    let place = Place::new();
    let weights = |text: &str| place.both(text).weights();
    assert_eq!(weights("lambda = 0.25"), [0.75, 0.25]);
    assert_eq!(
        (weights("lambda = 0"), weights("lambda = 1")),
        (vec![1.0, 0.0], vec![0.0, 1.0])
    );
    let plan = place.both("");
    assert_eq!(
        plan.objectives
            .iter()
            .map(|o| (o.name.as_str(), o.tie_rank))
            .collect::<Vec<_>>(),
        [("sft", 1), ("dpo", 0)]
    );
    let alone = place.plan(&format!("{BASE}dpo = '@/dpo.jsonl'\nlambda = 1"));
    assert_eq!(
        (alone.weights(), alone.objectives[0].tie_rank),
        (vec![1.0], 0)
    );
    let alone = place.plan(&format!("{BASE}sft = '@/sft.json'\nlambda = 0"));
    assert!(alone.weights() == [1.0] && !alone.needs_reference());
}

#[test]
fn written_values_reach_the_plan() {
    let plan = Place::new().both(
        "method = 'sequential'\nstages = 'dpo:1e2, sft:1.5e'\noptimum = 'dpo=0.06,sft=1.49'\noptimum-eval = { sft = 2 }\n\
         reference = 'train:sft'\nsft-batch = 24\nreference-epochs = 6\ndpo-loss = 'ipo'\nbeta = 0.2\nsft-rows = 100\n\
         lora-rank = 32\nlora-targets = 'q_proj,v_proj'\nmax-length = 40\ndpo-eval = '@/held.json'\ninit-adapter = '@/adapter'",
    );
    assert_eq!(
        plan.stages[0],
        StagePlan {
            objective: 1,
            length: Length::Steps(100)
        }
    );
    assert_eq!(
        plan.stages[1],
        StagePlan {
            objective: 0,
            length: Length::Epochs(1.5)
        }
    );
    assert_eq!(plan.length, None);
    assert_eq!(
        (plan.optima(), plan.optima_eval()),
        (vec![Some(1.49), Some(0.06)], vec![Some(2.0), None])
    );
    assert_eq!(
        plan.reference,
        ReferencePlan::Train {
            on: ReferenceRows::Sft,
            epochs: 6.0,
            batch: 24,
            rows: None,
            learning_rate: None,
        }
    );
    assert_eq!(plan.objective(1), Objective::new(&IPO).with("beta", 0.2));
    assert_eq!(
        (plan.objectives[0].rows, plan.objectives[1].rows),
        (Some(100), None)
    );
    assert_eq!(
        (plan.lora.alpha, plan.lora.targets.len(), plan.min_prompt),
        (32.0, 2, 10)
    );
    assert!(
        plan.objectives[1].eval_data.as_ref().unwrap().shards[0].ends_with("held.json")
            && plan.init_adapter.is_some()
    );
}

#[test]
fn any_number_of_objectives() {
    let place = Place::new();
    let config = place.three(
        "optimum = 'c=0.5'\nbeta = 0.3",
        [
            "weight = 0.5",
            "weight = 0.3\nbeta = 0.2\noptimum = 1",
            "weight = 0.2",
        ],
    );
    let plan = Plan::from_config(&config).unwrap();
    assert_eq!(plan.weights(), [0.5, 0.3, 0.2]);
    assert_eq!(plan.optima(), [None, Some(1.0), Some(0.5)]);
    assert_eq!(
        plan.objectives
            .iter()
            .map(|o| (o.settings.number("beta"), o.tie_rank, o.batch))
            .collect::<Vec<_>>(),
        [(0.0, 2, 8), (0.2, 0, 4), (0.3, 1, 4)]
    );
    let equal = Plan::from_config(&place.three("", [""; 3])).unwrap();
    assert_eq!(equal.weights(), [1.0 / 3.0; 3]);
}

#[test]
fn weights_are_divided_by_their_sum() {
    let place = Place::new();
    let of = |weights: [&str; 3]| {
        let [a, b, c] = weights.map(|weight| format!("weight = {weight}"));
        let config = place.three("", [&a, &b, &c]);
        let plan = Plan::from_config(&config).unwrap();
        let notes = plan.notes(&config);
        let note = notes
            .into_iter()
            .find(|note| note.contains("divided by their sum"));
        (plan.weights(), note.unwrap_or_default())
    };
    let (weights, note) = of(["4", "3", "3"]);
    assert_eq!(weights, [0.4, 0.3, 0.3]);
    assert_eq!(
        note,
        "the weights are divided by their sum: a 0.4000, b 0.3000, c 0.3000"
    );
    // Weights that sum to 1 keep every bit, also where the sum is rounded.
    let thirds = ["0.3333333", "0.3333333", "0.3333333"];
    assert_eq!(of(thirds), (vec![0.333_333_3; 3], String::new()));
    assert_eq!(
        of(["0.1", "0.2", "0.7"]),
        (vec![0.1, 0.2, 0.7], String::new())
    );
    assert_eq!(of(["2", "0", "2"]).0, [0.5, 0.0, 0.5]);
    assert_eq!(normalized(&[f64::MAX, f64::MAX]), None);
}

/// Every loss gets the settings of the run that it takes. Settings of the objective take
/// precedence; the rest are defaults of the loss.
#[test]
fn every_loss_has_its_own_settings() {
    let place = Place::new();
    let short = |text: &str| place.both(text).objective(1);
    let of = Objective::new;
    assert_eq!(short("dpo-loss = 'dpo'"), of(&DPO));
    assert_eq!(short("dpo-loss = 'rpo'"), of(&RPO));
    assert_eq!(short("dpo-loss = 'orpo'"), of(&ORPO));
    assert_eq!(short("dpo-loss = 'simpo'"), of(&SIMPO));
    let written = of(&RPO)
        .with("beta", 0.2)
        .with("label-smoothing", 0.1)
        .with("alpha", 0.0);
    assert_eq!(
        short("dpo-loss = 'rpo'\nbeta = 0.2\ndpo-alpha = 0\nlabel-smoothing = 0.1"),
        written
    );
    let written = of(&SIMPO).with("beta", 10.0).with("gamma", 3.0);
    assert_eq!(
        short("dpo-loss = 'simpo'\nbeta = 10\ndpo-gamma = 3"),
        written
    );
    assert_eq!(short("dpo-loss = 'ipo'\nlabel-smoothing = 0"), of(&IPO));

    let plan = place.losses(
        "beta = 0.3\nlabel-smoothing = 0.2",
        &[
            ("rpo", "alpha = 0.5\nlabel-smoothing = 0"),
            ("simpo", "beta = 4"),
            ("sft", ""),
        ],
    );
    let plan = Plan::from_config(&plan).unwrap();
    assert_eq!(
        plan.objective(0),
        of(&RPO).with("beta", 0.3).with("alpha", 0.5)
    );
    assert_eq!(
        plan.objective(1),
        of(&SIMPO).with("beta", 4.0).with("label-smoothing", 0.2)
    );
    assert_eq!(plan.objective(2), of(&SFT));
    assert_eq!(
        plan.objectives
            .iter()
            .map(|o| (o.tie_rank, o.batch))
            .collect::<Vec<_>>(),
        [(0, 4), (1, 4), (2, 8)]
    );
}

/// Plans from before these settings read and write as they did then: the hash of a run is a hash of
/// the plan's text.
#[test]
fn a_plan_says_nothing_of_settings_that_its_losses_do_not_take() {
    let place = Place::new();
    for (loss, keys) in [
        ("sigmoid", ["", ""]),
        ("ipo", ["", ""]),
        ("rpo", ["alpha = 1.0", ""]),
        ("simpo", ["", "gamma = 1.0"]),
    ] {
        let plan = place.both(&format!("dpo-loss = '{loss}'"));
        let text = plan.to_toml().unwrap();
        let lines = |name: &str| {
            text.lines()
                .filter(|line| line.starts_with(name))
                .collect::<Vec<_>>()
                .join("")
        };
        assert_eq!(
            [lines("alpha ="), lines("gamma =")].map(|line| line.replace("alpha = 16.0", "")),
            keys,
            "{text}"
        );
        assert_eq!(toml::from_str::<Plan>(&text).unwrap(), plan);
    }
    let [none, some] = ["dpo-gamma = 0", "dpo-gamma = 1"]
        .map(|text| place.both(&format!("dpo-loss = 'simpo'\n{text}")));
    assert_eq!(none.differences(&some), ["dpo.gamma: 0.0 -> 1.0"]);
}

/// Preference pairs alone do not require a reference model: only losses that use one ask for it and
/// train it.
#[test]
fn a_reference_is_for_the_losses_that_compare_with_one() {
    let place = Place::new();
    for loss in ["orpo", "simpo"] {
        for reference in ["none", "train:chosen", "train:sft", "@/adapter"] {
            let text = format!("dpo-loss = '{loss}'\nsteps = 5\nreference = '{reference}'");
            let plan = place.both(&text);
            assert!(
                !plan.needs_reference() && plan.reference == ReferencePlan::Base,
                "{text}"
            );
            let notes = plan
                .notes(&place.config(&format!("{BOTH}{text}")))
                .join("\n");
            assert_eq!(
                notes, "--reference is ignored: no objective uses a reference model",
                "{text}"
            );
        }
        let text = format!("dpo-loss = '{loss}'\nsteps = 5");
        assert_eq!(
            place
                .both(&text)
                .notes(&place.config(&format!("{BOTH}{text}"))),
            [""; 0]
        );
    }
    // The chosen responses of the objective that uses a reference model.
    let plan = Plan::from_config(
        &place.losses("reference = 'train:chosen'", &[("orpo", ""), ("rpo", "")]),
    )
    .unwrap();
    assert_eq!(
        plan.reference,
        ReferencePlan::Train {
            on: ReferenceRows::Chosen,
            epochs: 1.0,
            batch: 8,
            rows: None,
            learning_rate: None,
        }
    );
    assert_eq!(
        plan.objectives
            .iter()
            .map(|o| ReferenceRows::Chosen.are_of(o))
            .collect::<Vec<_>>(),
        [false, true]
    );
}

#[test]
fn a_plan_survives_toml() {
    let place = Place::new();
    let plans = [
        place.both(""),
        place.both("method = 'sequential'\nstages = 'dpo:1,sft:0.1e'\nreference = 'train:chosen'\noptimum = 'sft=1'\nlambda = 0.3"),
        place.both("reference = '@/adapter'\nsteps = 7\nlora-targets = 'a,b'\nseed = 9223372036854775807\nsft-template = 'alpaca'"),
        Plan::from_config(&place.three("learning-rate = 1e-300", ["weight = 0.1", "weight = 0.2", "weight = 0.7"])).unwrap(),
    ];
    for plan in plans {
        let text = plan.to_toml().unwrap();
        let read: Plan = toml::from_str(&text).unwrap();
        assert!(read == plan && plan.differences(&read).is_empty(), "{text}");
    }
}

#[test]
fn differences_name_what_changed_and_nothing_that_is_free() {
    let place = Place::new();
    let plan = place.both("steps = 10");
    let free = place
        .both("steps = 10\nthreads = 77\ncheckpoint-every = 3\nkeep = 9\nrecompute = 'on'\nresume = true\njson = true");
    assert!(
        plan.differences(&Plan {
            out: "elsewhere".into(),
            ..free
        })
        .is_empty()
    );
    let other = place.both(
        "steps = 12\nlora-rank = 8\nlora-alpha = 16\nlambda = 0.75\noptimum = 'sft=1.5'\nreference = 'train:chosen'",
    );
    let found = plan.differences(&other);
    for expected in [
        "length.steps: 10 -> 12",
        "lora.rank: 16 -> 8",
        "dpo.weight: 0.5 -> 0.75",
        "sft.optimum: not set -> 1.5",
        "reference: \"base\" -> not set",
        "reference.train.batch: not set -> 8",
    ] {
        assert!(
            found.iter().any(|line| line == expected),
            "{expected} is not in {found:#?}"
        );
    }
    assert!(found.iter().all(|line| !line.starts_with("lora.alpha")));
}

/// Files and folders that are identified by their contents may be anywhere.
#[test]
fn a_plan_anywhere_names_no_place() {
    let place = Place::new();
    let adapters = "init-adapter = '@/adapter'\nreference = '@/adapter'\nsft-eval = '@/held.json'";
    let plan = place.both(adapters);
    let moved = Place::new();
    std::fs::create_dir(moved.path().join("other")).unwrap();
    assert_eq!(
        plan.anywhere(),
        moved
            .both(&adapters.replace("/adapter", "/other"))
            .anywhere()
    );
    let text = plan.anywhere().to_toml().unwrap();
    assert!(!text.contains(place.path().to_str().unwrap()), "{text}");
    assert_ne!(
        plan.anywhere(),
        place
            .both(&adapters.replace("reference = '@/adapter'", ""))
            .anywhere()
    );
}

/// `(start, end, objective)` of every stage.
fn stages(plan: &Plan, rows: &[usize]) -> Vec<(usize, usize, Option<usize>)> {
    let schedule = Schedule::new(plan, rows).unwrap();
    assert_eq!(schedule.steps, schedule.stages.last().unwrap().end);
    schedule
        .stages
        .iter()
        .map(|stage| (stage.start, stage.end, stage.objective))
        .collect()
}

/// Half batches take half of the rows in as many steps: the length does not change.
#[test]
fn half_batches_of_mix_leave_the_length_of_the_run() {
    let place = Place::new();
    let full = place.both("method = 'mix'\nepochs = 2");
    let half = place.both("method = 'mix'\nepochs = 2\nmix-batches = 'half'");
    assert_eq!([full.batch(0), full.batch(1)], [8, 4]);
    assert_eq!([half.batch(0), half.batch(1)], [4, 2]);
    let steps = |plan: &Plan| Schedule::new(plan, &[80, 20]).unwrap().steps;
    assert_eq!((steps(&full), steps(&half)), (20, 20));
    let other = place.both("method = 'alright'\nmix-batches = 'half'");
    assert_eq!(other.batch(0), 8);
}

#[test]
fn epochs_are_whole_steps_of_the_longest_dataset() {
    let place = Place::new();
    let steps = |text: &str, rows: [usize; 2]| {
        stages(
            &place.both(&format!("sft-batch = 24\ndpo-batch = 8\n{text}")),
            &rows,
        )
    };
    assert_eq!(steps("", [24_000, 8_000]), [(0, 1000, None)]);
    assert_eq!(steps("epochs = 6", [24_000, 8_001]), [(0, 6006, None)]);
    assert_eq!(steps("epochs = 1.1", [240, 1]), [(0, 11, None)]); // 1.1 * 10 is 11.000000000000002
    assert_eq!(steps("epochs = 0.01", [240, 1]), [(0, 1, None)]);
    assert_eq!(steps("epochs = 2\nlambda = 0", [24, 800]), [(0, 200, None)]);
    assert_eq!(steps("steps = 7", [1, 1]), [(0, 7, None)]);
}

#[test]
fn sequential_splits_by_weight_with_dpo_first() {
    let place = Place::new();
    let split = |text: &str| {
        stages(
            &place.both(&format!("method = 'sequential'\n{text}")),
            &[80, 40],
        )
    };
    assert_eq!(split("steps = 10"), [(0, 5, Some(1)), (5, 10, Some(0))]);
    assert_eq!(
        split("steps = 10\nlambda = 0.25"),
        [(0, 3, Some(1)), (3, 10, Some(0))]
    );
    let plan = place.both("method = 'sequential'\nsteps = 10\nlambda = 0.01");
    let error = Schedule::new(&plan, &[80, 40]).unwrap_err();
    assert_eq!(
        error.message,
        "sequential: objective dpo gets 0 of 10 steps"
    );
    assert!(error.hint.contains("--steps") && error.hint.contains("--stages"));
    assert_eq!(split("steps = 10\nlambda = 0"), [(0, 10, Some(0))]);
    assert_eq!(
        split("stages = 'dpo:1e-12e,sft:2'"),
        [(0, 1, Some(1)), (1, 3, Some(0))]
    );
    assert_eq!(split("steps = 10\nlambda = 1"), [(0, 10, Some(1))]);
    assert_eq!(
        split("stages = 'sft:2,dpo:1.5e,sft:0.1e'"),
        [(0, 2, Some(0)), (2, 17, Some(1)), (17, 18, Some(0))]
    );
    let three = place.three(
        "method = 'sequential'\nsteps = 10",
        ["weight = 0.34", "weight = 0.33", "weight = 0.33"],
    );
    let plan = Plan::from_config(&three).unwrap();
    assert_eq!(
        stages(&plan, &[9, 9, 9]),
        [(0, 3, Some(1)), (3, 7, Some(2)), (7, 10, Some(0))]
    );
}

/// A rate of its own leaves the reference as it is when the run's rate changes.
#[test]
fn a_reference_may_have_a_learning_rate_of_its_own() {
    let place = Place::new();
    let rates = |text: &str| {
        let plan = place.both(&format!(
            "reference = 'train:chosen'\nlearning-rate = 0.25\n{text}"
        ));
        let written = plan.to_toml().unwrap();
        let read: Plan = toml::from_str(&written).unwrap();
        assert_eq!(read, plan, "{written}");
        (
            plan.optimizer.learning_rate,
            plan.reference_optimizer().learning_rate,
        )
    };
    assert_eq!(rates(""), (0.25, 0.25));
    assert_eq!(rates("reference-learning-rate = 0.5"), (0.25, 0.5));
}

#[test]
fn a_schedule_finds_its_stage_and_gives_the_method_its_stages() {
    let plan = Place::new()
        .both("method = 'sequential'\nstages = 'sft:2,dpo:3'\nwarmup = 1\nschedule = 'linear'\nlearning-rate = 1");
    let schedule = Schedule::new(&plan, &[10, 10]).unwrap();
    let objective = |step| schedule.stage(step).objective;
    assert_eq!(
        [0, 1, 2, 4, 99].map(objective),
        [Some(0), Some(0), Some(1), Some(1), Some(1)]
    );
    let mut method = plan.method(&schedule);
    assert_eq!(
        [1, 2].map(|step| method.weights(step)),
        [vec![1.0, 0.0], vec![0.0, 1.0]]
    );
    let stage = schedule.stage(3);
    assert_eq!(
        (stage.steps(), plan.learning_rate(stage.steps()).at(2)),
        (3, 0.5)
    );
}

#[test]
fn rows_that_are_not_there_are_an_error_where_they_are_used() {
    let place = Place::new();
    let error =
        |text: &str, rows: [usize; 2]| Schedule::new(&place.both(text), &rows).unwrap_err().message;
    assert!(error("", [0, 5]).contains("objective sft has no training row"));
    assert!(error("method = 'sequential'\nstages = 'sft:3e'", [0, 5]).contains("objective sft"));
    assert!(error("method = 'sequential'\nstages = 'dpo:3'", [5, 0]).contains("objective dpo"));
    assert_eq!(stages(&place.both("lambda = 1"), &[0, 8]), [(0, 2, None)]);
}

#[test]
fn notes_say_what_has_no_effect_and_which_defaults_matter() {
    let place = Place::new();
    let notes = |text: &str| {
        let config = place.config(&format!("{BASE}{text}"));
        Plan::from_config(&config)
            .unwrap()
            .notes(&config)
            .join("\n")
    };
    let both = "sft = '@/sft.json'\ndpo = '@/dpo.jsonl'\n";
    let quiet = "steps = 5\nreference = 'none'\n";
    assert_eq!(notes(&format!("{both}{quiet}")), "");
    let table = [
        (
            format!("{both}{quiet}method = 'maxright'\noptimum = 'sft=1'"),
            "warning: maxright has no optimum for dpo: it assumes 0",
        ),
        (
            format!("{both}{quiet}method = 'mix'\ndraws = 'balanced'"),
            "--draws is ignored: the method is not alright",
        ),
        (
            format!("{both}{quiet}mix-batches = 'half'"),
            "--mix-batches is ignored: the method is not mix",
        ),
        (
            format!("{both}{quiet}power = 3"),
            "--power is ignored: the method is not compromise",
        ),
        (
            format!("{both}{quiet}probe-every = 3"),
            "--probe-every is ignored",
        ),
        (
            format!(
                "{both}reference = 'none'\nmethod = 'sequential'\nstages = 'sft:1'\nlambda = 0.5"
            ),
            "--lambda is ignored",
        ),
        (
            format!("{both}steps = 5"),
            "the reference model is the base model",
        ),
        (
            format!("{both}{quiet}init-adapter = '@/adapter'"),
            "without the adapter",
        ),
        (
            format!("{both}{quiet}reference-epochs = 3"),
            "--reference-epochs is ignored",
        ),
        (
            format!("{both}{quiet}init-adapter = '@/adapter'\nlora-rank = 8\nlora-targets = 'a'"),
            "--lora-rank, --lora-targets are ignored for the policy, which has the shape of --init-adapter",
        ),
        (
            format!("{both}{quiet}init-adapter = '@/adapter'\nlora-alpha = 8"),
            "--lora-alpha is ignored for the policy",
        ),
        (
            format!("{both}{quiet}held-out = 0"),
            "sft has no held-out rows",
        ),
        (
            format!(
                "{both}{quiet}held-out = 0.1\nsft-eval = '@/held.json'\ndpo-eval = '@/held.json'"
            ),
            "--held-out is ignored: every objective has its own held-out rows",
        ),
        (
            format!("{both}{quiet}min-prompt = 8\ntoo-long = 'drop'"),
            "--min-prompt is ignored",
        ),
        (format!("{both}reference = 'none'"), "no length is given"),
        (
            format!("{both}reference = 'none'\nmethod = 'sequential'\nstages = 'sft:5'"),
            "dpo is evaluated but not trained on: no stage names it",
        ),
        (
            "sft = '@/sft.json'\nsteps = 5\nreference = 'none'".into(),
            "--reference is ignored",
        ),
        (
            "sft = '@/sft.json'\nsteps = 5\nbeta = 1".into(),
            "--beta is ignored",
        ),
    ];
    for (text, expected) in table {
        assert!(notes(&text).contains(expected), "{text}: {}", notes(&text));
    }
    assert!(
        !notes(&format!("{both}{quiet}method = 'maxright'\nlambda = 1"))
            .contains("optimum is given for sft")
    );
    for used in [
        "held-out = 0.1\nsft-eval = '@/held.json'",
        "min-prompt = 8\ntoo-long = 'cut-response'",
    ] {
        assert_eq!(notes(&format!("{both}{quiet}{used}")), "", "{used}");
    }
    let config = place.three("steps = 1\nreference = 'none'", [""; 3]);
    assert!(
        Plan::from_config(&config)
            .unwrap()
            .notes(&config)
            .join("")
            .contains("no weights are given")
    );
}
