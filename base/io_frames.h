/* io_frames.h: bytes in zstd frames, each whole in itself, so that a file of them can be appended
 * to, and what a crash cut short costs the last frame only. */
#pragma once
#include <stdbool.h>
#include "base/buf.h"
#include "base/status.h"

/* Do these bytes begin like a frame? */
bool io_is_frame(struct slice bytes);
/* Appends one frame that holds `bytes`. */
void io_frame_pack(struct slice bytes, struct buf *out);
/* The frame at the front of *rest: its contents are appended, *rest begins after it. OUT_OF_RANGE:
 * there is none left; DATA_LOSS: it is cut short or damaged, *rest and `out` stay. */
enum status io_frame_unpack(struct slice *rest, struct buf *out);
/* Bytes of the whole frames at the front; contents are not looked at. */
size_t io_frames_whole(struct slice bytes);
