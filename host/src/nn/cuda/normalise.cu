// BatchNorm in a training step: sums of a channel over the batch, and what readers apply, as nn/normalise.rs has it.

/// Two sums of a channel.
struct Sums {
    double first, second;
};

/// What belongs to one convolution's output, per channel.
struct Channels {
    float *scale, *shift, *mean, *inverse_deviation, *by_gradient, *by_value, *constant;

    __device__ void set(int channel, float gamma, float beta, double mean_value, double variance) const {
        double inverse = 1.0 / sqrt(variance), factor = gamma * inverse;
        mean[channel] = (float)mean_value;
        inverse_deviation[channel] = (float)inverse;
        scale[channel] = (float)factor;
        shift[channel] = (float)(beta - mean_value * factor);
    }
};

/// BatchNorm's tensors.
struct Norm {
    const float *gamma, *beta;
    float *running_mean, *running_variance;
    double epsilon;
};

/// Over `part_len` values of a channel (blockIdx.x) in the batch (blockIdx.y): sums of `gradient` and of it times
/// `value - pivot`; without a gradient, of `value - pivot` and its square. `parts[part][channel]`.
KERNEL(channel_sums)
(int images, int channels, int area, const float *gradient, const float *values, const float *pivot, int part_len, Sums *parts) {
    int channel = blockIdx.x, first = blockIdx.y * part_len, end = min(first + part_len, images * area);
    float one = 0.0f, two = 0.0f;
    for (int index = first + threadIdx.x; index < end; index += THREADS) {
        int at = (index / area * channels + channel) * area + index % area;
        float difference = values[at] - pivot[channel];
        float factor = gradient ? gradient[at] : difference;
        one += factor;
        two = fmaf(factor, difference, two);
    }
    double first_sum = block_sum((double)one), second_sum = block_sum((double)two);
    if (threadIdx.x == 0)
        parts[blockIdx.y * channels + channel] = Sums{first_sum, second_sum};
}

__device__ Sums sum_of_parts(int parts, int channels, int channel, const Sums *sums) {
    Sums sum = {0.0, 0.0};
    for (int part = 0; part < parts; part++) {
        sum.first += sums[part * channels + channel].first;
        sum.second += sums[part * channels + channel].second;
    }
    return sum;
}

/// A tenth of the new value goes into a running one.
__device__ float follow(float running, double value) { return (float)(running * 0.9 + value * 0.1); }

/// Scale and shift from the sums of `count` values a channel, made with the running mean as pivot; the running statistics
/// follow, the variance unbiased.
KERNEL(batch_statistics)(int parts, int channels, const Sums *sums, double count, Norm norm, Channels into) {
    int channel = blockIdx.x * THREADS + threadIdx.x;
    if (channel >= channels)
        return;
    Sums sum = sum_of_parts(parts, channels, channel, sums);
    double offset = sum.first / count, mean = norm.running_mean[channel] + offset;
    double variance = sum.second / count - offset * offset;
    variance = variance < 0.0 ? 0.0 : variance;
    into.set(channel, norm.gamma[channel], norm.beta[channel], mean, variance + norm.epsilon);
    double unbiased = variance * count / (count > 2.0 ? count - 1.0 : 1.0);
    norm.running_mean[channel] = follow(norm.running_mean[channel], mean);
    norm.running_variance[channel] = follow(norm.running_variance[channel], unbiased);
}

/// Scale and shift from the running statistics.
KERNEL(running_statistics)(int channels, Norm norm, Channels into) {
    int channel = blockIdx.x * THREADS + threadIdx.x;
    if (channel < channels)
        into.set(channel, norm.gamma[channel], norm.beta[channel], norm.running_mean[channel], norm.running_variance[channel] + norm.epsilon);
}

/// Gradients of gamma and beta from the backward sums, and the factors of an OutputGradient; `per_value` is 1 over the number
/// of values a channel whose statistics were taken, 0 where BatchNorm is frozen.
KERNEL(normalise_backward)
(int parts, int channels, const Sums *sums, double per_value, Channels into, float *gamma_gradient, float *beta_gradient) {
    int channel = blockIdx.x * THREADS + threadIdx.x;
    if (channel >= channels)
        return;
    Sums sum = sum_of_parts(parts, channels, channel, sums);
    double inverse = into.inverse_deviation[channel], scale = into.scale[channel];
    double beta = sum.first, gamma = sum.second * inverse;
    beta_gradient[channel] = (float)beta;
    gamma_gradient[channel] = (float)gamma;
    double by_value = -scale * inverse * gamma * per_value;
    into.by_gradient[channel] = (float)scale;
    into.by_value[channel] = (float)by_value;
    into.constant[channel] = (float)(-scale * beta * per_value - by_value * into.mean[channel]);
}

/// The gradient of a bias from the backward sums.
KERNEL(bias_backward)(int parts, int channels, const Sums *sums, float *gradient) {
    int channel = blockIdx.x * THREADS + threadIdx.x;
    if (channel < channels)
        gradient[channel] = (float)sum_of_parts(parts, channels, channel, sums).first;
}
