/* The part of libcudart.so.12 that TensorFlow's start and Eigen's devices ask for, over the pretended driver, against the
 * genuine cuda_runtime_api.h. The other functions are printed from the header (card.py). */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>
#undef cudaGetDeviceProperties

#define VISIBLE __attribute__((visibility("default")))
#define API VISIBLE cudaError_t
#define OLDEST_DRIVER 12000 /* CUDA compatibility guide, minor version compatibility: a runtime of CUDA 12 needs a driver of 12.0 */
#define RUNTIME_VERSION 12050 /* TensorFlow 2.19 to 2.21 are built with CUDA 12.5 */

static __thread int device;
static __thread cudaError_t last;

/* The driver is looked for when it is first needed, as the true one does: not when TensorFlow is imported. */
static void *driver(const char *name) {
    static void *handle;
    if (!handle) handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    return handle ? dlsym(handle, name) : NULL;
}

/* For the functions that are printed from the header. */
int pretended_not_supported(const char *name);
int pretended_not_supported(const char *name) {
    int (*note)(const char *) = driver("pretended_note");
    if (note) note(name);
    return last = cudaErrorNotSupported;
}

/* Why nothing of the runtime works; asked until it does. */
static cudaError_t refusal(void) {
    static int works;
    if (__atomic_load_n(&works, __ATOMIC_ACQUIRE)) return cudaSuccess;
    cudaError_t found;
    int (*init)(unsigned) = driver("cuInit"), (*ask)(int *) = driver("cuDriverGetVersion"), version = 0;
    if (!init || !ask || ask(&version)) found = cudaErrorNoDevice;
    else if (version < OLDEST_DRIVER) found = cudaErrorInsufficientDriver;
    else found = (cudaError_t)init(0); /* below 1000 the numbers are the driver's (driver_types.h) */
    __atomic_store_n(&works, found == cudaSuccess, __ATOMIC_RELEASE);
    return last = found;
}
#define START                                   \
    cudaError_t refused = refusal();            \
    if (refused != cudaSuccess) return refused

API cudaGetDeviceCount(int *count) {
    *count = 0;
    START;
    int (*ask)(int *) = driver("cuDeviceGetCount");
    return (cudaError_t)ask(count);
}
API cudaGetDevice(int *d) {
    START;
    *d = device;
    return cudaSuccess;
}
API cudaSetDevice(int d) {
    START;
    device = d;
    return cudaSuccess;
}
API cudaGetLastError(void) {
    cudaError_t was = last;
    last = cudaSuccess;
    return was;
}
API cudaPeekAtLastError(void) { return last; }
API cudaRuntimeGetVersion(int *version) {
    *version = RUNTIME_VERSION;
    return cudaSuccess;
}
API cudaDriverGetVersion(int *version) {
    int (*ask)(int *) = driver("cuDriverGetVersion");
    *version = 0; /* "if no driver is installed" */
    if (ask) ask(version);
    return cudaSuccess;
}
API cudaDeviceSynchronize(void) { return refusal(); }
API cudaStreamSynchronize(cudaStream_t stream) {
    (void)stream;
    return refusal();
}
API cudaStreamQuery(cudaStream_t stream) {
    (void)stream;
    return refusal();
}
API cudaDeviceGetStreamPriorityRange(int *least, int *most) {
    START;
    *least = 0, *most = -5;
    return cudaSuccess;
}
API cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
    (void)kind, (void)stream;
    START;
    memmove(to, from, size);
    return cudaSuccess;
}
API cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
    (void)stream;
    START;
    memset(to, value, size);
    return cudaSuccess;
}
API cudaFree(void *pointer) {
    START;
    return pointer ? (cudaError_t)pretended_not_supported("cudaFree") : cudaSuccess;
}
API cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int d) {
    START;
    int (*ask)(int *, int, int) = driver("cuDeviceGetAttribute"); /* the numbers are the driver's */
    return (cudaError_t)ask(value, (int)which, d);
}

