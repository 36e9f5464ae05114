/* The pretended cards as CUDA shows them to one process, and the memory of each: an arena of host memory.
 * Which cards there are, their sizes, and what others hold of them is in the control file (layout.py). */
#ifndef PRETENDED_CARDS_H
#define PRETENDED_CARDS_H

#include <cuda.h>
#include <pthread.h>
#include <stdint.h>

#include "control.h"

typedef struct piece { uint64_t start, size; struct piece *next; } piece; /* a hole of an arena, or what is taken of it */

typedef struct {
    device_state *device;
    instance_state *instance; /* NULL: the complete card */
    uint64_t place;           /* 0, or 1 + the instance's index, as in process_state */
    int index;                /* of the device on the machine */
    uint64_t total, used;
    int contexts;             /* retained less released */
    char *base;               /* of the arena; NULL before the first allocation */
    piece *holes, *taken;     /* by address; the newest first */
    process_state *process;   /* this process's own place in the control file */
} card;

#define MOST_CARDS (MOST_DEVICES * MOST_INSTANCES)

CUresult cards_open(void);        /* look for the cards, once per process; CUDA_ERROR_NOT_INITIALIZED after a fork */
CUresult cards_refuse(card *c);   /* why nothing can be done on it; CUDA_SUCCESS where it works */
int cards_count(void);
card *card_at(int ordinal);       /* among the visible; NULL for none */
const char *card_name(const card *c);
const char *card_uuid(const card *c);
control_state *cards_control(void);
int cards_forked(void);           /* from a process that had used the driver */
void cards_enter(void);           /* one process and one thread at a time, until cards_leave */
void cards_leave(void);

/* arena.c */
CUresult card_retain(card *c);    /* a context more: its bytes are taken with the first */
void card_release(card *c);
CUresult card_take(card *c, uint64_t size, void **memory);
CUresult cards_give(void *memory);
uint64_t card_total(const card *c);
void card_usage(card *c, uint64_t *free_bytes, uint64_t *total);
card *cards_of(const void *memory, int *ordinal, piece *found); /* whose memory that is; NULL: nobody's. `found` may be NULL */

/* One line in the file that PRETENDED_CARD_LOG names, if it does. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
