// From a network's raw output to detections in source pixels, for a batch, in two launches
// and without the host: decode_head, then suppress.
//
//   decode_head  threshold and decode every row; the block that finishes last for a picture
//                picks the kTopK best and sorts them: score falling, then row rising.
//   suppress     tests all pairs, many blocks per picture, into a bit matrix; the block that
//                finishes last walks it, best first, in steps of 64, then maps what is kept
//                to source pixels, drops what lies in the padding or in a mask, and writes.
//
// Reference: edgecount/infer/{heads,nms,detector}.py, count/masks.py. From the decoded boxes
// and scores on every operation is the same IEEE operation as there, so the results are
// identical bit for bit; exp() in decoding and temperature differs by a few ulps.
//
// Macros: HEAD (HEAD_*), HALF_OUTPUT 0/1 (the network's output), ONE_CLASS 0/1 (one class is
// wanted: classes need not be compared), TILES 0/1 (a picture may be several of the network's:
// their candidates are brought together before all of them are sorted and suppressed).
#include "common.cuh"

#define HEAD_YOLOX 1
#define HEAD_YOLOV5 2
#define HEAD_YOLOV8 3
#define HEAD_LTRB 4
#define HEAD_END2END 5
#ifndef HEAD
#define HEAD HEAD_YOLOX
#endif
#ifndef HALF_OUTPUT
#define HALF_OUTPUT 0
#endif
#ifndef ONE_CLASS
#define ONE_CLASS 1
#endif
#ifndef TILES
#define TILES 0
#endif

