"""``edgecount build``: from an ONNX file to an engine of this machine's TensorRT."""