static int attribute(enum cudaDeviceAttr which, int d) {
    int value = 0;
    cudaDeviceGetAttribute(&value, which, d);
    return value;
}
API cudaGetDeviceProperties_v2(struct cudaDeviceProp *of, int d) {
    START;
    int (*name)(char *, int, int) = driver("cuDeviceGetName"), (*total)(size_t *, int) = driver("cuDeviceTotalMem_v2");
    memset(of, 0, sizeof *of);
    if (name(of->name, sizeof of->name, d) || total(&of->totalGlobalMem, d)) return last = cudaErrorInvalidDevice;
    of->major = attribute(cudaDevAttrComputeCapabilityMajor, d);
    of->minor = attribute(cudaDevAttrComputeCapabilityMinor, d);
    of->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount, d);
    of->maxThreadsPerBlock = attribute(cudaDevAttrMaxThreadsPerBlock, d);
    of->maxThreadsPerMultiProcessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor, d);
    of->sharedMemPerBlock = (size_t)attribute(cudaDevAttrMaxSharedMemoryPerBlock, d);
    of->sharedMemPerBlockOptin = (size_t)attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, d);
    of->regsPerBlock = attribute(cudaDevAttrMaxRegistersPerBlock, d);
    of->warpSize = attribute(cudaDevAttrWarpSize, d);
    for (int axis = 0; axis < 3; axis++) {
        of->maxThreadsDim[axis] = attribute((enum cudaDeviceAttr)(cudaDevAttrMaxBlockDimX + axis), d);
        of->maxGridSize[axis] = attribute((enum cudaDeviceAttr)(cudaDevAttrMaxGridDimX + axis), d);
    }
    return cudaSuccess;
}
API cudaGetDeviceProperties(struct cudaDeviceProp *of, int d) { return cudaGetDeviceProperties_v2(of, d); }

VISIBLE const char *cudaGetErrorString(cudaError_t code) {
    if (code == cudaErrorInsufficientDriver) return "CUDA driver version is insufficient for CUDA runtime version";
    int (*ask)(int, const char **) = driver("cuGetErrorString");
    const char *text = NULL;
    return ask && !ask((int)code, &text) ? text : "unrecognized error code";
}
VISIBLE const char *cudaGetErrorName(cudaError_t code) {
    if (code == cudaErrorInsufficientDriver) return "cudaErrorInsufficientDriver";
    int (*ask)(int, const char **) = driver("cuGetErrorName");
    const char *text = NULL;
    return ask && !ask((int)code, &text) ? text : "unrecognized error code";
}

/* What nvcc's code calls when a library with kernels is loaded, and for each launch; none of it is in a header. */
VISIBLE void **__cudaRegisterFatBinary(void *binary);
VISIBLE void **__cudaRegisterFatBinary(void *binary) {
    (void)binary;
    return calloc(1, sizeof(void *));
}
VISIBLE void __cudaUnregisterFatBinary(void **handle);
VISIBLE void __cudaUnregisterFatBinary(void **handle) { free(handle); }
#define NOTHING(name)           \
    VISIBLE void name(void);    \
    VISIBLE void name(void) {}
NOTHING(__cudaRegisterFatBinaryEnd)
NOTHING(__cudaRegisterFunction)
NOTHING(__cudaRegisterVar)
NOTHING(__cudaRegisterManagedVar)
NOTHING(__cudaInitModule)
VISIBLE unsigned __cudaPushCallConfiguration(void);
VISIBLE unsigned __cudaPushCallConfiguration(void) { /* Eigen asks nobody whether its launch went well: say it aloud */
    static int said;
    if (!__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED))
        fprintf(stderr, "pretended card: code for CUDA was to run, and nothing was computed; results are wrong from here on\n");
    return (unsigned)pretended_not_supported("a launch of a kernel");
}
VISIBLE int __cudaPopCallConfiguration(void);
VISIBLE int __cudaPopCallConfiguration(void) { return pretended_not_supported("__cudaPopCallConfiguration"); }
