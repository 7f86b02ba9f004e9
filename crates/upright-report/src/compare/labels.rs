//! Labels of arms: what an arm does, and the settings in which the arms differ.

use super::{
    arm::{Arm, Role},
    matching::distinct,
};
use crate::read::run::Run;
use upright_base::counted;
use upright_core::methods::{self, MethodSpec};
use upright_runs::{
    plan::{Length, Plan},
    settings::Effect,
};

/// Weights of the objectives compared. If only stages were given, their shares of the steps.
pub(crate) fn weights(run: &Run, objectives: &[String]) -> Vec<f64> {
    let weight = |name: &String| {
        let Some(id) = run.objective(name) else {
            return 0.0;
        };
        if run.weighed {
            return run.plan().objectives[id].weight;
        }
        let of = run
            .stages
            .iter()
            .filter(|stage| stage.objective == Some(id));
        of.map(|stage| stage.steps()).sum::<usize>() as f64 / run.planned.max(1) as f64
    };
    objectives.iter().map(weight).collect()
}

/// Gives every arm its label.
pub(super) fn fill_in(arms: &mut [Arm], runs: &[Run], objectives: &[String]) {
    let first = |arm: &Arm| &runs[arm.runs[0]];
    let several = |what: &dyn Fn(&Arm) -> Option<String>| {
        let mut found: Vec<String> = arms.iter().filter_map(what).collect();
        found.sort();
        found.dedup();
        found.len() > 1
    };
    // Orders with the same lengths are one split.
    let shares = |arm: &Arm| {
        let steps = |name: &String| steps_of(first(arm), name);
        format!("{:?}", objectives.iter().map(steps).collect::<Vec<_>>())
    };
    let splits = several(&|arm| arm.is_sequential().then(|| shares(arm)));
    let weights = distinct(arms.iter().filter(|arm| has_weights(arm))).len() > 1;
    let probes = several(&|arm| arm.probe_every.map(|k| k.to_string()));
    let reference = |run: &Run| run.plan().needs_reference().then(|| run.reference());
    let references = several(&|arm| reference(first(arm)));
    let models = several(&|arm| Some(first(arm).written.facts.base.clone()));
    for arm in &mut *arms {
        let run = &runs[arm.runs[0]];
        let k = arm
            .probe_every
            .filter(|_| probes)
            .map_or_else(String::new, |k| format!(" k {k}"));
        arm.family = base(&arm.role) + &k;
        let split = if splits && arm.is_sequential() {
            split(run)
        } else {
            base(&arm.role)
        };
        let weights = if weights && has_weights(arm) {
            format!(" {}", weighed(run.plan(), &arm.weights, objectives))
        } else {
            String::new()
        };
        let model = if models {
            format!(", on {}", run.model())
        } else {
            String::new()
        };
        let reference = reference(run).filter(|_| references);
        let reference =
            reference.map_or_else(String::new, |reference| format!(", reference {reference}"));
        arm.label = split + &weights + &k + &model + &reference;
        arm.sweep.clone_from(&arm.family);
        arm.front_name.clone_from(&arm.family);
    }
    tell_apart(arms, runs, usize::from(models) + usize::from(references));
}

/// Number of steps that the stages of a sequential run spend on an objective.
pub(crate) fn steps_of(run: &Run, objective: &str) -> usize {
    let id = run.objective(objective);
    let of = run.stages.iter().filter(|stage| stage.objective == id);
    of.map(|stage| stage.steps()).sum()
}

/// The name of an arm with averaged adapters, from the name of the arm with the last iterates of
/// the same runs.
pub(crate) fn averaged(last: &str) -> String {
    format!("{last}, averaged")
}

/// An arm's label, marked if the arm is unfinished.
pub(crate) fn named(arm: &Arm) -> String {
    if arm.unfinished {
        format!("{} (unfinished)", arm.label)
    } else {
        arm.label.clone()
    }
}

/// Whether an arm's label contains the weights of the objectives.
pub(super) fn has_weights(arm: &Arm) -> bool {
    arm.is_joint() || arm.role == Role::Sum
}

/// The label of a role.
fn base(role: &Role) -> String {
    match role {
        Role::Alone(name) => format!("{name} alone"),
        Role::Sequential(names) => names.join(", then "),
        Role::Joint(joint) => joint.form.label.to_owned(),
        Role::Other(name) => name.clone(),
        Role::Sum => "sum of adapters".into(),
        Role::Measured(name) => format!("adapter {name}"),
    }
}

/// The stages with their lengths in steps.
fn split(run: &Run) -> String {
    let name = |id: usize| &run.plan().objectives[id].name;
    let stage = |stage: &upright_runs::plan::Stage| {
        Some(format!("{} {}", name(stage.objective?), stage.steps()))
    };
    run.stages
        .iter()
        .filter_map(stage)
        .collect::<Vec<_>>()
        .join(", then ")
}

