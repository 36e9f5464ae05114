/* Which cards a process sees, and the lock under which processes share them. See cards.h. */
#include "cards.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/file.h>

#include "driver.h"

static control_state *control;
static int control_file = -1;
static card cards[MOST_CARDS];
static int count;
static int forked; /* this process was forked from one that had used the driver */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void say(const char *format, ...) {
    const char *path = getenv("PRETENDED_CARD_LOG");
    FILE *file = path ? fopen(path, "ae") : NULL;
    if (!file) return;
    va_list list;
    va_start(list, format);
    fprintf(file, "%d ", (int)getpid());
    vfprintf(file, format, list);
    fputc('\n', file);
    va_end(list);
    fclose(file);
}

/* ---- which cards there are ---- */

static void show(device_state *device, uint64_t place) {
    card *c = &cards[count++];
    memset(c, 0, sizeof *c);
    c->device = device, c->place = place, c->index = (int)(device - control->devices);
    c->instance = place ? &device->instances[place - 1] : NULL;
    c->total = c->instance ? c->instance->total_bytes : device->total_bytes;
}

/* A complete card; of one that is divided, its first instance: CUDA counts no more of it (MIG user guide). */
static int show_device(device_state *device) {
    int divided = device->mig == 1;
    if (divided && !device->instance_count) return 0;
    show(device, divided ? 1 : 0);
    return 1;
}

/* Show what one entry of CUDA_VISIBLE_DEVICES names; 0 where it names nothing, or two cards. */
static int show_named(const char *entry, size_t length) {
    char *end;
    unsigned long index = strtoul(entry, &end, 10);
    if (length && *entry >= '0' && *entry <= '9' && end == entry + length)
        return index < control->device_count && show_device(&control->devices[index]);
    device_state *fitting = NULL;
    for (uint64_t i = 0; i < control->device_count; i++) {
        device_state *device = &control->devices[i];
        for (uint64_t j = 0; j < device->instance_count; j++)
            if (strlen(device->instances[j].uuid) == length && !strncmp(device->instances[j].uuid, entry, length)) {
                show(device, j + 1);
                return 1;
            }
        if (length <= 4 || strncmp(entry, "GPU-", 4) || strncmp(device->uuid, entry, length)) continue;
        if (fitting) return 0;
        fitting = device;
    }
    return fitting && show_device(fitting);
}

static int shown_already(void) {
    for (int i = 0; i < count - 1; i++)
        if (cards[i].device == cards[count - 1].device && cards[i].place == cards[count - 1].place) return 1;
    return 0;
}

/* As CUDA reads it: the first entry that names no device, or one again, ends the list. */
static void show_visible(void) {
    const char *wanted = getenv("CUDA_VISIBLE_DEVICES");
    if (!wanted) {
        for (uint64_t i = 0; i < control->device_count; i++) show_device(&control->devices[i]);
        return;
    }
    while (*wanted && count < MOST_CARDS) {
        while (*wanted == ' ') wanted++;
        size_t length = strcspn(wanted, ","), bare = length;
        while (bare && wanted[bare - 1] == ' ') bare--;
        if (!show_named(wanted, bare)) break;
        if (shown_already()) {
            count--;
            break;
        }
        wanted += length + (wanted[length] == ',');
    }
}

static void after_fork(void) { forked = 1; }

CUresult cards_open(void) {
    pthread_mutex_lock(&lock);
    if (!control && !forked) {
        control = map_control_file(&control_file);
        if (control) {
            show_visible();
            pthread_atfork(NULL, NULL, after_fork);
            say("%d of %llu cards, CUDA_VISIBLE_DEVICES=%s", count, (unsigned long long)control->device_count, getenv("CUDA_VISIBLE_DEVICES"));
        }
    }
    pthread_mutex_unlock(&lock);
    if (forked) return CUDA_ERROR_NOT_INITIALIZED;
    return control ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

int cards_forked(void) { return forked; }

CUresult cards_refuse(card *c) {
    if (forked) return CUDA_ERROR_NOT_INITIALIZED;
    if (!c) return CUDA_ERROR_INVALID_CONTEXT;
    return c->device->lost ? CUDA_ERROR_DEVICE_UNAVAILABLE : CUDA_SUCCESS;
}

int cards_count(void) { return count; }
card *card_at(int ordinal) { return ordinal >= 0 && ordinal < count ? &cards[ordinal] : NULL; }
const char *card_name(const card *c) { return c->instance ? c->instance->name : c->device->name; }
const char *card_uuid(const card *c) { return c->instance ? c->instance->uuid : c->device->uuid; }
control_state *cards_control(void) { return control; }

/* ---- the machine's lock, which the kernel frees when a process dies ---- */

void cards_enter(void) {
    pthread_mutex_lock(&lock);
    while (flock(control_file, LOCK_EX) && errno == EINTR) {
    }
}

void cards_leave(void) {
    flock(control_file, LOCK_UN);
    pthread_mutex_unlock(&lock);
}
