#!/usr/bin/env python3
"""Events a second through the state, and what it keeps: a plan of 20 features, 10 of them windowed
(tests/bench/ingest.yaml), over `moerank generate`'s stream: rankings of --slate items and what answers
them, two events in three are interactions. Per core: events by the CPU seconds of all of the
program's threads, decoding of JSON included; Redis' own CPU is not ours and stands apart.

And that an event costs the same whatever is known: events after those of items and users, less what
those alone cost, with 1,000 users and with --many, in turns. (Nothing waits in the state: impressions
and interactions are counted when they come, and joined where they are read.)

--parts kafka: the same stream through a real Kafka on the same machine, and which threads of the
program compute meanwhile: what a thread that decodes beside the one that applies could be worth.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
sys.path.insert(0, os.path.join(here, "..", "support"))
import bench_train
from kafka import Kafka
from redis import Redis

CONFIG = os.path.join(here, "ingest.yaml")


def run(program, *words):
    """The verb's JSON and the CPU seconds it took."""
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen([program, *map(str, words), "--json", "--quiet"], stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        if status != 0:
            raise SystemExit(f"{' '.join(map(str, words))}: exit status {status >> 8}")
        out.seek(0)
        return json.load(out), usage.ru_utime + usage.ru_stime


def generate(program, path, **options):
    if not os.path.exists(path):
        words = [w for key, value in options.items() for w in ("--" + key, value)]
        run(program, "generate", *words, "--to", path + ".part")
        os.replace(path + ".part", path)
    return path


def ingest(program, path, *sets):
    words = ["ingest", "--config", CONFIG, "--file", path]
    for s in sets:
        words += ["--set", s]
    return run(program, *words)


def facts(path, to, n):
    """The first lines only: items and users."""
    with open(path, "rb") as f, open(to, "wb") as out:
        for _ in range(n):
            out.write(f.readline())
    return to


def measure_rates(o, stream, rows):
    memory, redis, server = [], [], []
    for _ in range(o.runs):
        result, cpu = ingest(o.program, stream)
        memory.append(result["received"] / cpu)
        with Redis() as r:
            done, cpu = ingest(o.program, stream, "state.store=redis", f"state.redis_addresses=[unix:{r.socket}]")
            redis.append(done["received"] / cpu)
            info = r.command("INFO", "cpu").decode().split()
            used = {k: float(v) for k, v in (t.split(":") for t in info if ":" in t)}
            server.append(done["received"] / (used["used_cpu_user"] + used["used_cpu_sys"]))
    rows.append(bench_train.row("events per core, memory", memory, "events/s", 200000))
    rows.append(bench_train.row("events per core, Redis", redis, "events/s", 60000))
    rows.append(bench_train.row("events per core of redis-server", server, "events/s"))


def thread_seconds(pid):
    """CPU seconds by thread: (id, name) -> s."""
    out = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as f:
            name = f.read().strip()
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
            out[task, name] = int(f.read().split()[0]) * 1e-9
    return out


def measure_kafka(o, stream, rows):
    """From the topic's beginning to its end. The first thread polls, decodes and applies."""
    seen = {"all": [], "own": [], "library": []}
    with Kafka(partitions=4) as kafka:
        kafka.create_topic("bench")
        sets = ["--set", f"kafka.brokers={kafka.bootstrap}", "--set", "kafka.topic=bench"]
        run(o.program, "send", "--config", CONFIG, "--file", stream, *sets)
        for k in range(o.runs):
            with tempfile.TemporaryFile("w+") as out:
                child = subprocess.Popen([o.program, "ingest", "--config", CONFIG, *sets, "--set", f"kafka.group=bench{k}",
                                          "--set", "state.snapshot=", "--until-end", "--json", "--quiet"],
                                         stdout=out, stderr=subprocess.DEVNULL)
                cpu = {}
                while child.poll() is None:
                    try:
                        cpu.update(thread_seconds(child.pid))
                    except (FileNotFoundError, ProcessLookupError):
                        pass  # a thread that has ended meanwhile
                    time.sleep(0.01)
                out.seek(0)
                result = json.load(out)
            assert result["received"] == o.events, result
            own = next(s for (task, _), s in cpu.items() if task == str(child.pid))
            seen["all"].append(result["events_per_s"])
            seen["own"].append(100 * own / result["seconds"])
            seen["library"].append(100 * sum(s for (_, name), s in cpu.items() if name.startswith("rdk:")) / result["seconds"])
    rows.append(bench_train.row("from Kafka on the same cores", seen["all"], "events/s"))
    rows.append(bench_train.row("of that time its thread computes", seen["own"], "%"))
    rows.append(bench_train.row("of that time librdkafka computes", seen["library"], "%"))


def measure_bytes(o, stream, rows):
    """Of all that the stream left in memory, tables and pages included."""
    size, _ = run(o.program, "size", "--config", CONFIG, "--events", stream, "--users", o.users, "--items", o.items)
    by = {s["scope"]: s for s in size["scopes"]}
    rows.append(bench_train.row("a user in memory", [by["user"]["memory_bytes"]], "bytes", 200, at_least=False))
    rows.append(bench_train.row("an item in memory", [by["item"]["memory_bytes"]], "bytes", 300, at_least=False))


def measure_growth(o, folder, rows):
    """Microseconds of CPU an event, after few and after many users were seen."""
    costs = {}
    for name, users in (("few", 1000), ("many", o.many)):
        later = generate(o.program, os.path.join(folder, f"later-{name}.jsonl"), users=users, items=2000,
                         events=2000 + users + o.events // 2, seed=4)
        costs[name] = (later, users, [])
    for _ in range(o.runs):
        for name, (later, users, seen) in costs.items():
            base = facts(later, os.path.join(folder, f"facts-{name}.jsonl"), 2000 + users)
            n = o.events // 2
            seen.append((ingest(o.program, later)[1] - ingest(o.program, base)[1]) / n * 1e6)
    few, many = costs["few"][2], costs["many"][2]
    rows.append(bench_train.row("an event, 1,000 users known", few, "us"))
    rows.append(bench_train.row(f"an event, {o.many} users known", many, "us"))
    rows.append(bench_train.row("many / few", [b / a for a, b in zip(few, many)], "times", 2, at_least=False))


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--program", default="build/release/moerank")
    p.add_argument("--out", default="build/bench/ingest.json")
    p.add_argument("--folder", default="build/bench/ingest", help="streams are kept there")
    p.add_argument("--events", type=int, default=500000)
    p.add_argument("--users", type=int, default=20000)
    p.add_argument("--items", type=int, default=2000)
    p.add_argument("--slate", type=int, default=10)
    p.add_argument("--many", type=int, default=1000000, help="users of the larger state")
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--parts", default="rates,bytes,growth", help="also: kafka")
    o = p.parse_args()
    os.makedirs(o.folder, exist_ok=True)
    stream = generate(o.program, os.path.join(o.folder, f"stream-{o.events}-{o.users}-{o.slate}.jsonl"),
                      events=o.events, users=o.users, items=o.items, slate=o.slate, seed=1)
    rows = []
    if "rates" in o.parts:
        measure_rates(o, stream, rows)
    if "kafka" in o.parts:
        measure_kafka(o, stream, rows)
    if "bytes" in o.parts:
        measure_bytes(o, stream, rows)
    if "growth" in o.parts:
        measure_growth(o, o.folder, rows)
    bench_train.write("ingest", o.out, bench_train.finite(rows), events=o.events, users=o.users, items=o.items, slate=o.slate)


main()
