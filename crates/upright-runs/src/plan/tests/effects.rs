//! The table of settings against the plans that are written.

use std::collections::BTreeSet;

use upright_core::optimizer::{Average, Curve, Iterate};
use upright_core::{methods, objectives, settings::Domain};
use upright_data::{TooLong, Turns};
use upright_model::Recompute;

use super::{BOTH, Place};
use crate::plan::Plan;
use crate::plan::effects::{of_objective, of_run};
use crate::settings::checks::Choice;
use crate::settings::{Accepts, Config, Declaration, Effect, OBJECTIVE, ObjectiveConfig, RUN};

/// Plans that together have every key.
fn plans() -> Vec<Plan> {
    let place = Place::new();
    let all = [
        "steps = 3\nmethod = 'maxright'\ninit-adapter = '@/adapter'\nstop-at = 'sft=1'\naverage = 'polynomial'\n\
         export-iterate = 'average'\noptimum = 'auto'\nreference = '@/adapter'\nsft-turns = 'all'\nsft-rows = 3\n\
         sft-map = 'prompt=question'\nsft-eval = '@/held.json'\nsft-template = 'alpaca'",
        "epochs = 2\noptimum = 'sft=1'\noptimum-eval = 'sft=1'\nreference = 'train:chosen'\nreference-rows = 4\n\
         reference-learning-rate = 0.1",
        "method = 'sequential'\nstages = 'dpo:1,sft:1'",
    ];
    all.map(|text| place.plan(&format!("{BOTH}{text}"))).into()
}

/// The keys of some plans: of the runs, and of their objectives without the names of these.
fn keys() -> [BTreeSet<String>; 2] {
    let mut keys = [BTreeSet::new(), BTreeSet::new()];
    for plan in plans() {
        for setting in plan.settings() {
            let own = ["sft.", "dpo."]
                .iter()
                .find_map(|name| setting.key.strip_prefix(name));
            match own {
                Some(key) => keys[1].insert(key.to_owned()),
                None => keys[0].insert(setting.key.clone()),
            };
        }
    }
    keys
}

fn has(keys: &BTreeSet<String>, key: &str) -> bool {
    let table = format!("{key}.");
    keys.iter()
        .any(|other| other == key || other.starts_with(&table))
}

#[test]
fn every_key_of_a_plan_is_declared() {
    let [runs, of_objectives] = keys();
    for key in &runs {
        assert!(of_run(key).is_some(), "nothing declares {key}");
    }
    for key in &of_objectives {
        assert!(of_objective(key).is_some(), "nothing declares {key}");
    }
}

/// A setting whose key in plans is misspelled would affect results, whatever it declares.
#[test]
fn every_declared_key_stands_in_a_plan() {
    let [runs, of_objectives] = keys();
    let elsewhere = ["config", "resume", "json"];
    for declaration in RUN {
        let key = declaration.key();
        let plan = declaration.plan_key();
        if let Some(plan) = plan.filter(|_| !elsewhere.contains(&&key[..])) {
            assert!(has(&runs, &plan), "{key}: no plan has the key {plan}");
        }
    }
    for declaration in OBJECTIVE {
        let plan = declaration.plan_key().unwrap();
        assert!(
            has(&of_objectives, &plan),
            "no objective has the key {plan}"
        );
    }
}

#[test]
fn what_a_resumed_run_may_change_is_free() {
    let mut free: Vec<String> = Vec::new();
    let mut records: Vec<String> = Vec::new();
    for setting in plans().iter().flat_map(Plan::settings) {
        let list = match setting.effect {
            effect if effect.is_free() => &mut free,
            Effect::Records => &mut records,
            _ => continue,
        };
        if !list.contains(&setting.key) {
            list.push(setting.key);
        }
    }
    free.sort();
    assert_eq!(
        free,
        [
            "checkpoint-every",
            "device",
            "dpo.data",
            "finds-optima",
            "init-adapter",
            "keep",
            "model",
            "out",
            "recompute",
            "reference.folder",
            "sft.data",
            "sft.eval-data",
            "threads",
        ]
    );
    records.sort();
    assert_eq!(
        records,
        [
            "average",
            "eval-every",
            "export-iterate",
            "sft.optimum-eval"
        ]
    );
}

/// Every flag and key is declared, and the other way round.
#[test]
fn the_table_has_every_flag_and_no_other() {
    let mut keys = Config::keys();
    keys.retain(|key| key != "objective" && !is_of_methods_or_losses(key));
    let mut declared: Vec<String> = RUN.iter().map(Declaration::key).collect();
    declared.retain(|key| key != "config");
    assert_eq!(keys, declared);
    let mut keys = ObjectiveConfig::keys();
    keys.retain(|key| !is_of_methods_or_losses(key));
    let declared: Vec<String> = OBJECTIVE.iter().map(Declaration::key).collect();
    assert_eq!(keys, declared);
}

/// The names of a choice are those of its type, and its default comes first in both.
#[test]
fn choices_have_the_names_of_their_types() {
    fn check<T: Choice>(keys: &[&str]) {
        let names: Vec<&str> = T::ALL.iter().map(|choice| choice.name()).collect();
        for key in keys {
            let mut all = RUN.iter().chain(OBJECTIVE);
            let found = all.find(|own| own.key() == *key).unwrap();
            let Accepts::Of(Domain::Choice(declared)) = found.accepts else {
                panic!("{key} is a choice");
            };
            assert_eq!(declared, names, "{key}");
        }
    }
    check::<TooLong>(&["too-long"]);
    check::<Turns>(&["sft-turns", "turns"]);
    check::<Curve>(&["schedule"]);
    check::<Average>(&["average"]);
    check::<Iterate>(&["export-iterate"]);
    check::<Recompute>(&["recompute"]);
    let choices = RUN.iter().chain(OBJECTIVE);
    let count = choices.filter(|own| matches!(own.accepts, Accepts::Of(Domain::Choice(_))));
    assert_eq!(count.count(), 7);
}

fn is_of_methods_or_losses(key: &str) -> bool {
    let mut all = methods::settings();
    all.extend(objectives::settings());
    let bare = key.strip_prefix("dpo-").unwrap_or(key);
    all.iter().any(|own| own.name == key || own.name == bare)
}
