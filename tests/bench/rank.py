#!/usr/bin/env python3
"""A real service end to end over gRPC: where its CPU time goes, and what two workers are worth.

Makes a stream with vectors of items and users, trains the 14 experts of the reference shape on it
for a moment (what a request costs depends on the shape alone), starts `moerank serve` on the state
and the model, and loads it with `moerank bench rank`. Shares are of the CPU time of the whole
service process; stages are the service's own counters, the rest is gRPC's threads and everything
else. Two workers against one: candidates a second, and, since the load generator needs some of the
same CPUs, also candidates per CPU second of scoring (one worker against two at once, times two).
"""
import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request

import bench_train

ITEMS, USERS, RATINGS = 2000, 200, 3000
STAGES = ["decode", "rows", "score", "order", "answer", "cache", "log"]
FEATURES = """
features:
  - {name: u_a, kind: vector, source: user.a, reduce: [], take: 128}
  - {name: u_b, kind: vector, source: user.b, reduce: [], take: 94}
  - {name: u_count, kind: count, scope: user, on: rating, scale: log}
  - {name: hour, kind: number, source: context.hour}
  - {name: u_last, kind: last_n, on: rating, n: 20, embed: true, table: item}
  - {name: i_a, kind: vector, source: item.a, reduce: [], take: 128}
  - {name: i_b, kind: vector, source: item.b, reduce: [], take: 92}
  - {name: i_like, kind: rate, scope: item, top: rating where value >= 4, bottom: rating, prior_weight: 5}
  - {name: i_count, kind: count, scope: item, on: rating, scale: log}
  - {name: i_lately, kind: window_count, scope: item, on: rating, bucket: 1d, windows: [7d, 28d], scale: log}
  - {name: item, kind: category, source: item.id, hash: 8192, embed: 32, table: item}
lateness: 1h
examples: {from: rating}
tasks:
  - {name: like, positive: rating where value >= 4}
  - {name: love, positive: rating where value >= 5}
  - {name: fine, positive: rating where value >= 3}
model:
  layers:
    - {kind: cgc, shared: 8, own: 2, expert: {kind: mlp, hidden: [256], out: 128}, gate: {kind: softmax}}
  tower: {hidden: [64]}
train: {epochs: 1, batch_rows: 256, threads: 1}
"""


def event(number, second, kind, fields, **more):
    return json.dumps({"event": kind, "id": f"e{number}", "event_time_us": (1700000000 + second) * 1000000, **more,
                       "fields": [{"name": k, "value": v} for k, v in fields.items()]})


def make_events(path):
    r = random.Random(1)
    vector = lambda n: [round(r.gauss(0, 1), 4) for _ in range(n)]
    with open(path, "w", encoding="utf-8") as f:
        n = 0
        for kind, count, b in (("item", ITEMS, 92), ("user", USERS, 94)):
            for i in range(count):
                n += 1
                print(event(n, 0, kind, {"a": vector(128), "b": vector(b)}, **{kind: f"{kind[0]}{i}"}), file=f)
        for i in range(RATINGS):
            n += 1
            print(event(n, i, "interaction", {"value": r.randint(1, 5)}, type="rating",
                        user=f"u{r.randrange(USERS)}", item=f"i{r.randrange(ITEMS)}"), file=f)


