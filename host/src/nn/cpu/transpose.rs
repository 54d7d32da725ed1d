//! Squares of 16 values by 16, rows and columns exchanged.
//!
//! To be inlined where vector instructions are enabled.

/// Values of a row and rows of a square.
pub(super) const SIDE: usize = 16;

/// Exchanges rows and columns: four rounds in which the first half of the rows is interleaved with the second move each
/// bit of a place from the column's number to the row's and back.
#[inline(always)]
pub(super) fn transpose(rows: &mut [[f32; SIDE]; SIDE]) {
    let mut other = [[0.0; SIDE]; SIDE];
    interleave(rows, &mut other);
    interleave(&other, rows);
    interleave(rows, &mut other);
    interleave(&other, rows);
}

#[inline(always)]
fn interleave(rows: &[[f32; SIDE]; SIDE], target: &mut [[f32; SIDE]; SIDE]) {
    const HALF: usize = SIDE / 2;
    let (first, second) = rows.split_at(HALF);
    let (targets, _) = target.as_chunks_mut::<2>();
    for (target, (first, second)) in targets.iter_mut().zip(first.iter().zip(second)) {
        let [low, high] = target;
        for index in 0..HALF {
            low[2 * index] = first[index];
            low[2 * index + 1] = second[index];
            high[2 * index] = first[HALF + index];
            high[2 * index + 1] = second[HALF + index];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let mut square: [[f32; SIDE]; SIDE] =
            std::array::from_fn(|row| std::array::from_fn(|column| (row * SIDE + column) as f32));
        transpose(&mut square);
        for (row, values) in square.iter().enumerate() {
            for (column, &value) in values.iter().enumerate() {
                assert_eq!(value, (column * SIDE + row) as f32);
            }
        }
    }
}
