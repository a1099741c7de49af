// The kernels of ../nms.cu for one head and type, with a launcher for the plugin.
//
// Compiled once per head and type: -DHEAD=1..5 -DHALF_OUTPUT=0|1 -DONE_CLASS=0, and with
// --fmad=false, without which boxes may differ from the reference's in the last place.
#include "nms_request.h"

#include <cmath>

#define JOIN_(a, b, c, d) a##_##b##_##c##d
#define JOIN(a, b, c, d) JOIN_(a, b, c, d)
#define NAMED(name) JOIN(name, HEAD, HALF_OUTPUT, _)
#define decode_head NAMED(decode_head)
#define suppress NAMED(suppress)
#include "../nms.cu"

namespace {

struct Request { edgecount::NmsRequest given; };

// What the launches find in the workspace: counters at zero, classes, pictures as they are.
__global__ void prepare(Request request, edgecount::Scratch scratch, edgecount::Picture *pictures,
                        int *wanted, int batch) {
  const edgecount::NmsRequest &r = request.given;
  for (int i = threadIdx.x; i < batch; i += blockDim.x) {
    scratch.count[i] = scratch.finished[i] = scratch.sorted_count[i] = 0;
    const float width = r.width, height = r.height;
    pictures[i] = {1.0f, 1.0f, width, height, hypot(width, height), 1.0, 1.0, 0, 0};
  }
  for (int i = threadIdx.x; i < r.wanted_count; i += blockDim.x) wanted[i] = r.wanted[i];
}

edgecount::Head head_of(const edgecount::NmsRequest &r, int rows) {
  edgecount::Head head = {};
  head.rows = rows;
  head.classes = r.classes;
  head.wanted_count = r.wanted_count;
  head.levels = r.levels;
  int first = 0;
  for (int i = 0; i < r.levels; ++i) {
    head.first[i] = first;
    head.columns[i] = (r.width + r.strides[i] - 1) / r.strides[i];
    head.stride[i] = static_cast<float>(r.strides[i]);
    first += head.columns[i] * ((r.height + r.strides[i] - 1) / r.strides[i]);
  }
  const double score = r.score_threshold;
  head.floor = r.score_threshold;
  head.threshold = HEAD == HEAD_LTRB ? static_cast<float>(std::log(score / (1.0 - score)))
                                     : r.score_threshold;
  return head;
}

// Hands out parts of the workspace; without one it only adds up.
struct Arena {
  char *base;
  std::size_t used;

  template <class T> T *take(std::size_t count) {
    T *part = reinterpret_cast<T *>(base + used);
    used += (count * sizeof(T) + 255) / 256 * 256;
    return part;
  }
};

struct Workspace {
  edgecount::Scratch scratch;
  edgecount::Picture *pictures;
  int *wanted;
  std::size_t size;

  Workspace(void *base, std::size_t batch, std::size_t rows) {
    using edgecount::kTopK;
    Arena arena = {static_cast<char *>(base), 0};
    scratch.count = arena.take<unsigned>(batch);
    scratch.finished = arena.take<unsigned>(batch);
    scratch.sorted_count = arena.take<unsigned>(batch);
    scratch.keys = arena.take<uint64_t>(batch * rows);
    scratch.boxes = arena.take<float4>(batch * rows);
    scratch.classes = arena.take<int>(batch * rows);
    scratch.sorted_boxes = arena.take<float4>(batch * kTopK);
    scratch.sorted_scores = arena.take<float>(batch * kTopK);
    scratch.sorted_classes = arena.take<int>(batch * kTopK);
    scratch.overlaps = arena.take<uint64_t>(batch * edgecount::kWords * kTopK);
    pictures = arena.take<edgecount::Picture>(batch);
    wanted = arena.take<int>(edgecount::NmsRequest::kMostWanted);
    size = arena.used;
  }
};

}  // namespace

std::size_t NAMED(nms_workspace)(int32_t batch, int32_t rows) {
  return Workspace(nullptr, batch, rows).size;
}

cudaError_t NAMED(nms_enqueue)(const edgecount::NmsRequest &request, int32_t batch, int32_t rows,
                               const void *output, const edgecount::NmsOutputs &outputs,
                               void *workspace, cudaStream_t stream) {
  using namespace edgecount;
  const Workspace parts(workspace, batch, rows);
  const Output out = {static_cast<float4 *>(outputs.boxes), static_cast<float *>(outputs.scores),
                      static_cast<int *>(outputs.classes), static_cast<int *>(outputs.count),
                      request.max_detections};
  const int tiles = 144;  // of kTopK boxes; blocks without one return at once
  const dim3 decode_grid((rows + kDecodeThreads - 1) / kDecodeThreads, batch);
  prepare<<<1, 128, 0, stream>>>({request}, parts.scratch, parts.pictures, parts.wanted, batch);
  decode_head<<<decode_grid, kDecodeThreads, 0, stream>>>(output, parts.wanted,
                                                          head_of(request, rows), parts.scratch);
  suppress<<<dim3(tiles, batch), kSuppressThreads, 0, stream>>>(
      parts.scratch, parts.pictures, nullptr, nullptr, request.iou_threshold, request.temperature,
      0.5, request.wanted[0], out);
  return cudaGetLastError();
}
