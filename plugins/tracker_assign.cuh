// Optimal assignment of tracks and detections, exact, in integers.
//
// Pairs fall into connected components. One with a single track or detection is settled by
// its least key; a larger one by shortest augmenting paths (Jonker and Volgenant 1987; each
// track may also stay unmatched, at cost 0 where a pair costs key − limit), one warp a
// component. The keys make the optimum unique, so that any exact solver, in any order,
// finds the pairs of edgecount/track/_assignment.py.
#pragma once
#include "tracker_state.cuh"

namespace edgecount {

constexpr int64_t kNever = 1ll << 60;
constexpr int kFree = -1;
constexpr int kUnmatched = -2;

struct Assignment {  // in shared memory
  int parent[kTracks + kDetections];
  int rows[kTracks], columns[kTracks];  // sizes of components, by root; then how many are listed
  int first[kTracks];                   // where a component's members are listed
  int work[kTracks];                    // roots of components to solve
  int match[kTracks];                   // a track's detection, or kFree
  int owner[kDetections];               // a detection's track, or kFree
  uint8_t row_open[kTracks], column_open[kDetections];
  int listed, works, next;
};

__device__ __forceinline__ int64_t key_of(int row, const Edge &e) {
  const int64_t tie = 2048ll * (row + e.detection) - static_cast<int64_t>(row) * e.detection;
  return (static_cast<int64_t>(e.cost) << 22) + tie;
}

__device__ __forceinline__ bool open(const Assignment &a, const Edge &e, int limit) {
  return a.column_open[e.detection] && e.cost < limit;
}

__device__ inline int root_of(const Assignment &a, int node) {
  while (a.parent[node] != node) node = a.parent[node];
  return node;
}

// While others join roots: what is read may be old, but always leads upwards. Read by an
// atomic, since others write.
__device__ inline int root_meanwhile(Assignment &a, int node) {
  int parent = atomicAdd(&a.parent[node], 0);
  while (parent != node) {
    node = parent;
    parent = atomicAdd(&a.parent[node], 0);
  }
  return node;
}

// Joins two components; the lower root stays, which is a track's.
__device__ inline void join(Assignment &a, int x, int y) {
  while (true) {
    x = root_meanwhile(a, x);
    y = root_meanwhile(a, y);
    if (x == y) return;
    const int upper = x < y ? y : x, lower = x < y ? x : y;
    if (atomicCAS(&a.parent[upper], upper, lower) == upper) return;
  }
}

__device__ inline void find_components(Assignment &a, const Scratch &s, int rows, int columns, int limit) {
  for (int i = threadIdx.x; i < rows; i += kThreads) {
    a.parent[i] = i;
    a.rows[i] = a.columns[i] = 0;
  }
  for (int j = threadIdx.x; j < columns; j += kThreads) a.parent[kTracks + j] = kTracks + j;
  if (threadIdx.x == 0) a.listed = a.works = a.next = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < rows; i += kThreads)
    if (a.row_open[i])
      for (int k = 0; k < s.degree[i]; ++k)
        if (open(a, s.edge[i][k], limit)) join(a, i, kTracks + s.edge[i][k].detection);
  __syncthreads();
  // A track without a pair is a root alone, and a detection without one its own, above kTracks.
  for (int i = threadIdx.x; i < rows; i += kThreads)
    if (a.row_open[i]) atomicAdd(&a.rows[root_of(a, i)], 1);
  for (int j = threadIdx.x; j < columns; j += kThreads) {
    const int root = root_of(a, kTracks + j);
    if (root < kTracks) atomicAdd(&a.columns[root], 1);
  }
  __syncthreads();
}

__device__ inline void give(Assignment &a, int row, int column) {
  a.match[row] = column;
  a.owner[column] = row;
}

// Components with one track or one detection.
__device__ inline void settle_simple(Assignment &a, Scratch &s, int rows, int limit) {
  for (int pass = 0; pass < 2; ++pass) {
    for (int i = threadIdx.x; i < rows; i += kThreads) {
      if (!a.row_open[i]) continue;
      const int root = root_of(a, i);
      const bool single = a.rows[root] == 1, shared = !single && a.columns[root] == 1;
      if (!a.columns[root] || !(single || shared)) continue;
      int64_t best = kNever;
      int column = kFree;
      for (int k = 0; k < s.degree[i]; ++k) {
        const Edge &e = s.edge[i][k];
        if (!open(a, e, limit)) continue;
        const int64_t key = key_of(i, e);
        if (key < best) best = key, column = e.detection;
      }
      if (single && pass == 0) give(a, i, column);
      if (shared && pass == 0) atomicMin(reinterpret_cast<long long *>(&s.price[column]), static_cast<long long>(best));
      if (shared && pass == 1 && s.price[column] == best) give(a, i, column);
    }
    __syncthreads();
  }
}

// Lists the members of all other components: tracks first, then detections.
__device__ inline void list_members(Assignment &a, Scratch &s, int rows, int columns) {
  for (int i = threadIdx.x; i < rows; i += kThreads) {
    if (!a.row_open[i] || a.parent[i] != i || a.rows[i] < 2 || a.columns[i] < 2) continue;
    a.first[i] = atomicAdd(&a.listed, a.rows[i] + a.columns[i]);
    a.work[atomicAdd(&a.works, 1)] = i;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < rows + columns; i += kThreads) {
    const bool row = i < rows;
    if (row && !a.row_open[i]) continue;
    const int root = root_of(a, row ? i : kTracks + i - rows);
    if (root >= kTracks || a.rows[root] < 2 || a.columns[root] < 2) continue;
    // The upper half of each count says how many are listed already.
    const int at = atomicAdd(row ? &a.rows[root] : &a.columns[root], 1 << 16) >> 16;
    const int before = row ? 0 : a.rows[root] & 0xffff;
    s.list[a.first[root] + before + at] = row ? i : i - rows;
  }
  __syncthreads();
}

