//! TOML: the input is the settings of a run, and of a study.

#![no_main]

use libfuzzer_sys::fuzz_target;
use upright::config::Config;
use upright::experiment::Study;
use upright::plan::Plan;

fuzz_target!(|text: &str| {
    if let Ok(config) = Config::parse(text, "run.toml") {
        let _ = Plan::from_config(&config);
    }
    let _ = Study::parse(text, "study.toml");
});