namespace edgecount {

constexpr int kTopK = 2048;         // infer/nms.py: TOP_K
constexpr int kDecodeThreads = 512;
constexpr int kSuppressThreads = 256;
constexpr int kWord = 64;           // stronger boxes in one word of the bit matrix
constexpr int kWords = kTopK / kWord;
constexpr int kMaxLevels = 6;
constexpr int kBins = 2048;
constexpr int kCrowd = 64;          // most candidates of one bin that are ranked there

// The head and how it is read; the same for all pictures. Mirrors postprocess.py: Head.
struct Head {
  int rows;                 // candidates of a picture
  int classes;              // in the output, wanted or not
  int wanted_count;
  int levels;
  int first[kMaxLevels];    // first row of a level
  int columns[kMaxLevels];  // cells in a row of cells
  float stride[kMaxLevels];
  float threshold;          // raw score; for ltrb the logit
  float floor;              // raw score, about the least that a candidate has
};

// One picture. Mirrors postprocess.py: PICTURE.
struct Picture {
  float ratio_x, ratio_y;   // source pixels per input pixel
  float limit_x, limit_y;   // size of the source
  double diagonal;          // of the source, pixels
  double scale_x, scale_y;  // normalised → diagonal units
  int first_polygon;        // its ignore masks
  int polygons;             // with TILES: negative where there is no such picture
};

struct Polygon { int first, corners; };

// One picture of the network's: a frame, or a tile of one. Mirrors postprocess.py: PART.
struct Part {
  int picture;              // whose it is
  int first, count;         // the parts of that picture
  int cut;                  // 0: it is a frame, and its boxes stay in input pixels
  float ratio_x, ratio_y;   // source pixels per input pixel
  float x, y;               // its first pixel in the source
  float low_x, low_y, high_x, high_y;      // centres that it answers for
  float least_x, least_y, most_x, most_y;  // sizes that it answers for
};

// Device memory between the launches, for each picture of the batch. Counters start at zero
// and are zero again after every launch. A picture in tiles has the rows of all its parts.
struct Scratch {
  unsigned *count;          // [B] candidates
  unsigned *finished;       // [B] blocks that have finished
  unsigned *sorted_count;   // [B] ≤ kTopK
  uint64_t *keys;           // [B][rows]
  float4 *boxes;            // [B][rows], by row; only candidates' are written
  int *classes;             // [B][rows] likewise
  float4 *sorted_boxes;     // [B][kTopK]
  float *sorted_scores;     // [B][kTopK]
  int *sorted_classes;      // [B][kTopK]
  uint64_t *overlaps;       // [B][kWords][kTopK]: bit i of [w][j]: box 64 w + i suppresses box j
};

// Where detections go; see postprocess.py.
struct Output {
  float4 *boxes;            // [B][most]
  float *scores;            // [B][most]
  int *classes;             // [B][most]
  int *count;               // [B]
  int most;
};

// ---------------------------------------------------------------------------- decode

struct Candidate {
  float4 box;
  float score;
  int category;
};

#if HALF_OUTPUT
typedef uint16_t Raw;
__device__ __forceinline__ float value_of(Raw raw) { return half_to_float(raw); }
#else
typedef float Raw;
__device__ __forceinline__ float value_of(Raw raw) { return raw; }
#endif

// A score and the row it is of, so that a smaller key is a better candidate: score falling,
// equal scores by rising row. -0 and 0 are one score.
__device__ __forceinline__ uint64_t key_of(float score, int row) {
  const unsigned bits = __float_as_uint(__fadd_rn(score, 0.0f));
  const unsigned rising = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(~rising) << 32 | static_cast<unsigned>(row);
}

__device__ __forceinline__ float score_of(uint64_t key) {
  const unsigned rising = ~static_cast<unsigned>(key >> 32);
  return __uint_as_float(rising & 0x80000000u ? rising & 0x7fffffffu : ~rising);
}

// What overlaps everything by the comparisons of NMS: NaN, infinity, inside out.
__device__ __forceinline__ bool sound(const Candidate &c) {
  const float farthest = 1e6f;
  const float4 b = c.box;
  return fabsf(b.x) < farthest && fabsf(b.y) < farthest && fabsf(b.z) < farthest &&
         fabsf(b.w) < farthest && b.z > b.x && b.w > b.y && fabsf(c.score) <= 3.402823466e+38f;
}

__device__ __forceinline__ float4 centred(float x, float y, float width, float height) {
  const float half_width = __fmul_rn(width, 0.5f), half_height = __fmul_rn(height, 0.5f);
  return make_float4(__fsub_rn(x, half_width), __fsub_rn(y, half_height),
                     __fadd_rn(x, half_width), __fadd_rn(y, half_height));
}

struct Cell { float x, y, stride; };

__device__ __forceinline__ Cell cell_of(const Head &head, int row, float offset) {
  int first = 0, columns = head.columns[0];
  float stride = head.stride[0];
#pragma unroll
  for (int level = 1; level < kMaxLevels; ++level) {
    if (level < head.levels && row >= head.first[level]) {
      first = head.first[level];
      columns = head.columns[level];
      stride = head.stride[level];
    }
  }
  const int inside = row - first, y = inside / columns;
  return {__fmul_rn(inside - y * columns + offset, stride), __fmul_rn(y + offset, stride), stride};
}

// The best wanted class among scores that lie `step` apart; a NaN among them is the answer,
// as in numpy's argmax.
__device__ __forceinline__ float best_class(const Raw *scores, int step, const Head &head,
                                            const int *wanted, int *category) {
  *category = wanted[0];
  float best = value_of(scores[wanted[0] * step]);
  for (int i = 1; i < head.wanted_count; ++i) {
    const float score = value_of(scores[wanted[i] * step]);
    if (score > best || (score != score && best == best)) {
      best = score;
      *category = wanted[i];
    }
  }
  return best;
}

// Whether row `row` is a candidate, and which.
__device__ __forceinline__ bool decode(const Raw *output, const Head &head, const int *wanted,
                                       int row, Candidate *c) {
#if HEAD == HEAD_YOLOX || HEAD == HEAD_YOLOV5
  const Raw *r = output + static_cast<int64_t>(row) * (5 + head.classes);
  const float objectness = value_of(r[4]);
  if (!(objectness >= head.threshold)) return false;
  c->score = __fmul_rn(objectness, best_class(r + 5, 1, head, wanted, &c->category));
  if (!(c->score >= head.threshold)) return false;
  const float x = value_of(r[0]), y = value_of(r[1]), w = value_of(r[2]), h = value_of(r[3]);
#if HEAD == HEAD_YOLOX
  const Cell cell = cell_of(head, row, 0.0f);
  const float largest_log = 20.0f;  // exp() of more leaves float32
  c->box = centred(__fadd_rn(__fmul_rn(x, cell.stride), cell.x),
                   __fadd_rn(__fmul_rn(y, cell.stride), cell.y),
                   __fmul_rn(expf(w < largest_log ? w : largest_log), cell.stride),
                   __fmul_rn(expf(h < largest_log ? h : largest_log), cell.stride));
  if (w != w || h != h) return false;
#else
  c->box = centred(x, y, w, h);
#endif
#elif HEAD == HEAD_YOLOV8 || HEAD == HEAD_LTRB
  const int step = head.rows;
  const Raw *r = output + row;
  const float best = best_class(r + 4 * static_cast<int64_t>(step), step, head, wanted,
                                &c->category);
  if (!(best >= head.threshold)) return false;
  const float a = value_of(r[0]), b = value_of(r[step]);
  const float p = value_of(r[2 * step]), q = value_of(r[3 * step]);
#if HEAD == HEAD_YOLOV8
  c->score = best;
  c->box = centred(a, b, p, q);
#else
  const float logit = fminf(fmaxf(best, -80.0f), 80.0f);
  c->score = __fdiv_rn(1.0f, __fadd_rn(1.0f, expf(-logit)));
  const Cell cell = cell_of(head, row, 0.5f);
  c->box = make_float4(
      __fsub_rn(cell.x, __fmul_rn(a, cell.stride)), __fsub_rn(cell.y, __fmul_rn(b, cell.stride)),
      __fadd_rn(cell.x, __fmul_rn(p, cell.stride)), __fadd_rn(cell.y, __fmul_rn(q, cell.stride)));
#endif
#else  // HEAD_END2END
  const Raw *r = output + static_cast<int64_t>(row) * 6;
  c->score = value_of(r[4]);
  if (!(c->score >= head.threshold)) return false;
  const float category = value_of(r[5]);
  if (!(category > -1.0f && category < 1e6f)) return false;
  c->category = static_cast<int>(category);
  bool is_wanted = false;
  for (int i = 0; i < head.wanted_count; ++i) is_wanted |= c->category == wanted[i];
  if (!is_wanted) return false;
  c->box = make_float4(value_of(r[0]), value_of(r[1]), value_of(r[2]), value_of(r[3]));
#endif
  return sound(*c);
}

// ------------------------------------------------------------------ the best, in order

struct Selection {
  uint64_t keys[kTopK + kCrowd];
  unsigned bins[kBins];
  unsigned warp_totals[kDecodeThreads / kWarp];
  unsigned long long lowest, highest;
  unsigned collected;
  unsigned bin, before, inside;  // the bin that holds the last wanted key
};

constexpr int kBinsEach = kBins / kDecodeThreads;  // of a thread

// Counts of this thread's bins, and how many keys lie in the bins before them.
__device__ inline unsigned scan_bins(unsigned (&counts)[kBinsEach], Selection &s) {
  const unsigned warp = threadIdx.x / kWarp;
  unsigned total = 0;
#pragma unroll
  for (int i = 0; i < kBinsEach; ++i) total += counts[i] = s.bins[threadIdx.x * kBinsEach + i];
  unsigned upto = total;
  for (unsigned step = 1; step < kWarp; step *= 2) {
    const unsigned other = __shfl_up_sync(kAllLanes, upto, step);
    if (lane() >= step) upto += other;
  }
  if (lane() == kWarp - 1) s.warp_totals[warp] = upto;
  __syncthreads();
  for (unsigned w = 0; w < warp; ++w) upto += s.warp_totals[w];
  return upto - total;
}

// Bins of keys by score alone, for scores from `floor` to 1; others go to the outermost.
struct Bins {
  unsigned first;
  int shift;

