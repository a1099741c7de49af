// What tests/unit/support/test_cuda_emulator.py runs.

extern "C" __global__ void block_sum(const float *in, float *out, int n) {
  __shared__ float part[256];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  part[threadIdx.x] = i < n ? in[i] : 0.0f;
  __syncthreads();
  for (int step = blockDim.x / 2; step > 0; step /= 2) {
    if (threadIdx.x < step) part[threadIdx.x] += part[threadIdx.x + step];
#ifndef NO_BARRIER
    __syncthreads();
#endif
  }
  if (threadIdx.x == 0) atomicAdd(out, part[0]);
}

extern "C" __global__ void warp_scan(const int *in, int *out, unsigned *ballot) {
  int value = in[threadIdx.x];
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, value, step);
    if (threadIdx.x % 32 >= step) value += other;
  }
  out[threadIdx.x] = value;
  ballot[threadIdx.x] = __ballot_sync(0xffffffffu, in[threadIdx.x] > 3);
}

extern "C" __global__ void reverse(int *values, int n) {
  DYNAMIC_SHARED(int, copy);
  copy[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = copy[n - 1 - threadIdx.x];
}


extern "C" __global__ void stuck() {
  if (threadIdx.x == 0) __syncwarp(0x3u);
  else __syncthreads();
}

extern "C" __global__ void out_of_bounds(int *values, int n) { values[n + threadIdx.x] = 1; }

extern "C" __global__ void vote(const int *in, int *out) {
  const int count = __syncthreads_count(in[threadIdx.x] > 0);
  const int any = __syncthreads_or(in[threadIdx.x] > 5);
  const int all = __syncthreads_and(in[threadIdx.x] > 0);
  out[threadIdx.x] = count * 4 + any * 2 + all;
}
