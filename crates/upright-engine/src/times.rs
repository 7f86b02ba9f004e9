//! Where a step on a card spends its time.

use std::collections::BTreeMap;

/// Launches of a group of kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupTime {
    /// `products` for matrix products, else the name of the kernels' source file.
    pub group: &'static str,
    /// Number of launches.
    pub launches: usize,
    /// Seconds on the device.
    pub seconds: f64,
}

/// Adds up launches by group, the longest first.
pub(crate) fn grouped(times: &BTreeMap<&'static str, (usize, f64)>) -> Vec<GroupTime> {
    let mut groups: BTreeMap<&'static str, (usize, f64)> = BTreeMap::new();
    for (kernel, (launches, seconds)) in times {
        let family = upright_kernels::kernel(kernel).map(|(family, _)| family.name);
        let entry = groups.entry(family.unwrap_or(kernel)).or_default();
        entry.0 += launches;
        entry.1 += seconds;
    }
    let mut all = Vec::with_capacity(groups.len());
    for (group, (launches, seconds)) in groups {
        all.push(GroupTime {
            group,
            launches,
            seconds,
        });
    }
    all.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_a_source_file_are_one_group() {
        let times = [
            ("rms_norm_forward", (3, 0.5)),
            ("rms_norm_backward", (2, 1.0)),
            ("products", (7, 4.0)),
        ];
        let found = grouped(&times.into_iter().collect());
        let group = |group, launches, seconds| GroupTime {
            group,
            launches,
            seconds,
        };
        assert_eq!(found, [group("products", 7, 4.0), group("norm", 5, 1.5)]);
    }
}
