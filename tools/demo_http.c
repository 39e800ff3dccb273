/* demo_http.c: reads one number from a /metrics page on loopback, and finds a free port. Just
 * enough of HTTP/1.0 to ask for a page we serve ourselves. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/demo.h"

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return at;
}

int demo_free_port(void) {
    struct sockaddr_in at = loopback(0);
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int port = 0;
    if (fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0 &&
        getsockname(fd, (struct sockaddr *)&at, &size) == 0) {
        port = ntohs(at.sin_port);
    }
    if (fd >= 0) {
        close(fd);
    }
    return port;
}

static enum status get_page(int port, struct buf *page) {
    static const char request[] = "GET /metrics HTTP/1.0\r\n\r\n";
    struct sockaddr_in at = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) != 0 ||
        write(fd, request, sizeof request - 1) != (ssize_t)(sizeof request - 1)) {
        enum status status =
            fail(STATUS_UNAVAILABLE, "no metrics on port %d: %s", port, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return status;
    }
    char bytes[4096];
    for (ssize_t n; (n = read(fd, bytes, sizeof bytes)) > 0;) {
        buf_add(page, bytes, (size_t)n);
    }
    close(fd);
    buf_add_byte(page, 0);
    return STATUS_OK;
}

enum status demo_metric(int port, const char *name, double *out) {
    struct buf page = {0};
    enum status status = get_page(port, &page);
    size_t length = strlen(name);
    const char *line = page.p;
    while (status == STATUS_OK && line &&
           (strncmp(line, name, length) != 0 || line[length] != ' ')) {
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    if (status == STATUS_OK && line) {
        *out = strtod(line + length, NULL);
    } else if (status == STATUS_OK) {
        status = fail(STATUS_NOT_FOUND, "no metric %s on port %d", name, port);
    }
    buf_deinit(&page);
    return status;
}
