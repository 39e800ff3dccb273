/* io.c: whole files in, whole files out.
 *
 * A file is written beside its name, synced, renamed and the folder synced (the order POSIX needs
 * for all-or-nothing). Lines are in io_lines.c. */
#include "base/io.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/heap.h"

static enum status fail_errno(const char *path, const char *verb) {
    int e = errno;
    enum status code = STATUS_UNKNOWN;
    if (e == ENOENT || e == ENOTDIR)
        code = STATUS_NOT_FOUND;
    else if (e == EACCES || e == EPERM || e == EROFS)
        code = STATUS_PERMISSION_DENIED;
    else if (e == ENOSPC || e == EDQUOT || e == EMFILE || e == ENFILE || e == EFBIG)
        code = STATUS_RESOURCE_EXHAUSTED;
    else if (e == EISDIR || e == EEXIST)
        code = STATUS_FAILED_PRECONDITION;
    return fail(code, "%s: cannot %s: %s", path, verb, strerror(e));
}

static enum status read_all(int fd, const char *path, size_t max_bytes, struct buf *out) {
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (size_t)st.st_size <= max_bytes)
        buf_reserve(out, (size_t)st.st_size + 1);
    for (;;) {
        buf_reserve(out, 4096);
        ssize_t n = read(fd, out->p + out->n, out->cap - out->n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(path, "read");
        if (n == 0)
            return STATUS_OK;
        out->n += (size_t)n;
        if (out->n > max_bytes)
            return fail(STATUS_RESOURCE_EXHAUSTED, "%s: more than %zu bytes", path, max_bytes);
    }
}

enum status io_read_file(const char *path, size_t max_bytes, struct buf *out) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(path, "open");
    struct buf text = {0};
    enum status s = read_all(fd, path, max_bytes, &text);
    close(fd);
    if (s != STATUS_OK) {
        buf_deinit(&text);
        return s;
    }
    buf_deinit(out);
    *out = text;
    return STATUS_OK;
}

static enum status write_all(int fd, const char *path, struct slice bytes) {
    while (bytes.n > 0) {
        ssize_t n = write(fd, bytes.p, bytes.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(path, "write");
        bytes.p += n;
        bytes.n -= (size_t)n;
    }
    if (fsync(fd) != 0)
        return fail_errno(path, "sync");
    return STATUS_OK;
}

static enum status sync_folder(struct arena *a, const char *path) {
    const char *slash = strrchr(path, '/');
    struct slice parent = SLICE_LIT(".");
    if (slash)
        parent = (struct slice){path, slash == path ? 1 : (size_t)(slash - path)};
    const char *folder = arena_strdup(a, parent);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(folder, "open");
    int failed = fsync(fd) != 0 && errno != EINVAL; /* some file systems have no folder sync */
    enum status s = failed ? fail_errno(folder, "sync") : STATUS_OK;
    close(fd);
    return s;
}

static enum status write_beside(const char *path, const char *beside, struct slice bytes) {
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return fail_errno(beside, "create");
    enum status s = write_all(fd, beside, bytes);
    if (close(fd) != 0 && s == STATUS_OK)
        s = fail_errno(beside, "close");
    if (s == STATUS_OK && rename(beside, path) != 0)
        s = fail_errno(path, "replace");
    if (s != STATUS_OK)
        unlink(beside);
    return s;
}

enum status io_write_file(const char *path, struct slice bytes) {
    struct arena a;
    arena_init(&a, 4096);
    char *beside = arena_printf(&a, "%s.tmp.%ld", path, (long)getpid());
    enum status s = write_beside(path, beside, bytes);
    if (s == STATUS_OK)
        s = sync_folder(&a, path);
    arena_deinit(&a);
    return s;
}

static enum status make_dir(const char *path) {
    struct stat st;
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode)))
        return STATUS_OK;
    return fail_errno(path, "make folder");
}

enum status io_make_dirs(const char *path) {
    char *p = heap_strdup(path);
    size_t n = strlen(p);
    enum status s = STATUS_OK;
    for (size_t i = 1; i <= n && s == STATUS_OK; i++) {
        if (p[i] != '/' && p[i] != '\0')
            continue;
        char end = p[i];
        p[i] = '\0';
        s = make_dir(p);
        p[i] = end;
    }
    heap_free(p);
    return s;
}

bool io_exists(const char *path) { return access(path, F_OK) == 0; }
