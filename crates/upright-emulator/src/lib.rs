//! Runs the CUDA kernels on the CPU, for tests and rehearsals. Nothing that is shipped depends on it.
//!
//! `build.rs` compiles the kernels' sources with the C++ compiler of the machine and with an emulator of the card's blocks,
//! warps, shared memory and tensor cores. Where there is no compiler, [`missing`] says so and tests pass.
//!
//! | module | purpose |
//! |---|---|
//! | [`buffer`] | [`Buffer`]: typed memory that kernels read and write |
//! | `launch` | [`launch()`]: runs a kernel by name and returns what it did wrong as text |
//!
//! ```
//! use half::bf16;
//! use upright_emulator::{Arg, Buffer, launch, missing};
//!
//! if missing().is_some() {
//!     return;
//! }
//! let x = Buffer::from(vec![3.0f32, 4.0]);
//! let scale = Buffer::from(vec![1.0f32, 2.0]);
//! let mut y = Buffer::<bf16>::unwritten(2);
//! let mut args = vec![x.input(), scale.input(), y.output()];
//! args.extend([2; 4].map(Arg::I32));
//! args.push(Arg::F32(0.0));
//! launch("rms_norm_forward", [1, 1, 1], 0, &mut args).unwrap();
//! let expected = [3.0f32 / 12.5f32.sqrt(), 8.0 / 12.5f32.sqrt()].map(bf16::from_f32);
//! assert_eq!(y[..], expected);
//! ```

#![allow(unsafe_code, reason = "calls into C++")]

pub mod buffer;
mod launch;

pub use buffer::{Arg, Buffer, Number};
pub use launch::{Signature, launch, launch_unit, missing, signatures};
