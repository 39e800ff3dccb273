"""From a real Kafka into the state: what is wrong goes to the dead-letter topic with its reason,
what is right is applied once, whatever happens to the process in between."""
import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import moerank
from kafka import Kafka
from process import Child
from redis import Redis

GOOD, BAD, KILLED_EVENTS, KILLS = 100_000, 1_000, 200_000, 20

CONFIG = """\
kafka: {{brokers: "{brokers}", topic: {topic}, dead_letter_topic: {topic}-dead, group: {group},
        properties: [session.timeout.ms=6000{more}]}}
state: {{snapshot: {snapshot}, snapshot_every: {every}}}
lateness: 10m
features:
  - {{name: price, kind: number, source: item.price}}
  - {{name: clicks, kind: count, scope: item, on: click}}
  - {{name: lately, kind: window_count, scope: item, on: click, bucket: 1h, windows: [6h, 1d]}}
  - {{name: click_rate, kind: rate, scope: item, top: click, bottom: impression, prior_weight: 20}}
  - {{name: active, kind: count, scope: user, on: any}}
  - {{name: clicked, kind: last_n, on: click, n: 30}}
  - {{name: since, kind: time_since, scope: user, on: click}}
"""

# what is wrong with a message, and what its reason must contain
WRONG = [
    (b"not an event at all", r"not a moerank\.v1\.Event"),
    (b"{\"id\": ", r"JSON|json|byte"),
    (b"{\"id\": \"x\", \"event_time_us\": 5}", r"no body|item|user|kind|body"),
    (b"{\"id\": \"\", \"event_time_us\": 5, \"item\": {\"item\": \"i1\"}}", r"\bid\b"),
    (b"{\"id\": \"x\", \"event_time_us\": -5, \"item\": {\"item\": \"i1\"}}", r"event_time"),
    (b"{\"id\": \"x\", \"event_time_us\": 5, \"item\": {\"item\": \"" + b"a" * 300 + b"\"}}", r"256"),
    (b"\x22\x7fshort", r"not a moerank\.v1\.Event"),
]


START_MS = 1767225600000


def click(user="u1", at_ms=START_MS, **more):
    return json.dumps({"event": "interaction", "id": "c", "timestamp": at_ms, "user": user, "item": "i1",
                       "type": "click", **more}).encode()


def item(value):
    return (b'{"event":"item","id":"x","timestamp":%d,"item":"i1","fields":[{"name":"price","value":%s}]}'
            % (START_MS, value))


def shown(items):
    return json.dumps({"event": "ranking", "id": "r", "timestamp": START_MS, "user": "u1",
                       "items": [{"id": i} for i in items]}).encode()


# One partition's messages, in this order, and why they are set aside: None, they are applied.
HOSTILE = [
    (click(at_ms=START_MS), None),
    (click(at_ms=START_MS - 9 * 60_000), None),  # late, but not too late
    (click(at_ms=START_MS - 11 * 60_000), r"^late by 660\.\d+ s; 600\.000 s are allowed"),
    (click(at_ms=253402300799000), r"^its time is \d+\.\d+ s after its arrival; 86400\.000 s are allowed"),
    (click(at_ms=9223372036854775807), r"timestamp is out of range"),
    (click(at_ms=-5), r"event_time_us must be > 0"),
    (click(at_ms=1e30), r"timestamp must be"),
    (item(b"1e308"), None),
    (item(b"1e999"), r"number too large"),
    (item(b"9" * 400), r"number too large"),
    (item(b"NaN"), r"not JSON"),
    (item(b"[" * 5000 + b"]" * 5000), r"not JSON"),
    (item(b'"' + b"y" * 900_000 + b'"'), None),
    (item(json.dumps(["w%d" % i for i in range(1024)]).encode()), None),
    (item(json.dumps(list(range(1025))).encode()), r"1025 entries"),
    (item(b'{"a":1}'), r"value must be"),
    (shown(["i1"] * 5000), None),
    (shown(f"i{i}" for i in range(5001)), r"5001 entries"),
    (shown([]), r"items is empty"),
    (click(user="u" * 256), None),
    (click(user="u" * 900_000), r"900000 bytes long \(at most 256\)"),
    (click(user="i1", session="i1", tenant="i1"), None),  # one name for all
    (click(tenant="{a}:*\t'\""), None),
    (click(user="a\x00b"), r"u0000"),
    (click().replace(b"u1", b"u\x00"), r"not JSON"),
    (click().replace(b"u1", b"u\xff"), r"not valid UTF-8"),
    (click().replace(b'"item"', b'"user": "u2", "item"'), r"given twice"),
    (click(user=7), r"user must be a string"),
    (b"\xef\xbb\xbf" + click(), None),  # byte order mark
    (click() + b"\r", None),
    (click() + click(), r"more text"),
    (click(at_ms=START_MS + 1), None),
]