  __device__ explicit Bins(float floor) : first(key_of(1.0f, 0) >> 32), shift(0) {
    const unsigned last = key_of(floor, 0) >> 32;
    const unsigned span = last > first ? last - first : 0;
    while (span >> shift >= kBins) ++shift;
  }

  __device__ __forceinline__ unsigned of(uint64_t key) const {
    const unsigned high = key >> 32;
    const unsigned bin = high > first ? (high - first) >> shift : 0;
    return bin < kBins ? bin : kBins - 1;
  }
};

// Puts a candidate at its place among the best.
__device__ __forceinline__ void place(const Scratch &scratch, int64_t base, int64_t out, int rank,
                                      uint64_t key) {
  const int64_t row = base + static_cast<unsigned>(key);
  scratch.sorted_boxes[out + rank] = __ldcg(scratch.boxes + row);
  scratch.sorted_scores[out + rank] = score_of(key);
#if !ONE_CLASS
  scratch.sorted_classes[out + rank] = __ldcg(scratch.classes + row);
#endif
}

// Sorts by counting: a key's rank is what lies in the bins before its own, and the smaller
// keys of its bin. False where a bin holds too many for that, as with few different scores.
__device__ inline bool rank_by_counting(const Head &head, const Scratch &scratch, int picture,
                                        const uint64_t *keys, int count, Selection &s) {
  const Bins bins(head.floor);
  for (int i = threadIdx.x; i < kBins; i += kDecodeThreads) s.bins[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += kDecodeThreads)
    atomicAdd(&s.bins[bins.of(__ldcg(keys + i))], 1u);
  __syncthreads();
  unsigned counts[kBinsEach];
  unsigned before = scan_bins(counts, s);
  bool crowded = false;
#pragma unroll
  for (int i = 0; i < kBinsEach; ++i) {
    crowded |= before < kTopK && counts[i] > kCrowd;
    s.bins[threadIdx.x * kBinsEach + i] = before;
    before += counts[i];
  }
  if (__syncthreads_or(crowded)) return false;
  for (int i = threadIdx.x; i < count; i += kDecodeThreads) {
    const uint64_t key = __ldcg(keys + i);
    const unsigned slot = atomicAdd(&s.bins[bins.of(key)], 1u);
    if (slot < kTopK + kCrowd) s.keys[slot] = key;
  }
  __syncthreads();
  // Now a bin's number is where it ends, and its keys are there in any order.
  const int64_t base = keys - scratch.keys;
  const int64_t out = static_cast<int64_t>(picture) * kTopK;
  for (int i = threadIdx.x; i < count && i < kTopK + kCrowd; i += kDecodeThreads) {
    const uint64_t key = s.keys[i];
    const unsigned bin = bins.of(key);
    unsigned rank = bin > 0 ? s.bins[bin - 1] : 0;
    if (rank >= kTopK) continue;
    const unsigned end = s.bins[bin];
    for (unsigned other = rank; other < end; ++other) rank += s.keys[other] < key;
    if (rank < kTopK) place(scratch, base, out, rank, key);
  }
  return true;
}

// The lowest and the highest of the keys, to all threads.
__device__ inline void range_of(const uint64_t *keys, int count, Selection &s) {
  if (threadIdx.x == 0) {
    s.lowest = ~0ull;
    s.highest = 0;
  }
  __syncthreads();
  unsigned long long low = ~0ull, high = 0;
  for (int i = threadIdx.x; i < count; i += kDecodeThreads) {
    const unsigned long long key = __ldcg(keys + i);
    low = key < low ? key : low;
    high = key > high ? key : high;
  }
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const unsigned long long other_low = __shfl_xor_sync(kAllLanes, low, step);
    const unsigned long long other_high = __shfl_xor_sync(kAllLanes, high, step);
    low = other_low < low ? other_low : low;
    high = other_high > high ? other_high : high;
  }
  if (lane() == 0) {
    atomicMin(&s.lowest, low);
    atomicMax(&s.highest, high);
  }
  __syncthreads();
}

