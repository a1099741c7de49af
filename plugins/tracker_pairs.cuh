// Motion, gate and cost: edgecount/track/{_kalman,_association,two_stage}.py, element by
// element, each operation rounded as there.
#pragma once
#include "tracker_state.cuh"

namespace edgecount {
namespace tracker {

constexpr int kNoPair = 1 << 16;

__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float sub(float a, float b) { return __fsub_rn(a, b); }
__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float square(float a) { return __fmul_rn(a, a); }
__device__ __forceinline__ float least(float a, float b) { return b < a ? b : a; }
__device__ __forceinline__ float most(float a, float b) { return a < b ? b : a; }

// How high the person's body is in pixels: boxes near square are heads.
__device__ __forceinline__ float body_height(const Options &o, float w, float h) {
  float squareness = __fdiv_rn(sub(__fdiv_rn(w, h), 0.45f), 0.3f);
  squareness = least(most(squareness, 0.0f), 1.0f);
  return mul(h, add(1.0f, mul(o.head_unit, squareness)));
}

// Advances the four filters of a track, given as its column of reals.
__device__ inline void predict(const Options &o, const Step &step, float *track) {
  const float w = track[kValue + 2], h = track[kValue + 3];
  const float centre = square(mul(o.acceleration, body_height(o, w, h)));
  const float size = square(mul(o.size_acceleration, h));
#pragma unroll
  for (int axis = 0; axis < 4; ++axis) {
    const float noise = axis < 2 ? centre : size;
    const float rate = track[kRate + axis], cov = track[kCov + axis];
    const float rate_var = track[kRateVar + axis];
    const float moved = add(cov, mul(step.dt, rate_var));
    const float value = add(track[kValue + axis], mul(step.dt, rate));
    track[kValue + axis] = axis < 2 ? value : most(value, 1.0f);
    track[kVar + axis] = add(track[kVar + axis], add(mul(step.dt, add(cov, moved)), mul(step.cubic, noise)));
    track[kCov + axis] = add(moved, mul(step.square, noise));
    track[kRateVar + axis] = add(rate_var, mul(step.dt, noise));
    if (axis >= 2) track[kRate + axis] = mul(rate, step.decay);
  }
}

__device__ __forceinline__ void write_gate(const Options &o, const float *track, int at, const Scratch &scratch) {
  const float w = track[kValue + 2], h = track[kValue + 3];
  const float rx = add(mul(o.gate, __fsqrt_rn(track[kVar])), mul(o.gate_margin, w));
  const float ry = add(mul(o.gate, __fsqrt_rn(track[kVar + 1])), mul(o.gate_margin, h));
  const float experience = least(__fdiv_rn(track[kEvidence], 10.0f), 1.0f);
  scratch.gates[at] = make_float4(track[kValue], track[kValue + 1], rx, ry);
  scratch.bodies[at] = make_float4(w, h, mul(o.novice_cost, sub(1.0f, experience)), 0.0f);
}

__device__ __forceinline__ float overlap(float half_a, float half_b, float apart) {
  return most(least(sub(add(half_a, half_b), apart), mul(2.0f, least(half_a, half_b))), 0.0f);
}

// Cost of a pair in units of 1/65536; kNoPair where it does not pass the gate.
__device__ inline int pair_cost(const Options &o, float4 gate, float4 body, float4 seen) {
  const float dx = sub(seen.x, gate.x), dy = sub(seen.y, gate.y);
  const float distance = add(square(__fdiv_rn(dx, gate.z)), square(__fdiv_rn(dy, gate.w)));
  const float height = __fdiv_rn(least(body.y, seen.w), most(body.y, seen.w));
  if (!(distance < 1.0f && height >= o.min_height_ratio)) return kNoPair;
  const float ax = mul(body.x, o.grow), ay = mul(body.y, o.grow);
  const float bx = mul(seen.z, o.grow), by = mul(seen.w, o.grow);
  const float inter = mul(overlap(ax, bx, fabsf(dx)), overlap(ay, by, fabsf(dy)));
  const float area = mul(4.0f, add(mul(ax, ay), mul(bx, by)));
  float cost = add(o.worst, mul(o.distance_weight, distance));
  cost = sub(cost, mul(o.overlap_weight, __fdiv_rn(inter, sub(area, inter))));
  cost = sub(cost, mul(o.height_weight, height));
  cost = mul(add(most(cost, 0.0f), body.z), 65536.0f);
  return cost < 65536.0f ? int(cost) : kNoPair;
}

// The cost below which a pair may be chosen: that of its stage; 0 where it has none.
__device__ __forceinline__ int pair_limit(const Options &o, unsigned row_flags, unsigned col_flags) {
  if (col_flags & kHigh) return o.limits[row_flags & kConfirmed ? 0 : 2];
  return row_flags & kFresh ? o.limits[1] : 0;
}

// Detections ordered by bins of x, so that each track looks at a window only.
class Line {
 public:
  // The block orders the usable detections. Ends with a barrier.
  __device__ Line(const Shared &shared, const Scratch &scratch, int *starts, int seen) : starts_(starts), seen_(seen) {
    __shared__ unsigned ends[2];
    if (threadIdx.x == 0) { ends[0] = 0xffffffffu; ends[1] = 0; }
    for (int i = threadIdx.x; i < kBins; i += blockDim.x) starts[i] = 0;
    __syncthreads();
    for (int j = threadIdx.x; j < seen; j += blockDim.x) {
      const unsigned x = sortable(scratch.seen[j].x);
      atomicMin(&ends[0], x);
      atomicMax(&ends[1], x);
    }
    __syncthreads();
    first_ = from_sortable(ends[0]);
    scale_ = __fdiv_rn(float(kBins), most(sub(from_sortable(ends[1]), first_), 1.0f));
    for (int j = threadIdx.x; j < seen; j += blockDim.x) atomicAdd(&starts[bin(scratch.seen[j].x)], 1);
    __syncthreads();
    if (threadIdx.x < kWarp) exclusive_sums(starts);
    __syncthreads();
    for (int j = threadIdx.x; j < seen; j += blockDim.x) {
      const float4 box = scratch.seen[j];
      const int at = atomicAdd(&starts[bin(box.x)], 1);  // starts become ends
      shared.line_x[at] = box.x;
      shared.line_y[at] = box.y;
      shared.line[at] = uint16_t(j);
    }
    __syncthreads();
  }

