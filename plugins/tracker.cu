// The head tracker of all cameras of a batch: one block a camera, one launch a batch.
#include "tracker_assign.cuh"
#include "tracker_line.cuh"

namespace edgecount {

struct Shared {
  Compaction compaction;
  union {
    Line line;  // until all pairs are found
    Assignment assignment;
  };
  Ranks ranks;
  float off[2][kTracks];
  float median[2];
  int matched, scores, overflow;
};

// Step 0: the usable detections, in order.
__device__ inline int clean(const Seen &seen, int picture, const Options &o, Scratch &s, Compaction &c) {
  const int given = seen.count[picture];
  const float4 *boxes = reinterpret_cast<const float4 *>(seen.boxes) + static_cast<int64_t>(picture) * seen.most;
  const float *scores = seen.scores + static_cast<int64_t>(picture) * seen.most;
  const int *classes = seen.classes + static_cast<int64_t>(picture) * seen.most;
  begin(c, 0);
  for (int first = 0; first < given; first += kThreads) {
    const int i = first + threadIdx.x;
    const bool inside = i < given;
    const float4 b = inside ? boxes[i] : make_float4(0, 0, 0, 0);
    const float score = inside ? scores[i] : 0.0f;
    const float w = sub(b.z, b.x), h = sub(b.w, b.y);
    const float cx = add(b.x, mul(0.5f, w)), cy = add(b.y, mul(0.5f, h));
    const bool usable = inside && score >= o.low && w >= 1.0f && h >= 1.0f && fabsf(cx) < kFar &&
                        fabsf(cy) < kFar && w < kFar && h < kFar;
    const int at = place(c, usable);
    if (!usable) continue;
    s.box[0][at] = cx, s.box[1][at] = cy, s.box[2][at] = w, s.box[3][at] = h;
    s.score[at] = score;
    s.cls[at] = classes[i];
  }
  __syncthreads();
  return c.total;
}

// Step 2: tracks grow older; those unseen for too long die, the others move up.
__device__ inline void age(State &t, const Step &step, const Options &o, Output &out, Compaction &c) {
  const int count = t.count;
  begin(c, 0);
  for (int first = 0; first < count; first += kThreads) {
    const int i = first + threadIdx.x;
    const bool inside = i < count;
    const int64_t unseen = inside ? t.unseen_us[i] + step.dt_us : 0;
    const bool missed = inside && t.unseen_us[i] > 0;
    const bool dead = inside && (unseen > o.max_age_us ||
                                 (!t.confirmed[i] && missed && unseen > o.tentative_age_us));
    const int64_t id = inside ? t.id[i] : 0;
    const int cls = inside ? t.cls[i] : 0, confirmed = inside ? t.confirmed[i] : 0;
    float real[kReals];
    for (int r = 0; r < kReals; ++r) real[r] = inside ? t.real[r][i] : 0.0f;
    const bool lives = inside && !dead;
    // Its barriers also part these reads from the writes of this round, which go no further down.
    const int at = place(c, lives);
    if (dead) out.ended_id[i - at] = id;
    if (!lives) continue;
    t.id[at] = id, t.cls[at] = cls, t.confirmed[at] = confirmed, t.unseen_us[at] = unseen;
    for (int r = 0; r < kReals; ++r) t.real[r][at] = real[r];
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    out.ended = count - c.total;
    t.count = c.total;
  }
  __syncthreads();
}

// Step 3, one axis group: `noise` is the acceleration's density.
__device__ inline void predict_axis(State &t, int axis, int i, const Step &step, float noise) {
  const float rate = t.real[kRate + axis][i], cov = t.real[kCov + axis][i];
  const float rate_var = t.real[kRateVar + axis][i];
  const float moved = add(cov, mul(step.t, rate_var));
  const float grown = add(mul(step.t, add(cov, moved)), mul(step.cube, noise));
  t.real[kValue + axis][i] = add(t.real[kValue + axis][i], mul(step.t, rate));
  t.real[kVar + axis][i] = add(t.real[kVar + axis][i], grown);
  t.real[kCov + axis][i] = add(moved, mul(step.square, noise));
  t.real[kRateVar + axis][i] = add(rate_var, mul(step.t, noise));
}

__device__ inline void predict(State &t, const Step &step, const Options &o, Scratch &s) {
  for (int i = threadIdx.x; i < t.count; i += kThreads) {
    const float w = t.real[kValue + 2][i], h = t.real[kValue + 3][i];
    float centre = mul(o.acceleration, body_height(w, h, o)), size = mul(o.size_acceleration, h);
    centre = mul(centre, centre), size = mul(size, size);
    for (int axis = 0; axis < 4; ++axis) predict_axis(t, axis, i, step, axis < 2 ? centre : size);
    for (int axis = 2; axis < 4; ++axis) {
      t.real[kRate + axis][i] = mul(t.real[kRate + axis][i], step.fade);
      t.real[kValue + axis][i] = larger(t.real[kValue + axis][i], 1.0f);
    }
    t.real[kHitRate][i] = mul(t.real[kHitRate][i], sub(1.0f, 0.2f));
    for (int axis = 0; axis < 2; ++axis)
      s.radius[axis][i] = add(mul(o.gate, __fsqrt_rn(t.real[kVar + axis][i])),
                              mul(o.gate_margin, t.real[kValue + 2 + axis][i]));
    if (t.real[kHitRate][i] == 0.0f) {  // seen once: as far as a runner gets
      const float way = mul(step.reach, body_height(t.real[kValue + 2][i], t.real[kValue + 3][i], o));
      for (int axis = 0; axis < 2; ++axis) s.radius[axis][i] = larger(s.radius[axis][i], way);
    }
    const float experience = smaller(divide(t.real[kEvidence][i], 10.0f), 1.0f);
    s.handicap[i] = mul(o.novice_cost, sub(1.0f, experience));
  }
}

// Step 4, one pair within the gate: its cost, or −1 where the heights are too unlike.
__device__ inline int cost_of(const State &t, int i, const Scratch &s, int j, float square, const Options &o) {
  const float ah = t.real[kValue + 3][i], bh = s.box[3][j];
  const float height = divide(smaller(ah, bh), larger(ah, bh));
  if (!(height >= o.min_height_ratio)) return -1;
  float common[2], half_a[2], half_b[2];
  for (int axis = 0; axis < 2; ++axis) {
    half_a[axis] = mul(t.real[kValue + 2 + axis][i], o.grow);
    half_b[axis] = mul(s.box[2 + axis][j], o.grow);
    const float apart = fabsf(sub(t.real[kValue + axis][i], s.box[axis][j]));
    const float reach = sub(add(half_a[axis], half_b[axis]), apart);
    common[axis] = larger(smaller(reach, mul(2.0f, smaller(half_a[axis], half_b[axis]))), 0.0f);
  }
  const float inter = mul(common[0], common[1]);
  const float area = mul(4.0f, add(mul(half_a[0], half_a[1]), mul(half_b[0], half_b[1])));
  const float iou = divide(inter, sub(area, inter));
  float cost = add(o.base_cost, mul(o.distance_weight, square));
  cost = sub(cost, mul(o.overlap_weight, iou));
  cost = sub(cost, mul(o.height_weight, height));
  cost = add(larger(cost, 0.0f), s.handicap[i]);
  return static_cast<int>(mul(cost, 65536.0f));
}

// Lists the detections in reach of track i, one lane a detection, and returns how many they
// are: those of the line from `first` to `end`, or without a line detections first … end.
__device__ inline int list_pairs(const State &t, const Options &o, Scratch &s, int i, const Line *line, int first, int end) {
  const float cx = t.real[kValue][i], cy = t.real[kValue + 1][i];
  const float rx = s.radius[0][i], ry = s.radius[1][i];
  // A cheap test first; rounding may not lose a pair of the exact one.
  const float near_x = mul(rx, 1.0001f), near_y = mul(ry, 1.0001f);
  int degree = 0;
  for (; first < end; first += kWarp) {
    const int at_line = first + lane();
    int cost = -1, j = -1;
    if (at_line < end) {
      j = line ? line->detection[at_line] : at_line;
      const float bx = line ? line->x[at_line] : s.box[0][j], by = line ? line->y[at_line] : s.box[1][j];
      const float dx = sub(bx, cx), dy = sub(by, cy);
      if (fabsf(dx) < near_x && fabsf(dy) < near_y) {
        const float x = divide(dx, rx), y = divide(dy, ry);
        const float square = add(mul(x, x), mul(y, y));
        if (square < 1.0f) cost = cost_of(t, i, s, j, square, o);
      }
    }
    const unsigned votes = __ballot_sync(kAllLanes, cost >= 0);
    const int at = degree + __popc(votes & lanes_below());
    if (cost >= 0 && at < kNeighbours) s.edge[i][at] = Edge{j, cost};
    degree += __popc(votes);
  }
  return degree;
}

// One warp a track.
__device__ inline void pair(const State &t, const Options &o, Scratch &s, int seen, Line &line, int *overflow) {
  line_up(line, s, seen);
  const Binning binning(line);
  for (int i = threadIdx.x / kWarp; i < t.count; i += kThreads / kWarp) {
    const float cx = t.real[kValue][i];
    const float reach = add(mul(s.radius[0][i], 1.0002f), mul(1e-6f, fabsf(cx)));
    const int before = binning.bin(sub(cx, reach)) - 1;
    const int end = line.ends[binning.bin(add(cx, reach))];
    int degree = list_pairs(t, o, s, i, &line, before < 0 ? 0 : line.ends[before], end);
    if (degree > kNeighbours) {  // by falling score, so that the best are kept
      degree = list_pairs(t, o, s, i, nullptr, 0, seen);
      if (lane() == 0) atomicOr(overflow, static_cast<int>(kTooManyNeighbours));
    }
    if (lane() == 0) s.degree[i] = degree < kNeighbours ? degree : kNeighbours;
  }
  __syncthreads();
}

// Step 5.
__device__ inline void match(const State &t, const Step &step, const Options &o, Scratch &s, int seen, Assignment &a) {
  for (int i = threadIdx.x; i < t.count; i += kThreads) a.match[i] = kFree;
  for (int j = threadIdx.x; j < seen; j += kThreads) a.owner[j] = kFree;
  for (int stage = 0; stage < 3; ++stage) {
    __syncthreads();
    const bool confirmed = stage < 2, high = stage != 1;
    bool any_row = false, any_column = false;
    for (int i = threadIdx.x; i < t.count; i += kThreads) {
      a.row_open[i] = a.match[i] == kFree && (t.confirmed[i] != 0) == confirmed &&
                      (stage != 1 || t.unseen_us[i] <= o.low_age_us);
      any_row |= a.row_open[i] && s.degree[i];
    }
    for (int j = threadIdx.x; j < seen; j += kThreads) {
      a.column_open[j] = a.owner[j] == kFree && (s.score[j] >= t.high) == high;
      any_column |= a.column_open[j] != 0;
    }
    const bool rows = __syncthreads_or(any_row), columns = __syncthreads_or(any_column);
    if (!rows || !columns) continue;
    assign(a, s, t.count, seen, stage == 0 ? step.limit_high : stage == 1 ? o.limit_low : o.limit_tentative);
  }
}

// Step 6, first part: how far the matched centres are off, less what all have in common.
__device__ inline void medians(const State &t, const Scratch &s, Shared &shared) {
  const Assignment &a = shared.assignment;
  begin(shared.compaction, 0);
  for (int first = 0; first < t.count; first += kThreads) {
    const int i = first + threadIdx.x;
    const int j = i < t.count ? a.match[i] : kFree;
    const int at = place(shared.compaction, j != kFree);
    if (j == kFree) continue;
    for (int axis = 0; axis < 2; ++axis) shared.off[axis][at] = sub(s.box[axis][j], t.real[kValue + axis][i]);
  }
  __syncthreads();
  const int count = shared.compaction.total;
  if (threadIdx.x == 0) shared.matched = count;
  if (count >= 3) select_rank(shared.ranks, shared.off, count, (count - 1) / 2, shared.median);
  __syncthreads();
}

__device__ inline void correct_axis(State &t, int axis, int i, float measured, float noise) {
  const float cov = t.real[kCov + axis][i], var = t.real[kVar + axis][i];
  const float innovation = sub(measured, t.real[kValue + axis][i]);
  const float total = add(var, noise);
  const float gain = divide(var, total), rate_gain = divide(cov, total);
  t.real[kValue + axis][i] = add(t.real[kValue + axis][i], mul(gain, innovation));
  t.real[kRate + axis][i] = add(t.real[kRate + axis][i], mul(rate_gain, innovation));
  t.real[kRateVar + axis][i] = sub(t.real[kRateVar + axis][i], mul(rate_gain, cov));
  t.real[kVar + axis][i] = mul(gain, noise);
  t.real[kCov + axis][i] = mul(rate_gain, noise);
}

__device__ __forceinline__ float variance(float unit, float size) {
  const float deviation = mul(unit, size);
  return mul(deviation, deviation);
}

__device__ __forceinline__ float evidence_of(float score, float strong, const Options &o) {
  return score >= strong ? 1.0f : o.weak_evidence;
}

// Step 6: matched tracks get their measurement.
__device__ inline void correct(State &t, const Options &o, const Scratch &s, Shared &shared) {
  medians(t, s, shared);
  for (int i = threadIdx.x; i < t.count; i += kThreads) {
    const int j = shared.assignment.match[i];
    if (j == kFree) continue;
    for (int axis = 0; axis < 4; ++axis) {
      const float size = s.box[axis < 2 ? axis + 2 : axis][j];
      float noise = variance(axis < 2 ? o.noise : o.size_noise, size);
      if (axis < 2 && shared.matched >= 3) {
        const float off = sub(sub(s.box[axis][j], t.real[kValue + axis][i]), shared.median[axis]);
        const float scale = mul(add(t.real[kVar + axis][i], noise), o.outlier);
        noise = mul(noise, larger(divide(mul(off, off), scale), 1.0f));
      }
      correct_axis(t, axis, i, s.box[axis][j], noise);
    }
    const float score = s.score[j];
    if (t.confirmed[i]) {
      int bin = static_cast<int>(mul(score, static_cast<float>(kBins)));
      bin = bin < o.floor ? o.floor : bin;
      atomicAdd(&t.histogram[bin < kBins ? bin : kBins - 1], 1);
      atomicAdd(&shared.scores, 1);
    }
    t.real[kScore][i] = score;
    t.real[kEvidence][i] = add(t.real[kEvidence][i], evidence_of(score, t.strong, o));
    t.real[kHitRate][i] = add(t.real[kHitRate][i], 0.2f);
    t.unseen_us[i] = 0;
    t.cls[i] = s.cls[j];
    if (t.real[kEvidence][i] >= o.confirm_evidence) t.confirmed[i] = 1;
  }
  __syncthreads();
}

// The histogram's levels, now and then. One warp.
__device__ inline void learn(State &t, const Options &o, int scores, int *bins) {
  const int news = t.news + scores;
  __syncwarp();
  if (lane() == 0) t.news = news < 32 ? news : 0;
  if (news < 32) return;
  for (int b = lane(); b < kBins; b += kWarp) bins[b] = t.histogram[b];
  __syncwarp();
  int total = __shfl_sync(kAllLanes, sum_to_lane(sum_of_mine(bins)), kWarp - 1);
  if (total > 8192) {
    __syncwarp();
    for (int b = lane(); b < kBins; b += kWarp) t.histogram[b] = bins[b] >>= 1;
    __syncwarp();
    total = __shfl_sync(kAllLanes, sum_to_lane(sum_of_mine(bins)), kWarp - 1);
  }
  const float high = level(bins, __dmul_rn(o.high_share, total)), birth = level(bins, __dmul_rn(o.birth_share, total));
  const float strong = level(bins, __dmul_rn(o.strong_share, total));
  if (lane() == 0) t.high = high, t.birth = birth, t.strong = strong;
}

// Step 7: free detections of a good score found tracks, in order.
__device__ inline void found(State &t, const Options &o, const Scratch &s, int seen, Shared &shared, float birth, float strong) {
  begin(shared.compaction, t.count);
  const int count = t.count;
  for (int first = 0; first < seen; first += kThreads) {
    const int j = first + threadIdx.x;
    const bool born = j < seen && s.score[j] >= birth && shared.assignment.owner[j] == kFree;
    const int i = place(shared.compaction, born);
    if (!born || i >= kTracks) continue;
    const float w = s.box[2][j], h = s.box[3][j];
    const float speed = mul(o.speed, body_height(w, h, o)), size_speed = mul(o.size_speed, h);
    for (int axis = 0; axis < 4; ++axis) {
      t.real[kValue + axis][i] = s.box[axis][j];
      t.real[kRate + axis][i] = t.real[kCov + axis][i] = 0.0f;
      t.real[kVar + axis][i] = variance(axis < 2 ? o.noise : o.size_noise, axis % 2 ? h : w);
      t.real[kRateVar + axis][i] = axis < 2 ? mul(speed, speed) : mul(size_speed, size_speed);
    }
    const float evidence = evidence_of(s.score[j], strong, o);
    t.real[kEvidence][i] = evidence;
    t.real[kScore][i] = s.score[j];
    t.real[kHitRate][i] = 0.0f;
    t.id[i] = t.next_id + i - count;
    t.cls[i] = s.cls[j];
    t.unseen_us[i] = 0;
    t.confirmed[i] = evidence >= o.confirm_evidence;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int total = shared.compaction.total;
    if (total > kTracks) shared.overflow |= kTooManyTracks, total = kTracks;
    t.next_id += total - count;
    t.count = total;
  }
  __syncthreads();
}

// Step 8.
__device__ inline void give_out(const State &t, const Options &o, Output &out, Compaction &c) {
  begin(c, 0);
  for (int first = 0; first < t.count; first += kThreads) {
    const int i = first + threadIdx.x;
    const bool inside = i < t.count;
    const bool seen = inside && t.unseen_us[i] == 0;
    const bool shown = seen || (inside && t.confirmed[i] && t.unseen_us[i] <= o.coast_us &&
                                t.real[kHitRate][i] >= o.coast_rate);
    const int at = place(c, shown);
    if (!shown) continue;
    out.id[at] = t.id[i];
    for (int axis = 0; axis < 2; ++axis) {
      const float half = mul(0.5f, t.real[kValue + 2 + axis][i]);
      out.box[at][axis] = sub(t.real[kValue + axis][i], half);
      out.box[at][axis + 2] = add(t.real[kValue + axis][i], half);
    }
    out.score[at] = seen ? t.real[kScore][i] : 0.0f;
    out.cls[at] = t.cls[i];
    out.confirmed[at] = t.confirmed[i] != 0;
  }
  __syncthreads();
}

}  // namespace edgecount

