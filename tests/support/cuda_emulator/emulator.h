// Runs CUDA kernels on a CPU, for tests without a GPU.
//
// The blocks of a grid run one after the other; the threads of a block are fibers that
// switch at barriers and warp collectives only. A seed shuffles the order in which blocks
// and threads run, so that a missing barrier shows as a result that depends on the seed.
// Shared memory is poisoned before each block. Faults, barriers that not all reach, and
// warp collectives that not all lanes reach end the launch with a message.
//
// Not emulated: grids whose blocks wait for each other, inline PTX, textures, clusters.
// Arithmetic is IEEE without contraction: compile with -ffp-contract=off, and the kernel
// for the device with --fmad=false.
#pragma once
#define CUDA_EMULATOR 1

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
// All shared variables lie in one section, so that it can be poisoned. Not in templates:
// GCC ignores the attribute there.
#define __shared__ static __attribute__((section("emulated_shared")))
// `extern __shared__ T name[]` for the device.
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(emulator::dynamic_shared())

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define EMULATED_VECTOR(T, name, size2, size4)                                        \
  struct __align__(size2) name##2 { T x, y; };                                        \
  struct name##3 { T x, y, z; };                                                      \
  struct __align__(size4) name##4 { T x, y, z, w; };                                  \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                          \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                  \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATED_VECTOR(signed char, char, 2, 4)
EMULATED_VECTOR(unsigned char, uchar, 2, 4)
EMULATED_VECTOR(short, short, 4, 8)
EMULATED_VECTOR(unsigned short, ushort, 4, 8)
EMULATED_VECTOR(int, int, 8, 16)
EMULATED_VECTOR(unsigned, uint, 8, 16)
EMULATED_VECTOR(float, float, 8, 16)
EMULATED_VECTOR(double, double, 16, 16)
EMULATED_VECTOR(long long, longlong, 16, 16)
EMULATED_VECTOR(unsigned long long, ulonglong, 16, 16)
#undef EMULATED_VECTOR

