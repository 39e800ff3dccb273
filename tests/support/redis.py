"""A private redis-server on a Unix socket for integration tests, or a cluster of them.

    with Redis() as redis:
        ... redis.socket ...
        redis.command("SET", "key", "value")
    with RedisCluster() as cluster:
        ... cluster.addresses() ...

Nothing is kept on disk unless aof=True (then every write is, at once). No redis-server raises an
exception: a test that needs Redis fails without it, and is never skipped.
"""
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from process import Child


def _free_port():
    """A port that is free together with the cluster's bus port, which is 10000 above."""
    while True:
        with socket.socket() as a, socket.socket() as b:
            a.bind(("127.0.0.1", 0))
            port = a.getsockname()[1]
            try:
                b.bind(("127.0.0.1", port + 10000))
                return port
            except (OSError, OverflowError):
                continue


class Redis:
    def __init__(self, aof=False, port=0, *settings):
        self.aof, self.port, self.settings = aof, port, settings
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
        argv = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket",
                self.socket, "--save", "", "--daemonize", "no", "--dir", self.folder, *keep,
                *self.settings]
        self.child = Child("redis-server", argv, os.path.join(self.folder, "log"))
        self.child.wait_until(self._answers, 20)

    def _answers(self):
        try:
            return self.command("PING") == b"PONG"
        except RuntimeError as e:  # a restart that still reads its append-only file
            if not str(e).startswith("LOADING"):
                raise
            return False

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


class RedisCluster:
    """Three masters with a replica each, equal shares of the slots."""
    MASTERS = 3

    def __init__(self):
        self.nodes = []

    def __enter__(self):
        try:
            for _ in range(2 * self.MASTERS):
                node = Redis(False, _free_port(), "--cluster-enabled", "yes",
                             "--cluster-node-timeout", "1500", "--repl-diskless-sync-delay", "0")
                self.nodes.append(node)
                node.__enter__()
            self._cli("create", *self.addresses(), "--cluster-replicas", "1", "--cluster-yes")
            self._wait(lambda: all(self._is_whole(n) for n in self.nodes))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for node in self.nodes:
            node.close()

    def addresses(self):
        return [f"127.0.0.1:{n.port}" for n in self.nodes]

    def masters(self):
        return [n for n in self.nodes if n.child.process.poll() is None
                and n.command("ROLE")[0] == b"master" and self._slots(n) > 0]

    def move_slots(self, n_slots):
        """From the first master to the second, keys and all."""
        source, target = self.masters()[:2]
        self._cli("reshard", f"127.0.0.1:{source.port}", "--cluster-from",
                  source.command("CLUSTER", "MYID").decode(), "--cluster-to",
                  target.command("CLUSTER", "MYID").decode(), "--cluster-slots", str(n_slots),
                  "--cluster-yes")

    def kill_master(self):
        """SIGKILL to a master; returns when its replica has taken over."""
        victim = self.masters()[-1]
        victim.stop(signal.SIGKILL)
        self._wait(lambda: len(self.masters()) == self.MASTERS
                   and all(self._is_whole(n) for n in self.nodes
                           if n.child.process.poll() is None))

    @staticmethod
    def _slots(node):
        me = node.command("CLUSTER", "MYID")
        return sum(r[1] - r[0] + 1 for r in node.command("CLUSTER", "SLOTS") if r[2][2] == me)

    @staticmethod
    def _is_whole(node):
        info = node.command("CLUSTER", "INFO").decode().split()
        linked = (node.command("ROLE")[0] == b"master" or
                  b"master_link_status:up" in node.command("INFO", "replication"))
        return "cluster_state:ok" in info and "cluster_slots_ok:16384" in info and linked

    @staticmethod
    def _cli(verb, *words):
        done = subprocess.run(["redis-cli", "--cluster", verb, *words], capture_output=True,
                              text=True, timeout=120, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise RuntimeError(f"redis-cli --cluster {verb}: {done.stdout[-2000:]}{done.stderr}")

    @staticmethod
    def _wait(ready, timeout_s=60):
        end = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > end:
                raise RuntimeError("the Redis cluster is not whole")
            time.sleep(0.05)