using namespace edgecount;

// One frame of each camera of the batch: grid = pictures, block = THREADS.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
track(State *states, Scratch *scratches, Seen seen, const Step *steps, const Options *all_options, Output *outputs) {
  __shared__ Shared shared;
  const Step step = steps[blockIdx.x];
  if (step.camera < 0) {
    if (threadIdx.x == 0) outputs[blockIdx.x].count = outputs[blockIdx.x].ended = outputs[blockIdx.x].overflow = 0;
    return;
  }
  const Options &options = all_options[step.camera];
  State &t = states[step.camera];
  Scratch &s = scratches[blockIdx.x];
  Output &out = outputs[blockIdx.x];
  if (threadIdx.x == 0) shared.overflow = shared.scores = 0;
  const int count = clean(seen, blockIdx.x, options, s, shared.compaction);
  const float birth = t.birth, strong = t.strong;
  age(t, step, options, out, shared.compaction);
  predict(t, step, options, s);
  __syncthreads();
  pair(t, options, s, count, shared.line, &shared.overflow);
  match(t, step, options, s, count, shared.assignment);
  correct(t, options, s, shared);
  if (threadIdx.x < kWarp && shared.matched) learn(t, options, shared.scores, shared.ranks.bins[0]);
  __syncthreads();
  found(t, options, s, count, shared, birth, strong);
  give_out(t, options, out, shared.compaction);
  if (threadIdx.x == 0) {
    out.count = shared.compaction.total;
    out.overflow = shared.overflow;
  }
}
