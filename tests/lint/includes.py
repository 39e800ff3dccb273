"""Who may include whom. base <- proto <- features <- ranker <- tools; base <- moe <- ranker.

Third-party headers stand in one place each (THIRD_PARTY), and never in a header of ours; a header
that is neither ours, nor listed there, nor C's or POSIX's is a complaint, so a new dependency
needs a line here.
"""
import fnmatch
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import lint

MAY_INCLUDE = {
    "base": {"base"},
    "proto": {"base", "proto"},
    "features": {"base", "proto", "features"},
    "moe": {"base", "moe"},
    "ranker": {"base", "proto", "features", "moe", "ranker"},
    "tools": {"base", "proto", "features", "moe", "ranker", "tools"},
}
THIRD_PARTY = [  # header, the only files that may include it
    ("*.pb-c.h", ["proto/*.c"]),
    ("librdkafka/*", ["ranker/kafka*.c", "tools/cmd_dev_broker.c"]),
    ("grpc/*", ["ranker/rpc_server*.c", "ranker/rpc_client*.c"]),
    ("hiredis/*", ["ranker/redis.c", "features/redis*.c"]),
    ("protobuf-c/*", ["proto/*.c"]),
    ("cblas.h", ["moe/math/blas.c"]),
    ("openblas*", ["moe/math/blas.c"]),
    ("microhttpd.h", ["ranker/admin.c"]),
    ("yaml.h", ["base/node_yaml.c"]),
    ("cjson/*", ["base/node_json.c"]),
    ("xxhash.h", ["base/hash.c"]),
    ("zlib.h", ["base/io_lines.c"]),
    ("zstd.h", ["base/io_lines.c", "base/io_frames.c"]),
    ("lzma.h", ["base/io_lines.c"]),
]
SYSTEM = set("""
assert.h complex.h ctype.h errno.h fenv.h float.h inttypes.h limits.h locale.h math.h setjmp.h
signal.h stdalign.h stdarg.h stdatomic.h stdbool.h stddef.h stdint.h stdio.h stdlib.h stdnoreturn.h
string.h strings.h tgmath.h threads.h time.h wchar.h
dirent.h dlfcn.h endian.h fcntl.h fnmatch.h getopt.h glob.h libgen.h netdb.h poll.h pthread.h pwd.h sched.h
semaphore.h spawn.h syslog.h termios.h unistd.h
sys/auxv.h sys/epoll.h sys/eventfd.h sys/file.h sys/ioctl.h sys/mman.h sys/prctl.h sys/random.h sys/resource.h
sys/select.h sys/signalfd.h sys/socket.h sys/stat.h sys/statvfs.h sys/syscall.h sys/time.h
sys/timerfd.h sys/types.h sys/uio.h sys/un.h sys/utsname.h sys/wait.h arpa/inet.h netinet/in.h
netinet/tcp.h malloc.h execinfo.h
cpuid.h immintrin.h sanitizer/asan_interface.h
""".split())
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.M)


def third_party(header):
    return next((places for pattern, places in THIRD_PARTY if fnmatch.fnmatch(header, pattern)),
                None)


def check(path, text):
    folder = path.split("/")[0]
    for match in INCLUDE.finditer(lint.blank(text, keep_strings=True)):
        quote, header = match.groups()
        places = third_party(header)
        if places is not None:
            if not any(fnmatch.fnmatch(path, place) for place in places):
                yield f"includes {header}, which belongs in {' and '.join(places)} only"
        elif quote == "<":
            if header not in SYSTEM:
                yield f"includes <{header}>: not known; a new dependency needs a place in tests/lint/includes.py"
        else:
            other = header.split("/")[0]
            if "/" not in header or other not in MAY_INCLUDE:
                yield f'includes "{header}": write paths from the root, as in "base/arena.h"'
            elif other not in MAY_INCLUDE[folder]:
                yield f'includes "{header}": {folder} must not know {other}'


lint.run(check, lint.tracked((".c", ".h", ".def")),
         bad=[("base/x.c", '#include "moe/model.h"\n', "must not know moe"),
              ("moe/x.c", '#  include "features/plan.h"\n', "must not know features"),
              ("ranker/x.c", '#include "tools/cmd.h"\n', "must not know tools"),
              ("moe/x.c", '#include "model.h"\n', "paths from the root"),
              ("moe/x.c", '#include <cblas.h>\n', "belongs in moe/math/blas.c"),
              ("ranker/kafka.h", '#include <librdkafka/rdkafka.h>\n', "belongs in"),
              ("ranker/x.c", '#include "moerank.pb-c.h"\n', "belongs in proto"),
              ("moe/x.c", '#include <Python.h>\n', "not known")],
         good=[("ranker/x.c", '#include "features/plan.h"\n#include <stdio.h>\n'),
               ("moe/x.c", '/*\n#include "features/plan.h"\n*/\n'),
               ("proto/x.c", '#include "moerank.pb-c.h"\n'),
               ("tools/cmd_dev_broker.c", '#include <librdkafka/rdkafka_mock.h>\n')])
