// The NMS kernel as a TensorRT plugin, for TensorRT 10 and newer (IPluginV3).
//
//   EdgecountNms, version 1, namespace "edgecount"
//   input    the network's raw output, float32 or float16: [B, A, 5+C] (yolox), [B, 3A, 5+C]
//            (yolov5), [B, 4+C, A] (yolov8, ltrb) or [B, N, 6] (end2end)
//   outputs  boxes [B, M, 4], scores [B, M], classes [B, M], count [B]; see nms_request.h
//   fields   head (1..5), classes, wanted, strides, width, height, max_detections: int32;
//            score_threshold, iou_threshold, temperature: float32
#include <NvInfer.h>

#include <cstring>
#include <exception>

#include "nms_request.h"

namespace edgecount {
namespace {

using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;

constexpr char kName[] = "EdgecountNms";
constexpr char kVersion[] = "1";
constexpr char kNamespace[] = "edgecount";
constexpr char kStored[] = "request";  // all of NmsRequest, in an engine
constexpr int32_t kOutputs = 4;

int32_t rows_of(const NmsRequest &request, const nvinfer1::Dims &output) {
  const bool cells_last = request.head == HeadKind::kYolov8 || request.head == HeadKind::kLtrb;
  return static_cast<int32_t>(output.d[cells_last ? 2 : 1]);
}

bool usable(const NmsRequest &r) {
  return r.head >= HeadKind::kYolox && r.head <= HeadKind::kEnd2End && r.classes > 0 &&
         r.wanted_count > 0 && r.levels > 0 && r.width > 0 && r.height > 0 &&
         r.max_detections > 0 && r.max_detections <= 2048 && r.score_threshold > 0.0f &&
         r.score_threshold < 1.0f && r.temperature > 0.0f;
}

class NmsPlugin final : public nvinfer1::IPluginV3,
                        public nvinfer1::IPluginV3OneCore,
                        public nvinfer1::IPluginV3OneBuild,
                        public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit NmsPlugin(const NmsRequest &request) : request_(request) {}

  // IPluginV3
  nvinfer1::IPluginCapability *getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore *>(this);
      case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild *>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<IPluginV3OneRuntime *>(this);
    }
    return nullptr;
  }
  nvinfer1::IPluginV3 *clone() noexcept override {
    try {
      return new NmsPlugin(request_);
    } catch (const std::exception &) {
      return nullptr;
    }
  }

  // IPluginV3OneCore
  char const *getPluginName() const noexcept override { return kName; }
  char const *getPluginVersion() const noexcept override { return kVersion; }
  char const *getPluginNamespace() const noexcept override { return kNamespace; }

  // IPluginV3OneBuild
  int32_t getNbOutputs() const noexcept override { return kOutputs; }
  int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const *, int32_t,
                          nvinfer1::DynamicPluginTensorDesc const *, int32_t) noexcept override {
    return 0;
  }
  bool supportsFormatCombination(int32_t at, nvinfer1::DynamicPluginTensorDesc const *tensors,
                                 int32_t, int32_t) noexcept override {
    const nvinfer1::PluginTensorDesc &tensor = tensors[at].desc;
    if (tensor.format != nvinfer1::TensorFormat::kLINEAR) return false;
    switch (at) {
      case 0: return tensor.type == DataType::kFLOAT || tensor.type == DataType::kHALF;
      case 1:
      case 2: return tensor.type == DataType::kFLOAT;
      default: return tensor.type == DataType::kINT32;
    }
  }
  int32_t getOutputDataTypes(DataType *types, int32_t outputs, DataType const *,
                             int32_t) const noexcept override {
    if (outputs != kOutputs) return -1;
    types[0] = types[1] = DataType::kFLOAT;
    types[2] = types[3] = DataType::kINT32;
    return 0;
  }
  int32_t getOutputShapes(nvinfer1::DimsExprs const *inputs, int32_t, nvinfer1::DimsExprs const *,
                          int32_t, nvinfer1::DimsExprs *outputs, int32_t count,
                          nvinfer1::IExprBuilder &expressions) noexcept override {
    if (count != kOutputs) return -1;
    const nvinfer1::IDimensionExpr *batch = inputs[0].d[0];
    const nvinfer1::IDimensionExpr *most = expressions.constant(request_.max_detections);
    for (int32_t i = 0; i < kOutputs; ++i) {
      outputs[i].nbDims = i == 0 ? 3 : i == 3 ? 1 : 2;
      outputs[i].d[0] = batch;
      outputs[i].d[1] = most;
    }
    outputs[0].d[2] = expressions.constant(4);
    return 0;
  }
  std::size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const *inputs, int32_t,
                               nvinfer1::DynamicPluginTensorDesc const *,
                               int32_t) const noexcept override {
    return nms_workspace(static_cast<int32_t>(inputs[0].max.d[0]),
                         rows_of(request_, inputs[0].max));
  }

  // IPluginV3OneRuntime
  int32_t onShapeChange(nvinfer1::PluginTensorDesc const *, int32_t,
                        nvinfer1::PluginTensorDesc const *, int32_t) noexcept override {
    return 0;
  }
  int32_t enqueue(nvinfer1::PluginTensorDesc const *inputs, nvinfer1::PluginTensorDesc const *,
                  void const *const *data, void *const *outputs, void *workspace,
                  cudaStream_t stream) noexcept override {
    const nvinfer1::Dims &shape = inputs[0].dims;
    const cudaError_t failed = nms_enqueue(
        request_, inputs[0].type == DataType::kHALF, static_cast<int32_t>(shape.d[0]),
        rows_of(request_, shape), data[0], {outputs[0], outputs[1], outputs[2], outputs[3]},
        workspace, stream);
    return failed == cudaSuccess ? 0 : -1;
  }
  nvinfer1::IPluginV3 *attachToContext(nvinfer1::IPluginResourceContext *) noexcept override {
    return clone();
  }
  PluginFieldCollection const *getFieldsToSerialize() noexcept override {
    stored_ = {kStored, &request_, PluginFieldType::kUNKNOWN,
               static_cast<int32_t>(sizeof request_)};
    collection_ = {1, &stored_};
    return &collection_;
  }

 private:
  NmsRequest request_;
  PluginField stored_;
  PluginFieldCollection collection_{};
};

