// Detections by bins of x, so that a track looks only at those in a window around it.
#pragma once
#include "tracker_ranks.cuh"

namespace edgecount {

struct Line {  // in shared memory
  float x[kDetections], y[kDetections];
  int detection[kDetections];
  int ends[kBins];        // where each bin ends
  unsigned least, most;   // of x, sortable
};

// From a coordinate to its bin; never falls where x rises.
struct Binning {
  float first, scale;

  __device__ explicit Binning(const Line &line) {
    first = from_sortable(line.least);
    scale = divide(static_cast<float>(kBins), larger(sub(from_sortable(line.most), first), 1.0f));
  }
  __device__ int bin(float x) const {
    const float at = mul(sub(x, first), scale);
    return at >= kBins ? kBins - 1 : at > 0.0f ? static_cast<int>(at) : 0;
  }
};

// Lines up the usable detections; all threads of the block call it. Their order within a bin
// may differ from run to run, and nothing depends on it.
__device__ inline void line_up(Line &line, const Scratch &s, int seen) {
  if (threadIdx.x == 0) line.least = 0xffffffffu, line.most = 0;
  for (int b = threadIdx.x; b < kBins; b += kThreads) line.ends[b] = 0;
  __syncthreads();
  for (int j = threadIdx.x; j < seen; j += kThreads) {
    const unsigned x = sortable(s.box[0][j]);
    atomicMin(&line.least, x);
    atomicMax(&line.most, x);
  }
  __syncthreads();
  const Binning binning(line);
  for (int j = threadIdx.x; j < seen; j += kThreads) atomicAdd(&line.ends[binning.bin(s.box[0][j])], 1);
  __syncthreads();
  if (threadIdx.x < kWarp) {  // counts become starts
    const int sum = sum_of_mine(line.ends);
    int start = sum_to_lane(sum) - sum;
    for (int b = lane() * kBinsOfLane; b < static_cast<int>(lane() + 1) * kBinsOfLane; ++b) {
      const int count = line.ends[b];
      line.ends[b] = start;
      start += count;
    }
  }
  __syncthreads();
  for (int j = threadIdx.x; j < seen; j += kThreads) {
    const float x = s.box[0][j];
    const int at = atomicAdd(&line.ends[binning.bin(x)], 1);  // starts become ends
    line.x[at] = x;
    line.y[at] = s.box[1][j];
    line.detection[at] = j;
  }
  __syncthreads();
}

}  // namespace edgecount
