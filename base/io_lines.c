/* io_lines.c: lines out of plain, gzip, zstd and xz files.
 *
 *     file -> packed[] -> decoder -> text[] -> lines
 *
 * The first six bytes choose the decoder. Concatenated members or frames read as one text, as
 * their own tools do. A file that ends inside a member is damage, not an end: the whole lines
 * before the cut are given out, then DATA_LOSS. (Where bytes are wrong rather than missing, zstd
 * loses the lines it had in hand with them.) Deliberately no bz2, lz4, and no seeking. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <lzma.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include "base/heap.h"
#include "base/io.h"

enum { PACKED_BYTES = 128 * 1024, TEXT_BYTES = 256 * 1024, LINE_BYTES_DEFAULT = 1 << 20 };
#define XZ_MEMORY_MAX (1024ull << 20) /* xz -9 needs 65 MiB; a hostile header may ask for 4 GiB */

struct io_lines {
    const struct codec *codec;
    char *path;
    int fd;
    bool file_end;     /* read() gave 0 */
    bool text_end;     /* no more text will come */
    enum status state; /* once not OK, for good */
    size_t line_bytes_max;
    int64_t number, file_bytes, taken_bytes;
    size_t packed_at, packed_n;
    size_t text_at;
    struct buf text;
    bool between; /* at a border of members, where a file may end */
    union {
        z_stream gz;
        ZSTD_DStream *zst;
        lzma_stream xz;
    };
    unsigned char packed[PACKED_BYTES];
};

/* unpack: packed[packed_at..packed_n) into `out`, moving packed_at; *made is what it wrote. Called
 * with no input only when the file has ended. */
struct codec {
    const char *name, *magic;
    size_t magic_bytes;
    enum status (*init)(struct io_lines *l);
    enum status (*unpack)(struct io_lines *l, char *out, size_t room, size_t *made);
    void (*deinit)(struct io_lines *l);
};

static enum status fail_damaged(const struct io_lines *l, const char *what) {
    return fail(STATUS_DATA_LOSS, "%s: after line %lld: damaged %s: %s; fetch the file again",
                l->path, (long long)l->number, l->codec->name, what ? what : "unreadable");
}

static enum status fail_cut_short(const struct io_lines *l) {
    return fail_damaged(l, "the file ends too early");
}

/* ---- plain */

static enum status plain_init(struct io_lines *l) {
    l->between = true;
    return STATUS_OK;
}

static enum status plain_unpack(struct io_lines *l, char *out, size_t room, size_t *made) {
    size_t n = l->packed_n - l->packed_at;
    *made = n < room ? n : room;
    memcpy(out, l->packed + l->packed_at, *made);
    l->packed_at += *made;
    return STATUS_OK;
}

static void plain_deinit(struct io_lines *l) { (void)l; }

/* ---- gzip: zlib stops at each member's end */

static enum status gz_init(struct io_lines *l) {
    if (inflateInit2(&l->gz, 15 + 16) != Z_OK)
        return fail(STATUS_RESOURCE_EXHAUSTED, "%s: zlib cannot start", l->path);
    return STATUS_OK;
}

static enum status gz_unpack(struct io_lines *l, char *out, size_t room, size_t *made) {
    z_stream *z = &l->gz;
    if (l->between && l->packed_at < l->packed_n) {
        inflateReset(z);
        l->between = false;
    }
    z->next_in = l->packed + l->packed_at;
    z->avail_in = (unsigned)(l->packed_n - l->packed_at);
    z->next_out = (unsigned char *)out;
    z->avail_out = (unsigned)room;
    int code = l->between ? Z_OK : inflate(z, Z_NO_FLUSH);
    l->packed_at = l->packed_n - z->avail_in;
    *made = room - z->avail_out;
    if (code == Z_STREAM_END)
        l->between = true;
    else if (code != Z_OK && code != Z_BUF_ERROR)
        return fail_damaged(l, z->msg);
    return STATUS_OK;
}

static void gz_deinit(struct io_lines *l) { inflateEnd(&l->gz); }

/* ---- zstd: 0 from the decoder is a frame's end */

static enum status zst_init(struct io_lines *l) {
    l->zst = ZSTD_createDStream();
    if (!l->zst)
        return fail(STATUS_RESOURCE_EXHAUSTED, "%s: zstd cannot start", l->path);
    return STATUS_OK;
}