// Finds the bin in which key number `wanted` (from 1) lies, and what is before it and in it.
__device__ inline void find_bin(unsigned wanted, Selection &s) {
  unsigned counts[kBinsEach];
  unsigned before = scan_bins(counts, s);
#pragma unroll
  for (int i = 0; i < kBinsEach; ++i) {
    if (before < wanted && wanted <= before + counts[i]) {
      s.bin = threadIdx.x * kBinsEach + i;
      s.before = before;
      s.inside = counts[i];
    }
    before += counts[i];
  }
  __syncthreads();
}

// The key that exactly kTopK of `count` > kTopK different keys do not exceed. Radix select
// (Alabi et al. 2012) whose first digit spans the keys' range: scores share their leading
// bits, and all threads would meet in a few bins.
__device__ inline uint64_t highest_kept(const uint64_t *keys, int count, Selection &s) {
  range_of(keys, count, s);
  uint64_t low = s.lowest, high = s.highest;
  unsigned wanted = kTopK;
  for (;;) {
    const uint64_t span = high - low;
    const int bits = 64 - __clzll(static_cast<long long>(span));
    const int shift = bits > 11 ? bits - 11 : 0;
    for (int i = threadIdx.x; i < kBins; i += kDecodeThreads) s.bins[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += kDecodeThreads) {
      const uint64_t key = __ldcg(keys + i);
      if (key >= low && key <= high) atomicAdd(&s.bins[(key - low) >> shift], 1u);
    }
    __syncthreads();
    find_bin(wanted, s);
    low += static_cast<uint64_t>(s.bin) << shift;
    const uint64_t last = low + ((1ull << shift) - 1);
    high = last < high ? last : high;
    wanted -= s.before;
    if (wanted == s.inside) return high;
    __syncthreads();  // bin, before and inside are read before they are found anew
  }
}

// Bitonic sort (Batcher 1968) of `size` keys, a power of two and at least 64. Each warp that
// takes part has a segment of its own, and needs no other while the stride is shorter.
__device__ inline void sort(uint64_t *keys, int size) {
  constexpr int kWarps = kDecodeThreads / kWarp;
  const int warps = size / 64 < kWarps ? size / 64 : kWarps;
  const int segment = size / warps;
  const int pairs = segment / 2;
  const int warp = threadIdx.x / kWarp;
  for (int run = 2; run <= size; run *= 2) {
    for (int stride = run / 2; stride > 0; stride /= 2) {
      for (int p = lane(); p < pairs && warp < warps; p += kWarp) {
        const int pair = warp * pairs + p;
        const int at = 2 * pair - (pair & (stride - 1));
        const uint64_t a = keys[at], b = keys[at + stride];
        if ((a > b) == ((at & run) == 0)) {
          keys[at] = b;
          keys[at + stride] = a;
        }
      }
      const int next = stride > 1 ? stride / 2 : run;  // the next run is twice as long
      if (stride < segment && next < segment) {
        __syncwarp();
      } else {
        __syncthreads();
      }
    }
  }
}

// Sorts by comparing, whatever the keys are.
__device__ inline void rank_by_sorting(const Head &head, const Scratch &scratch, int picture,
                                       const uint64_t *keys, int count, Selection &s) {
  const int kept = count < kTopK ? count : kTopK;
  int size = 2 * kWarp;
  while (size < kept) size *= 2;
  if (count > kTopK) {
    const uint64_t highest = highest_kept(keys, count, s);
    if (threadIdx.x == 0) s.collected = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += kDecodeThreads) {
      const uint64_t key = __ldcg(keys + i);
      if (key <= highest) s.keys[atomicAdd(&s.collected, 1u)] = key;
    }
  } else {
    for (int i = threadIdx.x; i < size; i += kDecodeThreads)
      s.keys[i] = i < count ? __ldcg(keys + i) : ~0ull;
  }
  __syncthreads();
  sort(s.keys, size);
  const int64_t base = keys - scratch.keys;
  const int64_t out = static_cast<int64_t>(picture) * kTopK;
  for (int i = threadIdx.x; i < kept; i += kDecodeThreads)
    place(scratch, base, out, i, s.keys[i]);
}