struct Nearest {
  int64_t distance;
  int column;
};

__device__ inline Nearest nearest_of_warp(Nearest mine) {
  for (int offset = 16; offset; offset /= 2) {
    const int64_t distance = __shfl_xor_sync(kAllLanes, static_cast<long long>(mine.distance), offset);
    const int column = __shfl_xor_sync(kAllLanes, mine.column, offset);
    const bool closer = distance < mine.distance || (distance == mine.distance && column < mine.column);
    if (closer) mine = Nearest{distance, column};
  }
  return mine;
}

// Adds one track to a component's matching. The warp's lanes share the work; all see the
// same scalars. `before` of a column that the tree holds is marked by its complement.
__device__ inline void augment(Assignment &a, Scratch &s, int source, const int *columns, int count, int64_t limit) {
  for (int k = lane(); k < count; k += kWarp) s.distance[columns[k]] = kNever;
  Nearest least{0, 0};  // staying unmatched costs 0, and so does the cheapest pair from here on
  for (int k = lane(); k < s.degree[source]; k += kWarp) {
    const Edge &e = s.edge[source][k];
    if (!open(a, e, static_cast<int>(limit >> 22))) continue;
    const int64_t cost = key_of(source, e) - limit - s.price[e.detection];
    if (cost < least.distance) least.distance = cost;
  }
  least = nearest_of_warp(least);
  if (lane() == 0) s.potential[source] = least.distance;
  __syncwarp();
  int row = source, idle = source;
  int64_t reached = 0, idle_at = kNever;
  int sink = kFree;
  while (true) {
    const int64_t base = reached - s.potential[row];
    if (base < idle_at) idle_at = base, idle = row;
    for (int k = lane(); k < s.degree[row]; k += kWarp) {
      const Edge &e = s.edge[row][k];
      const int j = e.detection;
      if (!open(a, e, static_cast<int>(limit >> 22)) || (s.distance[j] != kNever && s.before[j] < 0)) continue;
      const int64_t through = base + key_of(row, e) - limit - s.price[j];
      if (through < s.distance[j]) s.distance[j] = through, s.before[j] = row;
    }
    __syncwarp();
    Nearest best{kNever, kDetections};
    for (int k = lane(); k < count; k += kWarp) {
      const int j = columns[k];
      const int64_t d = s.distance[j];
      if (d == kNever || s.before[j] < 0) continue;
      if (d < best.distance || (d == best.distance && j < best.column)) best = Nearest{d, j};
    }
    best = nearest_of_warp(best);
    if (best.column == kDetections || idle_at <= best.distance) {
      reached = idle_at;
      break;
    }
    reached = best.distance;
    if (a.owner[best.column] == kFree) {
      sink = best.column;
      break;
    }
    row = a.owner[best.column];
    if (lane() == 0) s.before[best.column] = ~s.before[best.column];
    __syncwarp();
  }
  // Reduced costs stay ≥ 0: what the tree holds moves by how much earlier it was reached.
  for (int k = lane(); k < count; k += kWarp) {
    const int j = columns[k];
    if (s.distance[j] == kNever || s.before[j] >= 0) continue;
    const int64_t earlier = reached - s.distance[j];
    s.price[j] -= earlier;
    s.potential[a.owner[j]] += earlier;
    s.before[j] = ~s.before[j];
  }
  __syncwarp();
  if (lane() == 0) {
    s.potential[source] += reached;
    int column = sink;
    if (sink == kFree) {
      column = a.match[idle];
      a.match[idle] = kUnmatched;
    }
    while (column >= 0) {
      const int previous = s.before[column];
      const int next = a.match[previous];
      give(a, previous, column);
      column = next;
    }
  }
  __syncwarp();
}

__device__ inline void solve_components(Assignment &a, Scratch &s, int limit) {
  while (true) {
    int at = 0;
    if (lane() == 0) at = atomicAdd(&a.next, 1);
    at = __shfl_sync(kAllLanes, at, 0);
    if (at >= a.works) break;
    const int root = a.work[at];
    const int rows = a.rows[root] & 0xffff, columns = a.columns[root] & 0xffff;
    const int *row = s.list + a.first[root], *column = row + rows;
    for (int k = 0; k < rows; ++k) augment(a, s, row[k], column, columns, static_cast<int64_t>(limit) << 22);
  }
  __syncthreads();
}

// Matches the open tracks and detections; what is matched is open no more.
__device__ inline void assign(Assignment &a, Scratch &s, int rows, int columns, int limit) {
  for (int j = threadIdx.x; j < columns; j += kThreads) s.price[j] = kNever;
  find_components(a, s, rows, columns, limit);
  settle_simple(a, s, rows, limit);
  for (int j = threadIdx.x; j < columns; j += kThreads) s.price[j] = 0;
  list_members(a, s, rows, columns);
  solve_components(a, s, limit);
  for (int i = threadIdx.x; i < rows; i += kThreads)
    if (a.match[i] == kUnmatched) a.match[i] = kFree;
  __syncthreads();
}

}  // namespace edgecount
