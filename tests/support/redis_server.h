/* redis_server.h: real redis-servers for C tests: one on a Unix socket, or six as a cluster of
 * three masters and their replicas. Each has a folder of its own under /tmp and dies with the test.
 * No redis-server is a failure, never a skip. */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "tests/support/suite.h"

struct redis_server {
    pid_t pid;
    char folder[64], socket[96], address[128];
    const char *addresses[1]; /* as settings list it, once it was started */
    int port;                 /* 0: the socket only */
    const char *keep; /* "aof": every write, at once; "rdb": what SAVE saved; NULL: nothing */
    bool cluster, tcp;
};

static inline int redis_server_connect(const struct redis_server *s) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s", s->socket);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct timeval wait = {20, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) == 0)
        return fd;
    close(fd);
    return -1;
}

/* One inline command; the start of its reply, raw, in `out` [n]. False: no answer. */
static inline bool redis_server_say(const struct redis_server *s, const char *line, char *out,
                                    size_t n) {
    int fd = redis_server_connect(s);
    ssize_t got = -1;
    if (fd >= 0 && write(fd, line, strlen(line)) > 0 && write(fd, "\r\n", 2) == 2)
        got = read(fd, out, n - 1);
    if (fd >= 0)
        close(fd);
    out[got > 0 ? got : 0] = '\0';
    return got > 0;
}

/* A port that is free, and the cluster's bus port with it. */
static inline int redis_server_free_port(void) {
    for (;;) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t n = sizeof at;
        int fd = socket(AF_INET, SOCK_STREAM, 0), bus = socket(AF_INET, SOCK_STREAM, 0);
        bool good = bind(fd, (struct sockaddr *)&at, sizeof at) == 0 &&
                    getsockname(fd, (struct sockaddr *)&at, &n) == 0;
        int port = ntohs(at.sin_port);
        at.sin_port = htons((uint16_t)(port + 10000));
        good = good && port + 10000 < 65536 && bind(bus, (struct sockaddr *)&at, sizeof at) == 0;
        close(fd);
        close(bus);
        if (good)
            return port;
    }
}

static inline void redis_server_run(const struct redis_server *s) {
    char port[16];
    bool aof = s->keep != NULL && strcmp(s->keep, "aof") == 0;
    snprintf(port, sizeof port, "%d", s->port);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int log = open("/dev/null", O_WRONLY);
    dup2(log, 1);
    dup2(log, 2);
    if (chdir(s->folder) != 0)
        _exit(126);
    const char *argv[40] = {
        "redis-server",     "--port",        port,     "--unixsocket", s->socket, "--bind",
        "127.0.0.1",        "--save",        "",       "--daemonize",  "no",      "--appendonly",
        aof ? "yes" : "no", "--appendfsync", "always", "--logfile",    "log",     NULL};
    int n = 17;
    if (s->cluster) {
        static const char *const more[] = {"--cluster-enabled",
                                           "yes",
                                           "--cluster-node-timeout",
                                           "1500",
                                           "--cluster-require-full-coverage",
                                           "no",
                                           "--repl-diskless-sync-delay",
                                           "0",
                                           NULL};
        for (int i = 0; more[i] != NULL; i++)
            argv[n++] = more[i];
        argv[n] = NULL;
    }
    execvp(argv[0], (char *const *)argv);
    _exit(127);
}

/* Starts it, or starts it again after a stop; waits until it answers. */
static inline void redis_server_start(struct redis_server *s) {
    char reply[64];
    if (s->folder[0] == '\0') {
        snprintf(s->folder, sizeof s->folder, "/tmp/moerank-redis-XXXXXX");
        CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(s->folder));
        snprintf(s->socket, sizeof s->socket, "%s/redis.sock", s->folder);
        if (s->cluster || s->tcp)
            s->port = redis_server_free_port();
        if (s->port > 0)
            snprintf(s->address, sizeof s->address, "127.0.0.1:%d", s->port);
        else
            snprintf(s->address, sizeof s->address, "unix:%s", s->socket);
        s->addresses[0] = s->address;
    }
    unlink(s->socket);
    s->pid = fork();
    if (s->pid == 0)
        redis_server_run(s);
    for (int64_t until = clock_mono_us() + 20 * 1000000;;) {
        if (redis_server_say(s, "PING", reply, sizeof reply) && strncmp(reply, "+PONG", 5) == 0)
            return;
        bool gone = waitpid(s->pid, NULL, WNOHANG) == s->pid;
        CU_ASSERT_FALSE_FATAL(gone || clock_mono_us() > until); /* is redis-server installed? */
        clock_sleep_ms(10);
    }
}

static inline void redis_server_stop(struct redis_server *s, int signal) {
    if (s->pid <= 0)
        return;
    kill(s->pid, SIGCONT);
    kill(s->pid, signal);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

static inline void redis_server_remove(struct redis_server *s) {
    char command[128];
    redis_server_stop(s, SIGKILL);
    snprintf(command, sizeof command, "rm -rf %s", s->folder);
    if (s->folder[0] != '\0' && system(command) != 0)
        fprintf(stderr, "%s is left behind\n", s->folder);
    s->folder[0] = '\0';
}

/* The number after `word` in an INFO reply, or of an integer reply with word NULL; -1: none. */
static inline long long redis_server_number(const struct redis_server *s, const char *line,
                                            const char *word) {
    static char reply[1 << 16];
    if (!redis_server_say(s, line, reply, sizeof reply))
        return -1;
    const char *at = word == NULL ? strchr(reply, ':') : strstr(reply, word);
    return at == NULL ? -1 : atoll(at + (word == NULL ? 1 : strlen(word)));
}