// Called by the last block of a picture: its best candidates, sorted, for suppress. `first` is
// the first of the network's pictures that it is made of.
__device__ inline void select_and_sort(const Head &head, const Scratch &scratch, int picture,
                                       int first) {
  __shared__ Selection s;
  const uint64_t *keys = scratch.keys + static_cast<int64_t>(first) * head.rows;
  const int count = static_cast<int>(__ldcg(scratch.count + picture));
  if (count > 0 && !rank_by_counting(head, scratch, picture, keys, count, s))
    rank_by_sorting(head, scratch, picture, keys, count, s);
  if (threadIdx.x == 0) {
    scratch.sorted_count[picture] = count < kTopK ? count : kTopK;
    scratch.count[picture] = 0;
  }
}

// ----------------------------------------------------------------------------- tiles

#if TILES
// infer/tiles.py: Tile.own. Brings a tile's candidate into source pixels; false where a
// neighbour answers for it.
__device__ __forceinline__ bool own(const Part &part, Candidate *c) {
  if (!part.cut) return true;
  const float4 b = c->box;
  const float left = __fadd_rn(__fmul_rn(b.x, part.ratio_x), part.x);
  const float top = __fadd_rn(__fmul_rn(b.y, part.ratio_y), part.y);
  const float right = __fadd_rn(__fmul_rn(b.z, part.ratio_x), part.x);
  const float bottom = __fadd_rn(__fmul_rn(b.w, part.ratio_y), part.y);
  c->box = make_float4(left, top, right, bottom);
  const float x = __fmul_rn(__fadd_rn(left, right), 0.5f);
  const float y = __fmul_rn(__fadd_rn(top, bottom), 0.5f);
  const float width = __fsub_rn(right, left), height = __fsub_rn(bottom, top);
  return x >= part.low_x && x <= part.high_x && y >= part.low_y && y <= part.high_y &&
         width <= part.most_x && height <= part.most_y &&
         (width > part.least_x || height > part.least_y);
}
#endif

// -------------------------------------------------------------------------- suppress

__device__ __forceinline__ float area(float4 b) {
  return __fmul_rn(__fsub_rn(b.z, b.x), __fsub_rn(b.w, b.y));
}

// nms.py: not (intersection ≤ iou × union). Where only the height is negative the product
// is not positive either, and the answer is no, as it is there.
__device__ __forceinline__ bool overlap(float4 a, float a_area, float4 b, float b_area, float iou) {
  const float width = fmaxf(__fsub_rn(fminf(a.z, b.z), fmaxf(a.x, b.x)), 0.0f);
  const float height = __fsub_rn(fminf(a.w, b.w), fmaxf(a.y, b.y));
  const float intersection = __fmul_rn(width, height);
  const float both = __fsub_rn(__fadd_rn(a_area, b_area), intersection);
  return intersection > __fmul_rn(both, iou);
}

struct Tile {
  float4 boxes[kWord];
  float areas[kWord];
  int classes[kWord];
};

// Tiles of `count` boxes: kSuppressThreads boxes, times the kWord boxes of each word that is
// not behind them.
__device__ __forceinline__ int tiles_of(int count) {
  constexpr int kPer = kSuppressThreads / kWord;
  const int columns = (count + kSuppressThreads - 1) / kSuppressThreads;
  return kPer * columns * (columns + 1) / 2;
}

// Fills one tile of the bit matrix.
__device__ inline void compare_tile(const Scratch &scratch, int picture, int count, int tile,
                                    float iou, Tile &shared) {
  constexpr int kPer = kSuppressThreads / kWord;
  int column = 0;
  while (kPer * (column + 1) * (column + 2) / 2 <= tile) ++column;
  const int word = tile - kPer * column * (column + 1) / 2;
  const int64_t base = static_cast<int64_t>(picture) * kTopK;
  const int first = word * kWord;
  __syncthreads();  // the tile before is done with
  if (threadIdx.x < kWord) {
    // Behind the last box lie empty ones, which overlap nothing.
    const bool there = first + static_cast<int>(threadIdx.x) < count;
    const int64_t at = base + first + threadIdx.x;
    const float4 box = there ? scratch.sorted_boxes[at] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    shared.boxes[threadIdx.x] = box;
    shared.areas[threadIdx.x] = area(box);
#if !ONE_CLASS
    shared.classes[threadIdx.x] = there ? scratch.sorted_classes[at] : 0;
#endif
  }
  __syncthreads();
  const int j = column * kSuppressThreads + threadIdx.x;
  if (j >= count || j <= first) return;
  const float4 box = scratch.sorted_boxes[base + j];
  const float box_area = area(box);
#if !ONE_CLASS
  const int category = scratch.sorted_classes[base + j];
#endif
  unsigned halves[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    halves[half] = 0;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int other = half * 32 + i;
      bool hit = overlap(shared.boxes[other], shared.areas[other], box, box_area, iou);
#if !ONE_CLASS
      hit = hit && shared.classes[other] == category;
#endif
      if (hit) halves[half] |= 1u << i;
    }
  }
  uint64_t bits = static_cast<uint64_t>(halves[1]) << 32 | halves[0];
  if (j - first < kWord) bits &= (1ull << (j - first)) - 1;  // only stronger ones suppress
  scratch.overlaps[(static_cast<int64_t>(picture) * kWords + word) * kTopK + j] = bits;
}

