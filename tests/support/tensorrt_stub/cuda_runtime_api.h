// As much of CUDA's header as the TensorRT plugin uses, to compile it where there is no CUDA.
#pragma once
#include <cstddef>
typedef struct CUstream_st *cudaStream_t;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
cudaError_t cudaMemsetAsync(void *, int, std::size_t, cudaStream_t);
