// Convolution over all input channels, 1x1 and linear layers included: one matrix product whose matrices are gathered from
// the tensors on the way (implicit im2col).
//
// A block makes a tile of TILE x TILE results, depth step by depth step through shared memory; a thread makes SIDE x SIDE
// of them in registers.

constexpr int TILE = 64, DEPTH = 16, SIDE = 4;
static_assert(TILE / SIDE * (TILE / SIDE) == THREADS, "a thread makes SIDE x SIDE results");

/// `product.store(row, column, sum over depth of left(row, depth) * right(depth, column))`, for depths from `first` to `end`.
///
/// `LEFT_BY_DEPTH` and `RIGHT_BY_DEPTH` say along which of its two axes a matrix lies in memory: neighbouring threads read
/// along it.
template <class Product> __device__ void multiply(const Product &product, int rows, int columns, int first, int end) {
    __shared__ float lefts[DEPTH][TILE + 1], rights[DEPTH][TILE + 1];
    int thread = threadIdx.x, tile_row = blockIdx.y * TILE, tile_column = blockIdx.x * TILE;
    int my_row = thread / (TILE / SIDE), my_column = thread % (TILE / SIDE);
    float sums[SIDE][SIDE] = {};
    for (int depth = first; depth < end; depth += DEPTH) {
#pragma unroll
        for (int index = thread; index < TILE * DEPTH; index += THREADS) {
            int row = Product::LEFT_BY_DEPTH ? index / DEPTH : index % TILE;
            int step = Product::LEFT_BY_DEPTH ? index % DEPTH : index / TILE;
            bool inside = tile_row + row < rows && depth + step < end;
            lefts[step][row] = inside ? product.left(tile_row + row, depth + step) : 0.0f;
        }
#pragma unroll
        for (int index = thread; index < TILE * DEPTH; index += THREADS) {
            int column = Product::RIGHT_BY_DEPTH ? index / DEPTH : index % TILE;
            int step = Product::RIGHT_BY_DEPTH ? index % DEPTH : index / TILE;
            bool inside = tile_column + column < columns && depth + step < end;
            rights[step][column] = inside ? product.right(depth + step, tile_column + column) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int step = 0; step < DEPTH; step++)
#pragma unroll
            for (int i = 0; i < SIDE; i++)
#pragma unroll
                for (int j = 0; j < SIDE; j++)
                    sums[i][j] = fmaf(lefts[step][my_row + i * (TILE / SIDE)], rights[step][my_column + j * (TILE / SIDE)], sums[i][j]);
        __syncthreads();
    }
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            int row = tile_row + my_row + i * (TILE / SIDE), column = tile_column + my_column + j * (TILE / SIDE);
            if (row < rows && column < columns)
                product.store(row, column, sums[i][j]);
        }
}

/// An index of the batch's planes of `area` pixels, taken apart.
struct Pixel {
    int image, pixel;
    __device__ Pixel(int index, int area) : image(index / area), pixel(index % area) {}
};

/// A channel and a place in the kernel; the division is spared where a kernel has one place.
struct Tap {
    int channel, y, x;
    __device__ Tap(int index, const Geometry &g) : channel(index), y(0), x(0) {
        if (g.kernel_area() > 1) {
            channel = index / g.kernel_area();
            y = index % g.kernel_area() / g.kernel_width;
            x = index % g.kernel_area() % g.kernel_width;
        }
    }
};

/// The input's value that an output pixel reads through a tap; 0 in the padding.
__device__ float patch(const Geometry &g, const Stored &input, Pixel at, Tap tap) {
    int y = at.pixel / g.output_width * g.stride - g.top + tap.y, x = at.pixel % g.output_width * g.stride - g.left + tap.x;
    if (y < 0 || y >= g.input_height || x < 0 || x >= g.input_width)
        return 0.0f;
    return input.read(tap.channel, (at.image * g.inputs + tap.channel) * g.input_area() + y * g.input_width + x);
}

