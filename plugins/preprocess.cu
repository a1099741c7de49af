// Pictures of different sizes and formats to one network input, in one launch: letterbox at
// the top-left corner, bilinear, normalised, planar.
//
// Reference: edgecount/infer/letterbox.py (BGR) and edgecount/infer/nv12.py. The resize is
// OpenCV's INTER_LINEAR for 8 bits: weights of 11 bits, rounded to 8 bits in between; the
// two agree to one grey level.
//
// Macros: OUTPUT 0 float32, 1 float16, 2 int8 (symmetric, of step `step`). PIXELS and STEPS:
// a thread makes PIXELS neighbouring pixels, STEPS times, a warp's width apart.
#include "common.cuh"

#ifndef OUTPUT
#define OUTPUT 0
#endif
#ifndef PIXELS
#define PIXELS 2
#endif
#ifndef STEPS
#define STEPS 2
#endif

namespace edgecount {

constexpr int kRows = 8;       // of a block
constexpr int kWeightBits = 11;
constexpr int kOne = 1 << kWeightBits;
constexpr int kNv12 = 1;       // Source::format; 0 is BGR

// One picture. Mirrors preprocess.py: SOURCE. Rows may be read up to the next multiple of
// four bytes.
struct Source {
  const uint8_t *plane;        // BGR, or luma
  const uint8_t *chroma;       // interleaved U V, half as wide and high
  int pitch, chroma_pitch;     // bytes
  int width, height;           // pixels
  int scaled_width, scaled_height;
  int format;
  int luma_offset;             // what black is in luma
  int luma, v_red, v_green, u_green, u_blue;  // factors, in 2^-20
};

// How the input is made; the same for all pictures. Mirrors preprocess.py: _Format.
struct Format {
  int width, height;
  int swap;                    // planes are R G B
  float mean[3];               // in the order of the planes
  float scale;
  float pad;
  float step;                  // int8 only
};

#if OUTPUT == 1
typedef uint16_t Value;
__device__ __forceinline__ Value to_value(float x, const Format &) { return float_to_half(x); }
#elif OUTPUT == 2
typedef int8_t Value;
__device__ __forceinline__ Value to_value(float x, const Format &f) {
  const float level = fminf(fmaxf(__fdiv_rn(x, f.step), -128.0f), 127.0f);
  return static_cast<Value>(__float2int_rn(level));
}
#else
typedef float Value;
__device__ __forceinline__ Value to_value(float x, const Format &) { return x; }
#endif

// Neighbouring pixels of a plane, stored in one instruction.
struct __align__(sizeof(Value) * PIXELS) Pixels { Value of[PIXELS]; };

// Where a target pixel lies between two source pixels: `at` and `at` + 1.
struct Tap { int at, weight; };  // the weight of `at` + 1, of kOne

// OpenCV: (target + ½) × source / target_size − ½, in whole numbers.
__device__ __forceinline__ Tap tap(int target, int size, int target_size, float inverse) {
  const int whole = 2 * target_size;
  const int position = (2 * target + 1) * size - target_size;
  if (position <= 0) return {0, 0};
  int at = static_cast<int>(static_cast<float>(position) * inverse);
  int rest = position - at * whole;
  if (rest < 0) { --at; rest += whole; }
  if (rest >= whole) { ++at; rest -= whole; }
  if (at >= size - 1) return size > 1 ? Tap{size - 2, kOne} : Tap{0, 0};
  return {at, __float2int_rn(__fdiv_rn(static_cast<float>(rest * kOne), static_cast<float>(whole)))};
}

__device__ __forceinline__ int across(int left, int right, int weight) {
  return left * (kOne - weight) + right * weight;
}

// OpenCV's vertical pass, which drops bits so that 16-bit multipliers do.
__device__ __forceinline__ int down(int upper, int lower, int weight) {
  return (((kOne - weight) * (upper >> 4) >> 16) + (weight * (lower >> 4) >> 16) + 2) >> 2;
}

struct Bgr { int b, g, r; };
struct Pair { Bgr left, right; };

__device__ __forceinline__ int byte_of(unsigned word, int i) { return word >> 8 * i & 0xff; }

// Two neighbouring BGR pixels by aligned words: six bytes at any address.
__device__ __forceinline__ Pair bgr_pair(const uint8_t *row, int x, int width) {
  if (width == 1) {
    const Bgr only = {__ldg(row), __ldg(row + 1), __ldg(row + 2)};
    return {only, only};
  }
  const uintptr_t address = reinterpret_cast<uintptr_t>(row + 3 * x);
  const unsigned *words = reinterpret_cast<const unsigned *>(address & ~static_cast<uintptr_t>(3));
  const int offset = static_cast<int>(address & 3);
  const unsigned a = __ldg(words), b = __ldg(words + 1);
  const unsigned c = offset == 3 ? __ldg(words + 2) : 0;  // elsewhere not a byte of the pair
  const unsigned low = __byte_perm(a, b, 0x3210 + 0x1111 * offset);
  const unsigned high = __byte_perm(b, c, 0x3210 + 0x1111 * offset);
  return {{byte_of(low, 0), byte_of(low, 1), byte_of(low, 2)},
          {byte_of(low, 3), byte_of(high, 0), byte_of(high, 1)}};
}

__device__ __forceinline__ int clamped(int value) {
  const int level = value >> 20;
  return level < 0 ? 0 : level > 255 ? 255 : level;
}

// OpenCV's cvtColor(COLOR_YUV2BGR_NV12), with the factors of any matrix.
__device__ __forceinline__ Bgr to_bgr(int luma, unsigned chroma, const Source &s) {
  const int half = 1 << 19;
  const int u = static_cast<int>(chroma & 0xff) - 128, v = static_cast<int>(chroma >> 8) - 128;
  const int above = luma - s.luma_offset;
  const int y = (above > 0 ? above : 0) * s.luma;
  return {clamped(y + s.u_blue * u + half), clamped(y + s.v_green * v + s.u_green * u + half),
          clamped(y + s.v_red * v + half)};
}

// By bytes: aligned words, put together, took 10 % longer on an H100.
__device__ __forceinline__ Pair nv12_pair(const Source &s, int x, int y) {
  const uint8_t *luma = s.plane + static_cast<int64_t>(y) * s.pitch + x;
  const uint16_t *chroma = reinterpret_cast<const uint16_t *>(
      s.chroma + static_cast<int64_t>(y / 2) * s.chroma_pitch);
  return {to_bgr(__ldg(luma), __ldg(chroma + x / 2), s),
          to_bgr(__ldg(luma + 1), __ldg(chroma + (x + 1) / 2), s)};
}

__device__ __forceinline__ Pair pair_at(const Source &s, int x, int y) {
  if (s.format == kNv12) return nv12_pair(s, x, y);
  return bgr_pair(s.plane + static_cast<int64_t>(y) * s.pitch, x, s.width);
}

__device__ __forceinline__ Bgr sample(const Source &s, Tap x, Tap y) {
  const Pair upper = pair_at(s, x.at, y.at);
  const Pair lower = pair_at(s, x.at, y.at + 1 < s.height ? y.at + 1 : y.at);
  return {down(across(upper.left.b, upper.right.b, x.weight),
               across(lower.left.b, lower.right.b, x.weight), y.weight),
          down(across(upper.left.g, upper.right.g, x.weight),
               across(lower.left.g, lower.right.g, x.weight), y.weight),
          down(across(upper.left.r, upper.right.r, x.weight),
               across(lower.left.r, lower.right.r, x.weight), y.weight)};
}

__device__ __forceinline__ Value normalised(float level, int plane, const Format &f) {
  return to_value(__fmul_rn(__fsub_rn(level, f.mean[plane]), f.scale), f);
}

}  // namespace edgecount

