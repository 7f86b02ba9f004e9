//! Checks the theory against the program: `results` of the three computations, `claims` in the
//! steps of the proofs.

mod claims;
mod results;