static enum status zst_unpack(struct io_lines *l, char *out, size_t room, size_t *made) {
    ZSTD_inBuffer in = {l->packed, l->packed_n, l->packed_at};
    ZSTD_outBuffer to = {out, room, 0};
    *made = 0;
    if (l->between && in.pos == in.size)
        return STATUS_OK;
    size_t left = ZSTD_decompressStream(l->zst, &to, &in);
    if (ZSTD_isError(left))
        return fail_damaged(l, ZSTD_getErrorName(left));
    l->packed_at = in.pos;
    l->between = left == 0;
    *made = to.pos;
    return STATUS_OK;
}

static void zst_deinit(struct io_lines *l) { ZSTD_freeDStream(l->zst); }

/* ---- xz: liblzma joins streams itself and ends once, told by LZMA_FINISH */

static enum status xz_init(struct io_lines *l) {
    l->xz = (lzma_stream)LZMA_STREAM_INIT;
    if (lzma_stream_decoder(&l->xz, XZ_MEMORY_MAX, LZMA_CONCATENATED) != LZMA_OK)
        return fail(STATUS_RESOURCE_EXHAUSTED, "%s: liblzma cannot start", l->path);
    return STATUS_OK;
}

static enum status xz_unpack(struct io_lines *l, char *out, size_t room, size_t *made) {
    lzma_stream *x = &l->xz;
    *made = 0;
    if (l->between)
        return STATUS_OK;
    x->next_in = l->packed + l->packed_at;
    x->avail_in = l->packed_n - l->packed_at;
    x->next_out = (unsigned char *)out;
    x->avail_out = room;
    lzma_ret code = lzma_code(x, l->file_end ? LZMA_FINISH : LZMA_RUN);
    l->packed_at = l->packed_n - x->avail_in;
    *made = room - x->avail_out;
    if (code == LZMA_STREAM_END)
        l->between = true;
    else if (code == LZMA_MEMLIMIT_ERROR)
        return fail(STATUS_FAILED_PRECONDITION, "%s: xz wants more than 1 GiB to unpack", l->path);
    else if (code != LZMA_OK && code != LZMA_BUF_ERROR)
        return fail_damaged(l, code == LZMA_FORMAT_ERROR ? "bytes after the end" : "check failed");
    return STATUS_OK;
}

static void xz_deinit(struct io_lines *l) { lzma_end(&l->xz); }

static const struct codec codecs[] = {
    {"gzip", "\x1f\x8b", 2, gz_init, gz_unpack, gz_deinit},
    {"zstd", "\x28\xb5\x2f\xfd", 4, zst_init, zst_unpack, zst_deinit},
    {"xz",
     "\xfd"
     "7zXZ",
     6, xz_init, xz_unpack, xz_deinit},
    {"plain", "", 0, plain_init, plain_unpack, plain_deinit},
};

/* ---- bytes in */

