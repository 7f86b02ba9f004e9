//! Bad configs end in an error message, and every accepted config survives a round trip through
//! TOML.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{BASE, BOTH, Place};
use crate::plan::{Plan, Schedule};
use crate::settings::{Config, ObjectiveConfig};

/// Values that a user could write by mistake, and some valid ones.
const VALUES: &[&str] = &[
    "1",
    "-1",
    "0",
    "1e400",
    "nan",
    "9223372036854775807",
    "0.5",
    "true",
    "''",
    "'sft'",
    "'mix'",
    "[]",
    "['a', 'b']",
    "{ sft = 1 }",
    "'@/sft.json:0.5'",
    "'dpo:3e,sft:1'",
];

fn settings(most: usize) -> impl Strategy<Value = Vec<(Index, &'static str)>> {
    prop::collection::vec((any::<Index>(), select(VALUES)), 0..most)
}

proptest! {
    #[test]
    fn hostile_configs_end_in_a_message(
        top in settings(6), objectives in prop::collection::vec(settings(4), 0..3), noise in "[\\[\\]={}'\"a-z0-9\n.# -]{0,12}",
    ) {
        let place = Place::new();
        let lines = |keys: &[String], settings: &[(Index, &str)]| -> String {
            settings.iter().map(|(at, value)| format!("{} = {value}\n", at.get(keys))).collect()
        };
        let mut text = lines(&Config::keys(), &top);
        for objective in &objectives {
            text += &format!("[[objective]]\n{}", lines(&ObjectiveConfig::keys(), objective));
        }
        for text in [format!("{BOTH}{text}"), format!("{BASE}{text}"), format!("{text}{noise}"), noise] {
            let text = text.replace('@', place.path().to_str().unwrap());
            let Ok(config) = Config::parse(&text, "run.toml") else { continue };
            let Ok(plan) = Plan::from_config(&config) else { continue };
            let _ = (plan.notes(&config), Schedule::new(&plan, &vec![7; plan.objectives.len()]));
            prop_assert_eq!(toml::from_str::<Plan>(&plan.to_toml().unwrap()).unwrap(), plan);
        }
    }
}