namespace emulator {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 256 * 1024;

struct Barrier {
  uint32_t mask;      // which lanes take part; unused for the block's barrier
  unsigned arrived;
  unsigned generation;
  unsigned line;      // the kind of collective that the first one called
};

struct Warp {
  uint32_t exited;
  uint64_t values[kWarp];
  std::vector<Barrier> barriers;
};

enum class State { kReady, kWaiting, kDone };

struct Thread {
  dim3 index;
  unsigned rank;
  State state;
  bool started;
  Barrier *barrier;          // what it waits for (block), or
  int warp_barrier;          // index into its warp's barriers
  unsigned generation;
  const char *doing;
  jmp_buf context;
  ucontext_t start;
  char *stack;
};

struct Block {
  dim3 grid_size, block_size, index;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barrier;
  unsigned exited;
  int votes;        // of __syncthreads_count and its kin, being gathered
  int last_votes;   // of the last one
  Thread *current;
  void (*body)(void *);
  void *argument;
  jmp_buf scheduler;
  ucontext_t first;
  char *dynamic;
  size_t dynamic_size;
};

inline Block *&block() { static Block *b = nullptr; return b; }
inline char *message() { static char text[1024]; return text; }
inline sigjmp_buf &landing() { static sigjmp_buf l; return l; }

[[noreturn]] inline void fail(const char *format, ...) {
  char what[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  Block *b = block();
  if (b && b->current) {
    const Thread &t = *b->current;
    snprintf(message(), 1024, "%s (block %u,%u,%u thread %u,%u,%u)", what, b->index.x, b->index.y,
             b->index.z, t.index.x, t.index.y, t.index.z);
  } else {
    snprintf(message(), 1024, "%s", what);
  }
  siglongjmp(landing(), 1);
}

inline void on_fault(int number, siginfo_t *info, void *) {
  fail("%s at address %p", number == SIGFPE ? "arithmetic fault" : "invalid memory access",
       info->si_addr);
}

inline void *dynamic_shared() { return block()->dynamic; }

// Gives the processor away; returns when the scheduler comes back to this thread.
inline void pause() {
  Thread *t = block()->current;
  if (_setjmp(t->context) == 0) _longjmp(block()->scheduler, 1);
}

inline void wait_block(const char *doing) {
  Block *b = block();
  Thread *t = b->current;
  Barrier &barrier = b->barrier;
  t->doing = doing;
  if (++barrier.arrived + b->exited == b->threads.size()) {
    barrier.arrived = 0;
    ++barrier.generation;
    b->last_votes = b->votes;
    b->votes = 0;
    return;
  }
  t->barrier = &barrier;
  t->generation = barrier.generation;
  t->state = State::kWaiting;
  pause();
}

inline Warp &warp() { return block()->warps[block()->current->rank / kWarp]; }
inline unsigned lane() { return block()->current->rank % kWarp; }

inline uint32_t lanes_of_warp() {
  unsigned first = block()->current->rank / kWarp * kWarp;
  unsigned there = std::min<unsigned>(kWarp, block()->threads.size() - first);
  return there == kWarp ? 0xffffffffu : (1u << there) - 1;
}

inline void wait_warp(uint32_t mask, const char *doing) {
  Block *b = block();
  Thread *t = b->current;
  Warp &w = warp();
  if (!(mask >> lane() & 1)) fail("%s with a mask that lacks the caller's lane", doing);
  mask &= lanes_of_warp();
  size_t i = 0;
  while (i < w.barriers.size() && w.barriers[i].mask != mask) ++i;
  if (i == w.barriers.size()) w.barriers.push_back({mask, 0, 0, 0});
  t->doing = doing;
  if (++w.barriers[i].arrived == unsigned(__builtin_popcount(mask & ~w.exited))) {
    w.barriers[i].arrived = 0;
    ++w.barriers[i].generation;
    return;
  }
  t->barrier = nullptr;
  t->warp_barrier = int(i);
  t->generation = w.barriers[i].generation;
  t->state = State::kWaiting;
  pause();
}

// What each lane of the mask brought, by lane; valid until the next collective of this lane.
inline void gather(uint32_t mask, uint64_t value, uint64_t *all, const char *doing) {
  Warp &w = warp();
  w.values[lane()] = value;
  wait_warp(mask, doing);
  memcpy(all, w.values, sizeof w.values);
  uint32_t silent = mask & lanes_of_warp() & w.exited;
  if (silent) fail("%s asks lanes that have returned", doing);
  wait_warp(mask, doing);
}

template <class T> inline uint64_t to_bits(T value) {
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T> inline T from_bits(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T> inline T shuffle(uint32_t mask, T value, int source, int width, bool inside, const char *doing) {
  uint64_t all[kWarp];
  gather(mask, to_bits(value), all, doing);
  unsigned base = lane() / width * width;
  unsigned from = inside ? base + unsigned(source) % width : lane();
  if (!(mask >> from & 1)) fail("%s reads a lane that is not in its mask", doing);
  return from_bits<T>(all[from]);
}

inline bool runnable(const Block &b, const Thread &t) {
  if (t.state == State::kReady) return true;
  if (t.state == State::kDone) return false;
  const Barrier &barrier =
      t.barrier ? *t.barrier : b.warps[t.rank / kWarp].barriers[t.warp_barrier];
  return barrier.generation != t.generation;
}

inline void trampoline() {
  Block *b = block();
  b->body(b->argument);
  Thread *t = b->current;
  t->state = State::kDone;
  ++b->exited;
  if (b->barrier.arrived && b->barrier.arrived + b->exited == b->threads.size()) {
    b->barrier.arrived = 0;
    ++b->barrier.generation;
    b->last_votes = b->votes;
    b->votes = 0;
  }
  Warp &w = warp();
  w.exited |= 1u << lane();
  for (Barrier &barrier : w.barriers) {
    if (barrier.arrived &&
        barrier.arrived == unsigned(__builtin_popcount(barrier.mask & ~w.exited))) {
      barrier.arrived = 0;
      ++barrier.generation;
    }
  }
  _longjmp(b->scheduler, 1);
}

inline void resume(Block &b, Thread &t) {
  b.current = &t;
  t.state = State::kReady;
  if (_setjmp(b.scheduler) == 0) {
    if (t.started) _longjmp(t.context, 1);
    t.started = true;
    getcontext(&t.start);
    t.start.uc_stack.ss_sp = t.stack;
    t.start.uc_stack.ss_size = kStack;
    t.start.uc_link = nullptr;
    makecontext(&t.start, trampoline, 0);
    setcontext(&t.start);
  }
  b.current = nullptr;
}

inline void run_block(Block &b, std::mt19937 *random) {
  std::vector<unsigned> order(b.threads.size());
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  if (random) std::shuffle(order.begin(), order.end(), *random);
  for (;;) {
    bool moved = false, waiting = false;
    for (unsigned i : order) {
      Thread &t = b.threads[i];
      if (t.state == State::kDone) continue;
      if (!runnable(b, t)) { waiting = true; continue; }
      moved = true;
      resume(b, t);
      waiting |= t.state != State::kDone;
    }
    if (!waiting) return;
    if (!moved) {
      for (Thread &t : b.threads) {
        if (t.state != State::kWaiting) continue;
        b.current = &t;
        fail("deadlock: not all threads that %s waits for come", t.doing);
      }
    }
  }
}

extern "C" {
extern char __start_emulated_shared[] __attribute__((weak));
extern char __stop_emulated_shared[] __attribute__((weak));
}

inline char *stacks(size_t threads) {
  static char *memory = nullptr;
  static size_t have = 0;
  if (threads > have) {
    if (memory) munmap(memory, have * kStack);
    memory = static_cast<char *>(mmap(nullptr, threads * kStack, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    have = threads;
  }
  return memory;
}

// Returns null, or what went wrong.
inline const char *run(dim3 grid, dim3 threads, size_t dynamic, unsigned seed,
                       void (*body)(void *), void *argument) {
  static char signal_stack[64 * 1024];
  stack_t alternative = {}, old_alternative;
  alternative.ss_sp = signal_stack;
  alternative.ss_size = sizeof signal_stack;
  sigaltstack(&alternative, &old_alternative);
  struct sigaction action = {}, old[3];
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  const int signals[3] = {SIGSEGV, SIGBUS, SIGFPE};
  for (int i = 0; i < 3; ++i) sigaction(signals[i], &action, &old[i]);

  static Block *b;
  b = new Block();
  block() = b;
  static char *shared;
  shared = static_cast<char *>(aligned_alloc(256, (dynamic + 511) / 256 * 256));
  const char *result = nullptr;
  if (sigsetjmp(landing(), 1) == 0) {
    size_t count = size_t(threads.x) * threads.y * threads.z;
    if (count == 0 || count > 1024) fail("a block of %zu threads", count);
    b->grid_size = grid;
    b->block_size = threads;
    b->body = body;
    b->argument = argument;
    b->dynamic = shared;
    b->dynamic_size = dynamic;
    b->threads.resize(count);
    char *memory = stacks(count);
    std::mt19937 random(seed);
    std::vector<unsigned> order(size_t(grid.x) * grid.y * grid.z);
    for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
    if (seed) std::shuffle(order.begin(), order.end(), random);
    for (unsigned i : order) {
      b->index = dim3(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y);
      b->warps.assign((count + kWarp - 1) / kWarp, Warp{});
      b->barrier = Barrier{};
      b->exited = 0;
      b->votes = b->last_votes = 0;
      for (unsigned r = 0; r < count; ++r) {
        Thread &t = b->threads[r];
        t.index = dim3(r % threads.x, r / threads.x % threads.y, r / threads.x / threads.y);
        t.rank = r;
        t.state = State::kReady;
        t.started = false;
        t.stack = memory + r * kStack;
      }
      memset(shared, 0xAD, dynamic);
      if (__start_emulated_shared)
        memset(__start_emulated_shared, 0xAD, __stop_emulated_shared - __start_emulated_shared);
      run_block(*b, seed ? &random : nullptr);
    }
  } else {
    result = message();
  }
  block() = nullptr;
  free(shared);
  delete b;
  for (int i = 0; i < 3; ++i) sigaction(signals[i], &old[i], nullptr);
  sigaltstack(&old_alternative, nullptr);
  return result;
}

template <class... A, size_t... I>
const char *launch(void (*kernel)(A...), const unsigned *shape, size_t dynamic, unsigned seed,
                   void **arguments, std::index_sequence<I...>) {
  struct Call {
    void (*kernel)(A...);
    void **arguments;
  } call{kernel, arguments};
  (void)arguments;
  return run(dim3(shape[0], shape[1], shape[2]), dim3(shape[3], shape[4], shape[5]), dynamic, seed,
             [](void *c) {
               auto *made = static_cast<Call *>(c);
               made->kernel(*static_cast<std::remove_reference_t<A> *>(made->arguments[I])...);
             },
             &call);
}

template <class... A>
const char *launch(void (*kernel)(A...), const unsigned *shape, size_t dynamic, unsigned seed,
                   void **arguments) {
  return launch(kernel, shape, dynamic, seed, arguments, std::index_sequence_for<A...>());
}

}  // namespace emulator

// Makes a kernel callable from Python: emulate_<name>.
#define EMULATE(name)                                                                       \
  extern "C" const char *emulate_##name(const unsigned *shape, size_t dynamic, unsigned seed, \
                                        void **arguments) {                                 \
    return emulator::launch(name, shape, dynamic, seed, arguments);                         \
  }

#define threadIdx (emulator::block()->current->index)
#define blockIdx (emulator::block()->index)
#define blockDim (emulator::block()->block_size)
#define gridDim (emulator::block()->grid_size)
#define warpSize 32

// Barriers and warp collectives

inline void __syncthreads() { emulator::wait_block("__syncthreads"); }
inline int emulated_vote(int predicate, const char *doing) {
  emulator::block()->votes += predicate != 0;
  emulator::wait_block(doing);
  int votes = emulator::block()->last_votes;
  emulator::wait_block(doing);  // the next vote must not change what others still read
  return votes;
}
inline int __syncthreads_count(int p) { return emulated_vote(p, "__syncthreads_count"); }
inline int __syncthreads_or(int p) { return emulated_vote(p, "__syncthreads_or") != 0; }
inline int __syncthreads_and(int p) { return emulated_vote(!p, "__syncthreads_and") == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::wait_warp(mask, "__syncwarp"); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  uint64_t all[32];
  emulator::gather(mask, predicate != 0, all, "__ballot_sync");
  unsigned result = 0;
  for (unsigned i = 0; i < 32; ++i)
    if (mask & emulator::lanes_of_warp() & (1u << i)) result |= unsigned(all[i] & 1) << i;
  return result;
}
inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, !p) == 0; }
template <class T> inline unsigned __match_any_sync(unsigned mask, T value) {
  uint64_t all[32];
  uint64_t mine = emulator::to_bits(value);
  emulator::gather(mask, mine, all, "__match_any_sync");
  unsigned result = 0;
  for (unsigned i = 0; i < 32; ++i)
    if ((mask & emulator::lanes_of_warp() & (1u << i)) && all[i] == mine) result |= 1u << i;
  return result;
}
template <class T> inline T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
  return emulator::shuffle(mask, v, source, width, true, "__shfl_sync");
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int other, int width = 32) {
  int at = int(emulator::lane()) % width;
  return emulator::shuffle(mask, v, at ^ other, width, (at ^ other) < width, "__shfl_xor_sync");
}
template <class T> inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
  int at = int(emulator::lane()) % width - int(by);
  return emulator::shuffle(mask, v, at, width, at >= 0, "__shfl_up_sync");
}
template <class T> inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
  int at = int(emulator::lane()) % width + int(by);
  return emulator::shuffle(mask, v, at, width, at < width, "__shfl_down_sync");
}

