/* A stand-in for the CUDA driver, libcuda.so.1, on the cards of cards.h, against the genuine cuda.h. Here: the library,
 * devices and contexts; cuda_memory.c has what is about memory, cuda_streams.c streams, events and modules. Device pointers are host
 * pointers, everything is done when a call returns, and no code runs on a card. Functions that are in none of these files are
 * printed from the header (card.py) and answer CUDA_ERROR_NOT_SUPPORTED. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_context.h"

static struct CUctx_st contexts[MOST_CARDS];
__thread CUcontext current;
static __thread CUcontext stack[64];
static __thread int depth;

/* For the functions that are printed from the header; pretended_note is for the runtime's. */
__attribute__((visibility("default"))) int pretended_note(const char *name);
int pretended_note(const char *name) {
    say("not supported: %s", name);
    return CUDA_ERROR_NOT_SUPPORTED;
}
int pretended_not_supported(const char *name);
int pretended_not_supported(const char *name) { return pretended_note(name); }

/* ---- the library ---- */

/* TensorFlow's kernels for the cards, from beside this library, once: TensorFlow is loaded when it asks for the driver. */
static void load_kernels(void) {
    static int done;
    Dl_info self;
    char path[4096];
    if (__atomic_exchange_n(&done, 1, __ATOMIC_SEQ_CST) || !dladdr((void *)load_kernels, &self)) return;
    if (!dlopen("libtensorflow_framework.so.2", RTLD_NOW | RTLD_NOLOAD)) return; /* another program's process */
    const char *end = strrchr(self.dli_fname, '/');
    snprintf(path, sizeof path, "%.*s/libpretended_kernels.so", end ? (int)(end - self.dli_fname) : 1, end ? self.dli_fname : ".");
    if (!dlopen(path, RTLD_NOW | RTLD_LOCAL)) fprintf(stderr, "pretended card: no kernels: %s\n", dlerror());
}

API cuInit(unsigned flags) {
    if (flags) return CUDA_ERROR_INVALID_VALUE;
    CUresult code = cards_open();
    if (code != CUDA_SUCCESS) return code;
    if (cards_control()->cuda_init_fault) return (CUresult)cards_control()->cuda_init_fault;
    if (!cards_count()) return CUDA_ERROR_NO_DEVICE;
    load_kernels();
    return CUDA_SUCCESS;
}
API cuDriverGetVersion(int *version) {
    CUresult code = cards_open();
    *version = code == CUDA_SUCCESS ? (int)cards_control()->cuda_version : 0;
    return code;
}

static const struct { CUresult code; const char *name, *text; } errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_DEVICE_UNAVAILABLE, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_SYSTEM_NOT_READY, "CUDA_ERROR_SYSTEM_NOT_READY", "system not yet initialized"},
    {CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

API cuGetErrorString(CUresult code, const char **text) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code) {
            *text = errors[i].text;
            return CUDA_SUCCESS;
        }
    *text = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}
API cuGetErrorName(CUresult code, const char **text) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code) {
            *text = errors[i].name;
            return CUDA_SUCCESS;
        }
    *text = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}
API cuGetProcAddress(const char *name, void **function, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *found) {
    (void)version, (void)flags;
    say("not supported: cuGetProcAddress of %s", name);
    *function = NULL;
    if (found) *found = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return CUDA_ERROR_NOT_FOUND;
}

/* ---- devices ---- */

#define DEVICE(c, d)            \
    card *c = card_at(d);       \
    if (!c) return CUDA_ERROR_INVALID_DEVICE

API cuDeviceGetCount(int *number) {
    *number = cards_count();
    return CUDA_SUCCESS;
}
API cuDeviceGet(CUdevice *device, int ordinal) {
    DEVICE(c, ordinal);
    *device = ordinal;
    return CUDA_SUCCESS;
}
API cuDeviceGetName(char *name, int length, CUdevice d) {
    DEVICE(c, d);
    snprintf(name, (size_t)length, "%s", card_name(c));
    return CUDA_SUCCESS;
}
API cuDeviceGetUuid(CUuuid *uuid, CUdevice d) { /* the 16 bytes that the text of NVML spells */
    DEVICE(c, d);
    memset(uuid, 0, sizeof *uuid);
    int digits = 0;
    for (const char *at = strchr(card_uuid(c), '-'); at && *at && digits < 32; at++) {
        char digit[2] = {*at, 0};
        if (!strchr("0123456789abcdefABCDEF", *at)) continue;
        uuid->bytes[digits / 2] = (char)(uuid->bytes[digits / 2] | strtol(digit, NULL, 16) << (digits % 2 ? 0 : 4));
        digits++;
    }
    return CUDA_SUCCESS;
}
API cuDeviceTotalMem(size_t *bytes, CUdevice d) {
    DEVICE(c, d);
    *bytes = card_total(c);
    return CUDA_SUCCESS;
}
API cuDeviceGetPCIBusId(char *id, int length, CUdevice d) {
    DEVICE(c, d);
    snprintf(id, (size_t)length, "%s", c->device->bus_id + 4); /* CUDA writes the domain in 4 digits, NVML in 8 */
    return CUDA_SUCCESS;
}