class Service:
    """moerank serve; its counters and its CPU time."""

    def __init__(self, o, folder, sets):
        port_file = os.path.join(folder, "port")
        if os.path.exists(port_file):
            os.unlink(port_file)
        self.admin = free_port()
        sets = {"state.snapshot": f"{folder}/state.snap", "serving.path": f"{folder}/m.st", "grpc.listen": "127.0.0.1:0",
                "grpc.port_file": port_file, "admin.listen": f"127.0.0.1:{self.admin}", "nearline.enabled": "false",
                "grpc.items_max": 5000, "log.level": "warn", **sets}
        command = [o.program, "serve", "--config", f"{folder}/c.yaml"]
        for k, v in sets.items():
            command += ["--set", f"{k}={v}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(600):
            if os.path.exists(port_file) or self.process.poll() is not None:
                break
            time.sleep(0.05)
        with open(port_file, encoding="utf-8") as f:
            self.target = "127.0.0.1:" + f.read().strip()

    def counters(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics") as page:
            lines = [line.split() for line in page.read().decode().splitlines() if not line.startswith("#")]
        out = {name: float(value) for name, value in lines if name.startswith("moerank_")}
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        out["cpu_s"] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return out

    def load(self, o, rows, concurrency, seconds):
        """What the callers saw, and what the counters did meanwhile."""
        command = [o.program, "bench", "rank", "--target", self.target, "--rows", f"[{rows}]", "--seconds", str(seconds),
                   "--concurrency", str(concurrency), "--catalogue", str(ITEMS), "--users", str(USERS), "--json"]
        before = self.counters()
        done = subprocess.run(command, capture_output=True, text=True)
        after = self.counters()
        if done.returncode != 0:
            raise SystemExit(f"rank.py: {done.stderr.strip()}")
        return json.loads(done.stdout), {k: after[k] - before[k] for k in after if k in before}

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def row(what, values, unit, target=None):
    return bench_train.row(what, values, unit, target, of=statistics.median)  # single runs meet other jobs


def profile(o, folder, name, sets, target, rows):
    """Shares of one worker's service at K = 500."""
    s = Service(o, folder, {"grpc.workers": 1, **sets})
    s.load(o, 500, 2, 1)
    seen = {}
    for _ in range(o.rounds):
        calls, d = s.load(o, 500, 2, o.seconds)
        total = d["cpu_s"]
        parts = {k: d[f"moerank_cpu_{k}_ns_total"] * 1e-9 for k in STAGES}
        parts["gRPC and the rest"] = total - sum(parts.values())
        for k, v in parts.items():
            seen.setdefault(k, []).append(100 * v / total)
        seen.setdefault("us", []).append(1e6 * total / calls["calls"])
        seen.setdefault("per_s", []).append(calls["candidates_per_s"])
        seen.setdefault("score", [])
    s.close()
    rows.append(row(f"{name}: share of CPU time in scoring", seen["score"], "%", target))
    for k in [*STAGES, "gRPC and the rest"]:
        if k != "score":
            rows.append(row(f"{name}: share in {k}", seen[k], "%"))
    rows.append(row(f"{name}: CPU time of a request", seen["us"], "us"))
    rows.append(row(f"{name}: candidates", seen["per_s"], "1/s"))


def workers(o, folder, rows):
    """One worker against two, in turns."""
    services = {n: Service(o, folder, {"grpc.workers": n, "serving.precision": "fp32", "serving.item_cache": 0,
                                       "state.snapshot": f"{folder}/state{n}.snap"}) for n in (1, 2)}
    wall, cpu = {1: [], 2: []}, {1: [], 2: []}
    for n, s in services.items():
        s.load(o, 500, 2 * n, 1)
    for _ in range(o.rounds):
        for n, s in services.items():
            calls, d = s.load(o, 500, 2 * n, o.seconds)
            wall[n].append(calls["candidates_per_s"])
            cpu[n].append(d["moerank_candidates_total"] / (d["moerank_cpu_score_ns_total"] * 1e-9))
    for s in services.values():
        s.close()
    rows.append(row("two workers / one: candidates a second, load generator on the same CPUs",
                    [b / a for a, b in zip(wall[1], wall[2])], "x", 1.85))
    rows.append(row("two workers / one: by CPU time of scoring", [2 * b / a for a, b in zip(cpu[1], cpu[2])], "x", 1.85))


def in_turns(o, folder, key, values, *loads):
    """Two services that differ in a setting, each with its own snapshot: what the callers of every load saw,
    [load][value]."""
    services = {v: Service(o, folder, {"grpc.workers": 2, "serving.precision": "fp32", "serving.item_cache": 0, key: v,
                                       "state.snapshot": f"{folder}/state{i + 1}.snap"}) for i, v in enumerate(values)}
    seen = [{v: [] for v in values} for _ in loads]
    for s in services.values():
        s.load(o, *loads[0], 1)
    for _ in range(o.rounds):
        for of_load, load in zip(seen, loads):
            for v, s in services.items():
                of_load[v].append(s.load(o, *load, o.seconds)[0])
    for s in services.values():
        s.close()
    return seen


def times(slow, fast, of):
    return [of(a) / of(b) for a, b in zip(slow, fast)]


def split(o, folder, rows):
    """One caller with large slates, two workers."""
    (seen,) = in_turns(o, folder, "grpc.split_min", (0, 1000), (2000, 1))
    rows.append(row("2,000 candidates, split over two workers: times as fast",
                    times(seen[0], seen[1000], lambda c: c["p50_us"]), "x"))


def spin(o, folder, rows):
    """Looking for the next call before a thread sleeps: for one caller, and for many."""
    alone, crowd = in_turns(o, folder, "grpc.spin", ("0s", "50us"), (10, 1), (50, 8))
    for v, calls in alone.items():
        rows.append(row(f"one caller, 10 candidates, spin {v}: p50", [c["p50_us"] / 1e3 for c in calls], "ms"))
    rows.append(row("one caller, 10 candidates, with spin: times as fast", times(alone["0s"], alone["50us"], lambda c: c["p50_us"]), "x"))
    rows.append(row("eight callers, 50 candidates, with spin: calls a second, times those without",
                    times(crowd["50us"], crowd["0s"], lambda c: c["calls_per_s"]), "x"))


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--program", default="build/release/moerank")
    p.add_argument("--out", default="build/bench/rank.json")
    p.add_argument("--seconds", type=int, default=4)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--parts", default="profile,workers,split,spin")
    o = p.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_events(f"{folder}/e.jsonl")
        with open(f"{folder}/c.yaml", "w", encoding="utf-8") as f:
            f.write(FEATURES)
        train = [o.program, "train", "--config", f"{folder}/c.yaml", "--events", f"{folder}/e.jsonl", "--model", f"{folder}/m.st",
                 "--state", f"{folder}/state.snap", "--quiet"]
        subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
        with open(f"{folder}/state.snap", "rb") as f:
            state = f.read()
        for n in (1, 2):
            with open(f"{folder}/state{n}.snap", "wb") as f:
                f.write(state)
        if "profile" in o.parts:
            profile(o, folder, "fp32, K = 500", {"serving.precision": "fp32", "serving.item_cache": 0}, 85, rows)
            profile(o, folder, "fp32 with request log", {"serving.precision": "fp32", "serving.item_cache": 0,
                                                         "log.requests": f"{folder}/requests.log"}, None, rows)
            profile(o, folder, "fp32 with item cache", {"serving.precision": "fp32"}, None, rows)
        if "workers" in o.parts:
            workers(o, folder, rows)
        if "split" in o.parts:
            split(o, folder, rows)
        if "spin" in o.parts:
            spin(o, folder, rows)
    lscpu = {k.strip(): v.strip() for k, v in (line.split(":", 1) for line in subprocess.run(
        ["lscpu"], capture_output=True, text=True).stdout.splitlines() if ":" in line)}
    peaks = subprocess.run([o.program, "bench", "score", "--sample", "small", "--rows", "[1]", "--rounds", "1", "--json"],
                           capture_output=True, text=True)
    peaks = json.loads(peaks.stdout)["peaks"] if peaks.returncode == 0 else None  # GFLOP/s, measured
    bench_train.write("rank", o.out, bench_train.finite(rows), threads_per_core=lscpu.get("Thread(s) per core"), peaks=peaks)


if __name__ == "__main__":
    main()
