// A camera for tests, to be preloaded into the program under test: /dev/test-camera gives the bytes of the file that
// CAMERA_FRAME names, 50 times a second, for as long as that file is there. CAMERA_FORMATS are the four letters of each
// format that it offers; frames have CAMERA_WIDTH x CAMERA_HEIGHT pixels, whatever is asked for.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { buffers = 2, buffer_bytes = 1 << 20 };

static int camera = -1;
static unsigned char *memory;
static int queued[buffers];

static int fail(int error) {
    errno = error;
    return -1;
}

static unsigned number(const char *name) { return (unsigned)atoi(getenv(name)); }

static int open_camera(void) {
    if (access(getenv("CAMERA_FRAME"), R_OK) != 0) return fail(ENOENT);
    if (!memory) {
        memory = mmap(NULL, buffers * buffer_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    }
    memset(queued, 0, sizeof queued);
    camera = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec often = {{0, 20000000}, {0, 20000000}};
    timerfd_settime(camera, 0, &often, NULL);
    return camera;
}

int open64(const char *path, int flags, ...) {
    static int (*real)(const char *, int, ...);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "open64");
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return strcmp(path, "/dev/test-camera") == 0 ? open_camera() : real(path, flags, mode);
}

void *mmap64(void *at, size_t length, int protection, int flags, int file, off64_t offset);

void *mmap(void *at, size_t length, int protection, int flags, int file, off_t offset) {
    if (file >= 0 && file == camera) return memory + offset;
    return mmap64(at, length, protection, flags, file, offset);
}

int munmap(void *at, size_t length) {
    static int (*real)(void *, size_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "munmap");
    unsigned char *place = at;
    if (memory && place >= memory && place < memory + buffers * buffer_bytes) return 0;
    return real(at, length);
}

static int take(struct v4l2_buffer *buffer) {
    unsigned long long times;
    if (read(camera, &times, sizeof times) < 0) return -1;
    int frame = open(getenv("CAMERA_FRAME"), O_RDONLY);
    if (frame < 0) return fail(ENODEV);
    for (unsigned index = 0; index < buffers; index++) {
        if (!queued[index]) continue;
        queued[index] = 0;
        buffer->index = index;
        buffer->flags = 0;
        buffer->bytesused = (unsigned)read(frame, memory + index * buffer_bytes, buffer_bytes);
        close(frame);
        return 0;
    }
    close(frame);
    return fail(EINVAL);
}

int ioctl(int file, unsigned long request, ...) {
    static int (*real)(int, unsigned long, void *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "ioctl");
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (file < 0 || file != camera) return real(file, request, argument);
    switch (request & 0xffffffff) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *what = argument;
        memset(what, 0, sizeof *what);
        strcpy((char *)what->card, "camera of a test");
        what->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        what->capabilities = what->device_caps | V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    case VIDIOC_ENUM_FMT: {
        struct v4l2_fmtdesc *format = argument;
        const char *offered = getenv("CAMERA_FORMATS");
        if (4 * format->index >= strlen(offered)) return fail(EINVAL);
        memcpy(&format->pixelformat, offered + 4 * format->index, 4);
        return 0;
    }
    case VIDIOC_S_FMT: {
        struct v4l2_pix_format *pixels = &((struct v4l2_format *)argument)->fmt.pix;
        pixels->width = number("CAMERA_WIDTH");
        pixels->height = number("CAMERA_HEIGHT");
        pixels->bytesperline = pixels->pixelformat == V4L2_PIX_FMT_YUYV ? 2 * pixels->width : 0;
        pixels->sizeimage = buffer_bytes;
        return 0;
    }
    case VIDIOC_REQBUFS:
        ((struct v4l2_requestbuffers *)argument)->count = buffers;
        return 0;
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *buffer = argument;
        buffer->length = buffer_bytes;
        buffer->m.offset = buffer->index * buffer_bytes;
        return 0;
    }
    case VIDIOC_QBUF:
        queued[((struct v4l2_buffer *)argument)->index] = 1;
        return 0;
    case VIDIOC_DQBUF:
        return take(argument);
    case VIDIOC_STREAMON:
    case VIDIOC_STREAMOFF:
        return 0;
    default:
        return fail(ENOTTY);
    }
}
