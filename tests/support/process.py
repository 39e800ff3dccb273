"""What the servers of kafka.py and redis.py share: a child that dies with the test, and its log."""
import ctypes
import os
import signal
import subprocess
import time

_libc = ctypes.CDLL(None)


def _die_with_parent():
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Child:
    """One server process; what it prints is kept in `log`, and its end is shown in errors."""

    def __init__(self, what, argv, log, cwd=None):
        self.what, self.log = what, log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            cwd=cwd, preexec_fn=_die_with_parent)

    def wait_until(self, ready, timeout_s):
        """Polls ready() until it returns True; raises if the process ends or time is up."""
        end = time.monotonic() + timeout_s
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.what} ended ({self.process.returncode}):\n{self.tail()}")
            try:
                if ready():
                    return
            except (OSError, EOFError):
                pass
            if time.monotonic() > end:
                self.stop(signal.SIGKILL)
                raise RuntimeError(f"{self.what} not ready in {timeout_s} s:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self, n_bytes=3000):
        with open(self.log, "rb") as f:
            f.seek(max(0, os.path.getsize(self.log) - n_bytes))
            return f.read().decode(errors="replace")

    def stop(self, sig=signal.SIGTERM, timeout_s=20):
        if self.process.poll() is not None:
            return
        self.process.send_signal(sig)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def receive(sock, n):
    """Exactly n bytes, or EOFError."""
    data = b""
    while len(data) < n:
        part = sock.recv(n - len(data))
        if not part:
            raise EOFError("connection closed")
        data += part
    return data
