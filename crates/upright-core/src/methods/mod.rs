//! Methods. Each method makes one decision per step, in one small file of plain numbers, for any
//! number of objectives. A new method is a new file and its line in [`METHODS`].

mod alright;
#[cfg(test)]
pub(crate) mod bowls;
mod compromise;
mod maxright;
mod mix;
mod owed;
mod sequential;
mod spec;

pub use alright::{ALRIGHT, Alright, Balanced};
pub use compromise::{COMPROMISE, Compromise};
pub use maxright::{MAXRIGHT, Maxright};
pub use mix::{BATCHES as MIX_BATCHES, MIX, Mix};
pub use sequential::{SEQUENTIAL, Sequential};
pub use spec::{Cost, Form, MethodContext, MethodSpec, PROBE_EVERY};

use upright_math::registry::Registry;

use crate::settings::Setting;

/// The table of methods, in the order of help texts.
pub static METHODS: Registry<MethodSpec> =
    Registry::new(&[&SEQUENTIAL, &MIX, &ALRIGHT, &MAXRIGHT, &COMPROMISE]);

/// All methods.
pub fn all() -> &'static [&'static MethodSpec] {
    METHODS.all()
}

/// The settings of all methods, each name once.
pub fn settings() -> Vec<&'static Setting> {
    let mut settings: Vec<&'static Setting> = Vec::new();
    for setting in all().iter().flat_map(|method| method.settings) {
        if !settings.iter().any(|other| other.name == setting.name) {
            settings.push(setting);
        }
    }
    settings
}

/// The weights of a method that trains on one objective of `count` in a step: 1 for this objective, which is then trained on by its
/// plain gradient, and 0 for the others.
pub fn one_hot(count: usize, id: usize) -> Vec<f64> {
    let mut weights = vec![0.0; count];
    weights[id] = 1.0;
    weights
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::bowls::Bowls;
    use super::*;
    use crate::settings::{Value, Values};
    use crate::train::train;

    /// Mixed loss after 2,000 steps minus its minimum: 0.5, at the origin, for equal weights of two
    /// bowls at (-1, 0) and (1, 0).
    fn final_gap(spec: &MethodSpec) -> f64 {
        let mut toy = Bowls::new(vec![[-1.0, 0.0], [1.0, 0.0]], 0.02);
        let context = MethodContext {
            weights: vec![0.5, 0.5],
            tie_ranks: vec![1, 0],
            optima: vec![0.0; 2],
            settings: Values::defaults(spec.settings),
            seed: 42,
            stages: vec![(0, 1000), (1, 2000)],
        };
        train(&mut toy, &mut *(spec.build)(context), 0..2000, |_, _, _| {
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        (toy.value(0) + toy.value(1)) / 2.0 - 0.5
    }

    #[test]
    fn joint_methods_close_the_gap_that_sequential_leaves_open() {
        assert!(final_gap(&SEQUENTIAL) > 0.4);
        assert!(final_gap(&MIX) < 1e-6);
        for method in all().iter().filter(|method| !method.has_stages) {
            assert!(final_gap(method) < 0.05, "{method}");
        }
    }

    #[test]
    fn names_are_unique_and_forms_depend_on_settings_that_exist() {
        let mut names: Vec<&str> = Vec::new();
        let mut places: Vec<usize> = Vec::new();
        for method in all() {
            assert!(!names.contains(&method.name), "{method}");
            names.push(method.name);
            assert!(method.forms[0].when.is_none(), "{method}");
            for form in method.forms {
                assert!(!places.contains(&form.place), "{}", form.name);
                places.push(form.place);
                let Some((name, value)) = form.when else {
                    continue;
                };
                let mut settings = Values::defaults(method.settings);
                assert_eq!(method.form(&settings), &method.forms[0]);
                settings.set(name, Value::Choice(value.to_owned()));
                assert_eq!(method.form(&settings), form);
            }
        }
    }
}
