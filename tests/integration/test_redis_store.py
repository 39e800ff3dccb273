"""State in Redis: three ingesters of one consumer group on a real Kafka, killed again and again,
partitions moving between them, Redis killed and restarted, or a cluster whose slots move and whose
master dies. What is in Redis at the end equals, byte for byte, what one undisturbed process makes of
the same topic in memory."""
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import moerank
from kafka import Kafka
from process import Child
from redis import Redis, RedisCluster

EVENTS, RATE, INGESTERS, KILLS = 120_000, 6_000, 3, 12

CONFIG = """\
kafka: {{brokers: "{brokers}", topic: {topic}, dead_letter_topic: {topic}-dead, group: {topic}-{name},
        batch_events: 300, properties: [session.timeout.ms=6000]}}
state: {{{state}}}
lateness: 10m
features:
  - {{name: price, kind: number, source: item.price}}
  - {{name: clicks, kind: count, scope: item, on: click}}
  - {{name: lately, kind: window_count, scope: item, on: click, bucket: 1h, windows: [6h, 1d]}}
  - {{name: click_rate, kind: rate, scope: item, top: click, bottom: impression, prior_weight: 20}}
  - {{name: genre_rate, kind: rate, scope: item.genres, top: click, bottom: impression, prior_weight: 20}}
  - {{name: active, kind: count, scope: user, on: any}}
  - {{name: clicked, kind: last_n, on: click, n: 30}}
  - {{name: since, kind: time_since, scope: user, on: click}}
  - {{name: visit, kind: join, window: 20m}}
  - {{name: seen_rate, kind: rate, scope: item, top: click, bottom: impression, cascade: visit,
     attribution: visit, bucket: 1h, window: 1d}}
  - {{name: genre_seen, kind: count, scope: item.genres, on: impression, cascade: visit}}
"""


class RedisStoreTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kafka = Kafka(partitions=8)
        cls.kafka.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.kafka.close()

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="moerank-redis-store-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.rng = random.Random(os.getpid())
        self.children = [None] * INGESTERS

    def path(self, name):
        return os.path.join(self.folder, name)

    def child(self, log, *words):
        c = Child("moerank " + words[0], [moerank.binary(), *map(str, words)], self.path(log))
        self.addCleanup(c.stop, signal.SIGKILL)
        return c

    def config(self, name, topic, state):
        path = self.path(name + ".yaml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(CONFIG.format(brokers=self.kafka.bootstrap, topic=topic, name=name,
                                  state=state))
        return path

    def send(self, topic, config):
        """The stream, in the background; it does not end before finish()."""
        self.kafka.create_topic(topic)
        self.kafka.create_topic(topic + "-dead", partitions=1)
        moerank.run("generate", "--events", EVENTS, "--users", 3000, "--items", 500, "--late",
                    "0.02", "--late-by", "30m", "--malformed", "0.002", "--to", self.path("events"),
                    "--quiet")
        stream = moerank.Stream(self.path("events"), self.path("send.log"), RATE, "--config", config)
        self.addCleanup(stream.stop, signal.SIGKILL)
        return stream

    def start(self, i, config):
        self.children[i] = self.child(f"ingest{i}.log", "ingest", "--config", config, "--quiet")

    def stop_all(self):
        for c in self.children:
            self.assertIsNone(c.process.poll(), c.tail())
            c.stop(signal.SIGTERM)
            self.assertEqual(c.process.returncode, 0, c.tail())

    def compare(self, topic, config):
        """Reads what is left, then compares with a process that nothing happened to."""
        last = moerank.run_json("ingest", "--config", config, "--until-end")
        moerank.run("dump", "--config", config, "--to", self.path("redis.dump"))
        calm = self.config("calm", topic, "snapshot: ''")
        result = moerank.run_json("ingest", "--config", calm, "--until-end", "--dump",
                                  self.path("calm.dump"))
        self.assertGreater(result["applied"], 0.97 * EVENTS)
        self.assertLess(last["received"], result["received"])
        with open(self.path("redis.dump"), "rb") as a, open(self.path("calm.dump"), "rb") as b:
            disturbed, undisturbed = a.read(), b.read()
        self.assertGreater(len(undisturbed), 100_000)
        self.assertTrue(disturbed == undisturbed, "the dumps differ")

    def test_ingesters_are_killed_and_redis_restarts(self):
        with Redis(aof=True) as redis:
            config = self.config("killed", "killed",
                                 f"store: redis, redis_addresses: ['unix:{redis.socket}']")
            sender = self.send("killed", config)
            for i in range(INGESTERS):
                self.start(i, config)
            for kill in range(KILLS):
                time.sleep(self.rng.uniform(0.3, 1.8))
                i = self.rng.randrange(INGESTERS)
                self.assertIsNone(self.children[i].process.poll(), self.children[i].tail())
                self.children[i].stop(signal.SIGKILL)
                if kill % 5 == 2:
                    redis.stop(signal.SIGKILL)
                    redis.start()
                self.start(i, config)
            self.assertTrue(sender.sending(), sender.tail())
            sender.finish()
            self.stop_all()
            self.compare("killed", config)

    def test_cluster_moves_slots_and_loses_a_master(self):
        with RedisCluster() as cluster:
            nodes = ", ".join(f"'{a}'" for a in cluster.addresses())
            config = self.config("cluster", "cluster", "store: redis, redis_mode: cluster, "
                                                       f"redis_addresses: [{nodes}]")
            sender = self.send("cluster", config)
            for i in range(INGESTERS):
                self.start(i, config)
            time.sleep(3)
            cluster.move_slots(1000)
            time.sleep(1)
            cluster.kill_master()
            cluster.move_slots(500)
            self.assertTrue(sender.sending(), sender.tail())
            sender.finish()
            self.stop_all()
            self.compare("cluster", config)


if __name__ == "__main__":
    program = unittest.main(exit=False, verbosity=2)
    sys.exit(0 if program.result.wasSuccessful() and program.result.testsRun > 0 else 1)
