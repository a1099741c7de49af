// The plugin's launcher, callable from Python.
#include "kernels.cu"

extern "C" size_t shim_workspace(int batch, int rows) {
  return NAMED(nms_workspace)(batch, rows);
}

extern "C" int shim_enqueue(int head, int classes, const int *wanted, int wanted_count, int width,
                            int height, int most, float score, float iou, int batch, int rows,
                            void *output, void *boxes, void *scores, void *categories, void *count,
                            void *workspace, void *stream) {
  edgecount::NmsRequest request;
  request.head = static_cast<edgecount::HeadKind>(head);
  request.classes = classes;
  for (int i = 0; i < wanted_count; ++i) request.wanted[i] = wanted[i];
  request.wanted_count = wanted_count;
  request.width = width;
  request.height = height;
  request.max_detections = most;
  request.score_threshold = score;
  request.iou_threshold = iou;
  return NAMED(nms_enqueue)(request, batch, rows, output, {boxes, scores, categories, count},
                            workspace, static_cast<cudaStream_t>(stream));
}
