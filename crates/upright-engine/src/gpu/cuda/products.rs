//! Matrix products with cuBLASLt. For every shape but the number of rows, one algorithm is chosen once and used for any number of
//! rows: the library itself would choose by the whole shape, and then a row's bits would depend on its neighbors.

use std::{
    collections::HashMap,
    ffi::c_void,
    sync::{Mutex, PoisonError},
};

use cudarc::{
    cublaslt::{
        result::{self, CublasError},
        sys,
    },
    driver,
};
use upright_base::{Error, Result};
use upright_kernels::Element;

use crate::gpu::device::Product;

/// Rows for which an algorithm is chosen.
const ROWS: usize = 4096;

/// Everything of a product but its number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    n: usize,
    k: usize,
    strides: [usize; 2],
    b_transposed: bool,
    has_c: bool,
    has_bias: bool,
    d_is_bf16: bool,
}

impl Shape {
    fn of(product: &Product) -> Self {
        Self {
            n: product.n,
            k: product.k,
            strides: [product.a_stride, product.b_stride],
            b_transposed: product.b_transposed,
            has_c: product.c.is_some(),
            has_bias: product.bias.is_some(),
            d_is_bf16: product.d_element == Element::Bf16,
        }
    }
}

/// cuBLASLt on one stream.
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    stream: driver::sys::CUstream,
    version: String,
    chosen: Mutex<HashMap<Shape, sys::cublasLtMatmulAlgo_t>>,
}

fn failed(what: &str, error: CublasError) -> Error {
    Error::failure(format!("cuBLASLt: {what}: {:?}", error.0))
        .hint("another version of cuBLAS may help; --device cpu runs without the GPU")
}

/// A matrix as the library stores it, column by column: rows, columns, and values from one column to the next.
type Columns = [usize; 3];

/// The matrices of `Dᵀ = Bᵀ Aᵀ + Cᵀ`: the stored B, the stored A, and D. A row-major matrix is its transpose when it is read column
/// by column, so nothing is copied. B is transposed by the library if it is stored transposed.
fn columns(product: &Product, rows: usize) -> [Columns; 3] {
    let Product { n, k, .. } = *product;
    let b = if product.b_transposed {
        [k, n, product.b_stride]
    } else {
        [n, k, product.b_stride]
    };
    [b, [k, rows, product.a_stride], [n, rows, n]]
}

/// Descriptors of one product, freed on drop.
struct Descriptors {
    operation: sys::cublasLtMatmulDesc_t,
    /// The stored B, the stored A, C and D, each column by column.
    layouts: [sys::cublasLtMatrixLayout_t; 4],
}

