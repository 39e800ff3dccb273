#!/usr/bin/env python3
"""A million events over a real Kafka into three ingesters of one group, which are killed (SIGKILL)
at random a hundred times and more while it comes in, paused past their sessions, stopped and started, so that
partitions move all the time; once with each store, with Redis killed and restarted from its
append-only file meanwhile. The state at the end must be byte-equal to that of one undisturbed
process; with the memory store that is asked of all three ingesters, each of which then reads by
itself what the others had. tests/integration/test_crash.py is the short form.
"""
import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import bench_train
from disturb import Disturbance
from kafka import Kafka
from redis import Redis


def row(what, value, target=None, exactly=False):
    text = None if target is None else f"{'=' if exactly else '>='} {target}"
    ok = None if target is None else value == target if exactly else value >= target
    return {"what": what, "value": value, "unit": "", "target": text, "ok": ok, "runs": 1, "min": value,
            "max": value, "half_width_95": None}


def rows_of(store, f, o):
    rows = [
        row(f"{store}: events", f["received"], o.events),
        row(f"{store}: SIGKILL to an ingester", f["kills"]),
        row(f"{store}: of these while the stream came in", f["kills_while_sending"], o.kills),
        row(f"{store}: of these to one with partitions", f["kills_while_reading"]),
        row(f"{store}: SIGSTOP past the session", f["pauses"]),
        row(f"{store}: SIGTERM", f["leaves"]),
        row(f"{store}: assignments of partitions", f["rebalances"]),
        row(f"{store}: states", f["states"]),
        row(f"{store}: of these byte-equal to the undisturbed", f["states_equal"], f["states"], True),
        row(f"{store}: bytes of a dump", f["dump_bytes"]),
        row(f"{store}: dead letters", f["dead_letters"]),
        row(f"{store}: dead letters missing", f["dead_letters_missing"], 0, True),
        row(f"{store}: dead letters of good events", f["dead_letters_wrong"], 0, True),
        row(f"{store}: control, one event twice, is seen", int(f["control_differs"]), 1, True),
        row(f"{store}: seconds", f["seconds"]),
    ]
    if store == "redis":
        rows[6:6] = [row("redis: SIGKILL to Redis", f["redis_kills"], 1),
                     row("redis: answered writes that it lost", f["lost_writes"], 0, True)]
    return rows


def run(store, o, seed):
    folder = tempfile.mkdtemp(prefix="moerank-crash-")

    def say(text):
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    say(f"{store}: seed {seed}, {folder}")
    with Kafka(partitions=8) as kafka, Redis(aof=True) as redis:
        more = {"redis": redis, "redis_every": 8} if store == "redis" else {}
        lab = Disturbance(kafka, folder, store, random.Random(seed), o.events, o.rate, o.kills,
                          say=say, **more)
        figures = lab.run()
    complaints = lab.complaints()
    say(f"{store}: {json.dumps(figures)}")
    for c in complaints:
        say(f"{store}: {c}")
    if not complaints:
        shutil.rmtree(folder, ignore_errors=True)
    return figures


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--program", default="build/release/moerank")
    p.add_argument("--out", default="build/bench/crash.json")
    p.add_argument("--stores", default="memory,redis")
    p.add_argument("--events", type=int, default=1_000_000)
    p.add_argument("--rate", type=int, default=2200, help="events a second sent: the kills must fall into it")
    p.add_argument("--kills", type=int, default=100, help="at least so many while the stream comes in")
    p.add_argument("--seed", type=int, default=int(time.time()))
    o = p.parse_args()
    os.environ["MOERANK_BUILD"] = os.path.dirname(os.path.abspath(o.program))
    print(f"seed {o.seed}", file=sys.stderr)
    rows = []
    for k, store in enumerate(o.stores.split(",")):
        rows += rows_of(store, run(store, o, o.seed + k), o)
    bench_train.write("crash", o.out, rows, seed=o.seed)


if __name__ == "__main__":
    main()
