#!/usr/bin/env python3
"""The work Metarank was measured with, through moerank: import, state in Redis, training, judging the
last fifth of the clicked rankings, serving over gRPC. tests/bench/metarank_data.py makes the events;
Metarank's figures are of version 0.7.11 on two Zen 5 cores, once, and stand beside ours.

Two settings are judged: Metarank's configuration as `moerank import-metarank` translates it, and
tests/bench/metarank.yaml, whose further features and settings were chosen on the fifth before the
last (--choose SETTINGS prints what that says of a file), never on the last.

--beside http://HOST:PORT/rank/MODEL asks a Metarank that runs there, with the same events, in turns with ours: then
the times of both are of one machine and one hour.
"""
import argparse
import contextlib
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
sys.path.insert(0, os.path.join(here, "..", "support"))
try:
    import grpc
except ModuleNotFoundError:  # Debian's Python has it
    if sys.executable == "/usr/bin/python3":
        raise SystemExit("metarank.py: no python3-grpcio; tools/setup")
    os.execv("/usr/bin/python3", ["/usr/bin/python3", os.path.abspath(__file__), *sys.argv[1:]])
import bench_train
import metarank_data as data
import moerank
from redis import Redis

SIZES = (10, 50, 100, 200, 300, 500)
# Metarank's better of state in memory and in Redis, p50 and p99 ms
RANK_MS = {10: (0.6, 0.9), 50: (1.4, 2.7), 100: (2.6, 4.0), 200: (4.8, 6.8), 300: (7.3, 9.4), 500: (13.9, 17.0)}
REDIS_MS = {10: (1.2, 4.4), 50: (2.7, 5.3), 100: (5.0, 9.3), 200: (10.3, 15.9), 300: (16.1, 24.0), 500: (28.7, 39.3)}
QUICK = ("grpc.spin=100us",)
LOOKS = "200us"
METARANK = {"import": 2269, "import RSS": 10400, "user": 1884, "item": 4562, "ndcg": 0.522}


