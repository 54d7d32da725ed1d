// What passes between layers in a training step, as nn/cpu/training.rs has it; the structures are those of kernels.rs.
//
// Tensors are f32, NCHW. Sums are made in parts that depend on shapes alone and added in a fixed order, so that a result is
// the same to the bit in every run. No tensor has 2^31 values.

#define KERNEL(name) extern "C" __global__ void name

/// Threads of a block, in every kernel.
constexpr int THREADS = 256;

struct Geometry {
    int images, inputs, outputs;
    int input_height, input_width, output_height, output_width;
    int kernel_height, kernel_width, stride, top, left;

    __device__ int input_area() const { return input_height * input_width; }
    __device__ int output_area() const { return output_height * output_width; }
    __device__ int kernel_area() const { return kernel_height * kernel_width; }
};

/// Values as stored; read, they are `clamp(value * scale[c] + shift[c], low, high)`.
struct Stored {
    const float *values, *scale, *shift;
    float low, high;

    /// These comparisons let a NaN through.
    __device__ float read(int channel, int index) const {
        float value = fmaf(values[index], scale[channel], shift[channel]);
        value = low > value ? low : value;
        return high < value ? high : value;
    }
};

/// The gradient by a convolution's output before BatchNorm: `gradient * by_gradient[c] + value * by_value[c] + constant[c]`.
struct OutputGradient {
    const float *gradient, *values, *by_gradient, *by_value, *constant;

    __device__ float read(int channel, int index) const {
        return fmaf(gradient[index], by_gradient[channel], fmaf(values[index], by_value[channel], constant[channel]));
    }
};

/// Where the gradient by an input goes: as far as the input's clamp lets it through, added to what is there if `add`.
struct InputGradient {
    Stored input;
    float *gradient;
    int add;

    __device__ void write(int channel, int index, float value) const {
        float read = input.read(channel, index);
        value = input.low < read && read < input.high ? value : 0.0f;
        gradient[index] = add ? gradient[index] + value : value;
    }
};

/// The sum of all threads' values, for thread 0; every thread of the block has to come by.
template <class Value> __device__ Value block_sum(Value value) {
    __shared__ Value values[THREADS];
    __syncthreads();
    values[threadIdx.x] = value;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            values[threadIdx.x] += values[threadIdx.x + half];
    }
    return values[0];
}

/// `into[i]` is the sum of `parts` values that lie `len` apart.
KERNEL(sum_parts)(int parts, int len, const float *values, float *into) {
    int index = blockIdx.x * THREADS + threadIdx.x;
    if (index >= len)
        return;
    float sum = 0.0f;
    for (int part = 0; part < parts; part++)
        sum += values[part * len + index];
    into[index] = sum;
}
