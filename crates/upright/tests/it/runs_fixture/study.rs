//! Studies in a fixture.

use std::{fs, process::Command};

use serde_json::Value;

use super::{Ended, Fixture, Process};

/// Settings of every study here.
pub(crate) const SETTINGS: &str = "
[settings]
model = 'model'
sft = 'sft.jsonl'
dpo = 'dpo.jsonl'
sft-batch = 4
dpo-batch = 3
max-length = 96
lora-rank = 4
lora-targets = 'q_proj,v_proj'
learning-rate = 2e-3
eval-rows = 6
eval-every = 4
steps = 8
threads = 1
";

pub(crate) struct Study {
    pub(crate) fixture: Fixture,
}

impl Study {
    pub(crate) fn new() -> Self {
        Self {
            fixture: Fixture::new("llama"),
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.fixture.path(name), text).unwrap();
    }

    pub(crate) fn command(&self, flags: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_upright"));
        command.arg("experiment").args(flags.split_whitespace());
        self.fixture.at_home(&mut command);
        command
    }

    pub(crate) fn run(&self, flags: &str) -> Ended {
        Process::start(self.command(flags)).end()
    }

    pub(crate) fn json(&self, flags: &str) -> Value {
        serde_json::from_str(&self.run(&format!("{flags} --json")).good().stdout).unwrap()
    }

    /// The folder of a part, relative to the fixture's.
    pub(crate) fn folder(&self, outcomes: &Value, part: &str) -> String {
        let parts = outcomes["parts"].as_array().unwrap();
        let found = parts.iter().find(|outcome| outcome["part"] == part);
        found.unwrap_or_else(|| panic!("no {part} in {outcomes}"))["folder"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}
