// Residual connection: the sum of two activations, clamped, as plain values. One value a thread.

KERNEL(add_forward)(int planes, int channels, int area, Stored left, Stored right, float low, float high, float *output) {
    int index = blockIdx.x * THREADS + threadIdx.x, channel = index / area % channels;
    if (index / area >= planes)
        return;
    float value = left.read(channel, index) + right.read(channel, index);
    value = low > value ? low : value;
    output[index] = high < value ? high : value;
}

/// Of one of the two inputs: the gradient goes through where the sum lies strictly between the bounds.
KERNEL(add_backward)(int planes, int channels, int area, float low, float high, const float *output, const float *gradient, InputGradient into) {
    int index = blockIdx.x * THREADS + threadIdx.x;
    if (index / area >= planes)
        return;
    bool passes = low < output[index] && output[index] < high;
    into.write(index / area % channels, index, passes ? gradient[index] : 0.0f);
}
