//! Work on a batch by channels: what is summed over the batch belongs to one task then, for every number of threads.

/// Tasks that a layer is cut into, at most: the same for every number of threads.
const TASKS: usize = 64;

/// Channels of one task.
pub(super) fn per_task(channels: usize) -> usize {
    channels.div_ceil(TASKS).max(1)
}

/// Cuts `[n, c, area]` by tasks: for each, its channels of every image, `[n][per task, area]`.
///
/// `channels` and `area` are not 0.
pub(super) fn split(values: &mut [f32], channels: usize, area: usize) -> Vec<Vec<&mut [f32]>> {
    let per_task = per_task(channels);
    let mut tasks: Vec<Vec<&mut [f32]>> = Vec::new();
    tasks.resize_with(channels.div_ceil(per_task), Vec::new);
    for image in values.chunks_exact_mut(channels * area) {
        for (task, part) in tasks.iter_mut().zip(image.chunks_mut(per_task * area)) {
            task.push(part);
        }
    }
    tasks
}
