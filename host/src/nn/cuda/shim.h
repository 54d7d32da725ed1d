// What CUDA C++ has and C++ lacks, as far as the kernels use it: with this before them a C++ compiler runs them on the host.
//
// The threads of a block are fibres of one thread, which take turns at __syncthreads(). One launch at a time.

#include <cmath>
#include <cstddef>
#include <functional>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__ 
#define __shared__ static

using std::min;

struct Index {
    int x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

namespace fibres {
constexpr size_t STACK = 1 << 16;
struct Fibre {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK);
    bool running;
};
static ucontext_t caller;
static std::vector<Fibre> of_block;
static std::function<void()> body;
static int current;

static void begin() {
    body();
    of_block[current].running = false;
}

static void run_block(int threads) {
    if ((int)of_block.size() < threads)
        of_block.resize(threads);
    for (int thread = 0; thread < threads; thread++) {
        Fibre &fibre = of_block[thread];
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.data();
        fibre.context.uc_stack.ss_size = STACK;
        fibre.context.uc_link = &caller;
        fibre.running = true;
        makecontext(&fibre.context, begin, 0);
    }
    for (bool any = true; any;) {
        any = false;
        for (current = 0; current < threads; current++)
            if (of_block[current].running) {
                threadIdx.x = current;
                swapcontext(&caller, &of_block[current].context);
                any |= of_block[current].running;
            }
    }
}
} // namespace fibres

static inline void __syncthreads() { swapcontext(&fibres::of_block[fibres::current].context, &fibres::caller); }

template <class... Arguments, size_t... Positions>
static void launch(void (*kernel)(Arguments...), void **arguments, const unsigned *blocks, unsigned threads, std::index_sequence<Positions...>) {
    fibres::body = [=] { kernel(*(std::decay_t<Arguments> *)arguments[Positions]...); };
    blockDim.x = threads;
    gridDim = {(int)blocks[0], (int)blocks[1], (int)blocks[2]};
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++)
                fibres::run_block(threads);
}

/// A kernel by its name, for whoever loads the library.
#define EXPORT(kernel)                                                                                                   \
    extern "C" void launch_##kernel(void **arguments, const unsigned *blocks, unsigned threads) {                        \
        launch_unpacked(kernel, arguments, blocks, threads);                                                             \
    }
template <class... Arguments>
static void launch_unpacked(void (*kernel)(Arguments...), void **arguments, const unsigned *blocks, unsigned threads) {
    launch(kernel, arguments, blocks, threads, std::index_sequence_for<Arguments...>());
}
