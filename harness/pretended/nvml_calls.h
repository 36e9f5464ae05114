/* What every function of nvml.c goes through: calls are counted and timed, faults and delays of the control file come
 * first, and a handle is looked up. Included once, after nvml.h. */
#ifndef PRETENDED_NVML_CALLS_H
#define PRETENDED_NVML_CALLS_H

#include <strings.h>
#include <time.h>

#include "driver.h"
#include "functions.h"

static control_state *control;
static int users; /* nvmlInit less nvmlShutdown */

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static nvmlReturn_t map_control(void) {
    if (!control) control = map_control_file(NULL);
    return control ? NVML_SUCCESS : NVML_ERROR_DRIVER_NOT_LOADED;
}

/* Count the call, take its time, and say whether it fails before it has begun. */
static nvmlReturn_t arrive(enum function number, int needs_init) {
    if (map_control() != NVML_SUCCESS) return needs_init ? NVML_ERROR_UNINITIALIZED : NVML_ERROR_DRIVER_NOT_LOADED;
    function_state *function = &control->functions[number];
    __atomic_fetch_add(&function->calls, 1, __ATOMIC_RELAXED);
    uint64_t row = __atomic_fetch_add(&control->call_count, 1, __ATOMIC_RELAXED);
    uint64_t at = now_ns();
    function->last_ns = at;
    if (row < MOST_CALLS) {
        control->calls[row].function = number;
        control->calls[row].at_ns = at;
    }
    if (function->delay_us) {
        struct timespec delay = {(time_t)(function->delay_us / 1000000u), (long)(function->delay_us % 1000000u) * 1000};
        nanosleep(&delay, NULL);
    }
    if (needs_init && users == 0) return NVML_ERROR_UNINITIALIZED;
    if (!function->fault) return NVML_SUCCESS;
    uint64_t left = __atomic_load_n(&function->faults_left, __ATOMIC_RELAXED);
    while (left && !__atomic_compare_exchange_n(&function->faults_left, &left, left - 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return left ? (nvmlReturn_t)function->fault : NVML_SUCCESS;
}

static void leave(enum function number, uint64_t began_ns) {
    if (control) __atomic_fetch_add(&control->functions[number].busy_ns, now_ns() - began_ns, __ATOMIC_RELAXED);
}

#define WRAP(name, parameters, arguments, needs_init)              \
    static nvmlReturn_t answer_##name parameters;                  \
    nvmlReturn_t name parameters {                                 \
        uint64_t began_ns = now_ns();                              \
        nvmlReturn_t code = arrive(FUNCTION_##name, needs_init);   \
        if (code == NVML_SUCCESS) code = answer_##name arguments;  \
        leave(FUNCTION_##name, began_ns);                          \
        return code;                                               \
    }                                                              \
    static nvmlReturn_t answer_##name parameters
#define EXPORT(name, parameters, arguments) WRAP(name, parameters, arguments, 1)
#define EXPORT_EARLY(name, parameters, arguments) WRAP(name, parameters, arguments, 0)

/* For the functions that are printed from the header. */
int stub_not_supported(int number) {
    uint64_t began_ns = now_ns();
    nvmlReturn_t code = arrive((enum function)number, 1);
    leave((enum function)number, began_ns);
    return code == NVML_SUCCESS ? NVML_ERROR_NOT_SUPPORTED : code;
}

static nvmlReturn_t give(char *out, unsigned int length, const char *text) {
    if (!out || !length) return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(text) + 1 > length) return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(out, text);
    return NVML_SUCCESS;
}

/* A handle is the address of the card's, or of the instance's, place in the control file. */
typedef struct {
    device_state *card;
    instance_state *instance; /* NULL: the complete card */
} target;

static nvmlReturn_t find(nvmlDevice_t handle, target *found) {
    for (uint64_t i = 0; i < control->device_count; i++) {
        device_state *card = &control->devices[i];
        int inside = (void *)handle == (void *)card;
        found->card = card;
        found->instance = NULL;
        for (uint64_t j = 0; j < card->instance_count && !inside; j++)
            if ((void *)handle == (void *)&card->instances[j]) {
                found->instance = &card->instances[j];
                inside = 1;
            }
        if (inside) return card->lost ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
    }
    return NVML_ERROR_INVALID_ARGUMENT;
}

#define FIND(handle)                              \
    target at;                                    \
    nvmlReturn_t found = find(handle, &at);       \
    if (found != NVML_SUCCESS) return found

/* What the script of spikes adds to the bytes in use now. */
static uint64_t spike_bytes(const device_state *card) {
    uint64_t origin = card->spike_origin_ns, now = now_ns();
    if (!origin || now < origin) return 0;
    uint64_t low = 0, high = card->spike_count; /* the last spike that has begun */
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (card->spikes[middle].start_ns <= now - origin) low = middle + 1;
        else high = middle;
    }
    if (!low) return 0;
    const spike_state *spike = &card->spikes[low - 1];
    return now - origin < spike->start_ns + spike->length_ns ? spike->extra_bytes : 0;
}

#endif
