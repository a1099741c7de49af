// The four outputs of EfficientNMS as rows of an end-to-end detector: x1 y1 x2 y2 score class.
//
// Reference: edgecount/infer/tensorrt/efficient_nms.py, rows(). One thread per row; rows
// behind the picture's count are zero, as that layout has it.

#define COLUMNS 6

extern "C" __global__ void efficient_nms_rows(
    const int* count,      // [batch]
    const float* boxes,    // [batch][most][4]
    const float* scores,   // [batch][most]
    const int* classes,    // [batch][most]
    float* rows,           // [batch][most][COLUMNS], written
    int batch,
    int most)
{
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= batch * most) return;
    const bool there = at % most < count[at / most];
    float* row = rows + (size_t)COLUMNS * at;
    for (int side = 0; side < 4; ++side) row[side] = there ? boxes[4 * (size_t)at + side] : 0.0f;
    row[4] = there ? scores[at] : 0.0f;
    row[5] = there ? (float)classes[at] : 0.0f;
}
