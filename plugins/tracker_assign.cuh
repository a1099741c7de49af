// Optimal assignment on the sparse pairs, by connected components.
//
// Each row has a column of its own at the price of staying free. With all potentials of
// columns 0, each row asks for its cheapest column; where several ask for one, the cheapest
// pair gets it. That is optimal for the rows that got theirs; the others are brought in one
// by one along shortest augmenting paths (Jonker, Volgenant, "A shortest augmenting path
// algorithm for dense and sparse linear assignment problems", Computing 38, 1987), a warp per
// component. The optimum is unique, so nothing depends on the order. All sums are integers.
#pragma once
#include "tracker_block.cuh"
#include "tracker_pairs.cuh"

namespace edgecount {
namespace tracker {

struct Edge {
  int col;
  long long key;
};

// The pairs of one round: 0: confirmed tracks, high detections. 1: what they left: low
// detections, and tentative tracks with high ones. Those two have no row or column in common.
struct Problem {
  const Options &options;
  const Shared &shared;
  const Scratch &scratch;
  int rows, cols, capacity, round;

  __device__ bool takes_part(int row) const {
    return round == 0 ? shared.row_flags[row] & kConfirmed : shared.row_col[row] == kNone;
  }
  __device__ bool column_takes_part(int col) const {
    return round == 0 ? shared.col_flags[col] & kHigh : !(shared.col_flags[col] & kTaken);
  }
  __device__ long long limit(int row) const {
    const int at = round == 0 ? 0 : shared.row_flags[row] & kConfirmed ? 1 : 2;
    return (long long)(options.limits[at]) << kShift;
  }
  __device__ int slots(int row) const {
    const int degree = scratch.degrees[row];
    return degree == kDense ? cols : degree;
  }
  // The pair in a slot of a row that takes part; false where it is none of this round.
  __device__ bool pair(int row, int slot, Edge *edge) const {
    int col = slot, cost;
    if (scratch.degrees[row] == kDense) {
      if (!column_takes_part(col)) return false;
      cost = pair_cost(options, scratch.gates[row], scratch.bodies[row], scratch.seen[col]);
      if (cost >= pair_limit(options, shared.row_flags[row], shared.col_flags[col])) return false;
    } else {
      const unsigned packed = scratch.edges[slot * capacity + row];
      col = packed & (kSpan - 1);
      cost = packed >> 11;
      if (!column_takes_part(col)) return false;
    }
    // In round 1 a confirmed track has low detections only.
    if (round == 1 && (shared.row_flags[row] & kConfirmed) && (shared.col_flags[col] & kHigh)) return false;
    edge->col = col;
    edge->key = ((long long)(cost) << kShift) + kSpan * (row + col) - row * col;
    return true;
  }
};

// Union-find. While it is built, others change it: read through atomics.
__device__ inline int root_while_building(int *parent, int x) {
  for (;;) {
    const int up = atomicAdd(&parent[x], 0);
    if (up == x) return x;
    x = up;
  }
}

__device__ inline int root(const int *parent, int x) {
  while (parent[x] != x) x = parent[x];
  return x;
}

// Roots are the least of their component, so always rows.
__device__ inline void unite(int *parent, int a, int b) {
  for (;;) {
    a = root_while_building(parent, a);
    b = root_while_building(parent, b);
    if (a == b) return;
    if (a < b) { const int t = a; a = b; b = t; }
    if (atomicCAS(&parent[a], a, b) == a) return;
  }
}

// Each row takes its cheapest column if it is the cheapest there.
__device__ inline void take_cheapest(const Problem &p) {
  const Shared &s = p.shared;
  for (int j = threadIdx.x; j < p.cols; j += blockDim.x) {
    s.dist[j] = kFar;
    s.v[j] = 0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < p.rows; i += blockDim.x) {
    s.label[i] = kNone;
    if (!p.takes_part(i)) continue;
    Edge best = {-1, kFar}, edge;
    for (int k = 0, slots = p.slots(i); k < slots; ++k)
      if (p.pair(i, k, &edge) && edge.key < best.key) best = edge;
    if (best.col < 0) continue;
    s.u[i] = best.key;
    s.label[i] = uint16_t(best.col);
    atomicMin(&s.dist[best.col], best.key);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < p.rows; i += blockDim.x) {
    const uint16_t col = s.label[i];
    if (col == kNone || s.dist[col] != s.u[i]) continue;
    s.row_col[i] = col;
    s.col_row[col] = uint16_t(i);
  }
  __syncthreads();
}

// Lists the rows in `pending` that asked and got none, in order.
__device__ inline int list_pending(const Problem &p) {
  const Shared &s = p.shared;
  int count = 0;
  for (int start = 0; start < p.rows; start += blockDim.x) {
    const int i = start + threadIdx.x;
    const bool open = i < p.rows && s.label[i] != kNone && s.row_col[i] == kNone;
    int more;
    const int at = rank_in_block(open, &more);
    if (open) s.pending[count + at] = uint16_t(i);
    count += more;
  }
  __syncthreads();
  return count;
}

// Labels pending rows by component, counts its columns, and finds each one's first such row.
__device__ inline void find_components(const Problem &p, int pending) {
  const Shared &s = p.shared;
  int *parent = s.parent;
  for (int x = threadIdx.x; x < p.capacity + p.cols; x += blockDim.x) parent[x] = x;
  for (int i = threadIdx.x; i < p.rows; i += blockDim.x) {
    s.columns[i] = 0;
    s.leader[i] = pending;
  }
  for (int j = threadIdx.x; j < p.cols; j += blockDim.x) s.dist[j] = kFar;
  __syncthreads();
  for (int i = threadIdx.x; i < p.rows; i += blockDim.x) {
    if (s.label[i] == kNone) continue;
    Edge edge;
    for (int k = 0, slots = p.slots(i); k < slots; ++k)
      if (p.pair(i, k, &edge)) unite(parent, i, p.capacity + edge.col);
  }
  __syncthreads();
  for (int j = threadIdx.x; j < p.cols; j += blockDim.x) {
    const int r = root(parent, p.capacity + j);
    if (r < p.capacity) atomicAdd(&s.columns[r], 1);
  }
  for (int k = threadIdx.x; k < pending; k += blockDim.x) {
    const int r = root(parent, s.pending[k]);
    s.label[k] = uint16_t(r);  // by place in the list from here on
    atomicMin(&s.leader[r], k);
  }
  __syncthreads();
}

// Least distance among the touched columns from `scanned` on, with its place, in one number.
__device__ inline unsigned long long nearest(const Shared &s, const uint16_t *touched, int scanned, int count) {
  unsigned long long best = ~0ull;
  for (int at = scanned + lane(); at < count; at += kWarp) {
    const unsigned long long here = (unsigned long long)(s.dist[touched[at]]) << 16 | unsigned(at);
    if (here < best) best = here;
  }
  for (int by = kWarp / 2; by; by /= 2) {
    const unsigned long long other = __shfl_xor_sync(kAllLanes, best, by);
    if (other < best) best = other;
  }
  return best;
}

// Brings row `start` in along the shortest augmenting path. One warp; `touched` has room for
// all columns of the component.
__device__ inline void augment(const Problem &p, int start, uint16_t *touched) {
  const Shared &s = p.shared;
  int count = 0, scanned = 0, row = start, last_row = start, last_col = -1;
  long long reached = 0, shortest = p.limit(start) - s.u[start];
  for (;;) {
    const long long row_potential = s.u[row];
    for (int k = lane(), slots = p.slots(row); k - int(lane()) < slots; k += kWarp) {
      Edge edge;
      bool nearer = k < slots && p.pair(row, k, &edge), first = false;
      if (nearer) {
        const long long distance = reached + edge.key - row_potential - s.v[edge.col];
        const long long before = s.dist[edge.col];
        nearer = distance < before && distance < shortest;
        first = nearer && before == kFar;
        if (nearer) {
          s.dist[edge.col] = distance;
          s.pred[edge.col] = uint16_t(row);
        }
      }
      const unsigned firsts = __ballot_sync(kAllLanes, first);
      if (first) touched[count + __popc(firsts & lanes_below())] = uint16_t(edge.col);
      count += __popc(firsts);
    }
    __syncwarp();
    const unsigned long long next = nearest(s, touched, scanned, count);
    if (next == ~0ull || (long long)(next >> 16) >= shortest) break;
    const int at = int(next & 0xffff);
    const uint16_t col = touched[at];
    reached = (long long)(next >> 16);
    if (s.col_row[col] == kNone) {
      shortest = reached;
      last_col = col;
      break;
    }
    __syncwarp();
    if (lane() == 0) {
      touched[at] = touched[scanned];
      touched[scanned] = col;
    }
    ++scanned;
    __syncwarp();
    row = s.col_row[col];
    const long long through = reached + p.limit(row) - s.u[row];
    if (through < shortest) {
      shortest = through;
      last_row = row;
    }
  }
  __syncwarp();
  for (int at = lane(); at < count; at += kWarp) {
    const uint16_t col = touched[at];
    if (at < scanned) {
      const long long change = shortest - s.dist[col];
      if (change > 0) {
        s.v[col] -= change;
        s.u[s.col_row[col]] += change;
      }
    }
    s.dist[col] = kFar;
  }
  __syncwarp();
  if (lane() == 0) {
    s.u[start] += shortest;
    int col = last_col;
    if (col < 0) {  // `last_row` stays free, and gives its column away
      col = s.row_col[last_row] == kNone ? -1 : s.row_col[last_row];
      s.row_col[last_row] = kNone;
    }
    while (col >= 0) {
      const int owner = s.pred[col];
      const int given_up = s.row_col[owner] == kNone ? -1 : s.row_col[owner];
      s.row_col[owner] = uint16_t(col);
      s.col_row[col] = uint16_t(owner);
      col = given_up;
    }
  }
  __syncwarp();
}

// Solves one round into row_col and col_row. Ends with a barrier.
__device__ inline void assign(const Problem &p) {
  const Shared &s = p.shared;
  __shared__ int pool;
  if (threadIdx.x == 0) pool = 0;
  take_cheapest(p);
  const int pending = list_pending(p);
  if (pending == 0) return;
  find_components(p, pending);
  const int warps = blockDim.x / kWarp;
  for (int k = threadIdx.x / kWarp; k < pending; k += warps) {
    const int component = s.label[k];
    if (s.leader[component] != k) continue;
    int base = 0;
    if (lane() == 0) base = atomicAdd(&pool, s.columns[component]);
    base = __shfl_sync(kAllLanes, base, 0);
    for (int from = k; from < pending; from += kWarp) {
      const int at = from + lane();
      unsigned ours = __ballot_sync(kAllLanes, at < pending && s.label[at] == component);
      for (; ours; ours &= ours - 1) augment(p, s.pending[from + __ffs(ours) - 1], s.touched + base);
    }
  }
  __syncthreads();
}

// All three stages. Ends with a barrier.
__device__ inline void assign_all(Problem p) {
  const Shared &s = p.shared;
  for (int i = threadIdx.x; i < p.rows; i += blockDim.x) s.row_col[i] = kNone;
  for (int j = threadIdx.x; j < p.cols; j += blockDim.x) s.col_row[j] = kNone;
  __syncthreads();
  p.round = 0;
  assign(p);
  for (int j = threadIdx.x; j < p.cols; j += blockDim.x)
    if (s.col_row[j] != kNone) s.col_flags[j] |= kTaken;
  __syncthreads();
  p.round = 1;
  assign(p);
}

}  // namespace tracker
}  // namespace edgecount
