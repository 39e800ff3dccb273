/* demo_parts.c: the processes a demo needs, started as children that die with it
 * (PR_SET_PDEATHSIG), their output in a log each, so that a failure can quote the last line of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "tools/demo.h"

/* `out`: where stdout goes; `log`: where stderr goes, and stdout too when out is NULL. */
static void redirect(const char *path, int fd_a, int fd_b) {
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd >= 0) {
        dup2(fd, fd_a);
        dup2(fd, fd_b);
    }
}

static void become(const char *const *argv, const char *log, const char *out, int parent) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) {
        _exit(127); /* the parent died before the line above */
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (log) {
        redirect(log, 1, 2);
    }
    if (out) {
        redirect(out, 1, 1);
    }
    execvp(argv[0], (char *const *)argv);
    _exit(127);
}

static enum status start(const char *name, const char *const *argv, const char *log,
                         const char *out_file, struct demo_part *out) {
    int parent = getpid();
    int pid = fork();
    if (pid < 0) {
        return fail(STATUS_RESOURCE_EXHAUSTED, "cannot start %s: %s", name, strerror(errno));
    }
    if (pid == 0) {
        become(argv, log, out_file, parent);
    }
    *out = (struct demo_part){.pid = pid, .name = name, .log = log};
    return STATUS_OK;
}

enum status demo_part_start(const char *name, const char *const *argv, const char *log,
                            struct demo_part *out) {
    return start(name, argv, log, NULL, out);
}

static struct slice last_line(const char *path, struct buf *text) {
    struct slice line = SLICE_LIT("no output");
    if (!path || io_read_file(path, 64 << 20, text) != STATUS_OK || text->n == 0) {
        return line;
    }
    size_t end = text->n;
    while (end > 0 && text->p[end - 1] == '\n') {
        end--;
    }
    size_t start = end;
    while (start > 0 && text->p[start - 1] != '\n') {
        start--;
    }
    return (struct slice){text->p + start, end - start};
}

static enum status died(const struct demo_part *p) {
    struct buf text = {0};
    struct slice line = last_line(p->log, &text);
    enum status status = fail(STATUS_UNAVAILABLE, "%s stopped early: %.*s (whole log: %s)", p->name,
                              SLICE_ARG(line), p->log ? p->log : "above");
    buf_deinit(&text);
    return status;
}

enum status demo_part_run(const char *name, const char *const *argv, const char *out_file) {
    struct demo_part p = {0};
    TRY(start(name, argv, NULL, out_file, &p));
    int how;
    while (waitpid(p.pid, &how, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(how) && WEXITSTATUS(how) == 0) {
        return STATUS_OK;
    }
    return died(&p);
}

bool demo_part_alive(struct demo_part *p) {
    if (p->pid > 0 && waitpid(p->pid, NULL, WNOHANG) == p->pid) {
        p->pid = 0;
    }
    return p->pid > 0;
}

void demo_part_stop(struct demo_part *p) {
    if (!demo_part_alive(p)) {
        return;
    }
    kill(p->pid, SIGTERM);
    for (int waited_ms = 0; demo_part_alive(p) && waited_ms < 10000; waited_ms += 20) {
        clock_sleep_ms(20);
    }
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
        p->pid = 0;
    }
}

enum status demo_part_wait_file(struct demo_part *p, const char *path, int timeout_ms) {
    for (int waited_ms = 0; waited_ms < timeout_ms; waited_ms += 10) {
        if (io_exists(path)) {
            return STATUS_OK;
        }
        if (!demo_part_alive(p)) {
            return died(p);
        }
        clock_sleep_ms(10);
    }
    return fail(STATUS_DEADLINE_EXCEEDED, "%s did not start within %d ms (log: %s)", p->name,
                timeout_ms, p->log);
}
