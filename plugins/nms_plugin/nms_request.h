// What the TensorRT plugin asks of the kernels; plain data, stored in the engine as it is.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace edgecount {

enum class HeadKind : int32_t { kYolox = 1, kYolov5, kYolov8, kLtrb, kEnd2End };

struct NmsRequest {
  static constexpr int32_t kMostLevels = 6;
  static constexpr int32_t kMostWanted = 16;

  HeadKind head = HeadKind::kYolov8;
  int32_t classes = 1;            // in the network's output
  int32_t wanted[kMostWanted] = {};
  int32_t wanted_count = 1;
  int32_t strides[kMostLevels] = {8, 16, 32};
  int32_t levels = 3;
  int32_t width = 640;            // of the network's input, pixels
  int32_t height = 640;
  int32_t max_detections = 1024;
  float score_threshold = 0.25f;  // before the temperature
  float iou_threshold = 0.6f;
  float temperature = 1.0f;
};

// Where the detections of a batch go; boxes in pixels of the network's input, best first.
struct NmsOutputs {
  void *boxes;    // float [batch][max_detections][4]
  void *scores;   // float [batch][max_detections]
  void *classes;  // int32 [batch][max_detections]
  void *count;    // int32 [batch]
};

std::size_t nms_workspace(int32_t batch, int32_t rows);

// Enqueues everything on `stream`; what lies behind `count` is zero.
cudaError_t nms_enqueue(const NmsRequest &request, bool half, int32_t batch, int32_t rows,
                        const void *output, const NmsOutputs &outputs, void *workspace,
                        cudaStream_t stream);

}  // namespace edgecount
