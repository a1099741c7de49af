// What the tracker keeps of each camera, and what it is told; docs/tracker.md is the
// specification, edgecount/track/two_stage.py the reference. All reals are float32, in the
// order written there; __f…_rn keeps the compiler from fusing a product and a sum.
#pragma once
#include "common.cuh"

#ifndef TRACKS
#define TRACKS 1024  // most tracks of a camera
#endif
#ifndef DETECTIONS
#define DETECTIONS 1024  // most detections of a picture
#endif
#ifndef NEIGHBOURS
#define NEIGHBOURS 128  // most detections in one track's gate
#endif
#ifndef THREADS
#define THREADS 512
#endif

namespace edgecount {

constexpr int kTracks = TRACKS;
constexpr int kDetections = DETECTIONS;
constexpr int kNeighbours = NEIGHBOURS;
constexpr int kThreads = THREADS;
constexpr int kBins = 256;
constexpr float kFar = 1e6f;

// Rows of a track's reals: each group of four is cx, cy, w, h.
enum Row { kValue = 0, kRate = 4, kVar = 8, kCov = 12, kRateVar = 16, kEvidence = 20, kScore, kHitRate, kReals };
enum Overflow { kTooManyTracks = 1, kTooManyNeighbours = 2 };

struct State {
  int64_t next_id;
  int count;
  int news;  // scores that came since the levels were computed
  float high, birth, strong;
  int unused;
  int histogram[kBins];
  int64_t id[kTracks];
  int64_t unseen_us[kTracks];
  int cls[kTracks];
  int confirmed[kTracks];
  float real[kReals][kTracks];
};

// What the host works out of dt in float64: the same numbers as the reference has.
struct Step {
  int camera;
  float t, cube, square, fade;  // dt, dt³/3, dt²/2, exp(−dt / size_decay)
  float reach;                  // top_speed × dt
  int limit_high;               // of the costs of confirmed tracks and high scores
  int64_t dt_us;
};

struct Options {
  double high_share, birth_share, strong_share;
  int64_t max_age_us, tentative_age_us, low_age_us, coast_us;
  float low, confirm_evidence, weak_evidence, coast_rate;
  float noise, size_noise, outlier;
  float acceleration, size_acceleration, speed, size_speed, head_unit;
  float gate, gate_margin, min_height_ratio, grow;  // grow: 0.5 + buffer
  float base_cost, overlap_weight, distance_weight, height_weight, novice_cost;
  int limit_low, limit_tentative;
  int floor;  // the lowest bin
};

struct Seen {  // the detections of a batch, as plugins/nms.cu leaves them
  const float *boxes, *scores;
  const int *classes, *count;
  int most;
};

struct Edge {
  int detection;
  int cost;
};

// One camera's working memory; nothing in it outlives a launch.
struct Scratch {
  int64_t potential[kTracks];           // of rows
  int64_t price[kDetections];           // of columns
  int64_t distance[kDetections];
  float box[4][kDetections];            // cx, cy, w, h
  float score[kDetections];
  float radius[2][kTracks];
  float handicap[kTracks];
  int cls[kDetections];
  int degree[kTracks];
  int list[kTracks + kDetections];      // members of components
  int before[kDetections];              // the row that a column was reached from
  Edge edge[kTracks][kNeighbours];
};

struct Output {  // of one picture; the host copies all of it
  int count, ended, overflow, unused;
  int64_t id[kTracks];
  int64_t ended_id[kTracks];
  float box[kTracks][4];
  float score[kTracks];
  int cls[kTracks];
  uint8_t confirmed[kTracks];
};

// Where the calling thread's element goes if those without `wanted` are left out, in order.
// `total` counts on from call to call; all threads of the block call it.
struct Compaction {
  int warps[kThreads / 32];
  int total;
};

__device__ inline int place(Compaction &c, bool wanted) {
  const unsigned votes = __ballot_sync(kAllLanes, wanted);
  const int warp = threadIdx.x / kWarp;
  if (lane() == 0) c.warps[warp] = __popc(votes);
  __syncthreads();
  int at = c.total + __popc(votes & lanes_below());
  for (int i = 0; i < warp; ++i) at += c.warps[i];
  __syncthreads();
  if (threadIdx.x == kThreads - 1) c.total = at + (wanted ? 1 : 0);
  __syncthreads();
  return at;
}

__device__ inline void begin(Compaction &c, int total) {
  __syncthreads();
  if (threadIdx.x == 0) c.total = total;
  __syncthreads();
}

__device__ __forceinline__ float larger(float a, float b) { return a < b ? b : a; }
__device__ __forceinline__ float smaller(float a, float b) { return b < a ? b : a; }
__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float sub(float a, float b) { return __fsub_rn(a, b); }
__device__ __forceinline__ float divide(float a, float b) { return __fdiv_rn(a, b); }

// How high the person's body is: boxes near square are heads.
__device__ inline float body_height(float w, float h, const Options &o) {
  float squareness = divide(sub(divide(w, h), 0.45f), 0.3f);
  squareness = smaller(larger(squareness, 0.0f), 1.0f);
  return mul(h, add(1.0f, mul(o.head_unit, squareness)));
}

}  // namespace edgecount
