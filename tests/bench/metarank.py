#!/usr/bin/env python3
"""The work Metarank was measured with, through moerank: import, state in Redis, training, judging the
last fifth of the clicked rankings, serving over gRPC. tests/bench/metarank_data.py makes the events;
Metarank's figures are of version 0.7.11 on two Zen 5 cores, once, and stand beside ours.

Two settings are judged: Metarank's configuration as `moerank import-metarank` translates it, and
tests/bench/metarank.yaml, whose further features and settings were chosen on the fifth before the
last (--choose SETTINGS prints what that says of a file), never on the last.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

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
METARANK = {"import": 2269, "import RSS": 10400, "user": 1884, "item": 4562, "ndcg": 0.522}


def run(words, quiet=True):
    """A verb to its end: (its JSON, wall s, CPU s, peak RSS MB)."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen([moerank.binary(), *map(str, words), "--json", "--quiet"], stdout=out,
                                 stderr=subprocess.DEVNULL if quiet else None)
        _, status, usage = os.wait4(child.pid, 0)
        if status != 0:
            raise SystemExit(f"moerank {' '.join(map(str, words))}: exit status {status >> 8}")
        out.seek(0)
        return (json.load(out), time.monotonic() - start, usage.ru_utime + usage.ru_stime,
                usage.ru_maxrss / 1024)


def row(what, values, unit="", target=None, at_least=True, rival=None):
    r = bench_train.row(what, values, unit, target, at_least)
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
    """Bytes by scope, as Redis counts them, keys included. A scope item.FIELD and joins need one writer."""
    with open(settings, encoding="ascii") as f:
        plan = f.read().splitlines(True)
    kept = [text.replace(", cascade: metarank_clickthrough", "") for text in plan
            if "scope: item." not in text and "kind: join" not in text]
    path = settings + ".redis.yaml"
    with open(path, "w", encoding="ascii") as f:
        f.writelines(kept)
    with Redis() as redis:
        _, wall, cpu, rss = run(["ingest", "--config", path, "--file", events, "--set", "state.snapshot=",
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
    rows.append(row("Redis, features left out (scope item.FIELD)", [len(plan) - len(kept)]))


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


def measure_rank(settings, events, model, folder, count, precision, rows):
    """One connection, one call at a time, features made for each; and the same of an empty call, which
    is what this client costs by itself."""
    state = os.path.join(folder, "state.snap")
    run(["ingest", "--config", settings, "--file", events, "--state", state])
    with moerank.Server(settings, folder, f"state.snapshot={state}", f"serving.path={model}", "kafka.brokers=",
                        "state.ttl=0s", "cache.enabled=false", "nearline.enabled=false",
                        f"serving.precision={precision}") as server:
        pb, health, _ = moerank.messages()
        empty = health.HealthCheckRequest().SerializeToString()
        ping = server.channel.unary_unary("/grpc.health.v1.Health/Check")
        rank = server.channel.unary_unary("/moerank.v1.Ranking/Rank")
        floor = time_calls(ping, [empty] * count)
        rows.append(row("an empty gRPC call of this client, p50", [percentile(floor, 0.5)], "ms"))
        for n in SIZES:
            bodies = [body(pb, q) for q in data.requests(n, count)]
            times = time_calls(rank, bodies)
            p50, p99 = RANK_MS[n]
            for q, rival in ((0.5, p50), (0.99, p99)):
                rows.append(row(f"rank {n} items, p{int(q * 100)}", [percentile(times, q)], "ms", rival / 10, False, rival))
        pid = server.child.process.pid
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            rss = next(int(t.split()[1]) for t in f if t.startswith("VmHWM"))
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
    p.add_argument("--parts", default="import,redis,imported,tuned,rank")
    p.add_argument("--runs", type=int, default=3, help="of the import")
    p.add_argument("--seeds", type=int, default=1, help="of training")
    p.add_argument("--requests", type=int, default=500, help="of each size")
    p.add_argument("--precision", default="bf16", help="of the served model: fp32 or bf16")
    p.add_argument("--choose", metavar="SETTINGS", help="judge this file on the fifth before the last, and end")
    p.add_argument("--set", action="append", default=[], help="with --choose")
    o = p.parse_args()
    os.environ["MOERANK_BUILD"] = os.path.dirname(os.path.abspath(o.program))
    folder, rows = os.path.abspath(o.folder), []
    os.makedirs(folder, exist_ok=True)
    events = os.path.join(folder, "events.jsonl")
    data.write_events(events)
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
    for name, settings in (("imported", imported), ("tuned", tuned)):
        if name in parts:
            judge(name, settings, train, events, cut["ms"], folder, o.seeds, rows)
    if "rank" in parts:
        model = os.path.join(folder, "imported.1.safetensors")
        if not os.path.exists(model):
            judge("imported", imported, train, events, cut["ms"], folder, 1, [])
        measure_rank(imported, events, model, folder, o.requests, o.precision, rows)
    bench_train.write("metarank", o.out, bench_train.finite(rows), metarank="0.7.11, Java 17, 2 Zen 5 cores")


main()
