"""A private redis-server on a Unix socket for integration tests.

    with Redis() as redis:
        ... redis.socket ...
        redis.command("SET", "key", "value")

Nothing is kept on disk unless aof=True (then every write is, at once). No redis-server raises an
exception: a test that needs Redis fails without it, and is never skipped.
"""
import os
import shutil
import signal
import socket
import tempfile

from process import Child


class Redis:
    def __init__(self, aof=False):
        self.aof = aof
        self.folder = self.child = self.socket = None

    def __enter__(self):
        if not shutil.which("redis-server"):
            raise RuntimeError("no redis-server: run tools/setup (package redis-server)")
        self.folder = tempfile.mkdtemp(prefix="moerank-redis-", dir="/tmp")  # short: 107 bytes fit
        self.socket = os.path.join(self.folder, "redis.sock")
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def start(self):
        """Starts the server, or starts it again after stop() at the same socket."""
        keep = ["--appendonly", "yes", "--appendfsync", "always"] if self.aof else []
        argv = ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "",
                "--daemonize", "no", "--dir", self.folder, *keep]
        self.child = Child("redis-server", argv, os.path.join(self.folder, "log"))
        self.child.wait_until(lambda: self.command("PING") == b"PONG", 20)

    def stop(self, sig=signal.SIGTERM):
        """A clean stop; signal.SIGKILL for a crash."""
        if self.child:
            self.child.stop(sig)
        if self.socket and os.path.exists(self.socket):
            os.unlink(self.socket)

    def pause(self):
        """Keeps connections open and answers nothing, until resume()."""
        self.child.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.child.process.send_signal(signal.SIGCONT)

    def close(self):
        if self.child:
            self.resume()
        self.stop(signal.SIGKILL)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *words):
        """One command, its reply as bytes, int, list or None; raises what Redis calls an error."""
        parts = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(self.socket)
            s.sendall(b"*%d\r\n" % len(parts)
                      + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
            with s.makefile("rb") as f:
                return self._reply(f)

    def _reply(self, f):
        line = f.readline().rstrip(b"\r\n")
        if not line:
            raise EOFError("connection closed")
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise RuntimeError(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        n = int(rest)
        if n < 0:
            return None
        return f.read(n + 2)[:n] if kind == b"$" else [self._reply(f) for _ in range(n)]
