//! What the theory says, asked of the program: `results` of the three computations, `claims` of the proofs' small steps.

mod claims;
mod results;
