// Pooling: maximum of a window, mean of a plane. What they read is Stored, what they write plain.

/// One window a thread; `taps` keeps where in it the first maximum lies, in row-major order. Padding never is the maximum.
KERNEL(maximum_forward)(Geometry g, Stored input, float *output, unsigned char *taps) {
    int index = blockIdx.x * THREADS + threadIdx.x, plane = index / g.output_area(), pixel = index % g.output_area();
    if (plane >= g.images * g.inputs)
        return;
    int channel = plane % g.inputs;
    int top = pixel / g.output_width * g.stride - g.top, left = pixel % g.output_width * g.stride - g.left;
    float best = 0.0f;
    int best_tap = -1;
    for (int tap = 0; tap < g.kernel_area(); tap++) {
        int y = top + tap / g.kernel_width, x = left + tap % g.kernel_width;
        if (y < 0 || y >= g.input_height || x < 0 || x >= g.input_width)
            continue;
        float value = input.read(channel, plane * g.input_area() + y * g.input_width + x);
        if (best_tap < 0 || value > best) {
            best = value;
            best_tap = tap;
        }
    }
    output[index] = best;
    taps[index] = (unsigned char)best_tap;
}

/// The gradient of one input value a thread, from the windows whose maximum it is.
KERNEL(maximum_backward)(Geometry g, const float *gradient, const unsigned char *taps, InputGradient into) {
    int index = blockIdx.x * THREADS + threadIdx.x, plane = index / g.input_area(), pixel = index % g.input_area();
    if (plane >= g.images * g.inputs)
        return;
    int bottom = pixel / g.input_width + g.top, right = pixel % g.input_width + g.left;
    float sum = 0.0f;
    for (int tap = 0; tap < g.kernel_area(); tap++) {
        int y = bottom - tap / g.kernel_width, x = right - tap % g.kernel_width;
        if (y < 0 || x < 0 || y % g.stride != 0 || x % g.stride != 0)
            continue;
        y /= g.stride;
        x /= g.stride;
        int window = plane * g.output_area() + y * g.output_width + x;
        if (y < g.output_height && x < g.output_width && taps[window] == tap)
            sum += gradient[window];
    }
    into.write(plane % g.inputs, index, sum);
}

/// The mean of one plane a thread, times its factor in `kept`.
KERNEL(average_forward)(int planes, int channels, int area, Stored input, const float *kept, float *output) {
    int plane = blockIdx.x * THREADS + threadIdx.x;
    if (plane >= planes)
        return;
    float sum = 0.0f;
    for (int pixel = 0; pixel < area; pixel++)
        sum += input.read(plane % channels, plane * area + pixel);
    output[plane] = kept[plane] * (sum / area);
}

/// The gradient of one input value a thread.
KERNEL(average_backward)(int planes, int channels, int area, const float *kept, const float *gradient, InputGradient into) {
    int index = blockIdx.x * THREADS + threadIdx.x, plane = index / area;
    if (plane < planes)
        into.write(plane % channels, index, kept[plane] * gradient[plane] / area);
}
