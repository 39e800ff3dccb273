/* tape.h: recorded messages held in memory, each partition in its own order, so that they can be
 * applied in any interleaving: by time (tape_play) or up to given offsets (replay). A file is a
 * tape of one partition. */
#pragma once
#include "tools/stream.h"

/* A partition's messages; `clock_us` [n] the greatest event time up to each. */
struct tape_track {
    struct rk_message *messages; /* [n] */
    int64_t *clock_us;
    int64_t n, cap, next; /* next: not yet played */
};
struct tape {                  /* a zeroed struct is an empty tape */
    struct tape_track *tracks; /* [n_tracks], by partition */
    int n_tracks;
    int64_t n;
    bool json; /* lines of a file */
    struct arena bytes, event;
};

enum status tape_read(const struct stream_source *source, int quiet, struct tape *out);
void tape_deinit(struct tape *t);
/* The rest of all partitions, interleaved by their clocks. */
enum status tape_play(struct tape *t, const char *what, int quiet,
                      const struct stream_handler *handler);
/* The next message of one partition: decodes and hands over. There must be one. */
enum status tape_step(struct tape *t, struct tape_track *k, const struct stream_handler *handler);
