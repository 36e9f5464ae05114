/* The part of libcuda.so.1 that is about memory: allocations, copies, and the pools of cuda_malloc_async. */
#include <stdlib.h>
#include <string.h>

#include "cuda_context.h"

#define ON(card_of_it)                              \
    CUresult refused = cards_refuse(card_of_it);    \
    if (refused != CUDA_SUCCESS) return refused

/* ---- of a card ---- */

API cuMemGetInfo(size_t *free_bytes, size_t *total) {
    ON(here());
    uint64_t left, all;
    card_usage(here(), &left, &all);
    *free_bytes = left, *total = all;
    return CUDA_SUCCESS;
}
API cuMemAlloc(CUdeviceptr *pointer, size_t size) {
    if (!here()) return CUDA_ERROR_INVALID_CONTEXT;
    return card_take(here(), size, (void **)pointer);
}
API cuMemAllocManaged(CUdeviceptr *pointer, size_t size, unsigned flags) {
    (void)flags;
    return cuMemAlloc(pointer, size);
}
API cuMemFree(CUdeviceptr pointer) { return pointer ? cards_give((void *)pointer) : CUDA_SUCCESS; }
API cuMemGetAddressRange(CUdeviceptr *base, size_t *size, CUdeviceptr pointer) {
    piece found;
    card *c = cards_of((void *)pointer, NULL, &found);
    if (!c) return CUDA_ERROR_NOT_FOUND;
    if (base) *base = (CUdeviceptr)(c->base + found.start);
    if (size) *size = found.size;
    return CUDA_SUCCESS;
}
API cuPointerGetAttribute(void *value, CUpointer_attribute which, CUdeviceptr pointer) {
    int ordinal;
    if (!cards_of((void *)pointer, &ordinal, NULL)) return CUDA_ERROR_INVALID_VALUE;
    if (which == CU_POINTER_ATTRIBUTE_CONTEXT) *(CUcontext *)value = context_of(ordinal);
    else if (which == CU_POINTER_ATTRIBUTE_MEMORY_TYPE) *(unsigned *)value = CU_MEMORYTYPE_DEVICE;
    else if (which == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL) *(int *)value = ordinal;
    else {
        say("not supported: cuPointerGetAttribute %d", (int)which);
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return CUDA_SUCCESS;
}

/* ---- of the host, pinned: plain memory here ---- */

API cuMemHostAlloc(void **pointer, size_t size, unsigned flags) {
    (void)flags;
    return posix_memalign(pointer, 4096, size ? size : 1) ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}
API cuMemFreeHost(void *pointer) {
    free(pointer);
    return CUDA_SUCCESS;
}
API cuMemHostRegister(void *pointer, size_t size, unsigned flags) {
    (void)pointer, (void)size, (void)flags;
    return CUDA_SUCCESS;
}
API cuMemHostUnregister(void *pointer) {
    (void)pointer;
    return CUDA_SUCCESS;
}
API cuMemHostGetDevicePointer(CUdeviceptr *device, void *pointer, unsigned flags) {
    (void)flags;
    *device = (CUdeviceptr)pointer;
    return CUDA_SUCCESS;
}

/* ---- copies ---- */

static CUresult copy(void *to, const void *from, size_t size, card *on) {
    ON(on);
    memmove(to, from, size);
    return CUDA_SUCCESS;
}
API cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t size) { return copy((void *)to, from, size, here()); }
API cuMemcpyDtoH(void *to, CUdeviceptr from, size_t size) { return copy(to, (void *)from, size, here()); }
API cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t size) { return copy((void *)to, (void *)from, size, here()); }
API cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    return copy((void *)to, from, size, stream_card(stream));
}
API cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    return copy(to, (void *)from, size, stream_card(stream));
}
API cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    return copy((void *)to, (void *)from, size, stream_card(stream));
}
API cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    return copy((void *)to, (void *)from, size, stream_card(stream));
}
API cuMemcpyPeerAsync(CUdeviceptr to, CUcontext there, CUdeviceptr from, CUcontext origin, size_t size, CUstream stream) {
    (void)stream;
    ON(origin ? origin->card : NULL);
    return copy((void *)to, (void *)from, size, there ? there->card : NULL);
}

static CUresult fill(CUdeviceptr to, unsigned value, size_t width, size_t count, card *on) {
    ON(on);
    if (width == 1) memset((void *)to, (int)value, count);
    else for (size_t i = 0; i < count; i++) memcpy((char *)to + i * width, &value, width); /* little-endian */
    return CUDA_SUCCESS;
}
API cuMemsetD8(CUdeviceptr to, unsigned char value, size_t count) { return fill(to, value, 1, count, here()); }
API cuMemsetD32(CUdeviceptr to, unsigned value, size_t count) { return fill(to, value, 4, count, here()); }
API cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
    return fill(to, value, 1, count, stream_card(stream));
}
API cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
    return fill(to, value, 4, count, stream_card(stream));
}

/* ---- pools, for TF_GPU_ALLOCATOR=cuda_malloc_async: one for each card ---- */

struct CUmemPoolHandle_st { card *card; uint64_t used_high; };
static struct CUmemPoolHandle_st pools[MOST_CARDS];

API cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice d) {
    if (!card_at(d)) return CUDA_ERROR_INVALID_DEVICE;
    pools[d].card = card_at(d);
    *pool = &pools[d];
    return CUDA_SUCCESS;
}
API cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *wanted) { return cuDeviceGetDefaultMemPool(pool, wanted->location.id); }
API cuMemPoolDestroy(CUmemoryPool pool) {
    (void)pool;
    return CUDA_SUCCESS;
}
API cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute which, void *value) {
    (void)value; /* a release threshold, or 0 to begin a high-water mark anew */
    if (which == CU_MEMPOOL_ATTR_USED_MEM_HIGH) __atomic_store_n(&pool->used_high, pool->card->used, __ATOMIC_RELAXED);
    return CUDA_SUCCESS;
}
API cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute which, void *value) {
    int high = which == CU_MEMPOOL_ATTR_USED_MEM_HIGH || which == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH;
    *(cuuint64_t *)value = high ? __atomic_load_n(&pool->used_high, __ATOMIC_RELAXED) : pool->card->used;
    return CUDA_SUCCESS;
}
API cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc *access, size_t count) {
    (void)pool, (void)access, (void)count;
    return CUDA_SUCCESS;
}
API cuMemPoolTrimTo(CUmemoryPool pool, size_t kept) {
    (void)pool, (void)kept;
    return CUDA_SUCCESS;
}
API cuMemAllocFromPoolAsync(CUdeviceptr *pointer, size_t size, CUmemoryPool pool, CUstream stream) {
    (void)stream;
    CUresult code = card_take(pool->card, size, (void **)pointer);
    uint64_t used = pool->card->used, high = __atomic_load_n(&pool->used_high, __ATOMIC_RELAXED);
    while (used > high && !__atomic_compare_exchange_n(&pool->used_high, &high, used, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return code;
}
API cuMemAllocAsync(CUdeviceptr *pointer, size_t size, CUstream stream) {
    CUmemoryPool pool;
    CUresult code = cuDeviceGetDefaultMemPool(&pool, stream ? stream->ordinal : current ? current->ordinal : -1);
    return code == CUDA_SUCCESS ? cuMemAllocFromPoolAsync(pointer, size, pool, stream) : code;
}
API cuMemFreeAsync(CUdeviceptr pointer, CUstream stream) {
    (void)stream;
    return cuMemFree(pointer);
}
