// What CUDA C++ has and C++ lacks, as far as the kernels use it: with this before them a C++ compiler runs them on the host.
//
// The threads of a block are fibres of one thread, which take turns at __syncthreads(). One launch at a time.

#include <cmath>
#include <cstddef>
#include <functional>
#include <setjmp.h>
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
    std::vector<char> stack = std::vector<char>(STACK);
    jmp_buf place;
    bool begun = false, running = false;
};
static std::vector<Fibre> of_block;
static std::function<void()> body;
static jmp_buf caller;
static int current;

static void wait() {
    if (!_setjmp(of_block[current].place))
        _longjmp(caller, 1);
}

/// A fibre lives on from block to block: to make one costs system calls.
static void live() {
    for (;;) {
        body();
        of_block[current].running = false;
        wait();
    }
}

/// Lets fibre `current` run until it waits or has done its work. Its context is only needed to give it a stack.
static void resume() {
    Fibre &fibre = of_block[current];
    if (_setjmp(caller))
        return;
    if (fibre.begun)
        _longjmp(fibre.place, 1);
    fibre.begun = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fibre.stack.data();
    context.uc_stack.ss_size = STACK;
    makecontext(&context, live, 0);
    setcontext(&context);
}

static void run_block(int threads) {
    if ((int)of_block.size() < threads)
        of_block.resize(threads);
    for (int thread = 0; thread < threads; thread++)
        of_block[thread].running = true;
    // Every other turn begins at the last one: a missing barrier must not be hidden by the order.
    bool any = true;
    for (bool back = false; any; back = !back) {
        any = false;
        for (int turn = 0; turn < threads; turn++) {
            current = back ? threads - 1 - turn : turn;
            if (of_block[current].running) {
                threadIdx.x = current;
                resume();
                any |= of_block[current].running;
            }
        }
    }
}
} // namespace fibres

static inline void __syncthreads() { fibres::wait(); }

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
