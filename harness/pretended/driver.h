/* What both stubs of the driver share: the control file, and which processes of the pretended CUDA driver still live. */
#ifndef PRETENDED_DRIVER_H
#define PRETENDED_DRIVER_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control.h"

/* The control file that NVML_STUB_CONTROL names, mapped; NULL where there is none of this layout. `file` stays open
 * where the caller wants it (not NULL). */
static inline control_state *map_control_file(int *file) {
    const char *path = getenv("NVML_STUB_CONTROL");
    int opened = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (opened < 0) return NULL;
    struct stat status;
    void *memory = MAP_FAILED;
    if (fstat(opened, &status) == 0 && (size_t)status.st_size == sizeof(control_state))
        memory = mmap(NULL, sizeof(control_state), PROT_READ | PROT_WRITE, MAP_SHARED, opened, 0);
    int good = memory != MAP_FAILED && ((control_state *)memory)->magic == STUB_MAGIC;
    if (!good && memory != MAP_FAILED) munmap(memory, sizeof(control_state));
    if (good && file) *file = opened;
    else close(opened);
    return good ? memory : NULL;
}

/* When a process was started, clock ticks since boot (proc(5), field 22 of stat); 0 for one that has ended, a zombie
 * included: its memory on the card is free. */
static inline uint64_t start_ticks(uint64_t pid) {
    char path[64], text[1024], state = 0;
    unsigned long long ticks = 0;
    snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    const char *behind_name = strrchr(text, ')'); /* the name may contain anything */
    if (!behind_name) return 0;
    int found = sscanf(behind_name + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &state, &ticks);
    return found == 2 && state != 'Z' && state != 'X' ? ticks : 0;
}

/* A process that the pretended CUDA driver kept, and that has ended, however it did. */
static inline int ended(const process_state *process) {
    return process->arena && start_ticks(process->pid) != process->start_ticks;
}

/* Bytes that living processes of the pretended CUDA driver hold; of one MIG instance (1 + its index), or of all (0). */
static inline uint64_t arena_bytes(const device_state *device, uint64_t instance) {
    uint64_t sum = 0, count = __atomic_load_n(&device->process_count, __ATOMIC_ACQUIRE);
    for (uint64_t i = 0; i < count; i++) {
        const process_state *process = &device->processes[i];
        if (!process->arena || !process->running || !process->used_bytes) continue;
        if ((!instance || process->instance == instance) && !ended(process)) sum += process->used_bytes;
    }
    return sum;
}

#endif
