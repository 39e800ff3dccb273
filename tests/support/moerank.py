"""The program under test, for integration tests: its verbs, its server, and standard gRPC calls.

Messages come from protoc's Python plugin at test time, so that what is tested is the contract in
proto/, not our own codec. MOERANK_BUILD names the build folder.
"""
import functools
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

try:
    import grpc
except ModuleNotFoundError:  # another Python than Debian's: verbs can be run, servers not called
    grpc = None

from process import Child

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROTO = os.path.join(ROOT, "proto")
GRPC_PROTO = "/usr/share/grpc-proto"


def binary():
    build = os.environ.get("MOERANK_BUILD") or os.path.join(ROOT, "build", "release")
    path = os.path.join(build, "moerank")
    if not os.path.exists(path):
        raise RuntimeError(f"no {path}: build first, or set MOERANK_BUILD")
    return path


def run(*words, timeout_s=300, expect=0):
    """One verb to its end; its stdout. Another exit code than expected is an error with stderr."""
    done = subprocess.run([binary(), *map(str, words)], capture_output=True, text=True,
                          timeout=timeout_s, stdin=subprocess.DEVNULL)
    if done.returncode != expect:
        raise RuntimeError(f"moerank {' '.join(map(str, words))} ended with {done.returncode}:\n"
                           + done.stdout[-1000:] + done.stderr[-3000:])
    return done.stdout


def run_json(*words, **more):
    return json.loads(run(*words, "--json", "--quiet", **more))


@functools.lru_cache(None)
def messages():
    """The modules of moerank.proto, health.proto and reflection.proto."""
    folder = tempfile.mkdtemp(prefix="moerank-stubs-")
    sys.path.insert(0, folder)
    subprocess.run(["protoc", "-I", PROTO, "-I", GRPC_PROTO, f"--python_out={folder}",
                    "moerank.proto", "grpc/health/v1/health.proto",
                    "grpc/reflection/v1alpha/reflection.proto"], check=True)
    modules = [importlib.import_module("moerank_pb2")]
    # "grpc" is taken by grpcio: its generated files are loaded by path
    for name in ("health/v1/health_pb2", "reflection/v1alpha/reflection_pb2"):
        spec = importlib.util.spec_from_file_location(name.rsplit("/", 1)[1],
                                                      os.path.join(folder, "grpc", name + ".py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        modules.append(module)
    shutil.rmtree(folder, ignore_errors=True)
    return modules


class Stream(Child):
    """`moerank send` of a file at so many lines a second, which keeps the last quarter back, but for
    a trickle, until finish(): what is done before that falls into the stream, however slow the
    machine is. `words` are the rest of send's.
    """

    def __init__(self, file, log, rate, *words):
        self.fifo = log + ".fifo"
        os.mkfifo(self.fifo)
        super().__init__("moerank send", [binary(), "send", "--file", self.fifo, "--rate", str(rate),
                                          "--quiet", *map(str, words)], log)
        self.free = threading.Event()
        threading.Thread(target=self._feed, args=(file, rate), daemon=True).start()

    def _feed(self, file, rate):
        with open(file, "rb") as f:
            lines = f.readlines()
        at, step = len(lines) * 3 // 4, max(1, rate // 40)
        try:
            with open(self.fifo, "wb") as out:  # a pipe is short: this keeps send's pace
                out.writelines(lines[:at])
                while at + step < len(lines) and not self.free.wait(0.1):
                    out.writelines(lines[at:at + step])
                    at += step
                self.free.wait()
                out.writelines(lines[at:])
        except BrokenPipeError:
            pass  # send has ended; whoever waits for it sees why

    def sending(self):
        return self.process.poll() is None

    def finish(self, timeout_s=180):
        self.free.set()
        self.process.wait(timeout_s)
        if self.process.returncode != 0:
            raise RuntimeError(f"moerank send ended with {self.process.returncode}: {self.tail()}")


class Server:
    """`moerank serve` with a port of its own, and calls to it.

        with Server(config, folder, "log.level=debug") as server:
            reply = server.rank(user="u1", items=["a", "b"])
    """

    def __init__(self, config, folder, *sets):
        self.config, self.folder, self.sets = config, folder, sets
        self.child = self.channel = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.close()

    def start(self, wait=True):
        port_file = os.path.join(self.folder, "port")
        if os.path.exists(port_file):
            os.unlink(port_file)
        words = ["serve", "--config", self.config, "--set", "grpc.listen=127.0.0.1:0", "--set",
                 "grpc.port_file=" + port_file]
        for s in self.sets:
            words += ["--set", s]
        self.child = Child("moerank serve", [binary(), *words], os.path.join(self.folder, "serve.log"))
        self.child.wait_until(lambda: os.path.exists(port_file), 60)
        with open(port_file, encoding="ascii") as f:
            self.address = "127.0.0.1:" + f.read().strip()
        self.channel = grpc.insecure_channel(self.address)
        if wait:
            self.child.wait_until(self.serving, 60)

    def stop(self, sig=signal.SIGTERM, timeout_s=30):
        """The exit code."""
        if self.channel:
            self.channel.close()
        if not self.child:
            return None
        self.child.stop(sig, timeout_s)
        return self.child.process.returncode

    def close(self):
        self.stop(signal.SIGKILL)

    # calls: keyword arguments are the request's fields

    def call(self, method, request, reply, timeout=20):
        return self.channel.unary_unary(method, request_serializer=lambda m: m.SerializeToString(),
                                        response_deserializer=reply.FromString)(request, timeout=timeout)

    def _ranking(self, method, request, reply, timeout):
        return self.call("/moerank.v1.Ranking/" + method, request, reply, timeout)

    def rank(self, timeout=20, **fields):
        pb = messages()[0]
        return self._ranking("Rank", pb.RankRequest(**fields), pb.RankResponse, timeout)

    def recommend(self, timeout=20, **fields):
        pb = messages()[0]
        return self._ranking("Recommend", pb.RecommendRequest(**fields), pb.RecommendResponse, timeout)

    def feedback(self, timeout=20, **fields):
        pb = messages()[0]
        return self._ranking("Feedback", pb.FeedbackRequest(**fields), pb.FeedbackResponse, timeout)

    def model(self, timeout=20):
        pb = messages()[0]
        return self._ranking("GetModel", pb.GetModelRequest(), pb.GetModelResponse, timeout)

    def health(self, service="", timeout=20):
        pb = messages()[1]
        return self.call("/grpc.health.v1.Health/Check", pb.HealthCheckRequest(service=service),
                         pb.HealthCheckResponse, timeout).status

    def serving(self):
        try:
            return self.health() == messages()[1].HealthCheckResponse.SERVING
        except grpc.RpcError:
            return False

    def reflect(self, *requests):
        """One stream of requests (dicts of ServerReflectionRequest's fields); the replies."""
        pb = messages()[2]
        stream = self.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=pb.ServerReflectionResponse.FromString)
        return list(stream(iter([pb.ServerReflectionRequest(**r) for r in requests]), timeout=20))

    def metrics(self, address):
        """/metrics as a dict; `address` is admin.listen's."""
        import urllib.request
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as f:
            lines = f.read().decode().splitlines()
        return {l.rsplit(" ", 1)[0]: float(l.rsplit(" ", 1)[1]) for l in lines if l and l[0] != "#"}
