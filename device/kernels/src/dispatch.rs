//! Which instruction set computes an operator: the list of them, found at run time.

use std::fmt::Debug;

use crate::operator::Kernel;
use crate::operators::{
    Add, AveragePool, Concat, Conv, Depthwise, Linear, MaxPool, Multiply, Table,
};

/// What an instruction set offers: a kernel for each kind of operator. The defaults are the plain kernels, which the
/// descriptions of the operators are by themselves; an instruction set overrides what it does faster, with the same bits.
pub(crate) trait InstructionSet: Debug + Sync {
    fn name(&self) -> &'static str;

    /// Whether this processor has it.
    fn available(&self) -> bool;

    fn conv(&self, conv: Conv) -> Box<dyn Kernel> {
        Box::new(conv.into_owned())
    }

    fn depthwise(&self, depthwise: Depthwise) -> Box<dyn Kernel> {
        Box::new(depthwise)
    }

    fn linear(&self, linear: Linear) -> Box<dyn Kernel<f32>> {
        Box::new(linear)
    }

    fn add(&self, add: Add) -> Box<dyn Kernel> {
        Box::new(add)
    }

    fn multiply(&self, multiply: Multiply) -> Box<dyn Kernel> {
        Box::new(multiply)
    }

    fn average_pool(&self, pool: AveragePool) -> Box<dyn Kernel> {
        match pool.as_depthwise() {
            Some(depthwise) => self.depthwise(depthwise),
            None => Box::new(pool),
        }
    }

    fn max_pool(&self, pool: MaxPool) -> Box<dyn Kernel> {
        Box::new(pool)
    }

    fn concat(&self, concat: Concat) -> Box<dyn Kernel> {
        Box::new(concat)
    }

    fn table(&self, table: Table) -> Box<dyn Kernel> {
        Box::new(table)
    }
}

/// All instruction sets that there is code for on this architecture, slowest first.
const ALL: &[&dyn InstructionSet] = &[
    &Plain,
    #[cfg(target_arch = "x86_64")]
    &crate::x86::Avx2,
    #[cfg(target_arch = "x86_64")]
    &crate::x86::AvxVnni,
    #[cfg(target_arch = "x86_64")]
    &crate::x86::Avx512Vnni,
    #[cfg(target_arch = "arm")]
    &crate::armv7::Neon,
    #[cfg(target_arch = "aarch64")]
    &crate::arm64::Neon,
    #[cfg(target_arch = "aarch64")]
    &crate::arm64::DotProduct,
];

/// The baseline of the target: runs on every processor that runs this program.
#[derive(Debug)]
struct Plain;

impl InstructionSet for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn available(&self) -> bool {
        true
    }

    fn average_pool(&self, pool: AveragePool) -> Box<dyn Kernel> {
        Box::new(pool)
    }
}

/// An instruction set that this processor has been found to have.
#[derive(Debug, Clone, Copy)]
pub struct Isa(pub(crate) &'static dyn InstructionSet);

impl Isa {
    /// Code for the baseline of the target: the specification itself.
    pub const PLAIN: Isa = Isa(&Plain);

    /// The fastest of [`Isa::available`].
    pub fn detect() -> Isa {
        Isa::available().pop().unwrap_or(Isa::PLAIN)
    }

    /// All instruction sets of this processor that there is code for, slowest first. All give the same bits.
    pub fn available() -> Vec<Isa> {
        let available = ALL.iter().filter(|isa| isa.available());
        available.map(|isa| Isa(*isa)).collect()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Its kernels.
    pub(crate) fn kernels(self) -> &'static dyn InstructionSet {
        self.0
    }
}

impl PartialEq for Isa {
    fn eq(&self, other: &Isa) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Isa {}
