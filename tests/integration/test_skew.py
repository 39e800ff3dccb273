"""What was served is made again from the event log, bit for bit, feature by feature, with each store,
while events are applied and calls are answered at the same time: by one process with its state in
memory; by one that ranks and ingests and two that ingest, sharing a Redis. One bit changed in a
logged row is found, and named."""
import json
import os
import random
import shutil
import struct
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import moerank
from kafka import Kafka
from process import Child
from redis import Redis, RedisCluster

EXAMPLE = os.path.join(moerank.ROOT, "docs", "examples", "synthetic.yaml")
PLAN = """\
features:
  - {name: genre_rate, kind: rate, scope: item.genres, top: click, bottom: impression, prior_weight: 20}
  - {name: visit, kind: join}
  - {name: seen_rate, kind: rate, scope: item, top: click, bottom: impression, cascade: visit,
     attribution: visit, bucket: 1h, windows: [6h, 1d]}
  - {name: user_seen, kind: count, scope: user, on: impression, cascade: visit}
  - {name: genre_seen, kind: rate, scope: item.genres, top: click, bottom: impression, cascade: visit,
     prior_weight: 20}
"""
EVENTS, USERS, ITEMS, RATE = 20_000, 200, 300, 3_000
START_US = 1767225600000000  # where the generated stream begins; it covers seven days
ITEM_IDS = [f"i{n}" for n in range(1, ITEMS + 1)]


