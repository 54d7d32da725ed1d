// Residual connection: the sum of two activations, clamped, as plain values. One value a thread; `kept` are factors of the
// images' first input.

KERNEL(add_forward)(int planes, int channels, int area, Stored left, Stored right, float low, float high, const float *kept, float *output) {
    int index = blockIdx.x * THREADS + threadIdx.x, channel = index / area % channels;
    if (index / area >= planes)
        return;
    float value = fmaf(kept[index / area / channels], left.read(channel, index), right.read(channel, index));
    value = low > value ? low : value;
    output[index] = high < value ? high : value;
}

/// Of one of the two inputs, with its factors: the gradient goes through where the sum lies strictly between the bounds.
KERNEL(add_backward)(int planes, int channels, int area, float low, float high, const float *kept, const float *output, const float *gradient, InputGradient into) {
    int index = blockIdx.x * THREADS + threadIdx.x;
    if (index / area >= planes)
        return;
    bool passes = low < output[index] && output[index] < high;
    into.write(index / area % channels, index, passes ? kept[index / area / channels] * gradient[index] : 0.0f);
}