// A field of the plugin's creator, and where its values go.
struct Destination {
  char const *name;
  PluginFieldType type;
  void *values;
  int32_t most;
  int32_t *count;
};

// False for a field that is unknown, of another type, or too long.
bool read_field(const PluginField &field, NmsRequest &r) {
  if (std::strcmp(field.name, kStored) == 0) {
    if (field.length != static_cast<int32_t>(sizeof r)) return false;
    std::memcpy(&r, field.data, sizeof r);
    return true;
  }
  const PluginFieldType whole = PluginFieldType::kINT32, real = PluginFieldType::kFLOAT32;
  const Destination known[] = {
      {"head", whole, &r.head, 1, nullptr},
      {"classes", whole, &r.classes, 1, nullptr},
      {"wanted", whole, r.wanted, NmsRequest::kMostWanted, &r.wanted_count},
      {"strides", whole, r.strides, NmsRequest::kMostLevels, &r.levels},
      {"width", whole, &r.width, 1, nullptr},
      {"height", whole, &r.height, 1, nullptr},
      {"max_detections", whole, &r.max_detections, 1, nullptr},
      {"score_threshold", real, &r.score_threshold, 1, nullptr},
      {"iou_threshold", real, &r.iou_threshold, 1, nullptr},
      {"temperature", real, &r.temperature, 1, nullptr},
  };
  for (const Destination &d : known) {
    if (std::strcmp(field.name, d.name) != 0) continue;
    if (field.type != d.type || field.length < 1 || field.length > d.most) return false;
    std::memcpy(d.values, field.data, 4 * static_cast<std::size_t>(field.length));
    if (d.count) *d.count = field.length;
    return true;
  }
  return false;
}

class NmsCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  char const *getPluginName() const noexcept override { return kName; }
  char const *getPluginVersion() const noexcept override { return kVersion; }
  char const *getPluginNamespace() const noexcept override { return kNamespace; }

  PluginFieldCollection const *getFieldNames() noexcept override {
    static PluginField const fields[] = {
        {"head", nullptr, PluginFieldType::kINT32, 1},
        {"classes", nullptr, PluginFieldType::kINT32, 1},
        {"wanted", nullptr, PluginFieldType::kINT32, NmsRequest::kMostWanted},
        {"strides", nullptr, PluginFieldType::kINT32, NmsRequest::kMostLevels},
        {"width", nullptr, PluginFieldType::kINT32, 1},
        {"height", nullptr, PluginFieldType::kINT32, 1},
        {"max_detections", nullptr, PluginFieldType::kINT32, 1},
        {"score_threshold", nullptr, PluginFieldType::kFLOAT32, 1},
        {"iou_threshold", nullptr, PluginFieldType::kFLOAT32, 1},
        {"temperature", nullptr, PluginFieldType::kFLOAT32, 1},
    };
    static PluginFieldCollection const all = {10, fields};
    return &all;
  }

  // Null where a field is unknown or its value cannot be meant.
  nvinfer1::IPluginV3 *createPlugin(char const *, PluginFieldCollection const *fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    NmsRequest request;
    for (int32_t i = 0; i < fields->nbFields; ++i)
      if (!read_field(fields->fields[i], request)) return nullptr;
    if (!usable(request)) return nullptr;
    try {
      return new NmsPlugin(request);
    } catch (const std::exception &) {
      return nullptr;
    }
  }
};

}  // namespace
}  // namespace edgecount

// What IPluginRegistry::loadLibrary and trtexec --dynamicPlugins look for.
extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder *) {}

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface *const *
getCreators(int32_t &count) {
  static edgecount::NmsCreator creator;
  static nvinfer1::IPluginCreatorInterface *const all[] = {&creator};
  count = 1;
  return all;
}
