// What the tracker keeps, reads and writes. edgecount/infer/cuda/tracker.py has the same
// layouts as NumPy dtypes.
#pragma once
#include "common.cuh"

namespace edgecount {
namespace tracker {

constexpr int kBins = 256;
constexpr int kEdges = 32;       // pairs of a row that are kept; a row of more makes them anew
constexpr int kDense = -1;       // degree of such a row
constexpr int kSpan = 2048;      // rows and columns that the tie rule tells apart
constexpr int kShift = 22;       // bits of the tie rule
constexpr uint16_t kNone = 0xffff;
constexpr long long kFar = 0x7fffffffffffffffll;

// Rows of `Table::reals`; those of four are cx, cy, w, h.
enum Real { kValue = 0, kRate = 4, kVar = 8, kCov = 12, kRateVar = 16, kEvidence = 20, kScore, kHitRate, kReals };

// Options of a camera's tracker, rounded as docs/tracker.md says.
struct Options {
  double shares[3];  // high, birth, strong
  long long max_age, tentative_age, low_age, coast;  // microseconds
  int limits[3];     // of the cost: high, low, tentative
  int floor;         // bin of the detector's own threshold
  float low, weak_evidence, confirm_evidence, coast_rate;
  float noise, size_noise, outlier;
  float acceleration, size_acceleration, speed, size_speed, head_unit;
  float gate, gate_margin, min_height_ratio;
  float grow, overlap_weight, distance_weight, height_weight, worst, novice_cost;
  float unused;
};

// A step in time: dt, dt³/3, dt²/2, exp(−dt / size_decay), and microseconds.
struct Step {
  long long us;
  float dt, cubic, square, decay;
};

// The head of a camera's state; its table follows.
struct Camera {
  long long next_id;
  int tracks;
  int news;          // scores since the levels were computed
  float levels[3];   // high, birth, strong
  int unused;
  int counts[kBins];
};

// Columns of a camera's tracks, `capacity` long.
struct Table {
  long long *ids, *unseen;
  float *reals;
  int *classes, *confirmed;
  int capacity;

  __device__ Table(unsigned char *memory, int capacity_) : capacity(capacity_) {
    ids = reinterpret_cast<long long *>(memory + sizeof(Camera));
    unseen = ids + capacity;
    reals = reinterpret_cast<float *>(unseen + capacity);
    classes = reinterpret_cast<int *>(reals + kReals * capacity);
    confirmed = classes + capacity;
  }
  __device__ float &real(int row, int track) const { return reals[row * capacity + track]; }
  __device__ static size_t bytes(int capacity) {
    return sizeof(Camera) + size_t(capacity) * (2 * sizeof(long long) + kReals * sizeof(float) + 2 * sizeof(int));
  }
};

// A frame's scratch in device memory: usable detections, gates of the tracks, possible pairs.
struct Scratch {
  float4 *seen;       // cx, cy, w, h
  float4 *gates;      // cx, cy, rx, ry
  float4 *bodies;     // w, h, handicap, -
  float *scores;
  int *classes;
  int *degrees;
  unsigned *edges;    // cost << 11 | detection; edge k of row i is at k * capacity + i

  __device__ Scratch(unsigned char *memory, int capacity, int detections) {
    seen = reinterpret_cast<float4 *>(memory);
    gates = seen + detections;
    bodies = gates + capacity;
    scores = reinterpret_cast<float *>(bodies + capacity);
    classes = reinterpret_cast<int *>(scores + detections);
    degrees = classes + detections;
    edges = reinterpret_cast<unsigned *>(degrees + capacity);
  }
  __device__ static size_t bytes(int capacity, int detections) {
    return size_t(detections) * (sizeof(float4) + 2 * sizeof(int)) +
           size_t(capacity) * (2 * sizeof(float4) + (1 + kEdges) * sizeof(int));
  }
};

// The result of a frame.
struct Output {
  struct Head {
    int tracks, ended;
    int dropped;      // births for which there was no place
    int unused;
  } *head;
  long long *ids, *ended;
  float4 *boxes;
  float *scores;
  int *classes;
  unsigned char *confirmed;

  __device__ Output(unsigned char *memory, int capacity) {
    head = reinterpret_cast<Head *>(memory);
    ids = reinterpret_cast<long long *>(memory + sizeof(Head));
    ended = ids + capacity;
    boxes = reinterpret_cast<float4 *>(ended + capacity);
    scores = reinterpret_cast<float *>(boxes + capacity);
    classes = reinterpret_cast<int *>(scores + capacity);
    confirmed = reinterpret_cast<unsigned char *>(classes + capacity);
  }
  __device__ static size_t bytes(int capacity) {
    return sizeof(Head) + size_t(capacity) * (2 * sizeof(long long) + sizeof(float4) + 2 * sizeof(int) + 1);
  }
};

// Row and column flags.
enum Flag : unsigned char { kConfirmed = 1, kFresh = 2, kHigh = 1, kTaken = 2 };

// Shared memory of a block.
struct Shared {
  long long *dist, *v;        // by detection: distance in the search, potential
  long long *u;               // by track: potential
  int *parent;                // union-find over tracks, then detections
  int *columns, *leader;      // by the component's root
  uint16_t *pred, *col_row, *touched;     // by detection
  uint16_t *row_col, *pending, *label;    // by track
  unsigned char *row_flags, *col_flags;
  // Before the search, in the same place as `dist` and `pred`: detections ordered by x.
  float *line_x, *line_y;
  uint16_t *line;
  // After it, in the place of `u`: innovations as sortable integers.
  unsigned *off_x, *off_y;

  __device__ Shared(unsigned char *memory, int capacity, int detections) {
    dist = reinterpret_cast<long long *>(memory);
    v = dist + detections;
    u = v + detections;
    parent = reinterpret_cast<int *>(u + capacity);
    columns = parent + capacity + detections;
    leader = columns + capacity;
    pred = reinterpret_cast<uint16_t *>(leader + capacity);
    col_row = pred + detections;
    touched = col_row + detections;
    row_col = touched + detections;
    pending = row_col + capacity;
    label = pending + capacity;
    row_flags = reinterpret_cast<unsigned char *>(label + capacity);
    col_flags = row_flags + capacity;
    line_x = reinterpret_cast<float *>(dist);
    line_y = line_x + detections;
    line = pred;
    off_x = reinterpret_cast<unsigned *>(u);
    off_y = off_x + capacity;
  }
};

}  // namespace tracker
}  // namespace edgecount
