//! Log-probabilities of the responses of a dataset.

use upright_base::{Error, Result, progress::Progress};
use upright_data::Example;
use upright_engine::DeviceAdapter;
use upright_train::{
    not_finite::not_finite,
    packing::{PackedRows, pack},
    ranks::in_rounds,
    run::Model,
};

use crate::cli::terminal::Terminal;

/// Sum of the log-probabilities of every response of every example. The model's ranks share the packs.
pub(super) fn sums(
    model: &Model,
    adapter: Option<&DeviceAdapter>,
    examples: &[&Example],
    token_budget: usize,
    what: &str,
    terminal: &mut Terminal,
) -> Result<Vec<Vec<f64>>> {
    let decoder = &model.decoder;
    let mut sums: Vec<Vec<f64>> = examples
        .iter()
        .map(|example| vec![0.0; example.responses.len()])
        .collect();
    terminal.begin(what, examples.len());
    let stop = terminal.stop();
    let mut compute = |packed: &PackedRows| -> Result<Vec<f64>> {
        if stop.is_requested() {
            return Err(Error::interrupted("before all rows were scored"));
        }
        let scores = decoder.score(&packed.pack, adapter)?;
        let mut values = Vec::with_capacity(packed.segments.len());
        for segment in &packed.segments {
            let sum: f64 = scores.logp[segment.targets.clone()].iter().sum();
            if !sum.is_finite() {
                let row = examples[segment.example].row;
                let value = format!("the log-probability of row {row}");
                return Err(not_finite(value, decoder, &packed.pack, adapter));
            }
            values.push(sum);
        }
        Ok(values)
    };
    let mut done = 0;
    let mut take = |packed: &PackedRows, values: &[f64]| -> Result<()> {
        for (segment, value) in packed.segments.iter().zip(values) {
            sums[segment.example][segment.response] = *value;
            done += usize::from(segment.response == 0);
        }
        terminal.advance(done, "");
        Ok(())
    };
    let packs = pack(examples, token_budget);
    let count = |packed: &PackedRows| packed.segments.len();
    let scored = in_rounds(&model.world, &packs, &count, &mut compute, &mut take);
    terminal.end();
    scored.map(|()| sums)
}
