/* io.h: files. Whole reads, atomic writes, and lines out of plain, gz, zst or xz files. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/status.h"

/* Replaces what is in `out`, on success. RESOURCE_EXHAUSTED for a longer file. */
enum status io_read_file(const char *path, size_t max_bytes, struct buf *out);
/* Writes `path`.tmp.<pid>, fsyncs, renames, fsyncs the folder: all of it or nothing. */
enum status io_write_file(const char *path, struct slice bytes);
enum status io_make_dirs(const char *path); /* mkdir -p */
bool io_exists(const char *path);

/* A reader of lines: compression is told by the first bytes, not by the name. "-" is stdin.
 * line_bytes_max 0: 1 MiB. */
struct io_lines;
enum status io_lines_open(const char *path, size_t line_bytes_max, struct io_lines **out);
void io_lines_close(struct io_lines *l); /* NULL is fine */
/* The next line without its end; valid until the next call. OUT_OF_RANGE at the end of the file;
 * RESOURCE_EXHAUSTED for a line beyond the limit (the line is skipped, reading can go on);
 * DATA_LOSS for damaged compression. */
enum status io_lines_next(struct io_lines *l, struct slice *line);
int64_t io_lines_number(const struct io_lines *l);  /* of the last line returned, 1-based */
double io_lines_progress(const struct io_lines *l); /* 0..1 of the file's bytes; -1 unknown */