/* Of an A100, CUDA programming guide, technical specifications per compute capability; unknown ones are 0. */
static int attribute(const card *c, int which) {
    switch (which) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return (int)c->device->compute_capability / 10;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return (int)c->device->compute_capability % 10;
        case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: return c->index + 1;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return 108;
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: return 1024;
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: return 64;
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 2048;
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: return 2147483647;
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: return 65535;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return 49152;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: return 166912;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: return 167936;
        case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK: return 1024;
        case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
        case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:
        case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY: return 65536;
        case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
        case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: return 1410000;
        case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: return 1215000;
        case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: return 5120;
        case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: return 41943040;
        case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
        case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: return 1;
        default: return 0;
    }
}
API cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice d) {
    DEVICE(c, d);
    *value = attribute(c, (int)which);
    return CUDA_SUCCESS;
}
API cuDeviceCanAccessPeer(int *can, CUdevice one, CUdevice other) {
    *can = one != other && card_at(one) && card_at(other);
    return CUDA_SUCCESS;
}
API cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute which, CUdevice one, CUdevice other) {
    (void)which, (void)one, (void)other;
    *value = 1;
    return CUDA_SUCCESS;
}

/* ---- contexts: one for each card ---- */

CUcontext context_of(int ordinal) {
    contexts[ordinal].card = card_at(ordinal);
    contexts[ordinal].ordinal = ordinal;
    return &contexts[ordinal];
}
API cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice d) {
    DEVICE(c, d);
    CUresult code = card_retain(c);
    if (code == CUDA_SUCCESS) *context = context_of(d);
    return code;
}
API cuDevicePrimaryCtxRelease(CUdevice d) {
    DEVICE(c, d);
    card_release(c);
    return CUDA_SUCCESS;
}
API cuDevicePrimaryCtxGetState(CUdevice d, unsigned *flags, int *active) {
    DEVICE(c, d);
    *flags = 0, *active = c->contexts > 0;
    return CUDA_SUCCESS;
}
API cuCtxSetCurrent(CUcontext context) {
    current = context;
    return CUDA_SUCCESS;
}
API cuCtxGetCurrent(CUcontext *context) {
    *context = current;
    return CUDA_SUCCESS;
}
API cuCtxPushCurrent(CUcontext context) {
    if (depth == (int)(sizeof stack / sizeof *stack)) return CUDA_ERROR_INVALID_CONTEXT;
    stack[depth++] = current;
    current = context;
    return CUDA_SUCCESS;
}
API cuCtxPopCurrent(CUcontext *context) {
    if (context) *context = current;
    current = depth ? stack[--depth] : NULL;
    return CUDA_SUCCESS;
}
API cuCtxGetDevice(CUdevice *device) {
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    *device = current->ordinal;
    return CUDA_SUCCESS;
}
API cuCtxSynchronize(void) { return cards_refuse(here()); }
API cuCtxGetApiVersion(CUcontext context, unsigned *version) {
    (void)context;
    *version = 3020; /* of contexts that cuCtxCreate_v2 makes */
    return CUDA_SUCCESS;
}
API cuCtxGetFlags(unsigned *flags) {
    *flags = 0;
    return CUDA_SUCCESS;
}
API cuCtxGetStreamPriorityRange(int *least, int *most) {
    *least = 0, *most = -5; /* as an A100 answers */
    return CUDA_SUCCESS;
}

#pragma GCC diagnostic ignored "-Wunused-parameter" /* of what has nothing to do here */
NOTHING(cuDevicePrimaryCtxSetFlags, (CUdevice d, unsigned flags))
NOTHING(cuDevicePrimaryCtxReset, (CUdevice d))
NOTHING(cuCtxEnablePeerAccess, (CUcontext context, unsigned flags))
NOTHING(cuCtxSetSharedMemConfig, (CUsharedconfig config))
NOTHING(cuCtxGetSharedMemConfig, (CUsharedconfig * config))
