/* A stand-in for libnvidia-ml.so.1, against the genuine nvml.h. What it answers is in a control file that the tests
 * write (control.py; layout.py prints control.h); without one there is no driver. Everything that is not here is
 * printed beside it from the header (building.py), and answers NVML_ERROR_NOT_SUPPORTED. */
#define NVML_NO_UNVERSIONED_FUNC_DEFS /* both names of a function with versions are exported */
#include <nvml.h>

#include "nvml_calls.h"

/* ---- the library and the system ---- */

EXPORT_EARLY(nvmlInitWithFlags, (unsigned int flags), (flags)) {
    (void)flags;
    users++;
    return NVML_SUCCESS;
}
EXPORT_EARLY(nvmlInit_v2, (void), ()) {
    users++;
    return NVML_SUCCESS;
}
EXPORT_EARLY(nvmlInit, (void), ()) {
    users++;
    return NVML_SUCCESS;
}
EXPORT(nvmlShutdown, (void), ()) {
    users--;
    return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t result) {
    static char text[32];
    snprintf(text, sizeof text, "stub error %d", (int)result);
    return text;
}

EXPORT(nvmlSystemGetDriverVersion, (char *version, unsigned int length), (version, length)) {
    return give(version, length, control->driver_version);
}
EXPORT(nvmlSystemGetNVMLVersion, (char *version, unsigned int length), (version, length)) {
    return give(version, length, control->library_version);
}
EXPORT(nvmlSystemGetCudaDriverVersion, (int *version), (version)) {
    if (!version) return NVML_ERROR_INVALID_ARGUMENT;
    *version = (int)control->cuda_version;
    return NVML_SUCCESS;
}
EXPORT(nvmlSystemGetCudaDriverVersion_v2, (int *version), (version)) {
    return answer_nvmlSystemGetCudaDriverVersion(version);
}
EXPORT(nvmlSystemGetProcessName, (unsigned int pid, char *name, unsigned int length), (pid, name, length)) {
    if (!name || !length) return NVML_ERROR_INVALID_ARGUMENT;
    for (uint64_t i = 0; i < control->device_count; i++)
        for (uint64_t j = 0; j < control->devices[i].process_count; j++) {
            process_state *process = &control->devices[i].processes[j];
            if (process->pid == pid && process->name[0]) {
                snprintf(name, length, "%s", process->name); /* "cropped to provided length" */
                return NVML_SUCCESS;
            }
        }
    return NVML_ERROR_NOT_FOUND;
}

/* ---- which devices there are ---- */

EXPORT(nvmlDeviceGetCount_v2, (unsigned int *count), (count)) {
    if (!count) return NVML_ERROR_INVALID_ARGUMENT;
    *count = (unsigned int)control->device_count;
    return NVML_SUCCESS;
}
EXPORT(nvmlDeviceGetCount, (unsigned int *count), (count)) {
    return answer_nvmlDeviceGetCount_v2(count);
}
EXPORT(nvmlDeviceGetHandleByIndex_v2, (unsigned int index, nvmlDevice_t *device), (index, device)) {
    if (!device || index >= control->device_count) return NVML_ERROR_INVALID_ARGUMENT;
    *device = (nvmlDevice_t)&control->devices[index];
    return control->devices[index].lost ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}
