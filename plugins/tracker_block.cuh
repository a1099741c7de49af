// What all threads of a block find out together. blockDim.x is a multiple of 32; every
// function here has barriers and is called by all threads.
#pragma once
#include "tracker_state.cuh"

namespace edgecount {
namespace tracker {

// How many threads before the caller have `flag` set; `total`: of all.
__device__ inline int rank_in_block(bool flag, int *total) {
  __shared__ int sums[kWarp];
  const unsigned flags = __ballot_sync(kAllLanes, flag);
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  if (lane() == 0) sums[warp] = __popc(flags);
  __syncthreads();
  int before = 0, all = 0;
  for (int w = 0; w < warps; ++w) {
    if (w < warp) before += sums[w];
    all += sums[w];
  }
  __syncthreads();
  *total = all;
  return before + __popc(flags & lanes_below());
}

__device__ __forceinline__ int sum_to_lane(int value) {
  for (int by = 1; by < int(kWarp); by *= 2) {
    const int other = __shfl_up_sync(kAllLanes, value, by);
    if (int(lane()) >= by) value += other;
  }
  return value;
}

// Makes starts of counts: bins[i] becomes the sum of those before it. One warp.
__device__ inline void exclusive_sums(int *bins) {
  constexpr int kEach = kBins / kWarp;
  int *mine = bins + lane() * kEach;
  int sum = 0;
  for (int i = 0; i < kEach; ++i) sum += mine[i];
  int start = sum_to_lane(sum) - sum;
  for (int i = 0; i < kEach; ++i) {
    const int count = mine[i];
    mine[i] = start;
    start += count;
  }
}

// The bin in which the value of this rank (from 0) lies; `rank` becomes that within the bin.
// One warp.
__device__ inline int bin_of_rank(const int *bins, int *rank) {
  constexpr int kEach = kBins / kWarp;
  const int *mine = bins + lane() * kEach;
  int sum = 0;
  for (int i = 0; i < kEach; ++i) sum += mine[i];
  const int below = sum_to_lane(sum) - sum;
  const bool here = below <= *rank && *rank < below + sum;
  int bin = 0, left = *rank - below;
  if (here) {
    while (left >= mine[bin]) left -= mine[bin++];
    bin += lane() * kEach;
  }
  const int owner = __ffs(__ballot_sync(kAllLanes, here)) - 1;
  *rank = __shfl_sync(kAllLanes, left, owner);
  return __shfl_sync(kAllLanes, bin, owner);
}

// Floats as integers of the same order, and back.
__device__ __forceinline__ unsigned sortable(float value) {
  const unsigned bits = __float_as_uint(value);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float from_sortable(unsigned key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// The values of rank `rank` in `x` and in `y`, over the items i < n with `chosen[i] != kNone`:
// a radix select, eight bits at a time.
__device__ inline float2 select_rank(const unsigned *x, const unsigned *y, const uint16_t *chosen, int n, int rank) {
  __shared__ int bins[2][kBins];
  __shared__ unsigned found[2];
  int ranks[2] = {rank, rank};  // kept by the warp that selects
  if (threadIdx.x < 2) found[threadIdx.x] = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < kBins; i += blockDim.x) bins[0][i] = bins[1][i] = 0;
    __syncthreads();
    const unsigned high = shift == 24 ? 0 : 0xffffffffu << (shift + 8);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
      if (chosen[i] == kNone) continue;
      if ((x[i] & high) == found[0]) atomicAdd(&bins[0][x[i] >> shift & 255], 1);
      if ((y[i] & high) == found[1]) atomicAdd(&bins[1][y[i] >> shift & 255], 1);
    }
    __syncthreads();
    for (int axis = threadIdx.x / kWarp; axis < 2; axis += blockDim.x / kWarp) {
      const int bin = bin_of_rank(bins[axis], &ranks[axis]);
      if (lane() == 0) found[axis] |= unsigned(bin) << shift;
    }
    __syncthreads();
  }
  return make_float2(from_sortable(found[0]), from_sortable(found[1]));
}

// The levels of the histogram's shares; see edgecount/track/_score_levels.py. One warp.
__device__ inline void compute_levels(const int *counts, const double *shares, float *levels) {
  constexpr int kEach = kBins / kWarp;
  const int *mine = counts + lane() * kEach;
  int sum = 0;
  for (int i = 0; i < kEach; ++i) sum += mine[i];
  const int to_here = sum_to_lane(sum);
  const int total = __shfl_sync(kAllLanes, to_here, kWarp - 1);
  for (int s = 0; s < 3; ++s) {
    const double wanted = __dmul_rn(shares[s], double(total));
    const unsigned reached = __ballot_sync(kAllLanes, double(to_here) >= wanted);
    if (int(lane()) != __ffs(reached) - 1) continue;
    int cumulated = to_here - sum + mine[0], bin = 0;
    while (double(cumulated) < wanted) cumulated += mine[++bin];
    levels[s] = __fdiv_rn(float(lane() * kEach + bin), float(kBins));
  }
}

}  // namespace tracker
}  // namespace edgecount