class SkewTest(unittest.TestCase):
    LOGS = {"memory": "memory.log", "redis": "redis.log.zst", "cluster": "cluster.log"}  # plain, and in frames

    @classmethod
    def setUpClass(cls):
        cls.kafka = Kafka(partitions=4)
        cls.kafka.__enter__()
        cls.addClassCleanup(cls.kafka.close)
        cls.folder = tempfile.mkdtemp(prefix="moerank-skew-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.events = os.path.join(cls.folder, "events.jsonl")
        moerank.run("generate", "--events", EVENTS, "--users", USERS, "--items", ITEMS, "--late",
                    "0.02", "--late-by", "2h", "--malformed", "0.002", "--to", cls.events, "--quiet")
        cls.config, cls.model = cls.trained("all", PLAN)

    @classmethod
    def trained(cls, name, features):
        """The example's settings with these features before its own, and a model of them."""
        config, model = (os.path.join(cls.folder, name + end) for end in (".yaml", ".safetensors"))
        with open(EXAMPLE, encoding="utf-8") as f, open(config, "w", encoding="utf-8") as out:
            out.write(f.read().replace("features:\n", features, 1))
        moerank.run("train", "--config", config, "--events", cls.events, "--model", model,
                    "--set", "train.epochs=1", "--quiet")
        return config, model

    def path(self, name):
        return os.path.join(self.folder, name)

    def sets(self, name, *more):
        return [f"kafka.brokers={self.kafka.bootstrap}", f"kafka.topic={name}",
                f"kafka.dead_letter_topic={name}-dead", f"kafka.group={name}", "kafka.batch_events=100",
                f"serving.path={self.model}", f"log.requests={self.path(self.LOGS[name])}",
                f"log.requests_topic={name}-served", *more]

    def words(self, sets):
        return [w for s in sets for w in ("--set", s)]

    def child(self, name, *words):
        c = Child("moerank " + words[0], [moerank.binary(), *map(str, words)], self.path(name))
        self.addCleanup(c.stop, 9)
        return c

    def serve(self, name, ingesters, *more, trouble=None):
        """Ranks all the while that the stream comes in; the settings. With trouble, which is made
        meanwhile, calls may be refused."""
        sets = self.sets(name, *more)
        self.kafka.create_topic(name)
        self.kafka.create_topic(name + "-served", partitions=2)
        server = moerank.Server(self.config, tempfile.mkdtemp(dir=self.folder), *sets, "kafka.group=" + name)
        self.addCleanup(server.close)
        server.start()
        others = [self.child(f"{name}-ingest{i}", "ingest", "--config", self.config, *self.words(sets), "--quiet")
                  for i in range(ingesters)]
        for c in others:
            c.wait_until(lambda c=c: "partitions assigned" in c.tail(), 60)
        sender = moerank.Stream(self.events, self.path(name + "-send"), RATE, "--config", self.config,
                                *self.words(sets))
        self.addCleanup(sender.stop, 9)
        failed, calls = [], [0] * 3

        def load(k):
            rng = random.Random(k)
            while sender.sending() or calls[k] <= 70:  # however slow the machine is
                try:
                    server.rank(request_id=f"q{k}-{calls[k]}", user=f"u{rng.randrange(USERS)}", session="s1", items=rng.sample(ITEM_IDS, 60),
                                now_us=START_US + rng.randrange(8 * 86400) * 10**6, no_cache=rng.random() < 0.9)
                except Exception as e:  # a call that fails is for the main thread to show
                    failed.append(e)
                    if not trouble:
                        return
                    continue
                calls[k] += 1

        threads = [threading.Thread(target=load, args=(k,)) for k in range(len(calls))]
        for t in threads:
            t.start()
        if trouble:
            trouble()
            self.assertTrue(sender.sending(), sender.tail())
        sender.finish()
        for t in threads:
            t.join()
        self.assertTrue(trouble or not failed, failed)
        self.assertEqual(server.stop(), 0, server.child.tail())
        for c in others:
            c.stop()
            self.assertEqual(c.process.returncode, 0, c.tail())
        self.assertGreater(sum(calls), 200)
        return sets, sum(calls)

    def check(self, sets, *words):
        return moerank.run_json("replay", "--config", self.config, *self.words(sets), "--check-skew", *words)

    def expect_equal(self, result, calls):
        rows = result["rows"]
        self.assertEqual(result["requests"], calls)
        self.assertEqual(rows["differing_bits"], 0)
        self.assertEqual(rows["equal"], rows["requests"])
        self.assertEqual(rows["requests"] + result["cached"], calls)
        self.assertEqual(result["different"], 0)
        self.assertEqual(result["compared"], rows["requests"])
        self.assertTrue(all(f["values"] > 0 for f in rows["features"]), rows)

    def served(self, path):
        """Of a plain log: its messages."""
        pb = moerank.messages()[0]
        with open(path, "rb") as f:
            data = f.read()
        at, out = 0, []
        while at < len(data):
            n, = struct.unpack_from("<I", data, at)
            out.append(pb.RequestLog.FromString(data[at + 4:at + 4 + n]))
            at += 4 + n
        return out

    def test_memory(self):
        sets, calls = self.serve("memory", 0, f"state.snapshot={self.path('memory.snap')}")
        self.expect_equal(self.check(sets), calls)  # by the topic
        self.expect_equal(self.check(sets, "--requests", self.path("memory.log")), calls)
        # the control: one bit of one number
        served = self.served(self.path("memory.log"))
        self.assertEqual(len(served), calls)
        victim = next(m for m in served if not m.response.cached and len(m.applied) == 4)
        self.assertTrue(all(c > START_US - 10**9 for c in victim.clock_us), victim.clock_us)
        number, = struct.unpack("<I", struct.pack("<f", victim.rows.candidates[0]))
        victim.rows.candidates[0], = struct.unpack("<f", struct.pack("<I", number ^ 4))
        with open(self.path("disturbed"), "wb") as f:
            for m in served:
                data = m.SerializeToString()
                f.write(struct.pack("<I", len(data)) + data)
        with self.assertRaisesRegex(RuntimeError, "rows of 1 of .* requests differ, in 1 bits; .*feature '"):
            self.check(sets, "--requests", self.path("disturbed"))
        # and events that are not those of the server: one user's are another's
        with open(self.events, encoding="utf-8") as f, open(self.path("others"), "w", encoding="utf-8") as g:
            g.write(f.read().replace('"user":"u7"', '"user":"u8"'))
        self.kafka.create_topic("others")
        other = [*sets, "kafka.topic=others"]
        moerank.run("send", "--config", self.config, *self.words(other), "--file", self.path("others"), "--quiet")
        with self.assertRaisesRegex(RuntimeError, "requests differ|the events end|they end before"):
            self.check(other)

        self.train_on(sets, served, "memory.log")
        self.train_on(sets, served, None)

    def train_on(self, sets, served, log):
        """Of every third request the second item is clicked: that is what the examples say."""
        made = [m for m in served if not m.response.cached]
        clicks = sorted((m.request.now_us + 10**7, m.request.request_id, m.request.user,
                         m.request.items[m.response.order[1]]) for m in made[::3])
        with open(self.path("clicks"), "w", encoding="utf-8") as f:
            for time_us, request, user, item in clicks:
                f.write(json.dumps({"id": "c" + request, "event_time_us": time_us, "interaction": {
                    "user": user, "item": item, "type": "click", "ranking": request}}) + "\n")
        result = moerank.run_json("train", "--config", self.config, *self.words(sets), "--served",
                                  self.path(log) if log else "topic", "--events", self.path("clicks"),
                                  "--model", self.path("from-log"), "--set", "train.epochs=1",
                                  "--set", "examples.cascade=false")
        self.assertEqual(result["served"], len(made))
        self.assertEqual(result["left_out"], len(served) - len(made))
        self.assertEqual(result["rows"], sum(len(m.response.order) for m in made))
        task = next(t for t in result["tasks"] if t["task"] == "click")
        self.assertEqual(task["positives"], len(clicks))

    def test_redis(self):
        with Redis(aof=True) as redis:
            sets, calls = self.serve("redis", 2, "state.store=redis",
                                     f"state.redis_addresses=unix:{redis.socket}")
            result = self.check(sets)
            self.expect_equal(result, calls)
            self.expect_equal(self.check(sets, "--requests", self.path("redis.log.zst")), calls)
            self.assertGreater(result["rows"]["ahead"], 0, "no read fell into a micro-batch")

    def test_cluster(self):
        """Slots move and a master dies, and the replica that takes over may know less: whatever was
        served is still what its log says that it saw."""
        with RedisCluster() as cluster:
            def trouble():
                cluster.kill_master()
                cluster.move_slots(300)

            nodes = ",".join(cluster.addresses())
            sets, calls = self.serve("cluster", 2, "state.store=redis", "state.redis_mode=cluster",
                                     f"state.redis_addresses=[{nodes}]", trouble=trouble)
            self.expect_equal(self.check(sets), calls)


if __name__ == "__main__":
    program = unittest.main(exit=False, verbosity=2)
    sys.exit(0 if program.result.wasSuccessful() and program.result.testsRun > 0 else 1)
