//! Weights in groups of neighbours, as dot products of bytes take them: a group of each lane beside that of the next.

use std::borrow::Cow;

use crate::memory::{AlignedBytes, LINE};

/// A lane, and the groups of the row whose sum it holds.
pub(crate) type Row<'a, const TAPS: usize> = (usize, &'a [[i8; TAPS]]);

/// Rows of `row` weights as whole groups: with zeros behind where a row ends within a group.
pub(crate) fn whole<const TAPS: usize>(weights: &[i8], row: usize) -> Cow<'_, [i8]> {
    if row.is_multiple_of(TAPS) {
        return Cow::Borrowed(weights);
    }
    let rows = weights.chunks_exact(row);
    let mut groups = Vec::with_capacity(rows.len() * row.next_multiple_of(TAPS));
    for row in rows {
        groups.extend(row);
        groups.resize(groups.len().next_multiple_of(TAPS), 0);
    }
    Cow::Owned(groups)
}

/// Appends `groups` of all `rows`: group x lane x tap, with zeros in lanes that have no row.
pub(crate) fn pack<const TAPS: usize>(
    rows: &[Row<TAPS>],
    groups: &[usize],
    lanes: usize,
    packed: &mut AlignedBytes,
) {
    let packed = packed.append(groups.len() * lanes * TAPS);
    // As many groups as lie in a cache line of a row: what is read and written stays in the first-level cache.
    let blocks = packed.chunks_mut(LINE * lanes);
    for (groups, block) in groups.chunks(LINE / TAPS).zip(blocks) {
        let (block, _) = block.as_chunks_mut::<TAPS>();
        for (lane, row) in rows {
            for (group, to) in groups.iter().zip(block[*lane..].iter_mut().step_by(lanes)) {
                *to = row[*group].map(i8::cast_unsigned);
            }
        }
    }
}
