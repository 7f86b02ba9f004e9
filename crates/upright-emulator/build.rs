//! Builds the kernels with the emulator, or sets nothing up where no C++17 compiler is found.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

include!("bugs/patches.rs");

fn main() {
    println!("cargo::rustc-check-cfg=cfg(compiled)");
    println!("cargo::rerun-if-env-changed=UPRIGHT_EMULATOR_ASAN");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("Cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it"));
    let kernels = root.join("../upright-kernels/cuda");
    let own = root.join("cpp");
    for path in [&kernels, &own, &root.join("bugs"), &root.join("build.rs")] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    // Sources by unit: the families of kernels, then the seeded bugs.
    let mut units: Vec<(String, PathBuf)> = Vec::new();
    for (prefix, folder) in [("", &kernels), ("bug_", &root.join("bugs"))] {
        for path in files(folder, "cu") {
            let name = path.file_stem().expect("a file").to_string_lossy();
            units.push((format!("{prefix}{name}"), path.clone()));
        }
    }
    for patch in PATCHES {
        let path = [root.join("bugs"), kernels.clone()].map(|folder| folder.join(patch.file));
        let path = path
            .iter()
            .find(|path| path.exists())
            .expect("a patched kernel exists");
        let text = fs::read_to_string(path).expect("a kernel is text");
        let patched = patched(patch, text);
        let path = out.join(format!("{}.cu", patch.name));
        write(&path, &patched);
        units.push((format!("bug_{}", patch.name), path));
    }

    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        // What a kernel does not fuse is not fused.
        .flag_if_supported("-ffp-contract=off")
        .include(&kernels)
        .include(&own)
        .cargo_warnings(false);
    // AddressSanitizer has to be preloaded when the tests run: see .ci/run.
    let with_asan = env::var_os("UPRIGHT_EMULATOR_ASAN").is_some();
    if with_asan {
        build
            .flag("-fsanitize=address")
            .flag("-fno-omit-frame-pointer");
    }
    if !compiles(&build, &out) {
        println!(
            "cargo::warning=no C++17 compiler was found (GCC or Clang), so tests do not run the CUDA kernels"
        );
        write(&out.join("units.rs"), "");
        return;
    }
    let mut declared = String::from("unsafe extern \"C\" {\n");
    let mut listed =
        String::from("const UNITS: &[(&str, unsafe extern \"C\" fn() -> *const Entry)] = &[\n");
    for (name, path) in &units {
        // A unit is a source file between the emulator's headers and a function that lists its kernels.
        let path = path.to_str().expect("paths are UTF-8").replace('\\', "/");
        let unit = out.join(format!("unit_{name}.cpp"));
        let text = format!(
            "#include \"device.h\"\n#include \"{path}\"\n\
             extern \"C\" const emulator::Entry* upright_unit_{name}() {{ return kernels_of_this_file; }}\n"
        );
        write(&unit, &text);
        build.file(unit);
        declared += &format!("    fn upright_unit_{name}() -> *const Entry;\n");
        listed += &format!("    (\"{name}\", upright_unit_{name}),\n");
    }
    write(
        &out.join("units.rs"),
        &format!("{declared}}}\n\n{listed}];\n"),
    );
    build.files(files(&own, "cpp")).compile("upright_emulator");
    if with_asan {
        println!("cargo::rustc-link-lib=dylib=asan");
    }
    println!("cargo::rustc-cfg=compiled");
}

/// Files of a folder with an extension, in order of their names.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder exists") {
        let path = entry.expect("the folder can be read").path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Whether there is a compiler for C++17 with its standard library. The fibers are written in GCC's inline assembly.
fn compiles(build: &cc::Build, out: &Path) -> bool {
    if build
        .try_get_compiler()
        .is_ok_and(|compiler| compiler.is_like_msvc())
    {
        return false;
    }
    let probe = out.join("probe.cpp");
    write(
        &probe,
        "#include <vector>\nint main() { if (int x = 0; x) return x; return 0; }\n",
    );
    let mut build = build.clone();
    build.cargo_metadata(false).file(probe);
    build.try_compile("upright_emulator_probe").is_ok()
}

/// A kernel with one bug.
fn patched(patch: &Patch, mut text: String) -> String {
    for (from, to) in patch.edits {
        let count = text.matches(from).count();
        assert_eq!(
            count, 1,
            "{}: the patch fits {count} places: {from}",
            patch.name
        );
        text = text.replace(from, to);
    }
    // Of kernels for several sizes of heads, only those for 64.
    let other = |line: &str| {
        ["FORWARD(", "BACKWARD("]
            .iter()
            .any(|name| line.starts_with(name))
            && !line.contains("(64,")
    };
    text.lines()
        .filter(|line| !other(line))
        .collect::<Vec<_>>()
        .join("\n")
        + "\n"
}

#[allow(clippy::disallowed_methods, reason = "files of a build")]
fn write(path: &Path, text: &str) {
    // An unchanged file keeps its time, so that nothing is built again.
    if fs::read_to_string(path).is_ok_and(|found| found == text) {
        return;
    }
    fs::write(path, text).expect("the build's folder can be written");
}
