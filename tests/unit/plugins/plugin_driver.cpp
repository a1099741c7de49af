// Makes the plugin from fields, asks it what TensorRT asks, stores it and makes it anew.
// The kernels' launcher is a stand-in that prints what it was asked for.
#include <NvInfer.h>

#include <cassert>
#include <cstdio>
#include <cstring>

#include "nms_request.h"

extern "C" nvinfer1::IPluginCreatorInterface *const *getCreators(int32_t &count);

namespace edgecount {
std::size_t nms_workspace(int32_t batch, int32_t rows) { return 1000u * batch + rows; }
cudaError_t nms_enqueue(const NmsRequest &r, bool half, int32_t batch, int32_t rows, const void *,
                        const NmsOutputs &, void *, cudaStream_t) {
  std::printf("enqueue head=%d classes=%d wanted=%d,%d levels=%d half=%d batch=%d rows=%d "
              "threshold=%.3f\n", int(r.head), r.classes, r.wanted[0], r.wanted[1], r.levels, half,
              batch, rows, r.score_threshold);
  return cudaSuccess;
}
}  // namespace edgecount

struct Constant : nvinfer1::IDimensionExpr {
  int64_t value;
  int64_t getConstantValue() const noexcept override { return value; }
};
struct Builder : nvinfer1::IExprBuilder {
  Constant made[8];
  int used = 0;
  nvinfer1::IDimensionExpr const *constant(int64_t value) noexcept override {
    made[used].value = value;
    return &made[used++];
  }
};

int main() {
  using namespace nvinfer1;
  int32_t count = 0;
  auto *creator = static_cast<IPluginCreatorV3One *>(getCreators(count)[0]);
  assert(count == 1 && !std::strcmp(creator->getPluginName(), "EdgecountNms"));
  assert(creator->getFieldNames()->nbFields == 10);

  const int32_t head = 4, classes = 3, wanted[] = {0, 2}, levels[] = {8, 16}, most = 100;
  const float threshold = 0.1f;
  const PluginField fields[] = {{"head", &head, PluginFieldType::kINT32, 1},
                                {"classes", &classes, PluginFieldType::kINT32, 1},
                                {"wanted", wanted, PluginFieldType::kINT32, 2},
                                {"strides", levels, PluginFieldType::kINT32, 2},
                                {"max_detections", &most, PluginFieldType::kINT32, 1},
                                {"score_threshold", &threshold, PluginFieldType::kFLOAT32, 1}};
  const PluginFieldCollection all = {6, fields};
  IPluginV3 *first = creator->createPlugin("nms", &all, TensorRTPhase::kBUILD);
  assert(first);

  auto *build = static_cast<IPluginV3OneBuild *>(
      first->getCapabilityInterface(PluginCapabilityType::kBUILD));
  Constant batch;
  batch.value = 7;
  DimsExprs input = {3, {&batch}}, outputs[4] = {};
  Builder builder;
  assert(build->getNbOutputs() == 4);
  assert(build->getOutputShapes(&input, 1, nullptr, 0, outputs, 4, builder) == 0);
  for (const DimsExprs &shape : outputs) {
    std::printf("shape");
    for (int i = 0; i < shape.nbDims; ++i)
      std::printf(" %lld", static_cast<long long>(shape.d[i]->getConstantValue()));
    std::printf("\n");
  }
  DataType types[4];
  assert(build->getOutputDataTypes(types, 4, nullptr, 1) == 0 && types[3] == DataType::kINT32);
  DynamicPluginTensorDesc tensors[5] = {};
  tensors[0].desc.type = DataType::kHALF;
  assert(build->supportsFormatCombination(0, tensors, 1, 4));
  tensors[0].desc.type = DataType::kINT8;
  assert(!build->supportsFormatCombination(0, tensors, 1, 4));
  tensors[0].max = {3, {8, 7, 8400}};
  std::printf("workspace %zu\n", build->getWorkspaceSize(tensors, 1, nullptr, 4));

  auto *runtime = static_cast<IPluginV3OneRuntime *>(
      first->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  const PluginFieldCollection *stored = runtime->getFieldsToSerialize();
  IPluginV3 *second = creator->createPlugin("nms", stored, TensorRTPhase::kRUNTIME);
  assert(second);
  auto *again = static_cast<IPluginV3OneRuntime *>(
      second->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  IPluginV3 *attached = again->attachToContext(nullptr);
  PluginTensorDesc desc = {{3, {2, 7, 8400}}, DataType::kHALF, TensorFormat::kLINEAR, 1.0f};
  const void *data[1] = {nullptr};
  void *out[4] = {};
  assert(static_cast<IPluginV3OneRuntime *>(
             attached->getCapabilityInterface(PluginCapabilityType::kRUNTIME))
             ->enqueue(&desc, nullptr, data, out, nullptr, nullptr) == 0);

  const PluginField wrong[] = {{"heads", &head, PluginFieldType::kINT32, 1}};
  const PluginFieldCollection unknown = {1, wrong};
  assert(!creator->createPlugin("nms", &unknown, TensorRTPhase::kBUILD));
  const int32_t nine = 9;
  const PluginField bad[] = {{"head", &nine, PluginFieldType::kINT32, 1}};
  const PluginFieldCollection meaningless = {1, bad};
  assert(!creator->createPlugin("nms", &meaningless, TensorRTPhase::kBUILD));
  delete first;
  delete second;
  delete attached;
}
