//! What is promised of runs, kept by the real program on a tiny model.

mod runs_fixture;

use runs_fixture::{Fixture, TWO};

#[test]
fn probe() {
    let f = Fixture::new("llama");
    let t = std::time::Instant::now();
    let e = f.train("a", &format!("{TWO} --method maxright --probe-every 3 --steps 90 --checkpoint-every 7 --eval-every 10 --reference train:chosen --threads 1")).good();
    println!("{}\n{}\n{:?}", e.stdout, e.stderr, t.elapsed());
    println!("{:#?}", runs_fixture::contents(&f.path("a"), &[]).keys());
    println!("{}", std::fs::read_to_string(f.path("a/steps.jsonl")).unwrap().lines().take(5).collect::<Vec<_>>().join("\n"));
    println!("{}", std::fs::read_to_string(f.path("a/plan.toml")).unwrap());
}
