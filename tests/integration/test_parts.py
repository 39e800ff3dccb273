"""The parts that other integration tests stand on: a real Kafka and a real Redis start, answer,
stop, and start again with what they should have kept."""
import os
import signal
import socket
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from kafka import Kafka
from redis import Redis


class KafkaTest(unittest.TestCase):
    def test_topics_have_leaders_and_survive_a_restart(self):
        with Kafka(partitions=3) as kafka:
            self.assertEqual(kafka.brokers(), 1)
            kafka.create_topic("events", partitions=5)
            self.assertEqual(sorted(kafka.leaders("events")), [0, 1, 2, 3, 4])
            with self.assertRaises(RuntimeError):
                kafka.create_topic("events")
            folder, port = kafka.folder, kafka.port
            kafka.stop()
            with self.assertRaises(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
            kafka.start()
            kafka.child.wait_until(lambda: len(kafka.leaders("events")) == 5, 30)
        self.assertIsNotNone(kafka.child.process.poll())
        self.assertFalse(os.path.exists(folder))


class RedisTest(unittest.TestCase):
    def test_answers_and_forgets_by_default(self):
        with Redis() as redis:
            self.assertEqual(redis.command("PING"), b"PONG")
            redis.command("SET", "key", b"\0value")
            self.assertEqual(redis.command("GET", "key"), b"\0value")
            self.assertIsNone(redis.command("GET", "other"))
            self.assertEqual(redis.command("MGET", "key", "other"), [b"\0value", None])
            with self.assertRaises(RuntimeError):
                redis.command("NOSUCH")
            redis.stop()
            with self.assertRaises(OSError):
                redis.command("PING")
            redis.start()
            self.assertIsNone(redis.command("GET", "key"))
            folder = redis.folder
        self.assertFalse(os.path.exists(folder))

    def test_keeps_through_a_crash_with_aof(self):
        with Redis(aof=True) as redis:
            redis.command("SET", "key", "value")
            redis.stop(signal.SIGKILL)
            redis.start()
            self.assertEqual(redis.command("GET", "key"), b"value")


if __name__ == "__main__":
    program = unittest.main(exit=False, verbosity=2)
    sys.exit(0 if program.result.wasSuccessful() and program.result.testsRun > 0 else 1)