def kcat(kafka, topic, form):
    done = subprocess.run(["kcat", "-C", "-b", kafka.bootstrap, "-t", topic, "-o", "beginning", "-e",
                           "-q", "-f", form], capture_output=True, timeout=120, check=True)
    return done.stdout


Message = collections.namedtuple("Message", "partition offset value")


def messages(kafka, topic):
    data, at = kcat(kafka, topic, "%p,%o,%R%s"), 0
    while at < len(data):
        comma = data.index(b",", data.index(b",", at) + 1)
        partition, offset = map(int, data[at:comma].split(b","))
        n = int.from_bytes(data[comma + 1:comma + 5], "big")
        at = comma + 5 + n
        yield Message(partition, offset, data[at - n:at])


class IngestTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kafka = Kafka(partitions=8)
        cls.kafka.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.kafka.close()

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="moerank-ingest-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def child(self, log, *words):
        """A verb in the background, killed at the end of the test if it still runs."""
        c = Child("moerank " + words[0], [moerank.binary(), *map(str, words)], self.path(log))
        self.addCleanup(c.stop, signal.SIGKILL)
        return c

    def path(self, name):
        return os.path.join(self.folder, name)

    def config(self, name, topic, every="200ms", more=""):
        path = self.path(name + ".yaml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(CONFIG.format(brokers=self.kafka.bootstrap, topic=topic, group=topic + "-" + name,
                                  snapshot=self.path(name + ".snap"), every=every, more=more))
        return path

    def ingest(self, config, dump):
        return moerank.run_json("ingest", "--config", config, "--until-end", "--dump", dump)

    def test_malformed_messages_are_set_aside_with_their_reason(self):
        self.kafka.create_topic("mixed")
        self.kafka.create_topic("mixed-dead", partitions=2)
        config = self.config("mixed", "mixed")
        moerank.run("generate", "--events", GOOD, "--users", 2000, "--items", 500, "--to",
                    self.path("good.jsonl"), "--quiet")
        with open(self.path("good.jsonl"), "rb") as f:
            good = f.read().splitlines()
        self.assertEqual(len(good), GOOD)
        rng = random.Random(1)
        at = set(rng.sample(range(GOOD + BAD), BAD))
        wrong, lines, good_lines = [], [], iter(good)
        for i in range(GOOD + BAD):
            if i in at:
                wrong.append(WRONG[len(wrong) % len(WRONG)])
                lines.append(wrong[-1][0])
            else:
                lines.append(next(good_lines))
        with open(self.path("mixed.jsonl"), "wb") as f:
            f.write(b"\n".join(lines) + b"\n")
        moerank.run("send", "--config", config, "--file", self.path("mixed.jsonl"), "--quiet")

        result = self.ingest(config, self.path("mixed.dump"))
        self.assertEqual(result["received"], GOOD + BAD)
        self.assertEqual(result["applied"], GOOD)
        self.assertEqual(result["dead_lettered"], BAD)
        self.assertEqual(result["repeated"], 0)

        sent = dict(((m.partition, m.offset), m.value) for m in messages(self.kafka, "mixed"))
        dead = collections.Counter(m.value for m in messages(self.kafka, "mixed-dead"))
        self.assertEqual(dead, collections.Counter(w for w, _ in wrong))
        reasons, places = dict(WRONG), set()
        for line in kcat(self.kafka, "mixed-dead", "%h\n").decode().splitlines():
            match = re.fullmatch(r"x-topic=mixed,x-partition=(\d+),x-offset=(\d+),x-reason=(.+)", line)
            self.assertIsNotNone(match, line)
            place = int(match[1]), int(match[2])
            self.assertNotIn(place, places)
            places.add(place)
            self.assertRegex(match[3], reasons[sent[place]])
        self.assertEqual(len(places), BAD)

        again = self.ingest(config, self.path("again.dump"))  # goes on from the snapshot
        self.assertEqual(again["received"], 0)
        with open(self.path("mixed.dump"), "rb") as a, open(self.path("again.dump"), "rb") as b:
            self.assertEqual(a.read(), b.read())

    def check_hostile(self, config, *sets):
        words = [w for s in sets for w in ("--set", s)]
        dump = self.path("hostile.dump")
        before = collections.Counter(m.offset for m in messages(self.kafka, "hostile-dead"))
        result = moerank.run_json("ingest", "--config", config, *words, "--until-end", "--dump", dump)
        good = sum(reason is None for _, reason in HOSTILE)
        self.assertEqual(result["received"], len(HOSTILE))
        self.assertEqual(result["applied"], good)
        self.assertEqual(result["dead_lettered"], len(HOSTILE) - good)
        reasons = {}
        for line in kcat(self.kafka, "hostile-dead", "%h\n").decode().splitlines()[sum(before.values()):]:
            match = re.search(r"x-offset=(\d+),x-reason=(.+)", line)
            reasons[int(match[1])] = match[2]
        for offset, (_, reason) in enumerate(HOSTILE):
            if reason is None:
                self.assertNotIn(offset, reasons)
            else:
                self.assertRegex(reasons[offset], reason)
        with open(dump, "rb") as f:
            return f.read()

    def test_hostile_and_late_messages_take_nothing_with_them(self):
        """Too late, too early, too large, too deep: each is set aside with its reason, what stands
        between them is applied, and both stores make the same state of it."""
        self.kafka.create_topic("hostile", partitions=1)
        self.kafka.create_topic("hostile-dead", partitions=1)
        config = self.config("hostile", "hostile")
        with open(self.path("hostile.jsonl"), "wb") as f:
            f.write(b"".join(message + b"\n" for message, _ in HOSTILE))
        moerank.run("send", "--config", config, "--file", self.path("hostile.jsonl"), "--quiet")
        memory = self.check_hostile(config)
        with Redis() as redis:
            shared = self.check_hostile(config, "state.store=redis", "kafka.group=hostile-redis",
                                        f"state.redis_addresses=unix:{redis.socket}")
        self.assertEqual(memory, shared)

    def test_sigkill_twenty_times_changes_nothing(self):
        """SIGKILL at random, 20 times, while 200,000 events stream in over 8 partitions, some late,
        some malformed: the dump at the end is byte-equal to that of an undisturbed run."""
        self.kafka.create_topic("killed")
        self.kafka.create_topic("killed-dead", partitions=1)
        # a fixed member id lets a restarted process have its partitions at once
        killed = self.config("killed", "killed", every="50ms", more=", group.instance.id=one")
        moerank.run("generate", "--events", KILLED_EVENTS, "--users", 3000, "--items", 500, "--late",
                    "0.02", "--late-by", "30m", "--malformed", "0.002", "--to", self.path("events"),
                    "--quiet")
        sender = moerank.Stream(self.path("events"), self.path("send.log"), 11000, "--config", killed)
        self.addCleanup(sender.stop, signal.SIGKILL)
        rng = random.Random(os.getpid())
        restored = 0
        for _ in range(KILLS):
            log = self.path("ingest.log")
            before = os.path.getsize(log) if os.path.exists(log) else 0
            victim = self.child("ingest.log", "ingest", "--config", killed, "--quiet")
            with open(log, "rb") as f:
                end = time.monotonic() + 30
                while b"partitions assigned" not in f.read()[before:]:
                    f.seek(0)
                    self.assertIsNone(victim.process.poll(), victim.tail())
                    self.assertLess(time.monotonic(), end, victim.tail())
                    time.sleep(0.01)
            time.sleep(rng.uniform(0.02, 1.2))
            self.assertIsNone(victim.process.poll(), victim.tail())
            victim.stop(signal.SIGKILL)
            with open(log, "rb") as f:
                restored += b"state restored" in f.read()[before:] or os.path.exists(
                    self.path("killed.snap"))
        self.assertGreater(restored, KILLS // 2)
        self.assertTrue(sender.sending(), sender.tail())
        sender.finish()

        last = self.ingest(killed, self.path("killed.dump"))
        calm = self.ingest(self.config("calm", "killed"), self.path("calm.dump"))
        self.assertEqual(calm["applied"] + calm["dead_lettered"], calm["received"])
        self.assertGreater(calm["applied"], 0.97 * KILLED_EVENTS)
        self.assertGreater(calm["dead_lettered"], 400)
        self.assertLess(last["received"], calm["received"])  # it went on, and did not start anew
        with open(self.path("killed.dump"), "rb") as a, open(self.path("calm.dump"), "rb") as b:
            disturbed, undisturbed = a.read(), b.read()
        self.assertGreater(len(undisturbed), 100_000)
        self.assertEqual(disturbed, undisturbed)

    def test_two_processes_share_the_partitions(self):
        """Each of two applies its partitions; when one leaves, the other takes over and its state
        is whole, because a partition it knows nothing of is read from the beginning."""
        self.kafka.create_topic("shared")
        a = self.path("a.yaml")
        for name in ("a", "b"):
            path = self.config(name, "shared")
            with open(path, encoding="utf-8") as f:
                text = f.read().replace(f"group: shared-{name}", "group: shared")
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        moerank.run("generate", "--events", 20000, "--kafka", "--config", a, "--quiet")
        both = [self.child(n + ".log", "ingest", "--config", self.path(n + ".yaml"), "--quiet")
                for n in "ab"]
        for child, name in zip(both, "ab"):
            child.wait_until(lambda name=name: os.path.exists(self.path(name + ".snap")), 60)
        both[1].stop(signal.SIGTERM)
        self.assertEqual(both[1].process.returncode, 0, both[1].tail())
        moerank.run("generate", "--events", 5000, "--seed", 2, "--kafka", "--config", a, "--quiet")
        both[0].stop(signal.SIGTERM)
        result = self.ingest(a, self.path("a.dump"))
        self.assertGreaterEqual(result["applied"], 0)
        whole = self.config("whole", "shared")
        self.ingest(whole, self.path("whole.dump"))
        with open(self.path("a.dump"), "rb") as x, open(self.path("whole.dump"), "rb") as y:
            self.assertEqual(x.read(), y.read())

    def test_what_is_missing_is_said(self):
        config = self.config("none", "nosuchtopic")
        with open(config, encoding="utf-8") as f:
            text = f.read()
        self.kafka.create_topic("recreated", partitions=1)
        with self.assertRaisesRegex(RuntimeError, "127.0.0.1:1"):
            moerank.run("ingest", "--config", config, "--set", "kafka.brokers=127.0.0.1:1",
                        "--until-end", expect=0, timeout_s=60)
        moerank.run("ingest", "--config", config, "--set", "kafka.brokers=127.0.0.1:1", "--until-end",
                    expect=4, timeout_s=60)
        with open(config, "w", encoding="utf-8") as f:
            f.write(text.replace("snapshot_every", "snapshot_evry"))
        with self.assertRaisesRegex(RuntimeError, "none.yaml:3: state.snapshot_evry: unknown key; "
                                                  "did you mean 'snapshot_every'"):
            moerank.run("ingest", "--config", config)


if __name__ == "__main__":
    program = unittest.main(exit=False, verbosity=2)
    sys.exit(0 if program.result.wasSuccessful() and program.result.testsRun > 0 else 1)