constexpr int kMine = kTopK / kSuppressThreads;  // boxes of a thread: j = r × threads + thread

struct Walk {
  unsigned alive[kTopK / kWarp];    // by box: not suppressed by what was walked so far
  unsigned visible[kTopK / kWarp];  // by box: goes out
  unsigned before[kTopK / kWarp];   // outgoing boxes in the words before
};

// One warp decides about the boxes of one word. `low` and `high` are the rows of the bit
// matrix of boxes `lane` and `lane` + 32. A box is kept once no stronger box that is left
// overlaps it, and goes once a kept one does: as greedy NMS, box by box, decides.
__device__ __forceinline__ uint64_t settle(uint64_t alive, uint64_t low, uint64_t high) {
  uint64_t undecided = alive, kept = 0;
  while (undecided) {
    const unsigned free_low = __ballot_sync(kAllLanes, (low & undecided) == 0);
    const unsigned free_high = __ballot_sync(kAllLanes, (high & undecided) == 0);
    const uint64_t free = (static_cast<uint64_t>(free_high) << 32 | free_low) & undecided;
    const unsigned hit_low = __ballot_sync(kAllLanes, (low & free) != 0);
    const unsigned hit_high = __ballot_sync(kAllLanes, (high & free) != 0);
    kept |= free;
    undecided &= ~(free | static_cast<uint64_t>(hit_high) << 32 | hit_low);
  }
  return kept;
}

// What the walk needs of one word of the bit matrix.
struct Step {
  uint64_t hits[kMine];  // rows of this thread's boxes behind the word
  uint64_t low, high;    // rows of the word's own boxes `lane` and `lane` + 32
};

__device__ __forceinline__ void load(Step &step, const uint64_t *overlaps, int word, int count) {
  const uint64_t *row = overlaps + static_cast<int64_t>(word) * kTopK;
  const int own = word * kWord + lane();
  // The first box of a word has no stronger one in it, and no row.
  step.low = lane() > 0 && own < count ? __ldcg(row + own) : 0;
  step.high = own + 32 < count ? __ldcg(row + own + 32) : 0;
#pragma unroll
  for (int r = 0; r < kMine; ++r) {
    const int j = r * kSuppressThreads + threadIdx.x;
    step.hits[r] = j >= (word + 1) * kWord && j < count ? __ldcg(row + j) : 0;
  }
}

// One step of the walk: decides about a word and what it suppresses behind it. `gone` and
// `mine` are of this thread's boxes: suppressed, and kept.
__device__ __forceinline__ void advance(const Step &step, int word, int count, Walk &shared,
                                        unsigned &gone, unsigned &mine) {
  const unsigned warp = threadIdx.x / kWarp;
  const int r = word * kWord / kSuppressThreads;
  const unsigned owner = word * 2 % (kSuppressThreads / kWarp);
  if (warp - owner < 2) {
    const bool left =
        r * kSuppressThreads + static_cast<int>(threadIdx.x) < count && !(gone >> r & 1);
    const unsigned alive = __ballot_sync(kAllLanes, left);
    if (lane() == 0) shared.alive[word * 2 + warp - owner] = alive;
  }
  __syncthreads();
  const uint64_t alive =
      static_cast<uint64_t>(shared.alive[word * 2 + 1]) << 32 | shared.alive[word * 2];
  const uint64_t kept = settle(alive, step.low, step.high);
#pragma unroll
  for (int i = 0; i < kMine; ++i)
    if (step.hits[i] & kept) gone |= 1u << i;
  if (warp - owner < 2 && kept >> ((warp - owner) * kWarp + lane()) & 1) mine |= 1u << r;
}

// Greedy NMS over the bit matrix. Returns which of this thread's boxes are kept, bit r for
// box r × kSuppressThreads + thread. Every warp decides about every word, so that all they
// have to tell each other is which boxes are left. Loads run two steps ahead, in buffers
// that take turns: a copy would wait for them.
__device__ inline unsigned walk(const Scratch &scratch, int picture, int count, Walk &shared) {
  constexpr int kBuffers = 3;
  const uint64_t *overlaps = scratch.overlaps + static_cast<int64_t>(picture) * kWords * kTopK;
  const int words = (count + kWord - 1) / kWord;
  unsigned gone = 0, mine = 0;
  Step steps[kBuffers];
#pragma unroll
  for (int i = 0; i + 1 < kBuffers; ++i)
    if (i < words) load(steps[i], overlaps, i, count);
  for (int first = 0; first < words; first += kBuffers) {
#pragma unroll
    for (int i = 0; i < kBuffers; ++i) {
      const int word = first + i;
      if (word >= words) break;
      const int ahead = word + kBuffers - 1;
      if (ahead < words) load(steps[(i + kBuffers - 1) % kBuffers], overlaps, ahead, count);
      advance(steps[i], word, count, shared, gone, mine);
    }
  }
  return mine;
}

