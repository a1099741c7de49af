/* A camera at the ioctl boundary, for tests: preload it and open FAKE_V4L2_DEVICE.
 *
 *     cc -shared -fPIC -o fake_v4l2.so fake_v4l2.c -ldl
 *     FAKE_V4L2_DEVICE=/dev/video42 FAKE_V4L2_STATE=state.txt LD_PRELOAD=./fake_v4l2.so …
 *
 * It answers what a UVC camera answers: YUYV and MJPG, 320x240 and 640x480, 30 frames per
 * second. MJPG frames are the recording named by FAKE_V4L2_JPEG. The first word of the
 * state file says how the camera is: "on"; "gone" (unplugged: open fails with ENOENT, every
 * ioctl with ENODEV); "silent" (no frame becomes ready). Everything else goes to the C library.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { BUFFERS = 4, SIZE = 640 * 480 * 2, FPS = 30 };

static int camera = -1; /* a timer: it becomes readable when a frame is due */
static uint8_t *memory;
static unsigned width = 640, height = 480, format = V4L2_PIX_FMT_YUYV;
static int queue[BUFFERS], queued, sequence;

static int state_is(const char *word) {
    char state[16] = "on";
    const char *path = getenv("FAKE_V4L2_STATE");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY) : -1;
    if (fd >= 0) {
        ssize_t n = read(fd, state, sizeof state - 1);
        state[n > 0 ? n : 0] = 0;
        syscall(SYS_close, fd);
    }
    return strncmp(state, word, strlen(word)) == 0;
}

static void tick(long nanoseconds) {
    struct itimerspec every = {{0, nanoseconds}, {0, nanoseconds}};
    timerfd_settime(camera, 0, &every, NULL);
}

static int open_camera(void) {
    if (state_is("gone")) return errno = ENOENT, -1;
    if (camera >= 0) return errno = EBUSY, -1;
    camera = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    queued = sequence = 0;
    return camera;
}

#define OPEN(name)                                                       \
    int name(const char *path, int flags, ...) {                         \
        va_list rest;                                                    \
        va_start(rest, flags);                                           \
        mode_t mode = va_arg(rest, mode_t);                              \
        va_end(rest);                                                    \
        const char *mine = getenv("FAKE_V4L2_DEVICE");                   \
        if (mine && strcmp(path, mine) == 0) return open_camera();       \
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);    \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    if (fd == camera && fd >= 0) {
        camera = -1;
        if (memory) munmap(memory, (size_t)BUFFERS * SIZE);
        memory = NULL;
    }
    return (int)syscall(SYS_close, fd);
}

static void *map(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    if (fd >= 0 && fd == camera) { /* each buffer gets pages of its own, as from a driver */
        if (!memory)
            memory = (uint8_t *)syscall(SYS_mmap, NULL, (size_t)BUFFERS * SIZE,
                                        PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        return memory + offset;
    }
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}
void *mmap(void *a, size_t s, int p, int f, int fd, off_t o) { return map(a, s, p, f, fd, o); }
void *mmap64(void *a, size_t s, int p, int f, int fd, off_t o) { return map(a, s, p, f, fd, o); }

int munmap(void *address, size_t size) {
    uint8_t *at = address;
    if (memory && at >= memory && at < memory + (size_t)BUFFERS * SIZE && size < (size_t)BUFFERS * SIZE)
        return 0;
    return (int)syscall(SYS_munmap, address, size);
}

static void describe(struct v4l2_format *f) {
    f->fmt.pix.width = width;
    f->fmt.pix.height = height;
    f->fmt.pix.pixelformat = format;
    f->fmt.pix.field = V4L2_FIELD_NONE;
    f->fmt.pix.bytesperline = format == V4L2_PIX_FMT_YUYV ? width * 2 : 0;
    f->fmt.pix.sizeimage = width * height * 2;
}

static void choose(struct v4l2_format *f) { /* as a driver: the nearest it can do */
    unsigned wish = f->fmt.pix.pixelformat;
    format = wish == V4L2_PIX_FMT_MJPEG ? wish : V4L2_PIX_FMT_YUYV;
    width = f->fmt.pix.width <= 320 ? 320 : 640;
    height = width * 3 / 4;
    describe(f);
}

static unsigned fill(uint8_t *buffer) {
    const char *path = getenv("FAKE_V4L2_JPEG");
    if (format == V4L2_PIX_FMT_MJPEG && path) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
        ssize_t n = read(fd, buffer, SIZE);
        syscall(SYS_close, fd);
        return n > 0 ? (unsigned)n : 0;
    }
    for (unsigned i = 0; i < width * height * 2; i += 2) {
        buffer[i] = (uint8_t)(sequence * 8);
        buffer[i + 1] = 128;
    }
    return width * height * 2;
}

