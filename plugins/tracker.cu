// The two-stage tracker, one block per picture: docs/tracker.md step by step, ids and boxes as
// edgecount/track/two_stage.py gives them. State lives in device memory, a camera each; pictures
// of one launch are of different cameras.
//
// THREADS: of a block, a multiple of 32.
#include "tracker_assign.cuh"
#include "tracker_block.cuh"
#include "tracker_pairs.cuh"
#include "tracker_state.cuh"

#ifndef THREADS
#define THREADS 512
#endif

namespace edgecount {
namespace tracker {

// The records that NMS leaves, `stride` detections per picture.
struct Detections {
  const float4 *boxes;
  const float *scores;
  const int *classes;
  int count;
};

// What a block works on.
struct Job {
  const Options &options;
  const Step &step;
  Camera *camera;
  Table table;
  Scratch scratch;
  Shared shared;
  Output output;
};

// Step 0: keeps the usable detections, in order; gives their number.
__device__ inline int clean(const Job &job, const Detections &given) {
  const Scratch &to = job.scratch;
  const float high = job.camera->levels[0];
  int kept = 0;
  for (int start = 0; start < given.count; start += blockDim.x) {
    const int j = start + threadIdx.x;
    float4 box = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float score = 0.0f;
    bool usable = false;
    if (j < given.count) {
      const float4 corners = given.boxes[j];
      score = given.scores[j];
      box.z = sub(corners.z, corners.x);
      box.w = sub(corners.w, corners.y);
      box.x = add(corners.x, mul(0.5f, box.z));
      box.y = add(corners.y, mul(0.5f, box.w));
      usable = score >= job.options.low && box.z >= 1.0f && box.w >= 1.0f && box.z < 1e6f && box.w < 1e6f &&
               fabsf(box.x) < 1e6f && fabsf(box.y) < 1e6f;
    }
    int more;
    const int at = kept + rank_in_block(usable, &more);
    if (usable) {
      to.seen[at] = box;
      to.scores[at] = score;
      to.classes[at] = given.classes[j];
      job.shared.col_flags[at] = score >= high ? kHigh : 0;
    }
    kept += more;
  }
  __syncthreads();
  return kept;
}

// Steps 2 and 3: removes the dead, moves the others up and predicts them; gives their number.
__device__ inline int advance(const Job &job, int *dead_count) {
  const Options &o = job.options;
  const Table &table = job.table;
  const int tracks = job.camera->tracks;
  int kept = 0, ended = 0;
  for (int start = 0; start < tracks; start += blockDim.x) {
    const int i = start + threadIdx.x;
    float track[kReals];
    long long id = 0, unseen = 0;
    int class_ = 0, confirmed = 0;
    bool dead = false;
    if (i < tracks) {
      id = table.ids[i];
      unseen = table.unseen[i];
      class_ = table.classes[i];
      confirmed = table.confirmed[i];
      const bool missed = unseen > 0;
      unseen += job.step.us;
      dead = unseen > o.max_age || (!confirmed && missed && unseen > o.tentative_age);
#pragma unroll
      for (int row = 0; row < kReals; ++row) track[row] = table.real(row, i);
    }
    const bool lives = i < tracks && !dead;
    int more;
    const int rank = rank_in_block(lives, &more);  // and all of this part have been read
    if (dead) job.output.ended[ended + threadIdx.x - rank] = id;
    if (lives) {
      const int at = kept + rank;
      track[kHitRate] = mul(track[kHitRate], sub(1.0f, 0.2f));
      predict(o, job.step, track);
#pragma unroll
      for (int row = 0; row < kReals; ++row) table.real(row, at) = track[row];
      table.ids[at] = id;
      table.unseen[at] = unseen;
      table.classes[at] = class_;
      table.confirmed[at] = confirmed;
      job.shared.row_flags[at] = (confirmed ? kConfirmed : 0) | (confirmed && unseen <= o.low_age ? kFresh : 0);
      write_gate(o, track, at, job.scratch);
    }
    kept += more;
    ended += min(int(blockDim.x), tracks - start) - more;
  }
  __syncthreads();
  *dead_count = ended;
  return kept;
}

// Steps 4 and 5: matches tracks and detections, in row_col and col_row.
__device__ inline void match(const Job &job, int tracks, int seen) {
  __shared__ int starts[kBins];
  if (tracks && seen) {
    const Line line(job.shared, job.scratch, starts, seen);
    find_pairs(job.options, job.shared, job.scratch, line, tracks, job.table.capacity);
    __syncthreads();
  }
  // Without one side there are no pairs, and rows must not look at old ones.
  const bool none = !tracks || !seen;
  const Problem problem = {job.options, job.shared, job.scratch, none ? 0 : tracks, none ? 0 : seen,
                           job.table.capacity, 0};
  if (none) {
    for (int i = threadIdx.x; i < tracks; i += blockDim.x) job.shared.row_col[i] = kNone;
    for (int j = threadIdx.x; j < seen; j += blockDim.x) job.shared.col_row[j] = kNone;
    __syncthreads();
  } else {
    assign_all(problem);
  }
}

// Median of the matched tracks' innovations; gives how many are matched.
__device__ inline int common_motion(const Job &job, int tracks, float2 *motion) {
  const Shared &s = job.shared;
  int matched = 0;
  for (int start = 0; start < tracks; start += blockDim.x) {
    const int i = start + threadIdx.x;
    const bool has = i < tracks && s.row_col[i] != kNone;
    if (has) {
      const float4 box = job.scratch.seen[s.row_col[i]];
      s.off_x[i] = sortable(sub(box.x, job.table.real(kValue, i)));
      s.off_y[i] = sortable(sub(box.y, job.table.real(kValue + 1, i)));
    }
    int more;
    rank_in_block(has, &more);
    matched += more;
  }
  __syncthreads();
  if (matched >= 3) *motion = select_rank(s.off_x, s.off_y, s.row_col, tracks, (matched - 1) / 2);
  return matched;
}

__device__ __forceinline__ float evidence_of(const Options &o, float score, float strong) {
  return score >= strong ? 1.0f : o.weak_evidence;
}

// Gives track `i` its measurement.
__device__ inline void correct_one(const Job &job, int i, int col, bool discount, float2 motion) {
  const Options &o = job.options;
  const Table &table = job.table;
  const float4 box = job.scratch.seen[col];
  const float measured[4] = {box.x, box.y, box.z, box.w};
#pragma unroll
  for (int axis = 0; axis < 4; ++axis) {
    float noise = square(mul(axis < 2 ? o.noise : o.size_noise, axis % 2 ? box.w : box.z));
    float &value = table.real(kValue + axis, i), &rate = table.real(kRate + axis, i);
    float &var = table.real(kVar + axis, i), &cov = table.real(kCov + axis, i);
    float &rate_var = table.real(kRateVar + axis, i);
    const float innovation = sub(measured[axis], value);
    if (axis < 2 && discount) {
      const float off = sub(innovation, axis ? motion.y : motion.x);
      noise = mul(noise, most(__fdiv_rn(square(off), mul(add(var, noise), o.outlier)), 1.0f));
    }
    const float total = add(var, noise);
    const float gain = __fdiv_rn(var, total), rate_gain = __fdiv_rn(cov, total);
    value = add(value, mul(gain, innovation));
    rate = add(rate, mul(rate_gain, innovation));
    rate_var = sub(rate_var, mul(rate_gain, cov));
    var = mul(gain, noise);
    cov = mul(rate_gain, noise);
  }
}

// The bin of a score, not below the floor.
__device__ __forceinline__ int score_bin(float score, int floor) {
  const float at = mul(score, float(kBins));
  return max(at >= float(kBins) ? kBins - 1 : int(at), floor);
}

// Step 6 without the levels; counts the scores of tracks that were confirmed before in `counts`.
__device__ inline int correct(const Job &job, int tracks, float strong, int *counts) {
  const Options &o = job.options;
  const Table &table = job.table;
  float2 motion = make_float2(0.0f, 0.0f);
  for (int i = threadIdx.x; i < kBins; i += blockDim.x) counts[i] = 0;
  const int matched = common_motion(job, tracks, &motion);
  int news = 0;
  for (int start = 0; start < tracks; start += blockDim.x) {
    const int i = start + threadIdx.x;
    const int col = i < tracks ? job.shared.row_col[i] : kNone;
    bool counts_for_levels = false;
    if (col != kNone) {
      correct_one(job, i, col, matched >= 3, motion);
      const float score = job.scratch.scores[col];
      const float evidence = add(table.real(kEvidence, i), evidence_of(o, score, strong));
      table.real(kEvidence, i) = evidence;
      table.real(kScore, i) = score;
      table.real(kHitRate, i) = add(table.real(kHitRate, i), 0.2f);
      table.unseen[i] = 0;
      table.classes[i] = job.scratch.classes[col];
      counts_for_levels = table.confirmed[i] != 0;
      if (counts_for_levels) atomicAdd(&counts[score_bin(score, o.floor)], 1);
      if (evidence >= o.confirm_evidence) table.confirmed[i] = 1;
    }
    int more;
    rank_in_block(counts_for_levels, &more);
    news += more;
  }
  __syncthreads();
  return news;
}

// The end of step 6: adds the scores to the histogram, and learns from it now and then.
__device__ inline void learn_levels(const Job &job, int news, int *counts) {
  Camera *camera = job.camera;
  if (news == 0) return;
  const int since = camera->news + news;
  int sum = 0;
  for (int start = 0; start < kBins; start += blockDim.x) {
    const int i = start + threadIdx.x;
    if (i < kBins) counts[i] += camera->counts[i];
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {
    for (int i = lane(); i < kBins; i += kWarp) sum += counts[i];
    sum = __shfl_sync(kAllLanes, sum_to_lane(sum), kWarp - 1);
    const int halve = since >= 32 && sum > 8192 ? 1 : 0;
    for (int i = lane(); i < kBins; i += kWarp) camera->counts[i] = counts[i] = counts[i] >> halve;
    __syncwarp();
    if (since >= 32) compute_levels(counts, job.options.shares, camera->levels);
    if (lane() == 0) camera->news = since >= 32 ? 0 : since;
  }
}

// Starts a track in place `at`.
__device__ inline void found_one(const Job &job, int at, int col, float strong) {
  const Options &o = job.options;
  const Table &table = job.table;
  const float4 box = job.scratch.seen[col];
  const float measured[4] = {box.x, box.y, box.z, box.w};
  const float speed = mul(o.speed, body_height(o, box.z, box.w)), size_speed = mul(o.size_speed, box.w);
#pragma unroll
  for (int axis = 0; axis < 4; ++axis) {
    table.real(kValue + axis, at) = measured[axis];
    table.real(kRate + axis, at) = 0.0f;
    table.real(kVar + axis, at) = square(mul(axis < 2 ? o.noise : o.size_noise, axis % 2 ? box.w : box.z));
    table.real(kCov + axis, at) = 0.0f;
    table.real(kRateVar + axis, at) = square(axis < 2 ? speed : size_speed);
  }
  const float score = job.scratch.scores[col];
  const float evidence = evidence_of(o, score, strong);
  table.real(kEvidence, at) = evidence;
  table.real(kScore, at) = score;
  table.real(kHitRate, at) = 0.0f;
  table.unseen[at] = 0;
  table.classes[at] = job.scratch.classes[col];
  table.confirmed[at] = evidence >= o.confirm_evidence;
}

// Step 7: gives the number of births, those for which there is no place included.
__device__ inline int found(const Job &job, int tracks, int seen, float birth, float strong) {
  const long long next_id = job.camera->next_id;
  int births = 0;
  for (int start = 0; start < seen; start += blockDim.x) {
    const int j = start + threadIdx.x;
    const bool good = j < seen && job.shared.col_row[j] == kNone && job.scratch.scores[j] >= birth;
    int more;
    const int rank = births + rank_in_block(good, &more);
    if (good && tracks + rank < job.table.capacity) {
      found_one(job, tracks + rank, j, strong);
      job.table.ids[tracks + rank] = next_id + rank;
    }
    births += more;
  }
  __syncthreads();
  return births;
}

// Step 8.
__device__ inline int give_out(const Job &job, int tracks) {
  const Options &o = job.options;
  const Table &table = job.table;
  const Output &out = job.output;
  int given = 0;
  for (int start = 0; start < tracks; start += blockDim.x) {
    const int i = start + threadIdx.x;
    bool shown = false, matched = false;
    if (i < tracks) {
      const long long unseen = table.unseen[i];
      matched = unseen == 0;
      shown = matched || (table.confirmed[i] && unseen <= o.coast && table.real(kHitRate, i) >= o.coast_rate);
    }
    int more;
    const int at = given + rank_in_block(shown, &more);
    if (shown) {
      const float x = table.real(kValue, i), y = table.real(kValue + 1, i);
      const float half_w = mul(0.5f, table.real(kValue + 2, i)), half_h = mul(0.5f, table.real(kValue + 3, i));
      out.ids[at] = table.ids[i];
      out.boxes[at] = make_float4(sub(x, half_w), sub(y, half_h), add(x, half_w), add(y, half_h));
      out.scores[at] = matched ? table.real(kScore, i) : 0.0f;
      out.classes[at] = table.classes[i];
      out.confirmed[at] = table.confirmed[i] != 0;
    }
    given += more;
  }
  return given;
}

__device__ inline void track_frame(const Job &job, const Detections &given) {
  __shared__ int counts[kBins];
  const float birth = job.camera->levels[1], strong = job.camera->levels[2];
  int ended;
  const int seen = clean(job, given);
  int tracks = advance(job, &ended);
  match(job, tracks, seen);
  const int news = correct(job, tracks, strong, counts);
  learn_levels(job, news, counts);
  const int births = found(job, tracks, seen, birth, strong);
  const int places = min(births, job.table.capacity - tracks);
  tracks += places;
  const int shown = give_out(job, tracks);
  if (threadIdx.x == 0) {
    job.camera->next_id += places;
    job.camera->tracks = tracks;
    *job.output.head = {shown, ended, births - places, 0};
  }
}

}  // namespace tracker
}  // namespace edgecount

// Block b tracks picture b of camera `cameras[b]`; a negative one is not tracked.
extern "C" __global__ void __launch_bounds__(THREADS)
    track_frames(const float4 *boxes, const float *scores, const int *classes, const int *counts, const int *cameras,
                 const edgecount::tracker::Step *steps, const edgecount::tracker::Options *options,
                 unsigned char *states, unsigned char *scratches, unsigned char *outputs, int capacity, int stride) {
  using namespace edgecount::tracker;
  DYNAMIC_SHARED(unsigned char, memory);
  const int picture = blockIdx.x, camera = cameras[picture];
  const Output output(outputs + picture * Output::bytes(capacity), capacity);
  if (camera < 0) {
    if (threadIdx.x == 0) *output.head = {0, 0, 0, 0};
    return;
  }
  unsigned char *state = states + camera * Table::bytes(capacity);
  const size_t first = size_t(picture) * stride;
  const Detections given = {boxes + first, scores + first, classes + first, max(0, min(counts[picture], stride))};
  const Job job = {options[camera],
                   steps[picture],
                   reinterpret_cast<Camera *>(state),
                   Table(state, capacity),
                   Scratch(scratches + picture * Scratch::bytes(capacity, stride), capacity, stride),
                   Shared(memory, capacity, stride),
                   output};
  track_frame(job, given);
}
