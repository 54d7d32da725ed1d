// Depthwise convolution: a square kernel of SIDE for each channel, any stride and padding.
//
// Forward and to the input a thread makes one value; the weight's gradient is made by blocks of one channel.

template <int SIDE> __device__ void depthwise_forward(Geometry g, Stored input, const float *weight, float *output) {
    int index = blockIdx.x * THREADS + threadIdx.x, plane = index / g.output_area(), pixel = index % g.output_area();
    if (plane >= g.images * g.inputs)
        return;
    int channel = plane % g.inputs;
    int top = pixel / g.output_width * g.stride - g.top, left = pixel % g.output_width * g.stride - g.left;
    int first = plane * g.input_area();
    float sum = 0.0f;
#pragma unroll
    for (int tap = 0; tap < SIDE * SIDE; tap++) {
        int y = top + tap / SIDE, x = left + tap % SIDE;
        if (y >= 0 && y < g.input_height && x >= 0 && x < g.input_width)
            sum = fmaf(input.read(channel, first + y * g.input_width + x), weight[channel * SIDE * SIDE + tap], sum);
    }
    output[index] = sum;
}

/// Each input value gathers from the outputs that read it.
template <int SIDE> __device__ void depthwise_input_gradient(Geometry g, OutputGradient gradient, const float *weight, InputGradient into) {
    int index = blockIdx.x * THREADS + threadIdx.x, plane = index / g.input_area(), pixel = index % g.input_area();
    if (plane >= g.images * g.inputs)
        return;
    int channel = plane % g.inputs;
    int bottom = pixel / g.input_width + g.top, right = pixel % g.input_width + g.left;
    int first = plane * g.output_area();
    float sum = 0.0f;
#pragma unroll
    for (int tap = 0; tap < SIDE * SIDE; tap++) {
        int y = bottom - tap / SIDE, x = right - tap % SIDE;
        bool on_grid = y >= 0 && x >= 0 && y % g.stride == 0 && x % g.stride == 0;
        y /= g.stride;
        x /= g.stride;
        if (on_grid && y < g.output_height && x < g.output_width)
            sum = fmaf(gradient.read(channel, first + y * g.output_width + x), weight[channel * SIDE * SIDE + tap], sum);
    }
    into.write(channel, index, sum);
}

/// The gradient of one channel's kernel (blockIdx.x) over `part_len` output values of the batch (blockIdx.y):
/// `parts[part][channel][tap]`.
template <int SIDE> __device__ void depthwise_weight_gradient(Geometry g, Stored input, OutputGradient gradient, int part_len, float *parts) {
    int channel = blockIdx.x, area = g.output_area();
    int first = blockIdx.y * part_len, end = min(first + part_len, g.images * area);
    float sums[SIDE * SIDE] = {};
    for (int index = first + threadIdx.x; index < end; index += THREADS) {
        int plane = index / area * g.inputs + channel, pixel = index % area;
        int top = pixel / g.output_width * g.stride - g.top, left = pixel % g.output_width * g.stride - g.left;
        float value = gradient.read(channel, plane * area + pixel);
        int plane_first = plane * g.input_area();
#pragma unroll
        for (int tap = 0; tap < SIDE * SIDE; tap++) {
            int y = top + tap / SIDE, x = left + tap % SIDE;
            if (y >= 0 && y < g.input_height && x >= 0 && x < g.input_width)
                sums[tap] = fmaf(value, input.read(channel, plane_first + y * g.input_width + x), sums[tap]);
        }
    }
#pragma unroll
    for (int tap = 0; tap < SIDE * SIDE; tap++) {
        float sum = block_sum(sums[tap]);
        if (threadIdx.x == 0)
            parts[(blockIdx.y * g.inputs + channel) * SIDE * SIDE + tap] = sum;
    }
}

#define DEPTHWISE(SIDE)                                                                                                  \
    KERNEL(depthwise_forward_##SIDE)(Geometry g, Stored input, const float *weight, float *output) {                     \
        depthwise_forward<SIDE>(g, input, weight, output);                                                               \
    }                                                                                                                    \
    KERNEL(depthwise_input_gradient_##SIDE)                                                                              \
    (Geometry g, OutputGradient gradient, const float *weight, InputGradient into) {                                     \
        depthwise_input_gradient<SIDE>(g, gradient, weight, into);                                                       \
    }                                                                                                                    \
    KERNEL(depthwise_weight_gradient_##SIDE)                                                                             \
    (Geometry g, Stored input, OutputGradient gradient, int part_len, float *parts) {                                    \
        depthwise_weight_gradient<SIDE>(g, input, gradient, part_len, parts);                                            \
    }

DEPTHWISE(3)
DEPTHWISE(5)
DEPTHWISE(7)