using namespace edgecount;

// grid (⌈width / (32 × PIXELS × STEPS)⌉, ⌈height / kRows⌉, batch), block (32, kRows). The
// input's width is a multiple of PIXELS. `out` is [batch][3][height][width].
extern "C" __global__ void __launch_bounds__(kWarp *kRows)
    preprocess(const Source *__restrict__ sources, Format f, Value *__restrict__ out) {
  const Source s = sources[blockIdx.z];
  const int y = blockIdx.y * kRows + threadIdx.y;
  if (y >= f.height) return;
  const float inverse = 0.5f / s.scaled_width;
  const Tap row = tap(y, s.height, s.scaled_height, 0.5f / s.scaled_height);
  const int64_t area = static_cast<int64_t>(f.width) * f.height;
  Value *line = out + blockIdx.z * 3 * area + static_cast<int64_t>(y) * f.width;
#pragma unroll
  for (int step = 0; step < STEPS; ++step) {
    const int x = ((blockIdx.x * STEPS + step) * kWarp + threadIdx.x) * PIXELS;
    if (x >= f.width) return;
    Pixels planes[3];
    const bool some = x < s.scaled_width && y < s.scaled_height;
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) {
      float blue = f.pad, green = f.pad, red = f.pad;
      if (some) {
        // Without a branch of its own per pixel, so that all loads are under way together.
        const int inside = x + i < s.scaled_width ? x + i : s.scaled_width - 1;
        const Bgr level = sample(s, tap(inside, s.width, s.scaled_width, inverse), row);
        if (inside == x + i) {
          blue = level.b;
          green = level.g;
          red = level.r;
        }
      }
      planes[0].of[i] = normalised(f.swap ? red : blue, 0, f);
      planes[1].of[i] = normalised(green, 1, f);
      planes[2].of[i] = normalised(f.swap ? blue : red, 2, f);
    }
#pragma unroll
    for (int plane = 0; plane < 3; ++plane)
      *reinterpret_cast<Pixels *>(line + plane * area + x) = planes[plane];
  }
}
