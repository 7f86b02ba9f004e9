//! A device that checks another one: every kernel also runs in the emulator, and every product on the CPU, on the same inputs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use half::bf16;
use rayon::ThreadPool;
use upright_base::{Error, Result};
use upright_kernels::{Element, Kernel};

use crate::{
    cpu::tier::Tier,
    gpu::{
        device::{Arg, Device, LaunchTimes, PRODUCTS, Place, Product},
        host,
    },
};

/// Largest difference that is accepted where the last bits of a card may differ, as a part of the largest magnitude of an output:
/// a bf16 number that is rounded the other way, in the output or in an operand of a tensor core.
const TOLERANCE: f64 = 1.0 / 128.0;

/// Families without an instruction whose last bits the emulator may have otherwise: `mma`, `ex2` and `lg2`. A test compares this list
/// with the sources.
const EXACT_FAMILIES: [&str; 6] = ["activation", "head", "heads", "norm", "optimizer", "rows"];

/// A kernel on a device beside the emulator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelComparison {
    /// Launches that were compared.
    pub launches: usize,
    /// Whether every bit has to be equal.
    pub is_exact: bool,
    /// Largest difference, as a part of the largest magnitude of its output.
    pub largest: f64,
    /// The first difference beyond what is accepted: the launch, the argument, and both values.
    pub failure: Option<String>,
}

/// A device whose launches and products are compared.
pub(super) struct Compared {
    device: Arc<dyn Device>,
    pool: Arc<ThreadPool>,
    tier: Tier,
    found: Mutex<BTreeMap<&'static str, KernelComparison>>,
}

/// The bytes of an argument in host memory, aligned for any element.
struct Copied {
    units: Vec<u128>,
    bytes: usize,
}

impl Copied {
    fn of(device: &dyn Device, place: Place) -> Result<Self> {
        let units = vec![0u128; place.bytes.div_ceil(size_of::<u128>())];
        let mut copied = Self {
            units,
            bytes: place.bytes,
        };
        device.download(place, copied.bytes_mut())?;
        Ok(copied)
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.units)[..self.bytes]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.units)[..self.bytes]
    }

    /// The first `count` numbers, or all.
    fn numbers(&self, element: Element, count: Option<usize>) -> Vec<f64> {
        let count = count.unwrap_or(self.bytes / element.size());
        let bytes = &self.bytes()[..count * element.size()];
        let mut numbers = Vec::with_capacity(count);
        for bytes in bytes.chunks(element.size()) {
            numbers.push(number(element, bytes));
        }
        numbers
    }
}

/// A number from its bytes.
fn number(element: Element, bytes: &[u8]) -> f64 {
    let whole: u64 = {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(padded)
    };
    match element {
        Element::F32 => f64::from(f32::from_bits(whole as u32)),
        Element::Bf16 => f64::from(bf16::from_bits(whole as u16)),
        Element::F64 => f64::from_bits(whole),
        Element::I32 => f64::from(whole as u32 as i32),
        Element::I64 => whole as i64 as f64,
        Element::U8 | Element::U32 | Element::U64 => whole as f64,
    }
}

fn is_float(element: Element) -> bool {
    matches!(element, Element::F32 | Element::Bf16 | Element::F64)
}

/// The largest difference of two lists of numbers, as a part of the largest magnitude, and the first place beyond `accepted`.
fn difference(found: &[f64], wanted: &[f64], accepted: f64) -> (f64, Option<usize>) {
    let mut size = f64::MIN_POSITIVE;
    for value in wanted {
        if value.is_finite() {
            size = size.max(value.abs());
        }
    }
    let (mut largest, mut first) = (0.0f64, None);
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        // Memory that a kernel does not write may hold NaN.
        if found.to_bits() == wanted.to_bits() || (found.is_nan() && wanted.is_nan()) {
            continue;
        }
        let off = (found - wanted).abs() / size;
        let off = if off.is_finite() { off } else { f64::INFINITY };
        largest = largest.max(off);
        if off > accepted && first.is_none() {
            first = Some(index);
        }
    }
    (largest, first)
}

impl Compared {
    /// Compares a device with the emulator, and with products on a pool.
    pub(super) fn new(device: Arc<dyn Device>, pool: Arc<ThreadPool>, tier: Tier) -> Self {
        Self {
            device,
            pool,
            tier,
            found: Mutex::default(),
        }
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<&'static str, KernelComparison>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every kernel that ran, and the products.
    pub(super) fn take(&self) -> BTreeMap<&'static str, KernelComparison> {
        std::mem::take(&mut self.found())
    }