// Atomics: threads switch at barriers only, so plain code is atomic.

#define EMULATED_ATOMIC(name, expression)                                     \
  template <class T, class V> inline T name(T *address, V given) {            \
    T old = *address, value = T(given);                                       \
    *address = (expression);                                                  \
    return old;                                                               \
  }
EMULATED_ATOMIC(atomicAdd, old + value)
EMULATED_ATOMIC(atomicSub, old - value)
EMULATED_ATOMIC(atomicExch, value)
EMULATED_ATOMIC(atomicMin, value < old ? value : old)
EMULATED_ATOMIC(atomicMax, old < value ? value : old)
EMULATED_ATOMIC(atomicAnd, old & value)
EMULATED_ATOMIC(atomicOr, old | value)
EMULATED_ATOMIC(atomicXor, old ^ value)
EMULATED_ATOMIC(atomicInc, old >= value ? T(0) : old + 1)
EMULATED_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef EMULATED_ATOMIC
template <class T, class C, class V> inline T atomicCAS(T *address, C compare, V value) {
  T old = *address;
  if (old == T(compare)) *address = T(value);
  return old;
}

// Arithmetic

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __expf(float a) { return expf(a); }
inline float __logf(float a) { return logf(a); }
inline float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }
inline float __int2float_rn(int a) { return float(a); }
inline int __float2int_rn(float a) { return int(nearbyintf(a)); }
inline int __float2int_rd(float a) { return int(floorf(a)); }
inline int __double2int_rn(double a) { return int(nearbyint(a)); }
inline unsigned __float_as_uint(float a) { return emulator::from_bits<unsigned>(emulator::to_bits(a)); }
inline int __float_as_int(float a) { return emulator::from_bits<int>(emulator::to_bits(a)); }
inline float __uint_as_float(unsigned a) { return emulator::from_bits<float>(emulator::to_bits(a)); }
inline float __int_as_float(int a) { return emulator::from_bits<float>(emulator::to_bits(a)); }
inline long long __double_as_longlong(double a) { return (long long)emulator::to_bits(a); }
inline double __longlong_as_double(long long a) { return emulator::from_bits<double>(uint64_t(a)); }
inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
inline int __clz(int a) { return a ? __builtin_clz(unsigned(a)) : 32; }
inline int __clzll(long long a) { return a ? __builtin_clzll((unsigned long long)a) : 64; }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __ffsll(long long a) { return __builtin_ffsll(a); }
inline unsigned __brev(unsigned a) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (a >> i & 1) << (31 - i);
  return r;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  uint64_t both = uint64_t(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    unsigned s = selector >> 4 * i & 0xf;
    unsigned byte = unsigned(both >> 8 * (s & 7)) & 0xff;
    if (s & 8) byte = byte & 0x80 ? 0xff : 0;
    result |= byte << 8 * i;
  }
  return result;
}
template <class T> inline T __ldg(const T *address) { return *address; }
template <class T> inline T __ldcs(const T *address) { return *address; }
template <class T> inline T __ldcg(const T *address) { return *address; }
template <class T, class V> inline void __stcs(T *address, V value) { *address = value; }
template <class T, class V> inline void __stcg(T *address, V value) { *address = value; }
inline unsigned short emulated_float_to_half(float a) {
  return emulator::from_bits<unsigned short>(emulator::to_bits(static_cast<_Float16>(a)));
}
inline float emulated_half_to_float(unsigned short a) {
  return static_cast<float>(emulator::from_bits<_Float16>(a));
}

