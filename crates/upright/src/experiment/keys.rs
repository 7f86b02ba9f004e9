//! The keys of a study's file and what they mean: no other is read, and `docs/reference.md` lists these.

/// A key, and what it means.
pub type Key = (&'static str, &'static str);

/// At the top of the file.
pub const STUDY: [Key; 7] = [
    (
        "title",
        "What the study is, in a line: the title of its report",
    ),
    ("about", "What it is about, in a few sentences"),
    (
        "seeds",
        "Seeds of every method, as [1, 2, 3]; optima and the front are those of the first [default: 42]",
    ),
    (
        "settings",
        "Settings of every run: keys of the file of --config but those listed below, in an objective also weight and optima",
    ),
    (
        "sweep",
        "Methods that are compared, everything else being equal; one [[sweep]] or several",
    ),
    (
        "baseline",
        "Settings of baselines, each in a table of its own, as [baseline.rpo]",
    ),
    ("answers", "What the trained models are asked"),
];

/// In a `[[sweep]]`. A list of one text may be that text.
pub const SWEEP: [Key; 10] = [
    (
        "name",
        "Its name in messages, and before names of parts where sweeps differ in model, data or reference: small letters, \
         digits, - and _ [default: sweep-1, sweep-2, ...]",
    ),
    (
        "methods",
        "Of sequential, mix, alright, maxright those that are compared",
    ),
    (
        "baselines",
        "What peers offer in their place: rpo, orpo, simpo, ipo, that loss alone on the rows of the one preference objective; \
         sum, adapters trained on each objective alone, added up by the weights",
    ),
    (
        "lambdas",
        "Weights of the preference objective beside one other, each between 0 and 1, as [0.25, 0.5]",
    ),
    (
        "weights",
        "In place of lambdas, for any number of objectives: lists that sum to 1, as [[0.2, 0.3, 0.5]]",
    ),
    (
        "orders",
        "Orders of sequential, whose steps are split by weight, as [\"dpo,sft\", \"sft,dpo\"] [default: preference objectives \
         first]",
    ),
    (
        "stages",
        "In place of orders: the stages of sequential at each of the lambdas or weights, as [\"dpo:1e,sft:5e\"]",
    ),
    (
        "probe-every",
        "How often maxright looks at the losses of all objectives, in steps, as [1, 10] [default: 10]",
    ),
    (
        "front",
        "Where joint methods stop: own, mix and maxright at the ideal point or at an end of this study's ALRIGHT runs of the \
         first seed; a folder, all of them at the ideal point or at the front of the study in it; none, all run to their length \
         [default: own]",
    ),
    ("settings", "Settings laid over those of the study"),
];

/// In a `[baseline.NAME]`: keys of an `[[objective]]`.
pub const BASELINE: [Key; 5] = [
    (
        "alpha",
        "Of rpo: weight of the chosen response's negative log-likelihood a token [default: 1]",
    ),
    (
        "batch",
        "Pairs a step [default: those of the preference objective]",
    ),
    (
        "beta",
        "Of rpo and ipo the strength of the tie to the reference [default: the preference objective's], of orpo the weight of \
         the odds ratio [default: 0.1], of simpo the scale of the rewards [default: 2]",
    ),
    (
        "gamma",
        "Of simpo: margin that the rewards should have [default: 1]",
    ),
    (
        "label-smoothing",
        "Share of pairs taken to be labelled the wrong way round [default: 0]",
    ),
];

/// In `[answers]`.
pub const ANSWERS: [Key; 2] = [
    (
        "prompts",
        "Instructions that the base and the runs of the first seed answer, greedily",
    ),
    ("max-tokens", "Most tokens of an answer [default: 64]"),
];

/// Settings that the study decides, and by what.
pub const DECIDED: [Key; 13] = [
    ("out", "--out DIR is the folder of the whole study"),
    ("resume", "a study always goes on where it was"),
    ("json", "give --json on the command line"),
    ("method", "list methods in a [[sweep]]"),
    ("lambda", "list lambdas in a [[sweep]]"),
    (
        "stages",
        "list stages in a [[sweep]], one for each of its lambdas",
    ),
    ("probe-every", "list probe-every in a [[sweep]]"),
    (
        "optimum",
        "the study finds the optima by training each objective alone",
    ),
    (
        "optimum-eval",
        "the study finds the optima by training each objective alone",
    ),
    (
        "stop-at",
        "say front = \"own\", \"none\" or the folder of another study in a [[sweep]]",
    ),
    (
        "stop-within",
        "runs of a study stop within 1e-4 of the front, as in the paper",
    ),
    ("seed", "list seeds at the top of the study"),
    ("no-report", "a study writes one report, of all its runs"),
];
