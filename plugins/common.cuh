// What the kernels share. Sources compile with NVRTC (no headers, CUDA 10.2 and newer,
// C++14), with nvcc, and with tests/support/cuda_emulator on a CPU.
#pragma once

#ifndef CUDA_EMULATOR
#define DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]
#endif

#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef signed char int8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
#elif !defined(CUDA_EMULATOR)
#include <stdint.h>
#endif

namespace edgecount {

constexpr unsigned kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ unsigned lane() { return threadIdx.x % kWarp; }
__device__ __forceinline__ unsigned lanes_below() { return (1u << lane()) - 1; }

// Half precision by its bits: cuda_fp16.h is not among NVRTC's own headers.
__device__ __forceinline__ float half_to_float(uint16_t bits) {
#ifdef CUDA_EMULATOR
  return emulated_half_to_float(bits);
#else
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
#endif
}

__device__ __forceinline__ uint16_t float_to_half(float value) {
#ifdef CUDA_EMULATOR
  return emulated_float_to_half(value);
#else
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
#endif
}

// Counts the calling block in. True in the last of `blocks`, which then sees what all the
// others wrote to global memory (read it with __ldcg: L1 is not coherent) and has set the
// counter back for the next launch. All threads of the block call it.
__device__ inline bool last_to_finish(unsigned *counter, unsigned blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(counter, 1u) == blocks - 1;
    if (last) *counter = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

}  // namespace edgecount
