//! TOML: the input is the settings of a run, and of a study.

#![no_main]

use libfuzzer_sys::fuzz_target;
use upright::experiment::Study;
use upright_runs::plan::Plan;
use upright_runs::settings::Config;

fuzz_target!(|text: &str| {
    if let Ok(config) = Config::parse(text, "run.toml") {
        let _ = Plan::from_config(&config);
    }
    let _ = Study::parse(text, "study.toml");
});