static int dequeue(struct v4l2_buffer *b) {
    uint64_t ticks;
    if (!queued || state_is("silent") || read(camera, &ticks, sizeof ticks) != sizeof ticks)
        return errno = EAGAIN, -1;
    b->index = (unsigned)queue[0];
    memmove(queue, queue + 1, sizeof *queue * (size_t)--queued);
    b->bytesused = fill(memory + (size_t)b->index * SIZE);
    b->sequence = (unsigned)sequence++;
    b->length = SIZE;
    b->flags = V4L2_BUF_FLAG_MAPPED;
    return 0;
}

static int answer(unsigned long request, void *argument) {
    if (state_is("gone")) return errno = ENODEV, -1;
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *c = argument;
        memset(c, 0, sizeof *c);
        strcpy((char *)c->driver, "uvcvideo");
        strcpy((char *)c->card, "Fake camera");
        c->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING | V4L2_CAP_DEVICE_CAPS;
        c->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
    }
    case VIDIOC_G_FMT: describe(argument); return 0;
    case VIDIOC_S_FMT: choose(argument); return 0;
    case VIDIOC_TRY_FMT: return 0;
    case VIDIOC_G_INPUT: *(int *)argument = 0; return 0;
    case VIDIOC_S_INPUT: return 0;
    case VIDIOC_ENUMINPUT: {
        struct v4l2_input *i = argument;
        i->type = V4L2_INPUT_TYPE_CAMERA;
        return i->index ? (errno = EINVAL, -1) : 0;
    }
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM: {
        struct v4l2_streamparm *p = argument;
        p->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        p->parm.capture.timeperframe.numerator = 1;
        p->parm.capture.timeperframe.denominator = FPS;
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *r = argument;
        if (r->count > BUFFERS) r->count = BUFFERS;
        queued = 0;
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *b = argument;
        b->length = SIZE;
        b->m.offset = b->index * SIZE;
        return 0;
    }
    case VIDIOC_QBUF: queue[queued++] = (int)((struct v4l2_buffer *)argument)->index; return 0;
    case VIDIOC_DQBUF: return dequeue(argument);
    case VIDIOC_STREAMON: tick(1000000000L / FPS); return 0;
    case VIDIOC_STREAMOFF: tick(0); queued = 0; return 0;
    default: return errno = ENOTTY, -1;
    }
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (fd < 0 || fd != camera) return (int)syscall(SYS_ioctl, fd, request, argument);
    if (getenv("FAKE_V4L2_TRACE")) fprintf(stderr, "ioctl %lx\n", request);
    return answer((uint32_t)request, argument);
}

int select(int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout) {
    static int (*real)(int, fd_set *, fd_set *, fd_set *, struct timeval *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "select");
    if (camera >= 0 && r && FD_ISSET(camera, r) && state_is("silent")) {
        tick(0);
        int ready = real(n, r, w, e, timeout);
        if (camera >= 0) tick(1000000000L / FPS);
        return ready;
    }
    return real(n, r, w, e, timeout);
}