EXPORT(nvmlDeviceGetHandleByIndex, (unsigned int index, nvmlDevice_t *device), (index, device)) {
    return answer_nvmlDeviceGetHandleByIndex_v2(index, device);
}
EXPORT(nvmlDeviceGetHandleByUUID, (const char *uuid, nvmlDevice_t *device), (uuid, device)) {
    if (!uuid || !device) return NVML_ERROR_INVALID_ARGUMENT;
    for (uint64_t i = 0; i < control->device_count; i++) {
        device_state *card = &control->devices[i];
        *device = strcmp(card->uuid, uuid) == 0 ? (nvmlDevice_t)card : NULL;
        for (uint64_t j = 0; j < card->instance_count && !*device; j++)
            if (strcmp(card->instances[j].uuid, uuid) == 0) *device = (nvmlDevice_t)&card->instances[j];
        if (*device) return card->lost ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
    }
    return NVML_ERROR_NOT_FOUND;
}
EXPORT(nvmlDeviceGetHandleByPciBusId_v2, (const char *bus, nvmlDevice_t *device), (bus, device)) {
    if (!bus || !device) return NVML_ERROR_INVALID_ARGUMENT;
    for (uint64_t i = 0; i < control->device_count; i++)
        if (strcasecmp(control->devices[i].bus_id, bus) == 0) {
            *device = (nvmlDevice_t)&control->devices[i];
            return control->devices[i].lost ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_FOUND;
}
EXPORT(nvmlDeviceGetHandleByPciBusId, (const char *bus, nvmlDevice_t *device), (bus, device)) {
    return answer_nvmlDeviceGetHandleByPciBusId_v2(bus, device);
}
EXPORT(nvmlDeviceGetIndex, (nvmlDevice_t device, unsigned int *index), (device, index)) {
    FIND(device);
    if (!index) return NVML_ERROR_INVALID_ARGUMENT;
    *index = (unsigned int)(at.instance ? at.instance - at.card->instances : at.card - control->devices);
    return NVML_SUCCESS;
}
EXPORT(nvmlDeviceGetName, (nvmlDevice_t device, char *name, unsigned int length), (device, name, length)) {
    FIND(device);
    return give(name, length, at.instance ? at.instance->name : at.card->name);
}
EXPORT(nvmlDeviceGetUUID, (nvmlDevice_t device, char *uuid, unsigned int length), (device, uuid, length)) {
    FIND(device);
    return give(uuid, length, at.instance ? at.instance->uuid : at.card->uuid);
}
EXPORT(nvmlDeviceGetCudaComputeCapability, (nvmlDevice_t device, int *major, int *minor), (device, major, minor)) {
    FIND(device);
    if (!major || !minor) return NVML_ERROR_INVALID_ARGUMENT;
    *major = (int)at.card->compute_capability / 10;
    *minor = (int)at.card->compute_capability % 10;
    return NVML_SUCCESS;
}
EXPORT(nvmlDeviceGetPciInfo_v3, (nvmlDevice_t device, nvmlPciInfo_t *pci), (device, pci)) {
    FIND(device);
    if (!pci) return NVML_ERROR_INVALID_ARGUMENT;
    memset(pci, 0, sizeof *pci);
    sscanf(at.card->bus_id, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device);
    memcpy(pci->busId, at.card->bus_id, sizeof pci->busId);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%s", at.card->bus_id + 4);
    return NVML_SUCCESS;
}

/* ---- memory ---- */

static nvmlReturn_t look(nvmlDevice_t device, uint64_t *total, uint64_t *reserved, uint64_t *used) {
    FIND(device);
    if (at.card->unified) return NVML_ERROR_NOT_SUPPORTED;
    if (!at.instance && at.card->mig == NVML_DEVICE_MIG_ENABLE && at.card->unprivileged) return NVML_ERROR_NO_PERMISSION;
    *total = at.instance ? at.instance->total_bytes : at.card->total_bytes;
    *reserved = at.instance ? at.instance->reserved_bytes : at.card->reserved_bytes;
    *used = at.instance ? at.instance->used_bytes : at.card->used_bytes;
    if (*used == UINT64_MAX) return NVML_SUCCESS;
    *used += spike_bytes(at.card) + arena_bytes(at.card, at.instance ? (uint64_t)(at.instance - at.card->instances) + 1 : 0);
    return NVML_SUCCESS;
}

EXPORT(nvmlDeviceGetMemoryInfo, (nvmlDevice_t device, nvmlMemory_t *memory), (device, memory)) {
    uint64_t total, reserved, used;
    if (!memory) return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t code = look(device, &total, &reserved, &used);
    if (code != NVML_SUCCESS) return code;
    memory->total = total;
    memory->used = used == UINT64_MAX ? used : used + reserved;
    memory->free = used == UINT64_MAX ? used : total - reserved - used;
    return NVML_SUCCESS;
}

/* Both kinds of list have the three fields; the older one lacks the instances. */
#define LIST(device, count, infos, wanted, with_instances)                                                \
    FIND(device);                                                                                         \
    if (!count) return NVML_ERROR_INVALID_ARGUMENT;                                                       \
    if (!at.instance && at.card->mig == NVML_DEVICE_MIG_ENABLE && at.card->unprivileged)                  \
        return NVML_ERROR_NO_PERMISSION;                                                                  \
    uint64_t own = at.instance ? (uint64_t)(at.instance - at.card->instances) + 1 : 0;                    \
    unsigned int seen = 0, room = *count;                                                                 \
    for (uint64_t i = 0; i < at.card->process_count; i++) {                                               \
        const process_state *process = &at.card->processes[i];                                            \
        if (!process->running || process->kind != wanted || (own && process->instance != own)) continue;  \
        if (ended(process)) continue;                                                                     \
        if (seen < room && infos) {                                                                       \
            infos[seen].pid = (unsigned int)process->pid;                                                 \
            infos[seen].usedGpuMemory = process->used_bytes;                                              \
            with_instances                                                                                \
        }                                                                                                 \
        seen++;                                                                                           \
    }                                                                                                     \
    *count = seen;                                                                                        \
    if (seen > room) return NVML_ERROR_INSUFFICIENT_SIZE;                                                 \
    return seen && !infos ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS

#define INSTANCES                                                                                                    \
    {                                                                                                                \
        const instance_state *of = process->instance ? &at.card->instances[process->instance - 1] : NULL;            \
        infos[seen].gpuInstanceId = of ? (unsigned int)of->gpu_instance : 0xFFFFFFFFu;                               \
        infos[seen].computeInstanceId = of ? (unsigned int)of->compute_instance : 0xFFFFFFFFu;                       \
    }

#define LIST_FUNCTION(name, type, wanted, with_instances)                                                          \
    EXPORT(name, (nvmlDevice_t device, unsigned int *count, type *infos), (device, count, infos)) {                \
        LIST(device, count, infos, wanted, with_instances);                                                        \
    }

LIST_FUNCTION(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t, 0, )
LIST_FUNCTION(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t, 1, )
LIST_FUNCTION(nvmlDeviceGetMPSComputeRunningProcesses, nvmlProcessInfo_v1_t, 2, )
LIST_FUNCTION(nvmlDeviceGetComputeRunningProcesses_v2, nvmlProcessInfo_v2_t, 0, INSTANCES)
LIST_FUNCTION(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_v2_t, 1, INSTANCES)
LIST_FUNCTION(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlProcessInfo_v2_t, 2, INSTANCES)

#ifndef STUB_OLD_LIBRARY /* before R510 */
EXPORT(nvmlDeviceGetMemoryInfo_v2, (nvmlDevice_t device, nvmlMemory_v2_t *memory), (device, memory)) {
    uint64_t total, reserved, used;
    if (!memory) return NVML_ERROR_INVALID_ARGUMENT;
    if (memory->version != nvmlMemory_v2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlReturn_t code = look(device, &total, &reserved, &used);
    if (code != NVML_SUCCESS) return code;
    memory->total = total;
    memory->reserved = reserved;
    memory->used = used;
    memory->free = used == UINT64_MAX ? used : total - reserved - used;
    return NVML_SUCCESS;
}
LIST_FUNCTION(nvmlDeviceGetComputeRunningProcesses_v3, nvmlProcessInfo_t, 0, INSTANCES)
LIST_FUNCTION(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_t, 1, INSTANCES)
LIST_FUNCTION(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_t, 2, INSTANCES)
#endif

/* ---- MIG ---- */

EXPORT(nvmlDeviceGetMigMode, (nvmlDevice_t device, unsigned int *current, unsigned int *pending), (device, current, pending)) {
    FIND(device);
    if (!current || !pending) return NVML_ERROR_INVALID_ARGUMENT;
    if (at.instance || at.card->mig > 1) return NVML_ERROR_NOT_SUPPORTED;
    *current = *pending = (unsigned int)at.card->mig;
    return NVML_SUCCESS;
}
EXPORT(nvmlDeviceIsMigDeviceHandle, (nvmlDevice_t device, unsigned int *is_instance), (device, is_instance)) {
    FIND(device);
    if (!is_instance) return NVML_ERROR_INVALID_ARGUMENT;
    *is_instance = at.instance != NULL;
    return NVML_SUCCESS;
}
EXPORT(nvmlDeviceGetMaxMigDeviceCount, (nvmlDevice_t device, unsigned int *count), (device, count)) {
    FIND(device);
    if (!count) return NVML_ERROR_INVALID_ARGUMENT;
    *count = at.card->mig == NVML_DEVICE_MIG_ENABLE ? MOST_INSTANCES : 0;
    return NVML_SUCCESS;
}
EXPORT(nvmlDeviceGetMigDeviceHandleByIndex, (nvmlDevice_t device, unsigned int index, nvmlDevice_t *instance),
       (device, index, instance)) {
    FIND(device);
    if (!instance || at.instance || index >= MOST_INSTANCES) return NVML_ERROR_INVALID_ARGUMENT;
    if (at.card->mig != NVML_DEVICE_MIG_ENABLE) return NVML_ERROR_NOT_SUPPORTED;
    if (index >= at.card->instance_count) return NVML_ERROR_NOT_FOUND;
    *instance = (nvmlDevice_t)&at.card->instances[index];
    return NVML_SUCCESS;
}
EXPORT(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, (nvmlDevice_t instance, nvmlDevice_t *device), (instance, device)) {
    FIND(instance);
    if (!device || !at.instance) return NVML_ERROR_INVALID_ARGUMENT;
    *device = (nvmlDevice_t)at.card;
    return NVML_SUCCESS;
}
EXPORT(nvmlDeviceGetGpuInstanceId, (nvmlDevice_t device, unsigned int *id), (device, id)) {
    FIND(device);
    if (!id || !at.instance) return NVML_ERROR_INVALID_ARGUMENT;
    *id = (unsigned int)at.instance->gpu_instance;
    return NVML_SUCCESS;
}
EXPORT(nvmlDeviceGetComputeInstanceId, (nvmlDevice_t device, unsigned int *id), (device, id)) {
    FIND(device);
    if (!id || !at.instance) return NVML_ERROR_INVALID_ARGUMENT;
    *id = (unsigned int)at.instance->compute_instance;
    return NVML_SUCCESS;
}

/* ---- accounting ---- */

EXPORT(nvmlDeviceGetAccountingMode, (nvmlDevice_t device, nvmlEnableState_t *mode), (device, mode)) {
    FIND(device);
    if (!mode) return NVML_ERROR_INVALID_ARGUMENT;
    if (at.card->accounting > 1) return NVML_ERROR_NOT_SUPPORTED;
    *mode = (nvmlEnableState_t)at.card->accounting;
    return NVML_SUCCESS;
}
EXPORT(nvmlDeviceGetAccountingStats, (nvmlDevice_t device, unsigned int pid, nvmlAccountingStats_t *stats), (device, pid, stats)) {
    FIND(device);
    if (!stats) return NVML_ERROR_INVALID_ARGUMENT;
    if (at.card->accounting != NVML_FEATURE_ENABLED) return NVML_ERROR_NOT_SUPPORTED;
    for (uint64_t i = 0; i < at.card->process_count; i++) {
        const process_state *process = &at.card->processes[i];
        if (process->pid != pid || !process->accounted_bytes) continue;
        memset(stats, 0, sizeof *stats);
        stats->maxMemoryUsage = process->accounted_bytes;
        stats->isRunning = process->running && !ended(process);
        return NVML_SUCCESS;
    }
    return NVML_ERROR_NOT_FOUND;
}
