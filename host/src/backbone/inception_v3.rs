//! Inception-v3 by torchvision's tensor names, without the auxiliary classifier: Szegedy et al. 2015 (arXiv:1512.00567).

use graft_shared::error::Result;

use super::blocks::Norms;
use super::builder::{Builder, Shape, Tip};
use crate::nn::{Activation, Graph, Padding, Pool, PoolKind};

const BATCH_NORM_EPSILON: f64 = 1e-3;

/// A step of a branch: the tensors' name, and the convolution's shape.
type Step<'a> = (&'a str, Shape);

/// The graph.
///
/// # Errors
/// A tensor that is missing or has another shape.
pub(super) fn build(builder: Builder) -> Result<Graph> {
    let mut network = Network { builder };
    network.stem()?;
    for (name, pooled) in [("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)] {
        network.block_a(name, pooled)?;
    }
    network.reduction_b("Mixed_6a")?;
    for (name, channels) in [
        ("Mixed_6b", 128),
        ("Mixed_6c", 160),
        ("Mixed_6d", 160),
        ("Mixed_6e", 192),
    ] {
        network.block_c(name, channels)?;
    }
    network.reduction_d("Mixed_7a")?;
    for name in ["Mixed_7b", "Mixed_7c"] {
        network.block_e(name)?;
    }
    network.builder.finish("fc")
}

struct Network<'a> {
    builder: Builder<'a>,
}