/// `lambda 0.25` for two objectives, one of them a preference; all weights otherwise.
pub(crate) fn weighed(plan: &Plan, weights: &[f64], objectives: &[String]) -> String {
    if let Some(lambda) = lambda(plan, weights, objectives) {
        return format!("lambda {}", short(lambda));
    }
    let named = objectives
        .iter()
        .zip(weights)
        .map(|(name, weight)| format!("{name} {}", short(*weight)));
    named.collect::<Vec<_>>().join(" ")
}

/// The weight of the preference objective, if there is exactly one of two.
pub(crate) fn lambda(plan: &Plan, weights: &[f64], objectives: &[String]) -> Option<f64> {
    let preference = |name: &&String| {
        plan.objectives
            .iter()
            .any(|o| o.name == **name && o.is_preference())
    };
    let mut all = objectives
        .iter()
        .zip(weights)
        .filter(|(name, _)| preference(name));
    let (_, weight) = all.next()?;
    (objectives.len() == 2 && all.next().is_none()).then_some(*weight)
}

/// A number with at most four decimals and no trailing zeros.
pub(crate) fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Largest number of settings in a label. Arms that differ in more are named by their folder.
pub(super) const MOST: usize = 3;

/// Makes equal labels distinct by appending the settings in which the arms differ, or a number if
/// there are none. `named` is the number of settings that every label has already.
fn tell_apart(arms: &mut [Arm], runs: &[Run], named: usize) {
    for index in 0..arms.len() {
        let twins: Vec<usize> = (0..arms.len())
            .filter(|i| arms[*i].label == arms[index].label)
            .collect();
        if twins.len() < 2 {
            continue;
        }
        let settings: Vec<_> = twins
            .iter()
            .map(|i| comparable_settings(&runs[arms[*i].runs[0]]))
            .collect();
        // Seeds do not tell arms apart, nor does an adapter that only one seed of an arm has.
        let begins = |run: &usize| &runs[*run].written.facts.init_adapter;
        let several = |twin: &usize| {
            arms[*twin]
                .runs
                .iter()
                .any(|run| begins(run) != begins(&arms[*twin].runs[0]))
        };
        let by_seed = twins.iter().any(several);
        let all = differing_keys(&settings);
        let method = |twin: &usize| arms[*twin].role.joint().map(|joint| joint.method);
        let any = |has: &dyn Fn(&MethodSpec) -> bool| {
            let mut methods = twins.iter().filter_map(method);
            methods.any(has)
        };
        let has_optima = any(&|method| method.uses_optima);
        let of_methods: Vec<&str> = methods::settings().iter().map(|own| own.name).collect();
        let mut records = Vec::new();
        for twin in &twins {
            for setting in runs[arms[*twin].runs[0]].plan().settings() {
                if setting.effect == Effect::Records {
                    records.push(setting.key);
                }
            }
        }
        let mut differing = Vec::new();
        for key in &all {
            // No step depends on these settings.
            let last = key.rsplit('.').next().unwrap_or(key);
            let is_idle = match last {
                "seed" => true,
                _ if records.contains(key) => true,
                setting if of_methods.contains(&setting) => !any(&|method| method.takes(setting)),
                "optimum" => !has_optima,
                "init-adapter" => by_seed,
                _ => false,
            };
            // The template that was used says more than the requested one.
            let is_repeated = key.ends_with(".template") && all.contains(&format!("{key} used"));
            if !is_idle && !is_repeated {
                differing.push(key.clone());
            }
        }
        let mut taken: Vec<String> = Vec::new();
        let mut folders: Vec<String> = Vec::new();
        for (position, twin) in twins.iter().enumerate() {
            let mut more = said(&settings[position], &differing);
            if !more.is_empty() {
                more.insert_str(0, ", ");
            }
            if taken.contains(&more) {
                more += &format!(" ({})", position + 1);
            }
            taken.push(more);
            folders.push(folder_name(arms, *twin, runs));
        }
        let by_folder = named + differing.len() > MOST;
        for ((twin, more), folder) in twins.iter().zip(taken).zip(folders) {
            let arm = &mut arms[*twin];
            arm.sweep = format!("{}{more}", arm.family);
            if by_folder {
                arm.front_name = format!("{} as in {folder}", arm.family);
                arm.family.clone_from(&folder);
                arm.label = folder;
            } else {
                arm.family += &more;
                arm.front_name.clone_from(&arm.family);
                arm.label += &more;
            }
        }
    }
}

/// Names an arm by the folders of its runs and, unless the folder says it, by what it does. Folders
/// above all runs of the report are left out. The folders of several seeds are the folder that
/// holds them and nothing else, or the first one and a count.
fn folder_name(arms: &[Arm], index: usize, runs: &[Run]) -> String {
    let all = paths(runs);
    let above = above(&all);
    let arm = &arms[index];
    let own: Vec<Vec<String>> = arm.all.iter().map(|run| all[*run].clone()).collect();
    let common = &own[0][..self::above(&own)];
    let foreign =
        (0..runs.len()).any(|run| !arm.all.contains(&run) && all[run].starts_with(common));
    let folder = match arm.runs.len() {
        1 => all[arm.runs[0]][above..].join("/"),
        _ if common.len() > above && !foreign => common[above..].join("/"),
        count => format!(
            "{} +{}",
            all[arm.runs[0]][above..].join("/"),
            counted(count - 1, "seed")
        ),
    };
    let method = base(&arm.role);
    if folder.to_lowercase().contains(&method.to_lowercase()) {
        folder
    } else {
        format!("{folder} ({method})")
    }
}

