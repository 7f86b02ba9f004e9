//! The table of kernels against the sources and against what was made of them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use sha2::{Digest, Sha256};
use upright_emulator::signatures;
use upright_kernels::{FAMILIES, Passing, Target};

use crate::needs_compiler;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../upright-kernels/cuda")
}

#[test]
fn the_table_has_the_kernels_of_the_sources() {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    names.sort();
    let mut families: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
    families.sort_unstable();
    assert_eq!(families, names);
}

#[test]
fn the_table_has_the_signatures_that_cpp_declares() {
    needs_compiler!();
    for family in FAMILIES {
        let mut declared = signatures(family.name);
        declared.reverse();
        let count = declared.len();
        assert_eq!(count, family.kernels.len(), "kernels of {}", family.name);
        for (kernel, declared) in family.kernels.iter().zip(declared) {
            assert_eq!(kernel.name, declared.name);
            assert_eq!(kernel.threads, declared.threads, "{}", kernel.name);
            let parameters = kernel.parameters.iter();
            let parameters: Vec<_> = parameters.map(|p| (p.element, p.passing)).collect();
            assert_eq!(parameters, declared.parameters, "{}", kernel.name);
            let source = fs::read_to_string(folder().join(format!("{}.cu", family.name))).unwrap();
            for parameter in kernel.parameters {
                let found = source.contains(&format!(" {}", parameter.name));
                assert!(found, "{}: no {}", kernel.name, parameter.name);
            }
        }
    }
}

/// A source file and those that it includes, by name.
fn sources(name: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    let Ok(content) = fs::read_to_string(folder().join(name)) else {
        return;
    };
    if found.contains_key(name) {
        return;
    }
    found.insert(name.to_owned(), content.clone().into_bytes());
    for line in content.lines() {
        let included = line.strip_prefix("#include \"");
        if let Some(included) = included.and_then(|rest| rest.strip_suffix('"')) {
            sources(included, found);
        }
    }
}

/// If this fails, run `tools/kernels/build` and commit what it writes.
#[test]
fn the_images_were_made_from_these_sources() {
    for family in FAMILIES {
        let mut found = BTreeMap::new();
        sources(&format!("{}.cu", family.name), &mut found);
        let mut hash = Sha256::new();
        for (name, content) in found {
            hash.update(format!("{name} {}\n", content.len()));
            hash.update(content);
        }
        let hash: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let recorded = family.record.lines().next().unwrap();
        assert_eq!(recorded, format!("sources {hash}"), "{}", family.name);
    }
}

/// A card has 65,536 registers for a block. Registers that do not suffice go to memory, which is slow.
#[test]
fn no_kernel_spills_registers() {
    for family in FAMILIES {
        for target in Target::ALL
            .iter()
            .filter(|target| **target != Target::Ptx80)
        {
            for kernel in family.kernels {
                let start = format!("{} {} registers ", target.name(), kernel.name);
                let line = family
                    .record
                    .lines()
                    .find_map(|line| line.strip_prefix(&start));
                let line = line.unwrap_or_else(|| panic!("no line: {start}"));
                let (registers, rest) = line.split_once(' ').unwrap();
                assert!(rest.starts_with("local 0 "), "{start}{line}");
                assert!(
                    registers.parse::<u32>().unwrap() * kernel.threads <= 65_536,
                    "{start}{line}"
                );
            }
        }
    }
}

#[test]
fn the_images_have_the_parameters_of_the_table() {
    for family in FAMILIES {
        for kernel in family.kernels {
            let sizes: Vec<_> = kernel
                .parameters
                .iter()
                .map(|parameter| match parameter.passing {
                    Passing::Number => parameter.element.size().to_string(),
                    Passing::In | Passing::Out => "8".to_owned(),
                })
                .collect();
            let sizes = sizes.join(" ");
            let (name, threads) = (kernel.name, kernel.threads);
            let line = format!("kernel {name} threads {threads} parameters {sizes}");
            assert!(
                family.record.lines().any(|found| found == line),
                "no line: {line}"
            );
        }
    }
}