// ---------------------------------------------------------------------------- output

// detector.py: _tempered
__device__ inline float tempered(float score, float temperature) {
  if (temperature == 1.0f) return score;
  const float likely = fminf(fmaxf(score, 1e-7f), static_cast<float>(1 - 1e-7));
  const float logit = __fdiv_rn(logf(__fdiv_rn(likely, __fsub_rn(1.0f, likely))), temperature);
  return __fdiv_rn(1.0f, __fadd_rn(1.0f, expf(-fminf(fmaxf(logit, -80.0f), 80.0f))));
}

// letterbox.py: to_source
__device__ __forceinline__ float4 to_source(float4 b, const Picture &p) {
  return make_float4(fminf(fmaxf(__fmul_rn(b.x, p.ratio_x), 0.0f), p.limit_x),
                     fminf(fmaxf(__fmul_rn(b.y, p.ratio_y), 0.0f), p.limit_y),
                     fminf(fmaxf(__fmul_rn(b.z, p.ratio_x), 0.0f), p.limit_x),
                     fminf(fmaxf(__fmul_rn(b.w, p.ratio_y), 0.0f), p.limit_y));
}

// count/geometry.py: Polygons.hold, for one point in diagonal units.
__device__ inline bool holds(const double2 *corners, Polygon polygon, const Picture &p, double x,
                             double y) {
  bool inside = false;
  for (int i = 0; i < polygon.corners; ++i) {
    const double2 a = corners[polygon.first + i];
    const double2 b = corners[polygon.first + (i + 1 < polygon.corners ? i + 1 : 0)];
    const double low = __dmul_rn(a.y, p.scale_y), high = __dmul_rn(b.y, p.scale_y);
    if ((low > y) == (high > y)) continue;
    const double start = __dmul_rn(a.x, p.scale_x), end = __dmul_rn(b.x, p.scale_x);
    const double slope = __ddiv_rn(__dsub_rn(end, start), __dsub_rn(high, low));
    const double foot = __dsub_rn(start, __dmul_rn(slope, low));
    inside ^= x < __dadd_rn(__dmul_rn(slope, y), foot);
  }
  return inside;
}

// count/masks.py: apply_masks
__device__ inline bool masked(float4 b, const Picture &p, const Polygon *polygons,
                              const double2 *corners, double anchor) {
  if (p.polygons == 0) return false;
  const double top = __dmul_rn(b.y, __dsub_rn(1.0, anchor)), bottom = __dmul_rn(b.w, anchor);
  const double x = __ddiv_rn(__dmul_rn(0.5, __dadd_rn(b.x, b.z)), p.diagonal);
  const double y = __ddiv_rn(__dadd_rn(top, bottom), p.diagonal);
  for (int i = 0; i < p.polygons; ++i)
    if (holds(corners, polygons[p.first_polygon + i], p, x, y)) return true;
  return false;
}

// Outgoing boxes in the words before each word, and in all.
__device__ inline unsigned count_before(Walk &shared) {
  if (threadIdx.x < kWarp) {
    const unsigned low = __popc(shared.visible[2 * lane()]);
    const unsigned both = low + __popc(shared.visible[2 * lane() + 1]);
    unsigned upto = both;
    for (unsigned step = 1; step < kWarp; step *= 2) {
      const unsigned other = __shfl_up_sync(kAllLanes, upto, step);
      if (lane() >= step) upto += other;
    }
    shared.before[2 * lane()] = upto - both;
    shared.before[2 * lane() + 1] = upto - both + low;
  }
  __syncthreads();
  return shared.before[kTopK / kWarp - 1] + __popc(shared.visible[kTopK / kWarp - 1]);
}

