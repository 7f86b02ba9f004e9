//! A study that is killed or stopped continues where it was.

use std::fs;

use crate::runs_fixture::{
    Process,
    study::{SETTINGS, Study},
};

#[test]
fn a_study_that_is_killed_loses_a_step_at_most() {
    let study = Study::new();
    let settings = SETTINGS.replace("steps = 8", "steps = 400");
    study.write(
        "study.toml",
        &format!("{settings}\n[[sweep]]\nmethods = 'mix'\nlambdas = [0.5]\nfront = 'none'"),
    );
    let straight = study.json("study.toml --out straight");
    for signal in ["KILL", "TERM"] {
        let out = format!("killed-{signal}");
        let mut process = Process::start(study.command(&format!("study.toml --out {out}")));
        let folder = study
            .folder(&straight, "mix-lambda-0.5-seed-42")
            .replace("straight", &out);
        let steps = study.fixture.path(&folder).join("steps.jsonl");
        let taken = || fs::read_to_string(&steps).map_or(0, |text| text.lines().count());
        assert!(
            process.wait_until(|_| taken() > 20),
            "it ended before it was killed"
        );
        process.signal(signal);
        let ended = process.end();
        if signal == "TERM" {
            assert_eq!(ended.code, Some(130));
            assert!(
                ended.stderr.contains("run the same command to continue"),
                "{}",
                ended.stderr
            );
        }
        let goes_on = study.run(&format!("study.toml --out {out}")).good();
        assert!(
            goes_on.stdout.contains("3 jobs: 1 done, 2 finished before"),
            "{}",
            goes_on.stdout
        );
        study.fixture.assert_same(
            &study.folder(&straight, "mix-lambda-0.5-seed-42"),
            &folder,
            &[],
        );
    }
}
