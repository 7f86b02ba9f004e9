//! Typed memory on a device.

use std::{fmt, marker::PhantomData, sync::Arc};

use bytemuck::Pod;
use half::bf16;
use upright_base::Result;
use upright_kernels::Element;

use super::device::{Arg, Device, Place};

/// A number that kernels read and write.
pub(crate) trait Number: Pod {
    /// Its type.
    const ELEMENT: Element;
}

macro_rules! numbers {
    ($($type:ty, $element:ident;)*) => {
        $(impl Number for $type {
            const ELEMENT: Element = Element::$element;
        })*
    };
}

numbers! {
    f32, F32;
    bf16, Bf16;
    i32, I32;
    u32, U32;
    u64, U64;
    i64, I64;
    f64, F64;
}

/// Memory that goes back to its device when the last array on it is dropped.
struct Memory {
    device: Arc<dyn Device>,
    address: u64,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.device.free(self.address);
    }
}

/// Numbers on a device. A clone is the same memory.
pub(crate) struct Array<T> {
    memory: Arc<Memory>,
    /// Index of the first number in the memory.
    start: usize,
    len: usize,
    number: PhantomData<T>,
}

impl<T> Clone for Array<T> {
    fn clone(&self) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            ..*self
        }
    }
}

impl<T> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl<T: Number> Array<T> {
    /// Numbers of unspecified content.
    ///
    /// # Errors
    /// The device has too little memory.
    pub(crate) fn new(device: &Arc<dyn Device>, len: usize) -> Result<Self> {
        let address = device.allocate((len * size_of::<T>()).max(1))?;
        let memory = Arc::new(Memory {
            device: Arc::clone(device),
            address,
        });
        Ok(Self {
            memory,
            start: 0,
            len,
            number: PhantomData,
        })
    }

    /// Zeros.
    ///
    /// # Errors
    /// As [`Array::new`].
    pub(crate) fn zeros(device: &Arc<dyn Device>, len: usize) -> Result<Self> {
        let array = Self::new(device, len)?;
        array.zero()?;
        Ok(array)
    }

    /// The numbers of a slice.
    ///
    /// # Errors
    /// As [`Array::new`].
    pub(crate) fn from(device: &Arc<dyn Device>, values: &[T]) -> Result<Self> {
        let array = Self::new(device, values.len())?;
        array.write(values)?;
        Ok(array)
    }

    /// The device.
    pub(crate) fn device(&self) -> &Arc<dyn Device> {
        &self.memory.device
    }

    /// Number of numbers.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The same memory from number `start` on.
    ///
    /// # Panics
    /// If the array is shorter.
    pub(crate) fn at(&self, start: usize) -> Self {
        assert!(start <= self.len, "a place in the array");
        Self {
            memory: Arc::clone(&self.memory),
            start: self.start + start,
            len: self.len - start,
            number: PhantomData,
        }
    }

    /// Numbers `start` to `start + len - 1` of the same memory.
    ///
    /// # Panics
    /// If the array is shorter.
    pub(crate) fn part(&self, start: usize, len: usize) -> Self {
        let mut part = self.at(start);
        assert!(len <= part.len, "a part of the array");
        part.len = len;
        part
    }

    /// Where the numbers lie.
    pub(crate) fn place(&self) -> Place {
        Place {
            address: self.memory.address + (self.start * size_of::<T>()) as u64,
            bytes: self.len * size_of::<T>(),
        }
    }

    /// As an argument that a kernel only reads.
    pub(crate) fn input(&self) -> Arg {
        Arg::In(T::ELEMENT, self.place())
    }

    /// As an argument that a kernel writes.
    pub(crate) fn output(&self) -> Arg {
        Arg::Out(T::ELEMENT, self.place())
    }

    /// Sets all numbers to zero.
    pub(crate) fn zero(&self) -> Result<()> {
        if self.len == 0 {
            return Ok(());
        }
        let place = self.place();
        self.device().zero(place, place.bytes)
    }

    /// Replaces all numbers.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(crate) fn write(&self, values: &[T]) -> Result<()> {
        assert_eq!(values.len(), self.len, "one value per number");
        if self.len == 0 {
            return Ok(());
        }
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.device()
            .upload(bytes, bytes.len(), self.place(), bytes.len())
    }

    /// Writes rows of `row` values, which begin `stride` numbers apart, from number `start` on.
    ///
    /// # Panics
    /// If the rows do not fit.
    pub(crate) fn write_rows(
        &self,
        values: &[T],
        row: usize,
        start: usize,
        stride: usize,
    ) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let rows = values.len() / row;
        assert!(
            rows * row == values.len() && start + (rows - 1) * stride + row <= self.len,
            "rows within the array"
        );
        let size = size_of::<T>();
        self.device().upload(
            bytemuck::cast_slice(values),
            row * size,
            self.at(start).place(),
            stride * size,
        )
    }

    /// All numbers.
    pub(crate) fn read(&self) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); self.len];
        if self.len > 0 {
            self.device()
                .download(self.place(), bytemuck::cast_slice_mut(&mut values))?;
        }
        Ok(values)
    }

    /// The same numbers in memory of their own.
    pub(crate) fn copy(&self) -> Result<Self> {
        let copy = Self::new(self.device(), self.len)?;
        copy.copy_from(self)?;
        Ok(copy)
    }

    /// Replaces all numbers by those of an array of the same device and length.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(crate) fn copy_from(&self, other: &Self) -> Result<()> {
        assert_eq!(other.len, self.len, "arrays of equal length");
        if self.len == 0 {
            return Ok(());
        }
        let place = self.place();
        self.device().copy(other.place(), place, place.bytes)
    }
}