// Writes what is kept and can be seen, best first.
__device__ inline void write(const Scratch &scratch, const Output &out, const Picture &p,
                             int picture, unsigned kept, const Polygon *polygons,
                             const double2 *corners, double anchor, float temperature,
                             int only_class, Walk &shared) {
  const int64_t base = static_cast<int64_t>(picture) * kTopK;
  const unsigned warp = threadIdx.x / kWarp;
  for (int r = 0; r < kMine; ++r) {
    bool seen = kept >> r & 1;
    if (seen) {
      const float4 box =
          to_source(scratch.sorted_boxes[base + r * kSuppressThreads + threadIdx.x], p);
      seen = box.z > box.x && box.w > box.y && !masked(box, p, polygons, corners, anchor);
    }
    const unsigned all = __ballot_sync(kAllLanes, seen);
    if (lane() == 0) shared.visible[r * (kSuppressThreads / kWarp) + warp] = all;
  }
  __syncthreads();
  const unsigned total = count_before(shared);
  const int64_t start = static_cast<int64_t>(picture) * out.most;
  for (int r = 0; r < kMine; ++r) {
    const int word = r * (kSuppressThreads / kWarp) + warp;
    const unsigned all = shared.visible[word];
    if (!(all >> lane() & 1)) continue;
    const unsigned at = shared.before[word] + __popc(all & lanes_below());
    if (at >= static_cast<unsigned>(out.most)) continue;
    const int64_t from = base + r * kSuppressThreads + threadIdx.x;
    out.boxes[start + at] = to_source(scratch.sorted_boxes[from], p);
    out.scores[start + at] = tempered(scratch.sorted_scores[from], temperature);
#if ONE_CLASS
    out.classes[start + at] = only_class;
#else
    out.classes[start + at] = scratch.sorted_classes[from];
#endif
  }
  if (threadIdx.x == 0)
    out.count[picture] = total < static_cast<unsigned>(out.most) ? total : out.most;
}

}  // namespace edgecount

using namespace edgecount;

// grid (⌈rows / kDecodeThreads⌉, batch), block kDecodeThreads. `output` is the network's,
// `wanted` the indices of the wanted classes; with TILES `parts` says what each of the
// network's pictures is.
extern "C" __global__ void __launch_bounds__(kDecodeThreads, 1)
    decode_head(const void *__restrict__ output, const int *__restrict__ wanted, Head head,
                Scratch scratch
#if TILES
                , const Part *__restrict__ parts
#endif
    ) {
#if TILES
  const Part part = parts[blockIdx.y];
  const int picture = part.picture, first = part.first;
  const unsigned blocks = gridDim.x * part.count;
#else
  const int picture = blockIdx.y, first = blockIdx.y;
  const unsigned blocks = gridDim.x;
#endif
  const int row = blockIdx.x * kDecodeThreads + threadIdx.x;
#if HEAD == HEAD_END2END
  const int64_t size = static_cast<int64_t>(head.rows) * 6;
#elif HEAD == HEAD_YOLOX || HEAD == HEAD_YOLOV5
  const int64_t size = static_cast<int64_t>(head.rows) * (5 + head.classes);
#else
  const int64_t size = static_cast<int64_t>(head.rows) * (4 + head.classes);
#endif
  const Raw *mine = static_cast<const Raw *>(output) + blockIdx.y * size;
  Candidate c;
  bool found = row < head.rows && decode(mine, head, wanted, row, &c);
#if TILES
  found = found && own(part, &c);
#endif
  const unsigned all = __ballot_sync(kAllLanes, found);
  unsigned at = 0;
  if (lane() == 0 && all) at = atomicAdd(scratch.count + picture, __popc(all));
  at = __shfl_sync(kAllLanes, at, 0);
  if (found) {
    const int64_t base = static_cast<int64_t>(first) * head.rows;
    const int among = (static_cast<int>(blockIdx.y) - first) * head.rows + row;
    scratch.keys[base + at + __popc(all & lanes_below())] = key_of(c.score, among);
    scratch.boxes[base + among] = c.box;
#if !ONE_CLASS
    scratch.classes[base + among] = c.category;
#endif
  }
  if (last_to_finish(scratch.finished + picture, blocks))
    select_and_sort(head, scratch, picture, first);
}

// grid (any, batch), block kSuppressThreads. `anchor` is the height of a box's anchor below
// its top, 0..1.
extern "C" __global__ void __launch_bounds__(kSuppressThreads, 1)
    suppress(Scratch scratch, const Picture *__restrict__ pictures,
             const Polygon *__restrict__ polygons, const double2 *__restrict__ corners, float iou,
             float temperature, double anchor, int only_class, Output out) {
  __shared__ union {
    Tile tile;
    Walk walk;
  } shared;
  const int picture = blockIdx.y;
#if TILES
  // A batch has at most as many pictures as the network sees; the others are none.
  if (pictures[picture].polygons < 0) {
    if (blockIdx.x == 0 && threadIdx.x == 0) out.count[picture] = 0;
    return;
  }
#endif
  const int count = scratch.sorted_count[picture];
  const int tiles = tiles_of(count);
  const int workers = tiles < static_cast<int>(gridDim.x) ? tiles : gridDim.x;
  // Without candidates the first block still has to say so.
  if (static_cast<int>(blockIdx.x) >= (workers > 1 ? workers : 1)) return;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x)
    compare_tile(scratch, picture, count, tile, iou, shared.tile);
  if (!last_to_finish(scratch.finished + picture, workers > 1 ? workers : 1)) return;
  for (int i = threadIdx.x; i < kTopK / static_cast<int>(kWarp); i += kSuppressThreads)
    shared.walk.visible[i] = 0;
  __syncthreads();
  const unsigned kept = walk(scratch, picture, count, shared.walk);
  write(scratch, out, pictures[picture], picture, kept, polygons, corners, anchor, temperature,
        only_class, shared.walk);
}