  // Where those begin and end that may lie within `reach` of `x`.
  __device__ int begin(float x, float reach) const {
    const int b = bin(x - reach - 1e-6f * fabsf(x));
    return b ? starts_[b - 1] : 0;
  }
  __device__ int end(float x, float reach) const { return starts_[bin(x + reach + 1e-6f * fabsf(x))]; }

 private:
  __device__ int bin(float x) const {
    const float at = mul(sub(x, first_), scale_);
    return at >= float(kBins) ? kBins - 1 : at > 0.0f ? int(at) : 0;
  }

  int *starts_;
  int seen_;
  float first_, scale_;
};

// Lists each row's possible pairs in `scratch.edges`; detections in `line` order.
__device__ inline void find_pairs(const Options &o, const Shared &shared, const Scratch &scratch, const Line &line,
                                  int tracks, int capacity) {
  for (int i = threadIdx.x; i < tracks; i += blockDim.x) {
    const float4 gate = scratch.gates[i], body = scratch.bodies[i];
    // Rounding may not lose a pair of the exact test.
    const float reach_x = gate.z * 1.0001f, reach_y = gate.w * 1.0001f;
    int near = 0;
    for (int p = line.begin(gate.x, reach_x), end = line.end(gate.x, reach_x); p < end; ++p) {
      if (fabsf(shared.line_x[p] - gate.x) > reach_x || fabsf(shared.line_y[p] - gate.y) > reach_y) continue;
      if (near < kEdges) scratch.edges[near * capacity + i] = shared.line[p];
      ++near;
    }
    int degree = 0;
    for (int k = 0; k < near && near <= kEdges; ++k) {
      const unsigned j = scratch.edges[k * capacity + i];
      const int cost = pair_cost(o, gate, body, scratch.seen[j]);
      if (cost >= pair_limit(o, shared.row_flags[i], shared.col_flags[j])) continue;
      scratch.edges[degree++ * capacity + i] = unsigned(cost) << 11 | j;
    }
    scratch.degrees[i] = near <= kEdges ? degree : kDense;
  }
}

}  // namespace tracker
}  // namespace edgecount
