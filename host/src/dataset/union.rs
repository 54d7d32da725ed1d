//! Which photos belong together: disjoint sets under union by path halving (Tarjan and van Leeuwen, 1984).

/// Disjoint sets of `0..len`.
#[derive(Debug)]
pub(super) struct Union {
    parents: Vec<usize>,
}

impl Union {
    /// Each of `0..len` alone.
    pub(super) fn new(len: usize) -> Self {
        Self {
            parents: (0..len).collect(),
        }
    }

    /// The smallest member of the set that `index` is in.
    pub(super) fn find(&mut self, mut index: usize) -> usize {
        while self.parents[index] != index {
            self.parents[index] = self.parents[self.parents[index]];
            index = self.parents[index];
        }
        index
    }

    /// Makes one set of two; false if they were one.
    pub(super) fn join(&mut self, a: usize, b: usize) -> bool {
        let (a, b) = (self.find(a), self.find(b));
        self.parents[a.max(b)] = a.min(b);
        a != b
    }

    /// Makes one set of all whose keys are equal.
    pub(super) fn join_equal<K: std::hash::Hash + Eq>(
        &mut self,
        keys: impl Iterator<Item = (usize, K)>,
    ) {
        let mut first = std::collections::HashMap::new();
        for (index, key) in keys {
            let first = *first.entry(key).or_insert(index);
            self.join(first, index);
        }
    }

    /// The sets of more than one member, by smallest member; members ascend.
    pub(super) fn sets(&mut self) -> Vec<Vec<usize>> {
        let mut sets = std::collections::BTreeMap::<usize, Vec<usize>>::new();
        for index in 0..self.parents.len() {
            sets.entry(self.find(index)).or_default().push(index);
        }
        sets.into_values().filter(|set| set.len() > 1).collect()
    }
}
