// Chooses the kernels that were compiled for a head and type.
#include "nms_request.h"

#include <initializer_list>
#include <utility>

#define DECLARE(head, half)                                                                     \
  std::size_t nms_workspace_##head##_##half##_(int32_t, int32_t);                               \
  cudaError_t nms_enqueue_##head##_##half##_(const edgecount::NmsRequest &, int32_t, int32_t,   \
                                             const void *, const edgecount::NmsOutputs &, void *, \
                                             cudaStream_t);
#define EACH_HEAD(of) \
  of(1, 0) of(1, 1) of(2, 0) of(2, 1) of(3, 0) of(3, 1) of(4, 0) of(4, 1) of(5, 0) of(5, 1)
EACH_HEAD(DECLARE)

namespace edgecount {

std::size_t nms_workspace(int32_t batch, int32_t rows) {
  return nms_workspace_1_0_(batch, rows);  // the same for all
}

cudaError_t nms_enqueue(const NmsRequest &request, bool half, int32_t batch, int32_t rows,
                        const void *output, const NmsOutputs &outputs, void *workspace,
                        cudaStream_t stream) {
  const std::size_t cells = static_cast<std::size_t>(batch) * request.max_detections;
  for (const auto &part : {std::pair<void *, std::size_t>{outputs.boxes, 16 * cells},
                           {outputs.scores, 4 * cells},
                           {outputs.classes, 4 * cells}}) {
    const cudaError_t failed = cudaMemsetAsync(part.first, 0, part.second, stream);
    if (failed != cudaSuccess) return failed;
  }
  const int32_t kind = static_cast<int32_t>(request.head);
#define CALL(number, type)                       \
  if (kind == number && half == bool(type))      \
    return nms_enqueue_##number##_##type##_(request, batch, rows, output, outputs, workspace, stream);
  EACH_HEAD(CALL)
  return cudaErrorInvalidValue;
}

}  // namespace edgecount
