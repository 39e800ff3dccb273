"""The short form of `tools/bench crash`: three ingesters of one group on a real Kafka, killed, paused
and made to leave at random, with each store; with Redis that is killed, too, and restarted from its
append-only file. The state at the end is byte-equal to that of an undisturbed process, every dead
letter is there, and a control shows that one event too many would be seen."""
import os
import random
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from disturb import Disturbance
from kafka import Kafka
from redis import Redis

EVENTS, RATE, KILLS = 60_000, 2_500, 6


class CrashTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kafka = Kafka(partitions=8)
        cls.kafka.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.kafka.close()

    def disturb(self, store, **more):
        folder = tempfile.mkdtemp(prefix="moerank-crash-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        seed = int(os.environ.get("MOERANK_SEED", os.getpid()))
        lab = Disturbance(self.kafka, folder, store, random.Random(seed), EVENTS, RATE, KILLS,
                          pause_s=(0.3, 2.0), **more)
        figures = lab.run()
        self.assertEqual(lab.complaints(), [], f"MOERANK_SEED={seed}: {figures}")
        self.assertGreaterEqual(figures["kills_while_sending"], KILLS)

    def test_memory(self):
        self.disturb("memory", every="100ms")

    def test_redis(self):
        with Redis(aof=True) as redis:
            self.disturb("redis", redis=redis, redis_every=4)


if __name__ == "__main__":
    program = unittest.main(exit=False, verbosity=2)
    sys.exit(0 if program.result.wasSuccessful() and program.result.testsRun > 0 else 1)
