// Ranks in the tracker: the median of the innovations, and levels of the histogram of scores.
#pragma once
#include "tracker_state.cuh"

namespace edgecount {

constexpr int kBinsOfLane = kBins / kWarp;

struct Ranks {
  int bins[2][kBins];
  unsigned found[2];
};

// Sum over the lanes up to the caller's.
__device__ __forceinline__ int sum_to_lane(int value) {
  for (int by = 1; by < static_cast<int>(kWarp); by *= 2) {
    const int other = __shfl_up_sync(kAllLanes, value, by);
    if (static_cast<int>(lane()) >= by) value += other;
  }
  return value;
}

__device__ __forceinline__ int sum_of_mine(const int *bins) {
  int sum = 0;
  for (int i = 0; i < kBinsOfLane; ++i) sum += bins[lane() * kBinsOfLane + i];
  return sum;
}

// The bin in which the value of rank `*rank` (from 0) lies; `*rank` becomes that within the
// bin. One warp.
__device__ inline int bin_of_rank(const int *bins, int *rank) {
  const int sum = sum_of_mine(bins), below = sum_to_lane(sum) - sum;
  const bool here = below <= *rank && *rank < below + sum;
  int bin = lane() * kBinsOfLane, left = *rank - below;
  while (here && left >= bins[bin]) left -= bins[bin++];
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

// The value of rank `rank` in each of two rows of `count`: a radix select, eight bits at a
// time, a warp a row. All threads of the block call it; `result` is in shared memory.
template <int kLength>
__device__ inline void select_rank(Ranks &ranks, const float (&values)[2][kLength], int count, int rank, float *result) {
  int left[2] = {rank, rank};
  if (threadIdx.x < 2) ranks.found[threadIdx.x] = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 2 * kBins; i += kThreads) ranks.bins[i / kBins][i % kBins] = 0;
    __syncthreads();
    const unsigned settled = shift == 24 ? 0 : 0xffffffffu << (shift + 8);
    for (int k = threadIdx.x; k < 2 * count; k += kThreads) {
      const int row = k >= count;
      const unsigned key = sortable(values[row][row ? k - count : k]);
      if ((key & settled) == ranks.found[row]) atomicAdd(&ranks.bins[row][key >> shift & 0xff], 1);
    }
    __syncthreads();
    for (int row = threadIdx.x / kWarp; row < 2; row += kThreads / kWarp) {
      const int bin = bin_of_rank(ranks.bins[row], &left[row]);
      if (lane() == 0) ranks.found[row] |= static_cast<unsigned>(bin) << shift;
    }
    __syncthreads();
  }
  if (threadIdx.x < 2) result[threadIdx.x] = from_sortable(ranks.found[threadIdx.x]);
  __syncthreads();
}

// The first bin up to which `wanted` counts are reached, as a score. One warp.
__device__ inline float level(const int *bins, double wanted) {
  const int to_here = sum_to_lane(sum_of_mine(bins));
  const int owner = __ffs(__ballot_sync(kAllLanes, to_here >= wanted)) - 1;
  int bin = lane() * kBinsOfLane;
  int cumulated = to_here - sum_of_mine(bins) + bins[bin];
  while (static_cast<int>(lane()) == owner && cumulated < wanted) cumulated += bins[++bin];
  bin = __shfl_sync(kAllLanes, bin, owner);
  return divide(static_cast<float>(bin), static_cast<float>(kBins));
}

}  // namespace edgecount
