/* Who holds how much of a card, for all processes together, and this process's own memory of it. See cards.h. */
#include "cards.h"

#include <errno.h>
#include <sys/vfs.h>

#include "driver.h"

#define ALIGN 256ull           /* of cudaMalloc, CUDA programming guide: device memory is aligned to at least 256 bytes */
#define TMPFS_MAGIC 0x01021994 /* statfs(2) */

/* ---- who holds how much; all of it between cards_enter and cards_leave ---- */

/* Where to note this process: in the place of an earlier one of its number, else in an unused one, else in that of the
 * process that began first among those that have ended, whose accounting is then forgotten, as a driver forgets it when
 * its buffer is full. NULL: as many as there are places live already. */
static process_state *place_for(const device_state *device, uint64_t pid) {
    process_state *processes = (process_state *)device->processes, *found = NULL;
    for (uint64_t i = 0; i < device->process_count; i++)
        if (processes[i].arena && processes[i].pid == pid && ended(&processes[i])) return &processes[i];
    if (device->process_count < MOST_PROCESSES) return &processes[device->process_count];
    for (uint64_t i = 0; i < device->process_count; i++)
        if (ended(&processes[i]) && (!found || processes[i].start_ticks < found->start_ticks)) found = &processes[i];
    return found;
}

static process_state *own_process(card *c) {
    if (c->process) return c->process;
    device_state *device = c->device;
    process_state *found = place_for(device, (uint64_t)getpid());
    if (!found) return NULL;
    __atomic_store_n(&found->running, 0, __ATOMIC_RELEASE);
    found->pid = (uint64_t)getpid(), found->start_ticks = start_ticks(found->pid), found->instance = c->place;
    found->used_bytes = found->accounted_bytes = 0, found->kind = 0, found->arena = 1;
    snprintf(found->name, sizeof found->name, "%s", program_invocation_short_name);
    __atomic_store_n(&found->running, 1, __ATOMIC_RELEASE);
    if (found == &device->processes[device->process_count]) __atomic_store_n(&device->process_count, device->process_count + 1, __ATOMIC_RELEASE);
    return c->process = found;
}

static void set_own_bytes(card *c) {
    uint64_t bytes = c->used + (c->contexts ? c->device->context_bytes : 0);
    c->process->used_bytes = bytes;
    if (bytes > c->process->accounted_bytes) c->process->accounted_bytes = bytes;
}

/* CUDA's total is without what the driver keeps, to the byte: read on an H100 and an H200 (scenarios/first_card). */
uint64_t card_total(const card *c) {
    return c->total - (c->instance ? c->instance->reserved_bytes : c->device->reserved_bytes);
}

static uint64_t free_of(const card *c) {
    uint64_t neighbour = c->instance ? c->instance->used_bytes : c->device->used_bytes;
    uint64_t taken = (neighbour == UINT64_MAX ? 0 : neighbour) + arena_bytes(c->device, c->place);
    return taken > card_total(c) ? 0 : card_total(c) - taken;
}

CUresult card_retain(card *c) {
    CUresult code = cards_refuse(c);
    if (code != CUDA_SUCCESS) return code;
    cards_enter();
    if (!c->contexts && (!own_process(c) || c->device->context_bytes > free_of(c))) code = CUDA_ERROR_OUT_OF_MEMORY;
    else c->contexts++, set_own_bytes(c);
    cards_leave();
    return code;
}

void card_release(card *c) {
    cards_enter();
    if (c->contexts && !--c->contexts) set_own_bytes(c);
    cards_leave();
}

void card_usage(card *c, uint64_t *free_bytes, uint64_t *total) {
    cards_enter();
    *free_bytes = free_of(c), *total = card_total(c);
    cards_leave();
    say("usage of %d: free %llu of %llu", c->index, (unsigned long long)*free_bytes, (unsigned long long)*total);
}

/* ---- the arena: pages of an unlinked file, so that they count as RssFile; first fit by address ---- */

static int unlinked_file(void) {
    char folder[4000], path[4096];
    const char *control_path = getenv("NVML_STUB_CONTROL"), *asked = getenv("PRETENDED_CARD_ARENA");
    snprintf(folder, sizeof folder, "%s", asked && *asked ? asked : control_path);
    char *end = strrchr(folder, '/');
    if (!(asked && *asked)) snprintf(end ? end : folder, 2, "%s", end ? "" : ".");
    int file = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0) { /* not every file system has it: overlayfs before Linux 6.1 */
        snprintf(path, sizeof path, "%s/arena-XXXXXX", folder);
        file = mkostemp(path, O_CLOEXEC);
        if (file >= 0) unlink(path);
    }
    struct statfs system;
    if (file < 0) fprintf(stderr, "pretended card: no file for its memory can be made in %s: %s\n", folder, strerror(errno));
    else if (!fstatfs(file, &system) && system.f_type == TMPFS_MAGIC)
        fprintf(stderr, "pretended card: %s is tmpfs, so its memory counts as shared memory of the host (RssShmem); "
                        "set PRETENDED_CARD_ARENA to a folder on a disk\n", folder);
    return file;
}

