//! Single-threaded f32 matrix product. A wrapper of the `gemm` crate, which picks its kernel at run time.
#![allow(unsafe_code, reason = "the product takes pointers; lengths are checked before")]

/// A view of a slice as a matrix, row-major or transposed.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A view of `rows * columns` values, row by row.
    ///
    /// # Panics
    /// If the number of values differs.
    #[must_use]
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(Some(values.len()), rows.checked_mul(columns), "a {rows}x{columns} matrix");
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// A view of the first `columns` columns of the same values.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn first_columns(self, columns: usize) -> Self {
        assert!(columns <= self.columns, "{columns} of {} columns", self.columns);
        Self { columns, ..self }
    }

    /// The transposed view of the same values.
    #[must_use]
    pub const fn transposed(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// `out = a * b`, or `out += a * b` with `accumulate`. Equal calls give equal bits.
///
/// # Shapes
/// - `a`: `[m, k]`, `b`: `[k, n]`, `out`: `[m, n]` row by row
///
/// # Panics
/// If the shapes do not match.
pub fn matmul(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], accumulate: bool) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert_eq!(k, b.rows, "columns of a and rows of b");
    assert_eq!(Some(out.len()), m.checked_mul(n), "out is {m}x{n}");
    // A slice has at most isize::MAX bytes, so its strides fit in an isize.
    let stride = |stride: usize| stride as isize;
    // SAFETY: `Matrix::new` checked that `values` holds rows * columns values, and a stride of one and
    // one of the row length visit each of them at most once, transposed or not, all columns or the first of them; `out`
    // was checked to hold m * n values and, being a unique borrow, overlaps neither.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride(n),
            accumulate,
            a.values.as_ptr(),
            stride(a.column_stride),
            stride(a.row_stride),
            b.values.as_ptr(),
            stride(b.column_stride),
            stride(b.row_stride),
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The reference: a plain loop.
    fn naive(a: Matrix<'_>, b: Matrix<'_>, start: &[f32]) -> Vec<f64> {
        let at = |m: Matrix<'_>, r: usize, c: usize| {
            f64::from(m.values[r * m.row_stride + c * m.column_stride])
        };
        (0..a.rows * b.columns)
            .map(|i| {
                let (row, column) = (i / b.columns, i % b.columns);
                let sum: f64 = (0..a.columns).map(|k| at(a, row, k) * at(b, k, column)).sum();
                f64::from(start[i]) + sum
            })
            .collect()
    }

    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![Just(0usize), Just(1), Just(63), Just(64), Just(65), 2usize..40]
    }

    proptest! {
        #[test]
        fn equals_the_plain_loop(
            (m, k, n) in (size(), size(), size()),
            transpose_a: bool,
            transpose_b: bool,
            accumulate: bool,
        ) {
            let values = |len: usize, seed: usize| -> Vec<f32> {
                (0..len).map(|i| ((i * 7919 + seed) % 201) as f32 / 100.0 - 1.0).collect()
            };
            let (va, vb, start) = (values(m * k, 3), values(k * n, 5), values(m * n, 11));
            let a = if transpose_a { Matrix::new(&va, k, m).transposed() } else { Matrix::new(&va, m, k) };
            let b = if transpose_b { Matrix::new(&vb, n, k).transposed() } else { Matrix::new(&vb, k, n) };
            let mut out = start.clone();
            matmul(a, b, &mut out, accumulate);
            let from = if accumulate { start } else { vec![0.0; m * n] };
            for (got, expected) in out.iter().zip(naive(a, b, &from)) {
                // Single precision over at most 65 terms of magnitude 1.
                prop_assert!((f64::from(*got) - expected).abs() < 1e-4, "{} {}", got, expected);
            }
        }
    }

    #[test]
    #[should_panic(expected = "out is 2x2")]
    fn a_short_output_is_refused() {
        matmul(Matrix::new(&[1.0; 4], 2, 2), Matrix::new(&[1.0; 4], 2, 2), &mut [0.0; 3], false);
    }
}
