//! The paper's part of `upright`: the training loop, the methods, the objectives and the metrics,
//! as pure functions of numbers. No I/O, no tensors, no models: this crate builds in seconds.
//!
//! | module | purpose |
//! |---|---|
//! | [`train`] | [`Learner`], [`Method`] and the loop between the two; read it first |
//! | [`methods`] | the table of methods; each makes one decision per step |
//! | [`objectives`] | the table of losses, each with its derivatives |
//! | [`settings`] | how methods and losses declare their settings |
//! | [`optimizer`] | AdamW's scalars, clipping, learning rates |
//! | [`metrics`] | optimality gap, distance to the ideal point, Pareto fronts, standard errors |
//!
//! Two parabolas pull a number to -1 and to 1; ALRIGHT draws one of them per step:
//!
//! ```
//! use std::{convert::Infallible, ops::ControlFlow};
//! use upright_core::{Learner, ObjectiveId, methods::Alright, train::train};
//!
//! struct Parabolas {
//!     x: f64,
//!     gradient: f64,
//! }
//!
//! impl Learner for Parabolas {
//!     type Error = Infallible;
//!
//!     fn objectives(&self) -> usize {
//!         2
//!     }
//!     fn loss(&mut self, id: ObjectiveId) -> Result<f64, Infallible> {
//!         Ok(0.5 * (self.x - [-1.0, 1.0][id.0]).powi(2))
//!     }
//!     fn accumulate(&mut self, id: ObjectiveId, weight: f64) -> Result<f64, Infallible> {
//!         self.gradient += weight * (self.x - [-1.0, 1.0][id.0]);
//!         self.loss(id)
//!     }
//!     fn update(&mut self) -> Result<(), Infallible> {
//!         self.x -= 0.01 * self.gradient;
//!         self.gradient = 0.0;
//!         Ok(())
//!     }
//! }
//!
//! let mut learner = Parabolas { x: 5.0, gradient: 0.0 };
//! let mut method = Alright { weights: vec![0.5, 0.5], seed: 42 };
//! train(&mut learner, &mut method, 0..5000, |_, _, _| Ok(ControlFlow::Continue(()))).unwrap();
//! assert!(learner.x.abs() < 0.3);
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests write what they like")
)]

pub mod methods;
pub mod metrics;
pub mod objectives;
pub mod optimizer;
#[cfg(feature = "serde")]
mod serde_names;
pub mod settings;
pub mod train;

pub use methods::MethodSpec;
pub use objectives::{LossSpec, Objective};
pub use train::{Learner, Method, ObjectiveId, Step};