/// The path of every run, as its parts.
fn paths(runs: &[Run]) -> Vec<Vec<String>> {
    let parts = |run: &Run| run.place.split('/').map(str::to_owned).collect();
    runs.iter().map(parts).collect()
}

/// The number of folders above all of these paths.
fn above(paths: &[Vec<String>]) -> usize {
    let shortest = paths.iter().map(Vec::len).min().unwrap_or(0);
    let mut count = 0;
    while count + 1 < shortest && paths.iter().all(|path| path[count] == paths[0][count]) {
        count += 1;
    }
    count
}

/// Folders of runs, without the folders above all runs of the report.
pub(crate) fn folders(runs: &[Run]) -> Vec<String> {
    let all = paths(runs);
    let above = above(&all);
    all.iter().map(|path| path[above..].join("/")).collect()
}

/// Keys whose value is not the same in all lists of settings, in order.
pub(crate) fn differing_keys(settings: &[Vec<(String, String)>]) -> Vec<String> {
    let value = |list: &[(String, String)], key: &str| {
        list.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone())
    };
    let mut keys: Vec<String> = Vec::new();
    for (key, _) in settings.iter().flatten() {
        let first = value(&settings[0], key);
        if !keys.contains(key) && settings.iter().any(|list| value(list, key) != first) {
            keys.push(key.clone());
        }
    }
    keys
}

/// The values of some keys: `steps 8, learning-rate 0.001`.
pub(crate) fn said(settings: &[(String, String)], keys: &[String]) -> String {
    let mut words = Vec::new();
    for key in keys {
        match settings.iter().find(|(other, _)| other == key) {
            Some((_, value)) => words.push(format!("{key} {value}")),
            None => words.push(format!("no {key}")),
        }
    }
    words.join(", ")
}

/// Settings of a run without its paths, and its provenance, as keys and values for a reader.
pub(crate) fn comparable_settings(run: &Run) -> Vec<(String, String)> {
    let plan = run.plan().anywhere();
    let mut settings: Vec<(String, String)> = Vec::new();
    for setting in plan.settings() {
        let key = &setting.key;
        // Stages and the reference are told in words below. Ranks of ties follow from the objectives.
        let is_told = key == "stages" || key == "reference" || key.starts_with("reference.");
        if !setting.effect.is_free() && !is_told && !key.ends_with(".tie-rank") {
            let value = setting.value.trim_matches('"').to_owned();
            settings.push((key.replace("length.", ""), value));
        }
    }
    if !plan.stages.is_empty() {
        let stage = |stage: &upright_runs::plan::StagePlan| {
            let length = match stage.length {
                Length::Steps(steps) => steps.to_string(),
                Length::Epochs(epochs) => format!("{epochs}e"),
            };
            format!("{}:{length}", plan.objectives[stage.objective].name)
        };
        settings.push((
            "stages".into(),
            plan.stages.iter().map(stage).collect::<Vec<_>>().join(","),
        ));
    }
    let facts = &run.written.facts;
    let short_hash = |value: &str| value.get(..8).unwrap_or_default().to_owned();
    let hash = |value: &str| value.get(..8).unwrap_or("none").to_owned();
    settings.push((
        "model".into(),
        format!("{} {}", run.model(), hash(&facts.base)),
    ));
    settings.push(("reference".into(), reference(run)));
    settings.push(("init-adapter".into(), hash(&facts.init_adapter)));
    settings.push(("arithmetic".into(), facts.arithmetic.clone()));
    settings.push(("tokenizer".into(), hash(&facts.tokenizer)));
    for (objective, data) in plan.objectives.iter().zip(&facts.data) {
        let name = &objective.name;
        settings.push((format!("{name}.data"), hash(&data.sha256)));
        settings.push((format!("{name}.held-out data"), hash(&data.eval_sha256)));
        settings.push((
            format!("{name}.template used"),
            format!("{} {}", data.template, short_hash(&data.template_sha256))
                .trim()
                .to_owned(),
        ));
    }
    settings
}

/// The reference policy, with the values that distinguish it from others of its kind.
fn reference(run: &Run) -> String {
    use upright_runs::plan::ReferencePlan::{Base, Folder, Train};
    match &run.plan().reference {
        Base => "base".into(),
        Train { epochs, batch, .. } => format!("{}, {epochs} epochs of {batch}", run.reference()),
        Folder(_) => format!(
            "{} {}",
            run.reference(),
            run.written.facts.reference.get(..8).unwrap_or_default()
        ),
    }
}
