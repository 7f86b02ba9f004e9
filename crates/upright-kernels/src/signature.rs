//! Signatures of kernels.

/// Maximum bytes of shared memory per block, on the card with the least (compute capability 8.6).
pub const MAX_SHARED: u32 = 99 * 1024;
/// Maximum threads per block.
pub const MAX_THREADS: u32 = 1024;

/// Type of a number, or of the elements of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Element {
    /// `float`
    F32 = 0,
    /// `bf16`
    Bf16 = 1,
    /// `int`, or a struct of them
    I32 = 2,
    /// `u32`
    U32 = 3,
    /// `u64`
    U64 = 4,
    /// `double`
    F64 = 5,
    /// `u8`
    U8 = 6,
    /// `long long`
    I64 = 7,
}

impl Element {
    /// All types, by their number.
    pub const ALL: [Self; 8] = [
        Self::F32,
        Self::Bf16,
        Self::I32,
        Self::U32,
        Self::U64,
        Self::F64,
        Self::U8,
        Self::I64,
    ];

    /// Bytes of a number.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::Bf16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::U64 | Self::F64 | Self::I64 => 8,
        }
    }
}

/// How a parameter is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Passing {
    /// A number by value.
    Number = 0,
    /// The address of a buffer that the kernel only reads.
    In = 1,
    /// The address of a buffer that the kernel writes.
    Out = 2,
}

/// A parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The name in the source.
    pub name: &'static str,
    /// Its type, or that of a buffer's elements.
    pub element: Element,
    /// Number or buffer.
    pub passing: Passing,
}

/// A kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The name in the source and in the cubins.
    pub name: &'static str,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of shared memory that a launch asks for. Above 48 kB a card wants to be told before.
    pub shared: u32,
    /// Parameters, in order.
    pub parameters: &'static [Parameter],
}

/// `int`
pub(crate) const fn int(name: &'static str) -> Parameter {
    number(name, Element::I32)
}

/// `float`
pub(crate) const fn float(name: &'static str) -> Parameter {
    number(name, Element::F32)
}

/// A number.
pub(crate) const fn number(name: &'static str, element: Element) -> Parameter {
    Parameter {
        name,
        element,
        passing: Passing::Number,
    }
}

/// `In<T>`
pub(crate) const fn input(name: &'static str, element: Element) -> Parameter {
    Parameter {
        name,
        element,
        passing: Passing::In,
    }
}

/// `Out<T>`
pub(crate) const fn output(name: &'static str, element: Element) -> Parameter {
    Parameter {
        name,
        element,
        passing: Passing::Out,
    }
}