impl Descriptors {
    /// Describes a product with `rows` rows.
    fn new(product: &Product, rows: usize) -> std::result::Result<Self, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let bf16 = sys::cudaDataType::CUDA_R_16BF;
        let f32 = sys::cudaDataType::CUDA_R_32F;
        let d_type = if product.d_element == Element::Bf16 {
            bf16
        } else {
            f32
        };
        let layout = |element, [rows, columns, stride]: Columns| {
            result::create_matrix_layout(element, rows as u64, columns as u64, stride as i64)
        };
        let [b, a, d] = columns(product, rows);
        let operation =
            result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, f32)?;
        let layouts = [
            layout(bf16, b)?,
            layout(bf16, a)?,
            layout(d_type, d)?,
            layout(d_type, d)?,
        ];
        let descriptors = Self { operation, layouts };
        if product.b_transposed {
            // CUBLAS_OP_T
            let transposed = 1i32;
            descriptors.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &transposed)?;
        }
        if let Some(bias) = product.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            descriptors.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            descriptors.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias.address)?;
            descriptors.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &f32)?;
        }
        Ok(descriptors)
    }

    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: &T,
    ) -> std::result::Result<(), CublasError> {
        // SAFETY: the descriptor exists, and the value has the type of the attribute.
        unsafe {
            result::set_matmul_desc_attribute(
                self.operation,
                attribute,
                std::ptr::from_ref(value).cast(),
                size_of::<T>(),
            )
        }
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: the descriptors exist and are not used later.
        unsafe {
            let _ = result::destroy_matmul_desc(self.operation);
            for layout in self.layouts {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

impl Products {
    /// Opens the library in the current context.
    pub(super) fn open(stream: driver::sys::CUstream) -> Result<Self> {
        let handle = result::create_handle().map_err(|error| failed("open", error))?;
        let version = match &super::Libraries::find().cublaslt {
            Ok(version) => version.clone(),
            Err(problem) => return Err(Error::input(problem.clone())),
        };
        Ok(Self {
            handle,
            stream,
            version,
            chosen: Mutex::default(),
        })
    }

    /// The library's version.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Closes the library. Nothing may be multiplied afterwards.
    pub(super) fn close(&self) {
        // SAFETY: the handle is not used later.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }

    /// Chooses the fastest algorithm without a split of K for many rows.
    fn choose(
        &self,
        product: &Product,
    ) -> std::result::Result<sys::cublasLtMatmulAlgo_t, CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let descriptors = Descriptors::new(product, ROWS)?;
        let [b, a, c, d] = descriptors.layouts;
        let preference = result::create_matmul_pref()?;
        // SAFETY: the preference exists until the end of this function, and every value has the type of its attribute.
        unsafe {
            let set = |attribute, value: *const c_void, size| {
                result::set_matmul_pref_attribute(preference, attribute, value, size)
            };
            // No algorithm with a sum of partial sums, and none that needs a workspace.
            let none = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32;
            let workspace = 0u64;
            let alignment = 16u32;
            let chosen = set(
                Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                (&raw const none).cast(),
                size_of_val(&none),
            )
            .and_then(|()| {
                set(
                    Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                    (&raw const workspace).cast(),
                    size_of_val(&workspace),
                )
            })
            .and_then(|()| {
                for attribute in [
                    Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                    Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                    Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                    Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                ] {
                    set(
                        attribute,
                        (&raw const alignment).cast(),
                        size_of_val(&alignment),
                    )?;
                }
                result::get_matmul_algo_heuristic(
                    self.handle,
                    descriptors.operation,
                    b,
                    a,
                    c,
                    d,
                    preference,
                )
            });
            let _ = result::destroy_matmul_pref(preference);
            Ok(chosen?.algo)
        }
    }

    /// Multiplies.
    pub(super) fn multiply(&self, product: &Product) -> Result<()> {
        let shape = Shape::of(product);
        let what = || format!("{} x {} x {}", product.m, product.n, product.k);
        let algorithm = {
            let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
            match chosen.get(&shape) {
                Some(algorithm) => *algorithm,
                None => {
                    let algorithm = self
                        .choose(product)
                        .map_err(|error| failed(&format!("choose for {}", what()), error))?;
                    chosen.insert(shape, algorithm);
                    algorithm
                }
            }
        };
        let run = || -> std::result::Result<(), CublasError> {
            let descriptors = Descriptors::new(product, product.m)?;
            let [b_layout, a_layout, c_layout, d_layout] = descriptors.layouts;
            let one = 1.0f32;
            let beta = if product.c.is_some() { 1.0f32 } else { 0.0 };
            let d = product.d.address as *mut c_void;
            let c = product
                .c
                .map_or(d.cast_const(), |c| c.address as *const c_void);
            // SAFETY: descriptors, handle and stream exist, and the addresses have the described matrices.
            unsafe {
                result::matmul(
                    self.handle,
                    descriptors.operation,
                    (&raw const one).cast(),
                    (&raw const beta).cast(),
                    product.b.address as *const c_void,
                    b_layout,
                    product.a.address as *const c_void,
                    a_layout,
                    c,
                    c_layout,
                    d,
                    d_layout,
                    &raw const algorithm,
                    std::ptr::null_mut(),
                    0,
                    self.stream.cast(),
                )
            }
        };
        run().map_err(|error| failed(&what(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::device::Place;

    /// A product by the library's definition, matrices read column by column, is the row-major product.
    #[test]
    fn the_described_matrices_give_the_product() {
        let place = Place {
            address: 0,
            bytes: 0,
        };
        let (m, n, k) = (3, 4, 5);
        for b_transposed in [false, true] {
            let product = Product {
                m,
                n,
                k,
                a: place,
                a_stride: k + 2,
                b: place,
                b_stride: if b_transposed { k + 1 } else { n + 3 },
                b_transposed,
                c: None,
                bias: None,
                d: place,
                d_element: Element::F32,
            };
            let a: Vec<i32> = (0..m * product.a_stride)
                .map(|i| i as i32 % 7 - 3)
                .collect();
            let b: Vec<i32> = (0..n.max(k) * product.b_stride)
                .map(|i| i as i32 % 5 - 2)
                .collect();
            let [of_b, of_a, of_d] = columns(&product, m);
            let at = |values: &[i32], [.., stride]: Columns, row: usize, column: usize| {
                values[row + column * stride]
            };
            let mut d = vec![0; m * n];
            for row in 0..of_d[0] {
                for column in 0..of_d[1] {
                    let mut sum = 0;
                    for inner in 0..k {
                        let left = if b_transposed {
                            at(&b, of_b, inner, row)
                        } else {
                            at(&b, of_b, row, inner)
                        };
                        sum += left * at(&a, of_a, inner, column);
                    }
                    d[row + column * of_d[2]] = sum;
                }
            }
            for row in 0..m {
                for column in 0..n {
                    let mut sum = 0;
                    for inner in 0..k {
                        let right = if b_transposed {
                            b[column * product.b_stride + inner]
                        } else {
                            b[inner * product.b_stride + column]
                        };
                        sum += a[row * product.a_stride + inner] * right;
                    }
                    assert_eq!(d[row * n + column], sum);
                }
            }
        }
    }
}
