/* io_frames.c: zstd frames (RFC 8878), written whole, with checksum and content size. Deliberately
 * no streaming: a frame is a second of a log, and is held in memory. */
#include "base/io_frames.h"
#include <string.h>
#include <zstd.h>
#include "base/heap.h"

enum { LEVEL = 3 };
#define CONTENT_BYTES_MAX ((unsigned long long)1 << 32)

bool io_is_frame(struct slice bytes) {
    return bytes.n >= 4 && memcmp(bytes.p, "\x28\xb5\x2f\xfd", 4) == 0;
}

void io_frame_pack(struct slice bytes, struct buf *out) {
    size_t room = ZSTD_compressBound(bytes.n);
    ZSTD_CCtx *c = ZSTD_createCCtx();
    char *p = heap_alloc(room);
    ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, LEVEL);
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
    buf_add(out, p, ZSTD_compress2(c, p, room, bytes.p, bytes.n)); /* the room is enough */
    heap_free(p);
    ZSTD_freeCCtx(c);
}

enum status io_frame_unpack(struct slice *rest, struct buf *out) {
    if (rest->n == 0)
        return fail(STATUS_OUT_OF_RANGE, "no more frames");
    size_t n = ZSTD_findFrameCompressedSize(rest->p, rest->n);
    if (ZSTD_isError(n))
        return fail(STATUS_DATA_LOSS, "frame: %s", ZSTD_getErrorName(n));
    unsigned long long bytes = ZSTD_getFrameContentSize(rest->p, n);
    if (bytes > CONTENT_BYTES_MAX) /* unknown and damaged are greater, too */
        return fail(STATUS_DATA_LOSS, "frame: not one of this program");
    char *p = heap_alloc((size_t)bytes + 1);
    size_t got = ZSTD_decompress(p, (size_t)bytes, rest->p, n);
    if (ZSTD_isError(got)) {
        heap_free(p);
        return fail(STATUS_DATA_LOSS, "frame: %s", ZSTD_getErrorName(got));
    }
    buf_add(out, p, got);
    heap_free(p);
    *rest = (struct slice){rest->p + n, rest->n - n};
    return STATUS_OK;
}

size_t io_frames_whole(struct slice bytes) {
    size_t at = 0;
    while (at < bytes.n) {
        size_t n = ZSTD_findFrameCompressedSize(bytes.p + at, bytes.n - at);
        if (ZSTD_isError(n))
            break;
        at += n;
    }
    return at;
}
