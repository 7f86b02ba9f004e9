//! Tests of the kernels and of the emulator that runs them. All of them pass, with a line that says so, where there is no C++
//! compiler.

mod activation;
mod attention;
mod bugs;
mod head;
mod heads;
mod norm;
mod numbers;
mod optimizer;
mod rows;
mod table;
mod thin;

/// Ends a test where nothing was compiled.
#[macro_export]
macro_rules! needs_compiler {
    () => {
        if let Some(why) = upright_emulator::missing() {
            eprintln!("{why}");
            return;
        }
    };
}
