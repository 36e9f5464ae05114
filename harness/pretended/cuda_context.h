/* What cuda.c and cuda_memory.c share: contexts and streams. */
#ifndef PRETENDED_CUDA_CONTEXT_H
#define PRETENDED_CUDA_CONTEXT_H

#include <stdio.h>

#include "cards.h"

#define API __attribute__((visibility("default"))) CUresult CUDAAPI
/* A function that has nothing to do, as everything is done when a call returns. */
#define NOTHING(name, parameters) \
    API name parameters { return CUDA_SUCCESS; }

struct CUctx_st { card *card; int ordinal; };
struct CUstream_st { int ordinal; };

extern __thread CUcontext current;
CUcontext context_of(int ordinal);

static inline card *here(void) { return current ? current->card : NULL; }
static inline card *stream_card(CUstream stream) { return stream ? card_at(stream->ordinal) : here(); }

#endif