impl Network<'_> {
    fn stem(&mut self) -> Result<()> {
        self.steps(
            "",
            &[
                ("Conv2d_1a_3x3", Shape::dense(32, 3, 2).unpadded()),
                ("Conv2d_2a_3x3", Shape::dense(32, 3, 1).unpadded()),
                ("Conv2d_2b_3x3", Shape::dense(64, 3, 1)),
            ],
        )?;
        self.builder.pool("maxpool1", largest());
        self.steps(
            "",
            &[
                ("Conv2d_3b_1x1", pointwise(80)),
                ("Conv2d_4a_3x3", Shape::dense(192, 3, 1).unpadded()),
            ],
        )?;
        self.builder.pool("maxpool2", largest());
        Ok(())
    }

    /// Figure 5, with one 5x5 convolution left as it was.
    fn block_a(&mut self, name: &str, pooled: usize) -> Result<()> {
        let input = self.builder.tip();
        let parts = [
            self.branch(name, input, &[("branch1x1", pointwise(64))])?,
            self.branch(
                name,
                input,
                &[
                    ("branch5x5_1", pointwise(48)),
                    ("branch5x5_2", Shape::dense(64, 5, 1)),
                ],
            )?,
            self.branch(
                name,
                input,
                &[
                    ("branch3x3dbl_1", pointwise(64)),
                    ("branch3x3dbl_2", Shape::dense(96, 3, 1)),
                    ("branch3x3dbl_3", Shape::dense(96, 3, 1)),
                ],
            )?,
            self.pooled_branch(name, input, pooled)?,
        ];
        self.builder.concat(name, &parts);
        Ok(())
    }

    /// Figure 10: half the height and width.
    fn reduction_b(&mut self, name: &str) -> Result<()> {
        let input = self.builder.tip();
        let parts = [
            self.branch(
                name,
                input,
                &[("branch3x3", Shape::dense(384, 3, 2).unpadded())],
            )?,
            self.branch(
                name,
                input,
                &[
                    ("branch3x3dbl_1", pointwise(64)),
                    ("branch3x3dbl_2", Shape::dense(96, 3, 1)),
                    ("branch3x3dbl_3", Shape::dense(96, 3, 2).unpadded()),
                ],
            )?,
            self.largest_branch(name, input),
        ];
        self.builder.concat(name, &parts);
        Ok(())
    }

    /// Figure 6, with n = 7.
    fn block_c(&mut self, name: &str, channels: usize) -> Result<()> {
        let input = self.builder.tip();
        let (row, column) = (
            |channels| Shape::rectangular(channels, 1, 7),
            |channels| Shape::rectangular(channels, 7, 1),
        );
        let parts = [
            self.branch(name, input, &[("branch1x1", pointwise(192))])?,
            self.branch(
                name,
                input,
                &[
                    ("branch7x7_1", pointwise(channels)),
                    ("branch7x7_2", row(channels)),
                    ("branch7x7_3", column(192)),
                ],
            )?,
            self.branch(
                name,
                input,
                &[
                    ("branch7x7dbl_1", pointwise(channels)),
                    ("branch7x7dbl_2", column(channels)),
                    ("branch7x7dbl_3", row(channels)),
                    ("branch7x7dbl_4", column(channels)),
                    ("branch7x7dbl_5", row(192)),
                ],
            )?,
            self.pooled_branch(name, input, 192)?,
        ];
        self.builder.concat(name, &parts);
        Ok(())
    }

    /// Half the height and width again.
    fn reduction_d(&mut self, name: &str) -> Result<()> {
        let input = self.builder.tip();
        let parts = [
            self.branch(
                name,
                input,
                &[
                    ("branch3x3_1", pointwise(192)),
                    ("branch3x3_2", Shape::dense(320, 3, 2).unpadded()),
                ],
            )?,
            self.branch(
                name,
                input,
                &[
                    ("branch7x7x3_1", pointwise(192)),
                    ("branch7x7x3_2", Shape::rectangular(192, 1, 7)),
                    ("branch7x7x3_3", Shape::rectangular(192, 7, 1)),
                    ("branch7x7x3_4", Shape::dense(192, 3, 2).unpadded()),
                ],
            )?,
            self.largest_branch(name, input),
        ];
        self.builder.concat(name, &parts);
        Ok(())
    }

    /// Figure 7: branches that fork into a row and a column. Their channels are joined with all others at once, since
    /// one concatenation inside another is the same as one.
    fn block_e(&mut self, name: &str) -> Result<()> {
        let input = self.builder.tip();
        let (row, column) = (Shape::rectangular(384, 1, 3), Shape::rectangular(384, 3, 1));
        let direct = self.branch(name, input, &[("branch1x1", pointwise(320))])?;
        let fork = self.branch(name, input, &[("branch3x3_1", pointwise(384))])?;
        let double_fork = self.branch(
            name,
            input,
            &[
                ("branch3x3dbl_1", pointwise(448)),
                ("branch3x3dbl_2", Shape::dense(384, 3, 1)),
            ],
        )?;
        let parts = [
            direct,
            self.branch(name, fork, &[("branch3x3_2a", row)])?,
            self.branch(name, fork, &[("branch3x3_2b", column)])?,
            self.branch(name, double_fork, &[("branch3x3dbl_3a", row)])?,
            self.branch(name, double_fork, &[("branch3x3dbl_3b", column)])?,
            self.pooled_branch(name, input, 192)?,
        ];
        self.builder.concat(name, &parts);
        Ok(())
    }

    /// Convolutions in a row, from `input` on; the tensors' names begin with the block's.
    fn branch(&mut self, block: &str, input: Tip, steps: &[Step]) -> Result<Tip> {
        self.builder.go_to(input);
        self.steps(&format!("{block}."), steps)?;
        Ok(self.builder.tip())
    }

    /// The mean of each 3x3 window, then a pointwise convolution.
    fn pooled_branch(&mut self, block: &str, input: Tip, channels: usize) -> Result<Tip> {
        self.builder.go_to(input);
        let window = Pool {
            kind: PoolKind::Average,
            kernel: 3,
            stride: 1,
            padding: Padding::symmetric(1),
        };
        self.builder.pool(&format!("{block}.avgpool"), window);
        let mean = self.builder.tip();
        self.branch(block, mean, &[("branch_pool", pointwise(channels))])
    }

    /// The largest value of each 3x3 window.
    fn largest_branch(&mut self, block: &str, input: Tip) -> Tip {
        self.builder.go_to(input);
        self.builder.pool(&format!("{block}.maxpool"), largest());
        self.builder.tip()
    }

    fn steps(&mut self, prefix: &str, steps: &[Step]) -> Result<()> {
        let norms = Norms(BATCH_NORM_EPSILON);
        for (name, shape) in steps {
            let name = format!("{prefix}{name}");
            let (conv, norm) = (format!("{name}.conv"), format!("{name}.bn"));
            norms.conv(
                &mut self.builder,
                &name,
                &conv,
                &norm,
                *shape,
                Activation::Relu,
            )?;
        }
        Ok(())
    }
}

fn pointwise(channels: usize) -> Shape {
    Shape::dense(channels, 1, 1)
}

/// Every second 3x3 window's largest value.
fn largest() -> Pool {
    Pool {
        kind: PoolKind::Max,
        kernel: 3,
        stride: 2,
        padding: Padding::default(),
    }
}