def run(words):
    """A verb to its end: (its JSON, wall s, CPU s, peak RSS MB). A failure ends the benchmark with the verb's own
    words."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen([moerank.binary(), *map(str, words), "--json", "--quiet"], stdout=out,
                                 stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        if status != 0:
            said.seek(0)
            raise SystemExit(f"moerank {' '.join(map(str, words))}: {said.read().strip()}")
        out.seek(0)
        return (json.load(out), time.monotonic() - start, usage.ru_utime + usage.ru_stime,
                usage.ru_maxrss / 1024)


def apart(work, *args):
    """In a process of its own: a child's peak RSS, as the kernel tells it, begins with its parent's."""
    child = os.fork()
    if child == 0:
        work(*args)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit(f"metarank.py: {work.__name__} failed")


def row(what, values, unit="", target=None, at_least=True, rival=None):
    of = statistics.median if unit in ("ms", "x") else statistics.fmean  # single runs meet other jobs
    r = bench_train.row(what, values, unit, target, at_least, of=of)
    r["metarank"] = rival
    return r


def measure_import(settings, events, runs, rows):
    seen = {"events/s": [], "CPU": [], "RSS": []}
    for _ in range(runs):
        result, wall, cpu, rss = run(["ingest", "--config", settings, "--file", events, "--set", "state.snapshot="])
        assert result["applied"] == result["received"], result
        seen["events/s"].append(result["received"] / wall)
        seen["CPU"].append(result["received"] / cpu)
        seen["RSS"].append(rss)
    rows.append(row("import, two cores", seen["events/s"], "events/s", 100000, rival=METARANK["import"]))
    rows.append(row("import, per CPU second of both threads", seen["CPU"], "events/s"))
    rows.append(row("import, peak RSS", seen["RSS"], "MB", 500, False, METARANK["import RSS"]))
    rows.append(row("state in memory, whole", [result["state_bytes"] / 1e6], "MB"))


def measure_redis(settings, events, rows):
    """Bytes by scope, as Redis counts them, keys included."""
    with Redis() as redis:
        _, wall, cpu, rss = run(["ingest", "--config", settings, "--file", events, "--set", "state.snapshot=",
                                 "--set", "state.store=redis", "--set", f"state.redis_addresses=[unix:{redis.socket}]"])
        total = {}
        cursor = b"0"
        while True:
            cursor, keys = redis.command("SCAN", cursor, "COUNT", 1000)
            for key in keys:
                if b"}" not in key or key.endswith(b"}m"):
                    continue
                letter = key[key.index(b"}") + 1:][:1].decode()
                total.setdefault(letter, []).append(redis.command("MEMORY", "USAGE", key, "SAMPLES", 0))
            if cursor == b"0":
                break
        info = redis.command("INFO", "memory").decode()
    used = next(int(text.split(":")[1]) for text in info.splitlines() if text.startswith("used_memory:"))
    rows.append(row("import into Redis, two cores and its own", [data_count(events) / wall], "events/s", rival=1706))
    rows.append(row("Redis, a user", [statistics.fmean(total["u"])], "bytes", 400, False, METARANK["user"]))
    rows.append(row("Redis, an item", [statistics.fmean(total["i"])], "bytes", 500, False, METARANK["item"]))
    rows.append(row("Redis, used memory", [used / 1e6], "MB", rival=333))
    rows.append(row("Redis, sums over items, all shares", [sum(total["v"])], "bytes"))
    waiting = total.get("r", [])
    rows.append(row("Redis, rankings that wait for answers, at the end", [len(waiting)], ""))
    rows.append(row("Redis, one of them", [statistics.fmean(waiting or [0])], "bytes"))


def measure_shares(settings, events, train, folder, count, runs, precision, rows):
    """Ranks with state in Redis: our own client; one connection, one call at a time; a model of one epoch.
    `quick` and `plain` as in measure_rank; `asked` keeps nothing of what it read. The first run meets each
    size's users for the first time, and is given by itself. What a sum over items (scope item.FIELD) costs
    is seen beside the settings without it."""
    pb, _, _ = moerank.messages()
    with open(settings, encoding="ascii") as f:
        plan = f.readlines()
    paths = {n: write_requests(os.path.join(folder, f"rank-{n}.bin"), [body(pb, q) for q in data.requests(n, count)])
             for n in SIZES}
    trained = None
    for name, kept, buckets in (("a sum", plan, 64), ("a sum in 8 buckets", plan, 8),
                                ("no sum", [text for text in plan if "scope: item." not in text], 64)):
        path = os.path.join(folder, "shares.yaml")
        with open(path, "w", encoding="ascii") as f:
            f.writelines(kept)
        model = os.path.join(folder, "shares.safetensors")
        if kept != trained:
            run(["train", "--config", path, "--events", train, "--model", model, "--set", "train.epochs=1", "--set",
                 "state.snapshot="])
            small, trained = quantized(path, train, model, precision), kept
        seen = {}
        with contextlib.ExitStack() as stack:
            redis = stack.enter_context(Redis())
            sets = ["state.store=redis", f"state.redis_addresses=[unix:{redis.socket}]", f"state.redis_buckets={buckets}"]
            run(["ingest", "--config", path, "--file", events, "--set", "state.snapshot=", "--set", "state.ttl=0s",
                 *[w for s in sets for w in ("--set", s)]])
            servers = {who: stack.enter_context(serve(path, os.path.join(folder, who), "", m, *sets, *more))
                       for who, m, more in (("quick", small, QUICK), ("plain", model, ()),
                                            ("asked", model, ("state.redis_near=0",)))}
            for _ in range(runs + 1):
                for n in SIZES:
                    for who, server in servers.items():
                        seen.setdefault((who, n), []).append(own_client(server, paths[n]))
        for who, words in (("quick", "set up for latency"), ("plain", "settings as they come"),
                           ("asked", "redis_near: 0")):
            for n in SIZES:
                for i, q in enumerate((50, 99)):
                    what, rival = f"rank {n} items, state in Redis, {name}, {words}", REDIS_MS[n][i]
                    rows.append(row(f"{what}, first time, p{q}", [seen[who, n][0][i]], "ms"))
                    rows.append(row(f"{what}, p{q}", [t[i] for t in seen[who, n][1:]], "ms",
                                    rival / 10 if (who, name) == ("quick", "a sum") else None, False, rival))


def data_count(events):
    with open(events, "rb") as f:
        return sum(1 for _ in f)


def judge(name, settings, train, events, since_ms, folder, seeds, rows, sets=()):
    """Trains on what came before, scores every later ranking as it would have been served."""
    more = [w for s in sets for w in ("--set", s)]
    figures = {"ndcg": [], "auc": [], "seconds": [], "CPU": [], "RSS": []}
    for seed in range(1, seeds + 1):
        model = os.path.join(folder, f"{name}.{seed}.safetensors")
        _, wall, cpu, rss = run(["train", "--config", settings, "--events", train, "--model", model, "--set",
                                 f"train.seed={seed}", "--set", "state.snapshot=", *more])
        result, _, _, _ = run(["replay", "--config", settings, "--evaluate", "--events", events, "--model", model,
                               "--since", since_ms * 1000 - 1, "--set", "state.snapshot=", *more])
        ndcg = result["ndcg10"][0]
        for key, value in (("ndcg", ndcg["model"]), ("auc", result["auc"][0]["model"]), ("seconds", wall),
                           ("CPU", cpu), ("RSS", rss)):
            figures[key].append(value)
    print(f"{name}: {ndcg['lists']} lists, shown {ndcg['shown']:.4f}", file=sys.stderr)
    judged = name == "tuned"
    rows.append(row(f"NDCG@10, {name}", figures["ndcg"], target=0.535 if judged else None, rival=METARANK["ndcg"]))
    rows.append(row(f"AUC, {name}", figures["auc"]))
    rows.append(row(f"training, {name}", figures["seconds"], "s", rival=49))
    rows.append(row(f"training, {name}, CPU", figures["CPU"], "s", rival=70))
    rows.append(row(f"training, {name}, peak RSS", figures["RSS"], "MB", rival=5700))
    return model


def percentile(times, q):
    return sorted(times)[min(len(times) - 1, int(q * len(times)))] * 1e3


def serve(settings, folder, state, model, *sets):
    os.makedirs(folder, exist_ok=True)
    return moerank.Server(settings, folder, f"state.snapshot={state}", f"serving.path={model}", "kafka.brokers=",
                          "state.ttl=0s", "cache.enabled=false", "nearline.enabled=false", *sets)


def quantized(settings, train, model, precision):
    """The model, published for a cheaper precision, if that keeps the limits of `moerank quantize`."""
    out = f"{model}.{precision}"
    run(["quantize", "--config", settings, "--events", train, "--model", model, "--precision", precision, "--out", out,
         "--set", "state.snapshot="])
    return out


def own_client(server, path, method="Rank", spin="0s"):
    """The requests of a file through moerank's own client, on gRPC's C core: (p50, p99) in ms. `spin`: how long it
    looks for an answer before it sleeps."""
    done, _, _, _ = run(["bench", "rank", "--target", server.address, "--requests", path, "--method", method, "--spin",
                         spin])
    return done["p50_us"] / 1e3, done["p99_us"] / 1e3


class Beside:
    """A Metarank that runs: one connection, requests made beforehand."""

    def __init__(self, url):
        self.url = urllib.parse.urlparse(url)
        self.socket = socket.create_connection((self.url.hostname, self.url.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wire(self, q):
        fields = [{"name": k, "value": q[k]} for k in ("device", "query")]
        items = [{"id": i, "fields": [{"name": "relevancy", "value": r}]} for i, r in zip(q["items"], q["relevancy"])]
        text = json.dumps({"event": "ranking", "id": q["request_id"], "timestamp": str(data.END_MS), "user": q["user"],
                           "session": q["session"], "fields": fields, "items": items}, separators=(",", ":")).encode()
        return (f"POST {self.url.path} HTTP/1.1\r\nHost: {self.url.netloc}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(text)}\r\n\r\n").encode() + text

    def __call__(self, wire):
        """Until the answer's last chunk."""
        self.socket.sendall(wire)
        got = b""
        while not got.endswith(b"\r\n0\r\n\r\n"):
            more = self.socket.recv(1 << 18)
            got += more
            if not more or not got.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"metarank.py: --beside: {got[:200]!r}")


