//! Settings that training shares with other commands, and whose checks are more than a range.

use upright_base::Result;
use upright_data::Truncation;
use upright_model::Device;

use super::Number;
use super::checks::{count, wrong};
use super::lookup::{count_of, named_of};

/// The truncation settings: max-length, min-prompt, too-long.
pub fn truncation(
    max_length: Option<&Number>,
    min_prompt: Option<&Number>,
    too_long: Option<&str>,
) -> Result<Truncation> {
    let max_length = count_of("max-length", max_length)?;
    let min_prompt = count(
        "min-prompt",
        min_prompt,
        Truncation::usual_min_prompt(max_length),
    )?;
    if min_prompt >= max_length {
        return Err(wrong(
            "min-prompt",
            &format!("be below max-length, {max_length}"),
            min_prompt,
        ));
    }
    Ok(Truncation {
        max_length,
        min_prompt,
        rule: named_of("too-long", too_long)?,
    })
}

/// Default number of rows per step: pairs have two responses.
pub fn usual_batch(is_preference: bool) -> usize {
    if is_preference { 4 } else { 8 }
}

/// Number of threads; one per core by default.
pub fn threads(value: Option<&Number>) -> Result<usize> {
    const MOST: usize = 1024;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match count("threads", value, cores)? {
        threads if threads > MOST => Err(wrong("threads", &format!("be at most {MOST}"), threads)
            .hint(format!("cores of this machine: {cores}"))),
        threads => Ok(threads),
    }
}

/// The device; auto by default.
pub fn device(value: Option<&str>) -> Result<Device> {
    let Some(value) = value else {
        return Ok(Device::Auto);
    };
    value
        .parse()
        .map_err(|_| wrong("device", "be auto, cpu, cuda or cuda:N", value))
}

/// The default maximum of tokens in a pack. A GPU needs more rows to be busy.
pub fn token_budget_of(device: Device) -> usize {
    match device {
        Device::Cuda(_) => 8192,
        Device::Auto | Device::Cpu | Device::Host => 2048,
    }
}
