// What a step does beside the layers: loss, optimizers and running mean, as fine_tune/{loss,optimizer}.rs have them.

/// Of one row of logits (blockIdx.x): `-sum(target * ln(softmax(logits)))` in `losses`, and the gradient of the mean over
/// all rows.
KERNEL(cross_entropy)(int classes, Stored logits, const float *targets, float *gradient, float *losses) {
    __shared__ float largest_of[THREADS];
    __shared__ double total;
    int row = blockIdx.x * classes;
    float largest = logits.read(0, row);
    for (int index = threadIdx.x; index < classes; index += THREADS) {
        float logit = logits.read(index, row + index);
        largest = index == 0 || logit > largest ? logit : largest;
    }
    largest_of[threadIdx.x] = largest;
    __syncthreads();
    for (int thread = 0; thread < THREADS; thread++)
        largest = largest_of[thread] > largest ? largest_of[thread] : largest;
    double sum = 0.0;
    for (int index = threadIdx.x; index < classes; index += THREADS)
        sum += exp((double)(logits.read(index, row + index) - largest));
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        total = log(sum) + largest;
    __syncthreads();
    double loss = 0.0;
    for (int index = threadIdx.x; index < classes; index += THREADS) {
        double log_probability = logits.read(index, row + index) - total;
        double target = targets[row + index];
        loss -= target * log_probability;
        gradient[row + index] = (float)((exp(log_probability) - target) / gridDim.x);
    }
    loss = block_sum(loss);
    if (threadIdx.x == 0)
        losses[blockIdx.x] = (float)loss;
}

/// The mean of `len` values, by one block.
KERNEL(mean_of)(int len, const float *values, float *into) {
    double sum = 0.0;
    for (int index = threadIdx.x; index < len; index += THREADS)
        sum += values[index];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        *into = (float)(sum / len);
}

/// The learning rate and the weight decay of the values of one block; a list of values begins at a block of its own.
struct Rate {
    float highest, decay;
};

/// AdamW (Loshchilov and Hutter 2019, algorithm 2); the corrections are `1 - beta^steps`.
KERNEL(adam_w)
(const Rate *rates, double rate, double first_correction, double second_correction, float *values, const float *gradients, float *first, float *second) {
    int index = blockIdx.x * THREADS + threadIdx.x;
    double mine = rate * rates[blockIdx.x].highest;
    if (mine == 0.0)
        return;
    float keep = (float)(1.0 - mine * rates[blockIdx.x].decay), step = (float)(mine / first_correction);
    float root = (float)(1.0 / sqrt(second_correction)), gradient = gradients[index];
    first[index] = 0.9f * first[index] + (1.0f - 0.9f) * gradient;
    second[index] = 0.999f * second[index] + (1.0f - 0.999f) * gradient * gradient;
    values[index] = keep * values[index] - step * first[index] / (sqrtf(second[index]) * root + 1e-8f);
}

/// Gradient descent with momentum, as PyTorch has it.
KERNEL(momentum)(const Rate *rates, double rate, float *values, const float *gradients, float *velocity) {
    int index = blockIdx.x * THREADS + threadIdx.x;
    float mine = (float)(rate * rates[blockIdx.x].highest);
    if (mine == 0.0f)
        return;
    velocity[index] = 0.9f * velocity[index] + gradients[index] + rates[blockIdx.x].decay * values[index];
    values[index] -= mine * velocity[index];
}

/// The running mean of `values` takes `part` of their difference to it.
KERNEL(running_mean)(float part, const float *values, float *mean) {
    int index = blockIdx.x * THREADS + threadIdx.x;
    mean[index] += part * (values[index] - mean[index]);
}