static int open_arena(card *c) {
    if (c->base) return 1;
    int file = unlinked_file();
    if (file < 0) return 0;
    void *base = MAP_FAILED;
    if (!ftruncate(file, (off_t)c->total)) base = mmap(NULL, c->total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (base == MAP_FAILED)
        fprintf(stderr, "pretended card: a file of %llu B cannot be mapped for its memory: %s\n", (unsigned long long)c->total, strerror(errno));
    close(file);
    if (base == MAP_FAILED) return 0;
    madvise(base, c->total, MADV_DONTFORK); /* a card's memory is not in its child's address space */
    c->base = base;
    c->holes = malloc(sizeof(piece));
    *c->holes = (piece){0, c->total, NULL};
    return 1;
}

static void *carve(card *c, uint64_t size) {
    for (piece **at = &c->holes; *at; at = &(*at)->next) {
        piece *hole = *at;
        if (hole->size < size) continue;
        piece *made = malloc(sizeof *made);
        *made = (piece){hole->start, size, c->taken};
        c->taken = made;
        hole->start += size, hole->size -= size;
        if (!hole->size) {
            *at = hole->next;
            free(hole);
        }
        return c->base + made->start;
    }
    return NULL;
}

CUresult card_take(card *c, uint64_t size, void **memory) {
    CUresult code = cards_refuse(c);
    if (code != CUDA_SUCCESS) return code;
    if (!size) return CUDA_ERROR_INVALID_VALUE;
    uint64_t rounded = (size + ALIGN - 1) / ALIGN * ALIGN;
    *memory = NULL;
    cards_enter();
    if (own_process(c) && rounded <= free_of(c) && open_arena(c)) *memory = carve(c, rounded);
    if (*memory) {
        c->used += rounded;
        set_own_bytes(c);
    }
    cards_leave();
    say("allocate %llu on %d -> %p, used %llu", (unsigned long long)size, c->index, *memory, (unsigned long long)c->used);
    return *memory ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* Free pages go back to the file system: the file gets a hole. */
static void punch(const card *c, const piece *gone) {
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t from = (gone->start + page - 1) / page * page, to = (gone->start + gone->size) / page * page;
    if (to > from && madvise(c->base + from, to - from, MADV_REMOVE)) madvise(c->base + from, to - from, MADV_DONTNEED);
}

static void join(card *c, piece *made) {
    piece **at = &c->holes, *before = NULL;
    while (*at && (*at)->start < made->start) before = *at, at = &(*at)->next;
    made->next = *at;
    *at = made;
    piece *behind = made->next;
    if (behind && made->start + made->size == behind->start) {
        made->size += behind->size, made->next = behind->next;
        free(behind);
    }
    if (before && before->start + before->size == made->start) {
        before->size += made->size, before->next = made->next;
        free(made);
    }
}

static card *holder(const char *memory, int *ordinal) {
    for (int i = 0; i < cards_count(); i++) {
        card *c = card_at(i);
        if (!c->base || memory < c->base || memory >= c->base + c->total) continue;
        if (ordinal) *ordinal = i;
        return c;
    }
    return NULL;
}

CUresult cards_give(void *memory) {
    if (cards_forked()) return CUDA_ERROR_NOT_INITIALIZED;
    CUresult code = CUDA_ERROR_INVALID_VALUE;
    cards_enter();
    card *c = holder(memory, NULL);
    piece **at = c ? &c->taken : NULL;
    while (at && *at && c->base + (*at)->start != (char *)memory) at = &(*at)->next;
    if (at && *at) {
        piece *gone = *at;
        *at = gone->next;
        c->used -= gone->size;
        say("free %llu on %d, used %llu", (unsigned long long)gone->size, c->index, (unsigned long long)c->used);
        punch(c, gone);
        join(c, gone);
        set_own_bytes(c);
        code = CUDA_SUCCESS;
    }
    cards_leave();
    return code;
}

card *cards_of(const void *memory, int *ordinal, piece *found) {
    cards_enter();
    card *c = holder(memory, ordinal);
    if (c && found) {
        piece *at = c->taken;
        while (at && !((const char *)memory >= c->base + at->start && (const char *)memory < c->base + at->start + at->size)) at = at->next;
        if (at) *found = *at;
        else c = NULL;
    }
    cards_leave();
    return c;
}
