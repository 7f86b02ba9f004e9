//! Rotary embedding from a config, in both dialects: `rope_theta` and `rope_scaling` at the top (transformers 4) or all
//! of it inside `rope_parameters` (transformers 5).

use super::Rotary;
use super::json::Object;
use crate::families::{Family, NumberKey, families, model_types};
use upright_base::{Error, Result};

/// Reads the rotary embedding of heads of `head_size` values.
///
/// # Errors
/// Bad input: a key has the wrong type, two keys contradict each other, or the scaling is of a kind that
/// depends on the length of the text (`dynamic`, `longrope`) or is not implemented (`yarn` and the rest).
pub(super) fn read(
    file: Object<'_>,
    family: &Family,
    head_size: usize,
    max_positions: usize,
) -> Result<Rotary> {
    let old = file
        .object("rope_scaling", "rope_scaling.")?
        .filter(|o| !o.map.is_empty());
    let scaling = match old {
        Some(scaling) => Some(scaling),
        None => file.object("rope_parameters", "rope_parameters.")?,
    };
    if let Some(scaling) = scaling
        && let Some((key, _)) = scaling.map.iter().find(|(_, value)| value.is_object())
    {
        let hint = "use another model: a rotary embedding per layer type is not supported";
        return Err(scaling.error(
            key,
            "is an object: a separate rotary embedding for one layer type",
            hint,
        ));
    }

    let keys = &family.rotary;
    let theta = setting(file, scaling, "rope_theta", &keys.theta)?;
    let fraction = setting(file, scaling, "partial_rotary_factor", &keys.fraction)?;
    let fraction_key = keys.fraction.key;
    if !keys.is_partial && fraction != 1.0 {
        // transformers ignores the key here and rotates the whole head, so a config with the key
        // means another model.
        let partial = families().iter().filter(|family| family.rotary.is_partial);
        let hint = format!(
            "remove the key if it is a leftover; partial rotary embedding is supported for {} only",
            model_types(partial)
        );
        return Err(Error::file(
            file.path,
            format!("`{fraction_key}` is {fraction}, expected 1"),
            hint,
        ));
    }
    let dims = (head_size as f64 * fraction) as usize;
    if dims < 2 || !dims.is_multiple_of(2) || dims > head_size {
        let problem = format!(
            "`{fraction_key}` {fraction} of heads of size {head_size} rotates {dims} values"
        );
        let hint = format!(
            "the number of rotated values must be even, at least 2 and at most {head_size}"
        );
        return Err(Error::file(file.path, problem, hint));
    }
    let mut frequencies: Vec<f64> = (0..dims / 2)
        .map(|i| theta.powf(-((2 * i) as f64) / dims as f64))
        .collect();
    if let Some(scaling) = scaling {
        scale(file, scaling, max_positions, &mut frequencies)?;
    }
    if let Some(bad) = frequencies.iter().find(|f| !f.is_finite()) {
        let hint = format!("check `{}` and `rope_scaling`", keys.theta.key);
        return Err(Error::file(
            file.path,
            format!("the rotary embedding has a frequency of {bad}"),
            hint,
        ));
    }
    Ok(Rotary { dims, frequencies })
}

/// A number from `rope_parameters` under `inner`, or from the top level under the family's own key.
/// `rope_parameters` takes precedence.
fn setting(
    file: Object<'_>,
    scaling: Option<Object<'_>>,
    inner: &str,
    outside: &NumberKey,
) -> Result<f64> {
    let outer = outside.key;
    let inside = scaling.map(|s| s.positive(inner)).transpose()?.flatten();
    let value = match inside {
        Some(value) => value,
        None => file.positive(outer)?.unwrap_or(outside.default),
    };
    // GPT-NeoX has its own names, and transformers ignores the common names there.
    if inside.is_none() && inner != outer && file.number(inner)?.is_some_and(|other| other != value)
    {
        let problem = format!(
            "is {}, but this model reads `{outer}`, which is {value}",
            file.shown(inner)
        );
        return Err(file.error(
            inner,
            &problem,
            format!("set `{outer}` to the correct value, and remove `{inner}`"),
        ));
    }
    Ok(value)
}

/// Applies the scaling of `rope_scaling` or `rope_parameters`, as transformers' `modeling_rope_utils` does.
fn scale(
    file: Object<'_>,
    scaling: Object<'_>,
    max_positions: usize,
    frequencies: &mut [f64],
) -> Result<()> {
    let key = if scaling.get("rope_type").is_some() {
        "rope_type"
    } else {
        "type"
    };
    let needed = |key: &str| scaling.positive(key)?.ok_or_else(|| scaling.missing(key));
    match scaling.text(key)?.unwrap_or("default") {
        "default" => {}
        "linear" => {
            let factor = needed("factor")?;
            frequencies.iter_mut().for_each(|f| *f /= factor);
        }
        "llama3" => {
            let factor = needed("factor")?;
            let low = needed("low_freq_factor")?;
            let high = needed("high_freq_factor")?;
            if high <= low {
                return Err(scaling.wrong(
                    "high_freq_factor",
                    &format!("more than `low_freq_factor`, which is {low}"),
                ));
            }
            let original = "original_max_position_embeddings";
            let (inside, outside) = (scaling.positive(original)?, file.positive(original)?);
            if let (Some(inside), Some(outside)) = (inside, outside)
                && inside != outside
            {
                let problem = format!("is {inside}, but {outside} at the top level of the file");
                return Err(scaling.error(original, &problem, "set both to the same value"));
            }
            let context = inside.or(outside).unwrap_or(max_positions as f64);
            frequencies
                .iter_mut()
                .for_each(|f| *f = llama3(*f, context, factor, low, high));
        }
        _ => {
            let problem = format!("is {}, which is not supported", scaling.shown(key));
            return Err(scaling.error(
                key,
                &problem,
                "supported types: `default`, `linear`, `llama3`",
            ));
        }
    }
    Ok(())
}

/// Llama 3.1's rule: long wavelengths are slowed by `factor`, short ones are kept, and those in
/// between are blended.
fn llama3(frequency: f64, context: f64, factor: f64, low: f64, high: f64) -> f64 {
    let wavelength = std::f64::consts::TAU / frequency;
    if wavelength > context / low {
        frequency / factor
    } else if wavelength < context / high {
        frequency
    } else {
        let smooth = (context / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}