def write_requests(path, bodies):
    with open(path, "wb") as f:
        for b in bodies:
            f.write(struct.pack("<I", len(b)) + b)
    return path


def measure_rank(settings, events, train, model, folder, count, runs, precision, beside, rows):
    """One connection, one call at a time, features made for each, with clients in turns; and the same of an
    empty call, which is what a client, gRPC and the kernel cost by themselves. `quick` is a service as one
    would set it up for latency, and a client that looks for its answer; `asleep` the same service and a client
    that sleeps until its answer comes; `plain` a service without such settings, and that client."""
    pb, health, _ = moerank.messages()
    state = os.path.join(folder, "state.snap")
    if os.path.exists(state):
        os.unlink(state)
    run(["ingest", "--config", settings, "--file", events, "--state", state])
    check, seen = "/grpc.health.v1.Health/Check", {}
    bodies = {n: [body(pb, q) for q in data.requests(n, count)] if n else
              [health.HealthCheckRequest().SerializeToString()] * count for n in (0, *SIZES)}
    paths = {n: write_requests(os.path.join(folder, f"rank-{n}.bin"), b) for n, b in bodies.items()}
    small = quantized(settings, train, model, precision)
    peer = Beside(beside) if beside else None
    wires = {n: [peer.wire(q) for q in data.requests(n, count)] for n in SIZES} if peer else {}
    with serve(settings, os.path.join(folder, "plain"), state, model) as plain, \
            serve(settings, os.path.join(folder, "quick"), state, small, *QUICK) as quick:
        for _ in range(runs):
            for n in (0, *SIZES):
                method = "Rank" if n else check
                seen.setdefault((n, "quick"), []).append(own_client(quick, paths[n], method, LOOKS))
                seen.setdefault((n, "asleep"), []).append(own_client(quick, paths[n], method))
                seen.setdefault((n, "plain"), []).append(own_client(plain, paths[n], method))
                call = quick.channel.unary_unary("/moerank.v1.Ranking/Rank" if n else check)
                times = time_calls(call, bodies[n])
                seen.setdefault((n, "Python"), []).append((percentile(times, 0.5), percentile(times, 0.99)))
                if n in wires:
                    times = time_calls(peer, wires[n])
                    seen.setdefault((n, "beside"), []).append((percentile(times, 0.5), percentile(times, 0.99)))
        with open(f"/proc/{quick.child.process.pid}/status", encoding="ascii") as f:
            rss = next(int(t.split()[1]) for t in f if t.startswith("VmHWM"))
    clients = {"quick": "", "asleep": ", a client that sleeps", "plain": ", settings as they come", "Python": ", Python client"}
    for who, words in clients.items():
        for n in (0, *SIZES):
            for i, q in enumerate((50, 99)):
                rival = RANK_MS[n][i] if n else None
                rows.append(row(f"rank {n} items{words}, p{q}" if n else f"an empty gRPC call{words}, p{q}",
                                [t[i] for t in seen[n, who]], "ms", rival / 10 if n and who == "quick" else None, False, rival))
    for n in wires:
        for i, q in enumerate((50, 99)):
            theirs, ours = [t[i] for t in seen[n, "beside"]], [t[i] for t in seen[n, "quick"]]
            rows.append(row(f"Metarank beside, {n} items, p{q}", theirs, "ms"))
            rows.append(row(f"rank {n} items, p{q}, times as fast as Metarank beside", [a / b for a, b in zip(theirs, ours)], "x", 10))
    rows.append(row("serving, peak RSS", [rss / 1024], "MB", rival=1150))


