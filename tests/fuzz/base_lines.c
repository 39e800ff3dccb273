/* base_lines.c: any bytes as a file of lines, packed or not: reading comes to an end, with lines
 * within the limit. */
#define _GNU_SOURCE /* memfd_create */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/io.h"
#include "tests/support/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    int fd = memfd_create("fuzz", 0);
    FUZZ_CHECK(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct io_lines *l = NULL;
    FUZZ_CHECK(io_lines_open(path, 100, &l) == STATUS_OK);
    enum status s = STATUS_OK;
    int64_t number = 0;
    while (s == STATUS_OK || s == STATUS_RESOURCE_EXHAUSTED) {
        struct slice line = {NULL, 0};
        s = io_lines_next(l, &line);
        FUZZ_CHECK(s != STATUS_OK || (line.n <= 100 && io_lines_number(l) == number + 1));
        number = io_lines_number(l);
    }
    FUZZ_CHECK(s == STATUS_OUT_OF_RANGE || s == STATUS_DATA_LOSS ||
               s == STATUS_FAILED_PRECONDITION);
    io_lines_close(l);
    close(fd);
    return 0;
}
