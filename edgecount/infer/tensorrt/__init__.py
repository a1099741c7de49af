"""TensorRT and TensorRT-RTX: versions, engine cache, executor. Imports neither by itself."""