def body(pb, q):
    return pb.RankRequest(
        request_id=q["request_id"], user=q["user"], session=q["session"], items=q["items"], now_us=data.END_MS * 1000,
        context=[pb.Field(name="device", text=q["device"]), pb.Field(name="query", text=q["query"])],
        columns=[pb.CandidateColumn(name="relevancy", values=q["relevancy"])]).SerializeToString()


def time_calls(call, bodies):
    for b in bodies[:50]:
        call(b)
    times = []
    for b in bodies:
        start = time.perf_counter()
        call(b)
        times.append(time.perf_counter() - start)
    return times


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--program", default="build/release/moerank")
    p.add_argument("--out", default="build/bench/metarank.json")
    p.add_argument("--folder", default="build/bench/metarank", help="events and models are kept there")
    p.add_argument("--parts", default="import,redis,shares,imported,tuned,rank")
    p.add_argument("--runs", type=int, default=3, help="of the import and of ranking")
    p.add_argument("--seeds", type=int, default=1, help="of training")
    p.add_argument("--requests", type=int, default=500, help="of each size")
    p.add_argument("--precision", default="int8", help="of the model served for latency: bf16 or int8")
    p.add_argument("--beside", metavar="URL", help="of a running Metarank's model, to be asked in turns with ours")
    p.add_argument("--choose", metavar="SETTINGS", help="judge this file on the fifth before the last, and end")
    p.add_argument("--set", action="append", default=[], help="with --choose")
    o = p.parse_args()
    os.environ["MOERANK_BUILD"] = os.path.dirname(os.path.abspath(o.program))
    folder, rows = os.path.abspath(o.folder), []
    os.makedirs(folder, exist_ok=True)
    events = os.path.join(folder, "events.jsonl")
    apart(data.write_events, events)
    cut = data.split(events)
    train, choice = os.path.join(folder, "train.jsonl"), os.path.join(folder, "choice.jsonl")
    data.head(events, cut["line"], train)
    if o.choose:
        data.head(events, cut["choice_line"], choice)
        judge("choice", o.choose, choice, train, cut["choice_ms"], folder, o.seeds, rows, o.set)
        bench_train.write("metarank-choice", o.out + ".choice", bench_train.finite(rows))
        return
    config = os.path.join(folder, "config.yml")
    with open(config, "w", encoding="ascii") as f:
        f.write(data.CONFIG)
    run(["import-metarank", config, "--output", folder, "--events", events])
    imported, tuned = os.path.join(folder, "moerank.yaml"), os.path.join(here, "metarank.yaml")
    parts = o.parts.split(",")
    if "import" in parts:
        measure_import(imported, events, o.runs, rows)
    if "redis" in parts:
        measure_redis(imported, events, rows)
    if "shares" in parts:
        measure_shares(imported, events, train, folder, o.requests, o.runs, o.precision, rows)
    for name, settings in (("imported", imported), ("tuned", tuned)):
        if name in parts:
            judge(name, settings, train, events, cut["ms"], folder, o.seeds, rows)
    if "rank" in parts:
        model = os.path.join(folder, "imported.1.safetensors")
        if not os.path.exists(model):
            judge("imported", imported, train, events, cut["ms"], folder, 1, [])
        measure_rank(imported, events, train, model, folder, o.requests, o.runs, o.precision, o.beside, rows)
    bench_train.write("metarank", o.out, bench_train.finite(rows), metarank="0.7.11, Java 17, 2 Zen 5 cores")


main()