    /// Records a comparison: the largest difference, and the first one that is not accepted.
    fn record(
        &self,
        name: &'static str,
        is_exact: bool,
        (largest, failure): (f64, Option<String>),
    ) {
        let mut found = self.found();
        let entry = found.entry(name).or_default();
        entry.launches += 1;
        entry.is_exact = is_exact;
        entry.largest = entry.largest.max(largest);
        if entry.failure.is_none() {
            entry.failure = failure;
        }
    }

    /// Runs a kernel on the device and in the emulator.
    fn launch_both(
        &self,
        kernel: &'static Kernel,
        grid: [u32; 3],
        args: &[Arg],
    ) -> Result<(f64, Option<String>)> {
        let mut copies = Vec::new();
        for arg in args {
            copies.push(match arg {
                Arg::In(_, place) | Arg::Out(_, place) => Some(Copied::of(&*self.device, *place)?),
                _ => None,
            });
        }
        self.device.launch(kernel, grid, args)?;
        let mut bound = Vec::with_capacity(args.len());
        for (arg, copy) in args.iter().zip(&mut copies) {
            bound.push(match (arg, copy) {
                (Arg::In(element, _), Some(copy)) => {
                    upright_emulator::Arg::In(*element, copy.bytes())
                }
                (Arg::Out(element, _), Some(copy)) => {
                    upright_emulator::Arg::Out(*element, copy.bytes_mut())
                }
                (Arg::U64(number), _) => upright_emulator::Arg::U64(*number),
                (Arg::F32(number), _) => upright_emulator::Arg::F32(*number),
                (Arg::F64(number), _) => upright_emulator::Arg::F64(*number),
                (Arg::I32(number), _) => upright_emulator::Arg::I32(*number),
                (Arg::In(..) | Arg::Out(..), None) => unreachable!("buffers were copied"),
            });
        }
        upright_emulator::launch(kernel.name, grid, 0, &mut bound)
            .map_err(|problem| Error::failure(format!("{}: {problem}", kernel.name)))?;
        drop(bound);
        let exact = is_exact(kernel.name);
        let (mut largest, mut failure) = (0.0f64, None);
        for (index, (arg, wanted)) in args.iter().zip(&copies).enumerate() {
            let (Arg::Out(element, place), Some(wanted)) = (arg, wanted) else {
                continue;
            };
            let found = Copied::of(&*self.device, *place)?;
            let (found, wanted) = (
                found.numbers(*element, None),
                wanted.numbers(*element, None),
            );
            let accepted = if exact || !is_float(*element) {
                0.0
            } else {
                TOLERANCE
            };
            let (off, first) = difference(&found, &wanted, accepted);
            largest = largest.max(off);
            if let (Some(at), None) = (first, &failure) {
                let parameter = kernel.parameters[index].name;
                let (here, there) = (found[at], wanted[at]);
                let numbers = numbers_of(kernel, args);
                failure = Some(format!(
                    "{parameter}[{at}] is {here:e}, and {there:e} in the emulator; grid {grid:?}, {numbers}"
                ));
            }
        }
        Ok((largest, failure))
    }

    /// Multiplies on the device and on the CPU.
    fn multiply_both(&self, product: &Product) -> Result<(f64, Option<String>)> {
        let Product {
            m, n, k, d_element, ..
        } = *product;
        let copy = |place: Option<Place>| -> Result<Option<Copied>> {
            place
                .map(|place| Copied::of(&*self.device, place))
                .transpose()
        };
        let a = Copied::of(&*self.device, product.a)?;
        let b = Copied::of(&*self.device, product.b)?;
        let is_itself = product.c.is_some_and(|c| c.address == product.d.address);
        let c = copy(product.c.filter(|_| !is_itself))?;
        let bias = copy(product.bias)?;
        let mut wanted = Copied::of(&*self.device, product.d)?;
        self.device.multiply(product)?;
        let operands = host::Operands {
            a: bytemuck::cast_slice(a.bytes()),
            b: bytemuck::cast_slice(b.bytes()),
            c: c.as_ref().map(|c| bytemuck::cast_slice(c.bytes())),
            bias: bias.as_ref().map(|bias| bytemuck::cast_slice(bias.bytes())),
        };
        host::multiply(
            &self.pool,
            self.tier,
            product,
            &operands,
            wanted.bytes_mut(),
        );
        let found = Copied::of(&*self.device, product.d)?;
        let found = found.numbers(d_element, Some(m * n));
        let wanted = wanted.numbers(d_element, Some(m * n));
        let (largest, first) = difference(&found, &wanted, TOLERANCE);
        let failure = first.map(|at| {
            let (here, there) = (found[at], wanted[at]);
            format!(
                "D[{}, {}] is {here:e}, and {there:e} on the CPU; m {m}, n {n}, k {k}, {product:?}",
                at / n,
                at % n
            )
        });
        Ok((largest, failure))
    }
}