using std::max;
using std::min;
inline unsigned min(unsigned a, int b) { return a < unsigned(b) ? a : unsigned(b); }
inline unsigned min(int a, unsigned b) { return min(b, a); }
inline unsigned max(unsigned a, int b) { return a > unsigned(b) ? a : unsigned(b); }
inline unsigned max(int a, unsigned b) { return max(b, a); }
inline long long clock64() { return 0; }

// "Device" memory whose end is the end of a page that cannot be read: a thread that goes
// too far faults. The start is aligned to 256 bytes only where the size is.
extern "C" void *emulated_alloc(size_t size) {
  size_t page = size_t(sysconf(_SC_PAGESIZE));
  size_t whole = (size + page - 1) / page * page + page;
  char *memory = static_cast<char *>(
      mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (memory == MAP_FAILED) return nullptr;
  mprotect(memory + whole - page, page, PROT_NONE);
  memset(memory, 0xAD, whole - page);
  return memory + (whole - page - (size + 15) / 16 * 16);
}
extern "C" void emulated_free(void *address, size_t size) {
  size_t page = size_t(sysconf(_SC_PAGESIZE));
  size_t whole = (size + page - 1) / page * page + page;
  char *end = static_cast<char *>(address) + (size + 15) / 16 * 16;
  munmap(end - (whole - page), whole);
}