/* Returns with `least` bytes or the file's end; a pipe's short pieces are not held back. */
static enum status fill_packed(struct io_lines *l, size_t least) {
    memmove(l->packed, l->packed + l->packed_at, l->packed_n - l->packed_at);
    l->packed_n -= l->packed_at;
    l->packed_at = 0;
    while (!l->file_end && l->packed_n < least) {
        ssize_t n = read(l->fd, l->packed + l->packed_n, PACKED_BYTES - l->packed_n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(STATUS_UNKNOWN, "%s: cannot read: %s", l->path, strerror(errno));
        l->file_end = n == 0;
        l->packed_n += (size_t)n;
        l->taken_bytes += n;
    }
    return STATUS_OK;
}

/* Makes more text, or sets text_end, or fails for good. */
static enum status fill_text(struct io_lines *l) {
    if (l->text_at)
        memmove(l->text.p, l->text.p + l->text_at, l->text.n - l->text_at);
    l->text.n -= l->text_at;
    l->text_at = 0;
    buf_reserve(&l->text, TEXT_BYTES);
    for (size_t made = 0; made == 0 && !l->text_end;) {
        if (l->packed_at == l->packed_n)
            TRY(fill_packed(l, 1));
        size_t before = l->packed_at;
        enum status got =
            l->codec->unpack(l, l->text.p + l->text.n, l->text.cap - l->text.n, &made);
        if (got != STATUS_OK && made == 0) /* else first what was made; the decoder fails again */
            return got;
        l->text.n += made;
        bool stuck = made == 0 && l->packed_at == before;
        if (!stuck || !l->file_end)
            continue;
        if (!l->between)
            return fail_cut_short(l);
        l->text_end = true;
    }
    return STATUS_OK;
}

/* ---- lines out */

enum status io_lines_open(const char *path, size_t line_bytes_max, struct io_lines **out) {
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(errno == ENOENT ? STATUS_NOT_FOUND : STATUS_PERMISSION_DENIED,
                    "%s: cannot open: %s", path, strerror(errno));
    struct io_lines *l = HEAP_NEW(struct io_lines);
    l->fd = fd;
    l->path = heap_strdup(is_stdin ? "standard input" : path);
    l->line_bytes_max = line_bytes_max ? line_bytes_max : LINE_BYTES_DEFAULT;
    struct stat st;
    l->file_bytes = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? (int64_t)st.st_size : -1;
    l->codec = &codecs[3];
    enum status s = fill_packed(l, 6);
    for (const struct codec *c = codecs; s == STATUS_OK; c++) {
        if (l->packed_n < c->magic_bytes || memcmp(l->packed, c->magic, c->magic_bytes) != 0)
            continue;
        l->codec = c;
        s = c->init(l);
        break;
    }
    if (s != STATUS_OK) {
        l->codec = &codecs[3];
        io_lines_close(l);
        return s;
    }
    *out = l;
    return STATUS_OK;
}

void io_lines_close(struct io_lines *l) {
    if (!l)
        return;
    l->codec->deinit(l);
    buf_deinit(&l->text);
    if (l->fd != STDIN_FILENO)
        close(l->fd);
    heap_free(l->path);
    heap_free(l);
}

/* The next '\n' in the text from `from` bytes on, or NULL after having asked for more in vain. */
static enum status find_end(struct io_lines *l, size_t *end, bool *too_long) {
    *too_long = false;
    for (size_t from = 0;;) {
        char *begin = l->text.p + l->text_at;
        size_t n = l->text.n - l->text_at;
        char *hit = n > from ? memchr(begin + from, '\n', n - from) : NULL;
        *end = hit ? (size_t)(hit - begin) : n;
        /* one byte more, for a carriage return that is not part of the line */
        if (*end > l->line_bytes_max + 1) {
            *too_long = true;
            if (!hit)
                l->text_at = l->text.n; /* thrown away, not gathered */
        }
        if (hit || l->text_end)
            return STATUS_OK;
        TRY(fill_text(l));
        from = *too_long ? 0 : n;
    }
}

static enum status next_line(struct io_lines *l, struct slice *line) {
    size_t end = 0;
    bool too_long = false;
    TRY(find_end(l, &end, &too_long));
    if (end == 0 && !too_long && l->text_at == l->text.n)
        return fail(STATUS_OUT_OF_RANGE, "%s: no more lines", l->path);
    struct slice s = {l->text.p + l->text_at, end};
    l->text_at += end < l->text.n - l->text_at ? end + 1 : end;
    l->number++;
    if (s.n && s.p[s.n - 1] == '\r')
        s.n--;
    if (too_long || s.n > l->line_bytes_max)
        return fail(STATUS_RESOURCE_EXHAUSTED, "%s:%lld: line longer than %zu bytes", l->path,
                    (long long)l->number, l->line_bytes_max);
    *line = s;
    return STATUS_OK;
}

/* Damage is for good: it is told again on each further call. */
enum status io_lines_next(struct io_lines *l, struct slice *line) {
    if (l->state != STATUS_OK)
        return fail(l->state, "%s: reading has failed before", l->path);
    enum status s = next_line(l, line);
    if (s != STATUS_OK && s != STATUS_OUT_OF_RANGE && s != STATUS_RESOURCE_EXHAUSTED)
        l->state = s;
    return s;
}

int64_t io_lines_number(const struct io_lines *l) { return l->number; }

double io_lines_progress(const struct io_lines *l) {
    if (l->file_bytes < 0)
        return -1;
    if (l->file_bytes == 0)
        return 1;
    double done = (double)(l->taken_bytes - (int64_t)(l->packed_n - l->packed_at));
    return done > (double)l->file_bytes ? 1 : done / (double)l->file_bytes;
}