/// Whether a kernel has the emulator's bits on every card.
fn is_exact(kernel: &str) -> bool {
    let (family, _) = upright_kernels::kernel(kernel).expect("the name of a kernel");
    EXACT_FAMILIES.contains(&family.name)
}

/// The numbers among the arguments, by name.
fn numbers_of(kernel: &Kernel, args: &[Arg]) -> String {
    let mut words = Vec::new();
    for (parameter, arg) in kernel.parameters.iter().zip(args) {
        match arg {
            Arg::I32(number) => words.push(format!("{} {number}", parameter.name)),
            Arg::U64(number) => words.push(format!("{} {number}", parameter.name)),
            Arg::F32(number) => words.push(format!("{} {number}", parameter.name)),
            Arg::F64(number) => words.push(format!("{} {number}", parameter.name)),
            Arg::In(..) | Arg::Out(..) => {}
        }
    }
    words.join(", ")
}

impl Device for Compared {
    fn launch(&self, kernel: &'static Kernel, grid: [u32; 3], args: &[Arg]) -> Result<()> {
        let compared = self.launch_both(kernel, grid, args)?;
        self.record(kernel.name, is_exact(kernel.name), compared);
        Ok(())
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        let compared = self.multiply_both(product)?;
        self.record(PRODUCTS, false, compared);
        Ok(())
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.device.allocate(bytes)
    }

    fn free(&self, address: u64) {
        self.device.free(address);
    }

    fn upload(&self, bytes: &[u8], row: usize, to: Place, stride: usize) -> Result<()> {
        self.device.upload(bytes, row, to, stride)
    }

    fn download(&self, from: Place, bytes: &mut [u8]) -> Result<()> {
        self.device.download(from, bytes)
    }

    fn copy(&self, from: Place, to: Place, bytes: usize) -> Result<()> {
        self.device.copy(from, to, bytes)
    }

    fn zero(&self, to: Place, bytes: usize) -> Result<()> {
        self.device.zero(to, bytes)
    }

    fn available(&self) -> Option<usize> {
        self.device.available()
    }

    fn peak(&self) -> usize {
        self.device.peak()
    }

    fn busy_seconds(&self) -> Option<f64> {
        self.device.busy_seconds()
    }

    fn energy_joules(&self) -> Option<f64> {
        self.device.energy_joules()
    }

    fn units(&self) -> usize {
        self.device.units()
    }

    fn large_product(&self) -> usize {
        self.device.large_product()
    }

    fn peak_rate(&self) -> Option<f64> {
        self.device.peak_rate()
    }

    fn start_times(&self) {
        self.device.start_times();
    }

    fn take_times(&self) -> Result<LaunchTimes> {
        self.device.take_times()
    }

    fn note(&self) -> String {
        self.device.note()
    }

    fn arithmetic(&self) -> String {
        self.device.arithmetic()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use upright_kernels::FAMILIES;

    use super::*;

    /// The instructions whose last bits differ between cards and the emulator.
    const ROUGH: [&str; 3] = ["mma(", "fast_exp2(", "fast_log2("];

    /// Whether a source file or one that it includes uses a rough instruction.
    fn is_rough(folder: &Path, file: &str) -> bool {
        let source = fs::read_to_string(folder.join(file)).unwrap();
        if ROUGH.iter().any(|name| source.contains(name)) {
            return true;
        }
        let mut included = source
            .lines()
            .filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
        included.any(|file| file != "device.h" && is_rough(folder, file))
    }

    #[test]
    fn families_without_rough_instructions_are_exact() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../upright-kernels/cuda");
        for family in FAMILIES {
            let is_exact = EXACT_FAMILIES.contains(&family.name);
            let rough = is_rough(&folder, &format!("{}.cu", family.name));
            assert_eq!(is_exact, !rough, "{}", family.name);
        }
    }

    #[test]
    fn differences_are_parts_of_the_largest_magnitude() {
        let wanted = [1.0, -8.0, f64::NAN, 0.5];
        assert_eq!(difference(&wanted, &wanted, 0.0), (0.0, None));
        let found = [1.0, -8.0, f64::NAN, 0.25];
        assert_eq!(difference(&found, &wanted, 0.05), (0.03125, None));
        assert_eq!(difference(&found, &wanted, 0.01), (0.03125, Some(3)));
        let found = [f64::NAN, -8.0, f64::NAN, 0.5];
        assert_eq!(difference(&found, &wanted, 0.5), (f64::INFINITY, Some(0)));
    }
}
