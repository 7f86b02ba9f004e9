//! Log-probabilities of the responses of a dataset.

use upright_base::{Error, Result, observer::Observer};
use upright_data::Example;
use upright_engine::{DeviceAdapter, decoder::Decoder};
use upright_train::{not_finite::not_finite, packing::pack};

use crate::cli::terminal::Terminal;

/// Sum of the log-probabilities of every response of every example.
pub(super) fn sums(
    decoder: &Decoder,
    adapter: Option<&DeviceAdapter>,
    examples: &[&Example],
    token_budget: usize,
    what: &str,
    terminal: &mut Terminal,
) -> Result<Vec<Vec<f64>>> {
    let mut sums: Vec<Vec<f64>> = examples
        .iter()
        .map(|example| vec![0.0; example.responses.len()])
        .collect();
    terminal.begin(what, examples.len());
    let mut done = 0;
    for packed in &pack(examples, token_budget) {
        if terminal.stop_requested() {
            terminal.end();
            return Err(Error::interrupted("before all rows were scored"));
        }
        let scores = decoder.score(&packed.pack, adapter)?;
        for segment in &packed.segments {
            let sum: f64 = scores.logp[segment.targets.clone()].iter().sum();
            if !sum.is_finite() {
                terminal.end();
                let value = format!(
                    "the log-probability of row {}",
                    examples[segment.example].row
                );
                return Err(not_finite(value, decoder, &packed.pack, adapter));
            }
            sums[segment.example][segment.response] = sum;
            done += usize::from(segment.response == 0);
        }
        terminal.advance(done, "");
    }
    terminal.end();
    Ok(sums)
}