/// `[out, in * taps] x [in * taps, n * pixels]`.
struct Forward {
    static constexpr bool LEFT_BY_DEPTH = true, RIGHT_BY_DEPTH = false;
    Geometry g;
    Stored input;
    const float *weight;
    float *output;

    __device__ float left(int row, int depth) const { return weight[row * g.inputs * g.kernel_area() + depth]; }
    __device__ float right(int depth, int column) const {
        return patch(g, input, Pixel(column, g.output_area()), Tap(depth, g));
    }
    __device__ void store(int row, int column, float sum) const {
        Pixel at(column, g.output_area());
        output[(at.image * g.outputs + row) * g.output_area() + at.pixel] = sum;
    }
};

/// `[in, out * taps] x [out * taps, n * input pixels]`: each input pixel gathers from the outputs that read it.
struct BackToInput {
    static constexpr bool LEFT_BY_DEPTH = false, RIGHT_BY_DEPTH = false;
    Geometry g;
    OutputGradient gradient;
    const float *weight;
    InputGradient into;

    __device__ float left(int row, int depth) const {
        Tap tap(depth, g);
        return weight[(tap.channel * g.inputs + row) * g.kernel_area() + tap.y * g.kernel_width + tap.x];
    }
    __device__ float right(int depth, int column) const {
        Pixel at(column, g.input_area());
        Tap tap(depth, g);
        int y = at.pixel / g.input_width + g.top - tap.y, x = at.pixel % g.input_width + g.left - tap.x;
        if (y < 0 || x < 0 || y % g.stride != 0 || x % g.stride != 0)
            return 0.0f;
        y /= g.stride;
        x /= g.stride;
        if (y >= g.output_height || x >= g.output_width)
            return 0.0f;
        return gradient.read(tap.channel, (at.image * g.outputs + tap.channel) * g.output_area() + y * g.output_width + x);
    }
    __device__ void store(int row, int column, float sum) const {
        Pixel at(column, g.input_area());
        into.write(row, (at.image * g.inputs + row) * g.input_area() + at.pixel, sum);
    }
};

/// `[out, n * pixels] x [n * pixels, in * taps]`, in parts of the depth.
struct BackToWeight {
    static constexpr bool LEFT_BY_DEPTH = true, RIGHT_BY_DEPTH = true;
    Geometry g;
    Stored input;
    OutputGradient gradient;
    float *part;

    __device__ float left(int row, int depth) const {
        Pixel at(depth, g.output_area());
        return gradient.read(row, (at.image * g.outputs + row) * g.output_area() + at.pixel);
    }
    __device__ float right(int depth, int column) const {
        return patch(g, input, Pixel(depth, g.output_area()), Tap(column, g));
    }
    __device__ void store(int row, int column, float sum) const {
        part[row * g.inputs * g.kernel_area() + column] = sum;
    }
};

KERNEL(dense_forward)(Geometry g, Stored input, const float *weight, float *output) {
    multiply(Forward{g, input, weight, output}, g.outputs, g.images * g.output_area(), 0, g.inputs * g.kernel_area());
}

KERNEL(dense_input_gradient)(Geometry g, OutputGradient gradient, const float *weight, InputGradient into) {
    multiply(BackToInput{g, gradient, weight, into}, g.inputs, g.images * g.input_area(), 0, g.outputs * g.kernel_area());
}

/// `parts[part][out][in][tap]`, each over `part_len` output values of the batch (blockIdx.z).
KERNEL(dense_weight_gradient)(Geometry g, Stored input, OutputGradient gradient, int part_len, float *parts) {
    int columns = g.inputs * g.kernel_area(), first = blockIdx.z * part_len;
    float *part = parts + blockIdx.z * g.outputs * columns;
    multiply(BackToWeight{g, input, gradient, part}, g.outputs, columns, first, min(first + part_len, g.images * g.output_area()));
}
