/* The part of libcuda.so.1 that is about streams, events and modules. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda_context.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* of what has nothing to do here */

/* ---- streams and events: nothing is ever pending ---- */

API cuStreamCreate(CUstream *stream, unsigned flags) {
    CUresult code = cards_refuse(here());
    if (code != CUDA_SUCCESS) return code;
    *stream = calloc(1, sizeof **stream);
    (*stream)->ordinal = current->ordinal;
    return CUDA_SUCCESS;
}
API cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority) { return cuStreamCreate(stream, flags); }
API cuStreamDestroy(CUstream stream) {
    free(stream);
    return CUDA_SUCCESS;
}
API cuStreamGetPriority(CUstream stream, int *priority) {
    *priority = 0;
    return CUDA_SUCCESS;
}
API cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}
API cuStreamGetCtx(CUstream stream, CUcontext *context) {
    *context = stream ? context_of(stream->ordinal) : current;
    return CUDA_SUCCESS;
}
API cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void *with, unsigned flags) {
    callback(stream, cards_refuse(stream_card(stream)), with);
    return CUDA_SUCCESS;
}
API cuLaunchHostFunc(CUstream stream, CUhostFn function, void *with) {
    function(with);
    return CUDA_SUCCESS;
}
API cuStreamQuery(CUstream stream) { return cards_refuse(stream_card(stream)); }
API cuStreamSynchronize(CUstream stream) { return cards_refuse(stream_card(stream)); }
NOTHING(cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags))

struct CUevent_st { uint64_t at_ns; };
API cuEventCreate(CUevent *event, unsigned flags) {
    *event = calloc(1, sizeof **event);
    return CUDA_SUCCESS;
}
API cuEventDestroy(CUevent event) {
    free(event);
    return CUDA_SUCCESS;
}
API cuEventRecord(CUevent event, CUstream stream) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->at_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    return CUDA_SUCCESS;
}
API cuEventElapsedTime(float *ms, CUevent from, CUevent to) {
    *ms = (float)(to->at_ns - from->at_ns) / 1e6f;
    return CUDA_SUCCESS;
}
NOTHING(cuEventQuery, (CUevent event))
NOTHING(cuEventSynchronize, (CUevent event))

/* ---- modules: they load, and nothing of them runs ---- */

API cuModuleLoadData(CUmodule *module, const void *image) {
    *module = (CUmodule)calloc(1, 8);
    return CUDA_SUCCESS;
}
API cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options, void **values) {
    return cuModuleLoadData(module, image);
}
API cuModuleLoadFatBinary(CUmodule *module, const void *image) { return cuModuleLoadData(module, image); }
API cuModuleUnload(CUmodule module) {
    free(module);
    return CUDA_SUCCESS;
}
API cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    *function = (CUfunction)strdup(name);
    return CUDA_SUCCESS;
}
API cuFuncGetAttribute(int *value, CUfunction_attribute which, CUfunction function) {
    *value = 0;
    return CUDA_SUCCESS;
}
NOTHING(cuFuncSetAttribute, (CUfunction function, CUfunction_attribute which, int value))
NOTHING(cuFuncSetCacheConfig, (CUfunction function, CUfunc_cache config))
API cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, CUstream stream, void **parameters, void **extra) {
    say("no code runs here: cuLaunchKernel of %s", (const char *)function);
    return CUDA_ERROR_NOT_SUPPORTED;
}
