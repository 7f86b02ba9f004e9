//! Memory of kernels, and their arguments.

use std::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use bytemuck::Pod;
use half::bf16;
use upright_kernels::Element;

/// A number that buffers hold.
pub trait Number: Pod {
    /// Its type.
    const ELEMENT: Element;
    /// What a buffer holds that nobody has written: a NaN with unusual bits, or an unlikely integer.
    const UNWRITTEN: Self;
}

macro_rules! numbers {
    ($($type:ty, $element:ident, $unwritten:expr;)*) => {
        $(impl Number for $type {
            const ELEMENT: Element = Element::$element;
            const UNWRITTEN: Self = $unwritten;
        })*
    };
}

numbers! {
    f32, F32, f32::from_bits(0x7fde_ad01);
    bf16, Bf16, bf16::from_bits(0x7fde);
    i32, I32, 0x5ead_dead;
    u32, U32, 0xdead_5ead;
    u64, U64, 0xdead_5ead_dead_5ead;
    i64, I64, 0x5ead_dead_5ead_dead;
    f64, F64, f64::from_bits(0x7ff8_dead_5ead_0001);
    u8, U8, 0xd5;
}

/// An argument of a kernel.
#[derive(Debug)]
pub enum Arg<'a> {
    /// `int`
    I32(i32),
    /// `u32`
    U32(u32),
    /// `u64`
    U64(u64),
    /// `float`
    F32(f32),
    /// `double`
    F64(f64),
    /// `In<T>`: the bytes of a buffer.
    In(Element, &'a [u8]),
    /// `Out<T>`: the bytes of a buffer.
    Out(Element, &'a mut [u8]),
}

/// A buffer's memory is a multiple of this, as an allocation on a card begins at one.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(16))]
struct Unit([u8; 16]);

/// Typed memory, aligned to 16 bytes. It derefs to a slice.
#[derive(Clone, Debug)]
pub struct Buffer<T> {
    memory: Vec<Unit>,
    len: usize,
    number: PhantomData<T>,
}

impl<T: Number> Buffer<T> {
    /// A buffer of `len` numbers that nobody has written.
    pub fn unwritten(len: usize) -> Self {
        Self::from(vec![T::UNWRITTEN; len])
    }

    /// Index of the first number that nobody has written.
    pub fn first_unwritten(&self) -> Option<usize> {
        let unwritten = T::UNWRITTEN;
        let bytes = bytemuck::bytes_of(&unwritten);
        self.iter().position(|x| bytemuck::bytes_of(x) == bytes)
    }

    /// As an argument that the kernel only reads.
    pub fn input(&self) -> Arg<'_> {
        Arg::In(T::ELEMENT, bytemuck::cast_slice(self))
    }

    /// The numbers from `start` on, as an argument that the kernel only reads. As for [`input`](Self::input), the place is a
    /// multiple of 16 bytes.
    ///
    /// # Panics
    /// If it is not, or is outside.
    pub fn input_from(&self, start: usize) -> Arg<'_> {
        assert!((start * size_of::<T>()).is_multiple_of(16), "alignment");
        Arg::In(T::ELEMENT, bytemuck::cast_slice(&self[start..]))
    }

    /// As an argument that the kernel writes.
    pub fn output(&mut self) -> Arg<'_> {
        Arg::Out(T::ELEMENT, bytemuck::cast_slice_mut(self))
    }
}

impl<T: Number> From<Vec<T>> for Buffer<T> {
    fn from(values: Vec<T>) -> Self {
        let units = size_of_val(&values[..]).div_ceil(size_of::<Unit>());
        let mut buffer = Self {
            memory: vec![Unit([0; 16]); units],
            len: values.len(),
            number: PhantomData,
        };
        buffer.copy_from_slice(&values);
        buffer
    }
}

impl<T: Number> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.memory)[..self.len]
    }
}

impl<T: Number> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.memory)[..self.len]
    }
}
