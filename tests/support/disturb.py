"""Ingesters that are killed, paused, stopped and started again while a stream comes in over a real
Kafka, and the proof that nothing came of it: state and dead letters equal those of an undisturbed
process. tests/integration/test_crash.py runs it for seconds, tests/bench/crash.py for a million
events.

    lab = Disturbance(kafka, folder, "memory", random.Random(1), events=60000, rate=4000, kills=12)
    figures = lab.run()

Three ingesters form one group, without fixed member ids: each that dies, pauses for longer than its
session, leaves or comes back makes the group share out the partitions anew. With the memory store
each has a snapshot of its own, and at the end each by itself reads what others had, so that three
states are compared; with Redis one state is.
"""
import json
import os
import re
import signal
import subprocess
import time

import moerank
from process import Child

INGESTERS = 3
SESSION_S = 2.0

CONFIG = """\
kafka: {{brokers: "{brokers}", topic: {topic}, dead_letter_topic: {dead}, group: {group},
        batch_events: 500,
        properties: [session.timeout.ms={session_ms}, heartbeat.interval.ms=500]}}
state: {{{state}}}
lateness: 10m
features:
  - {{name: price, kind: number, source: item.price}}
  - {{name: clicks, kind: count, scope: item, on: click}}
  - {{name: lately, kind: window_count, scope: item, on: click, bucket: 1h, windows: [6h, 1d]}}
  - {{name: fading, kind: decayed_count, scope: item, on: click, half_life: 12h}}
  - {{name: click_rate, kind: rate, scope: item, top: click, bottom: impression, prior_weight: 20}}
  - {{name: genre_rate, kind: rate, scope: item.genres, top: click, bottom: impression, prior_weight: 20}}
  - {{name: shown, kind: count, scope: global, on: impression}}
  - {{name: active, kind: count, scope: user, on: any}}
  - {{name: clicked, kind: last_n, on: click, n: 30}}
  - {{name: since, kind: time_since, scope: user, on: click}}
  - {{name: visit, kind: join, window: 20m}}
  - {{name: seen, kind: count, scope: item, on: impression, cascade: visit}}
  - {{name: seen_rate, kind: rate, scope: item, top: click, bottom: impression, cascade: visit,
     attribution: visit, bucket: 1h, window: 1d}}
  - {{name: genre_seen, kind: rate, scope: item.genres, top: click, bottom: impression, cascade: visit,
     bucket: 1h, window: 1d, prior_weight: 20}}
  - {{name: answered, kind: count, scope: user, on: click, attribution: visit}}
"""


class Disturbance:
    def __init__(self, kafka, folder, store, rng, events, rate, kills, redis=None, redis_every=0,
                 every="500ms", pause_s=(0.3, 3.0), say=lambda text: None):
        self.kafka, self.folder, self.store, self.rng = kafka, folder, store, rng
        self.events, self.rate, self.kills = events, rate, kills
        self.redis, self.redis_every, self.every = redis, redis_every, every
        self.pause_s, self.say = pause_s, say
        self.topic = f"crash-{store}"
        self.ingesters = [None] * INGESTERS
        self.figures = dict.fromkeys(("kills", "kills_while_sending", "kills_while_reading",
                                      "redis_kills", "starts_without_redis", "pauses",
                                      "leaves"), 0)

    # ---- parts ----

    def path(self, name):
        return os.path.join(self.folder, f"{self.store}-{name}")

    def config(self, name, state, dead, group):
        path = self.path(name + ".yaml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(CONFIG.format(brokers=self.kafka.bootstrap, topic=self.topic, group=group,
                                  state=state, dead=dead, session_ms=int(SESSION_S * 1000)))
        return path

    def child(self, log, *words):
        return Child("moerank " + words[0], [moerank.binary(), *map(str, words)], self.path(log))

    def prepare(self):
        dead = self.topic + "-dead"
        self.kafka.create_topic(self.topic)
        self.kafka.create_topic(dead, partitions=1)
        self.kafka.create_topic(dead + "-calm", partitions=1)
        if self.store == "redis":
            state = [f"store: redis, redis_addresses: ['unix:{self.redis.socket}']"] * INGESTERS
        else:
            state = [f"snapshot: '{self.path(f'{i}.snap')}', snapshot_every: {self.every}"
                     for i in range(INGESTERS)]
        self.configs = [self.config(f"ingest{i}", state[i], dead, self.topic)
                        for i in range(INGESTERS)]
        self.calm = self.config("calm", "snapshot: ''", dead + "-calm", self.topic + "-calm")
        moerank.run("generate", "--events", self.events, "--users", 3000, "--items", 500, "--late",
                    "0.02", "--late-by", "30m", "--malformed", "0.002", "--to",
                    self.path("events"), "--quiet", timeout_s=900)
        self.sender = moerank.Stream(self.path("events"), self.path("send.log"), self.rate, "--config",
                                     self.calm)

    def start(self, i):
        log = self.path(f"ingest{i}.log")
        begun = os.path.getsize(log) if os.path.exists(log) else 0
        self.ingesters[i] = self.child(f"ingest{i}.log", "ingest", "--config", self.configs[i],
                                       "--quiet")
        self.ingesters[i].begun = begun

    def log_of(self, i, begin=0):
        with open(self.path(f"ingest{i}.log"), encoding="utf-8", errors="replace") as f:
            f.seek(begin)
            return f.read()

    def sending(self):
        return self.sender.sending()

    def alive(self, i):
        """An ingester that finds no Redis when it starts, or loses it in that moment, ends with exit
        code 4, for its supervisor to start it again; nothing else may end one."""
        for _ in range(20):
            child = self.ingesters[i]
            code = child.process.poll()
            if code is None:
                return child
            said = self.log_of(i, child.begun)
            if code != 4 or not self.redis or "Redis at" not in said or "assigned" in said:
                raise AssertionError(f"ingester {i} ended by itself ({code}): {child.tail()}")
            self.figures["starts_without_redis"] += 1
            self.start(i)
            time.sleep(0.5)
        raise AssertionError(f"ingester {i} does not start: {child.tail()}")

    def has_partitions(self, i):
        words = re.findall(r"(\d+) partitions (assigned|given back)",
                           self.log_of(i, self.ingesters[i].begun))
        return sum(int(n) if what == "assigned" else -int(n) for n, what in words) > 0

    def choose(self):
        """Mostly one that is at work; now and then whoever it is, also while the group is busy
        sharing out partitions."""
        i = self.rng.randrange(INGESTERS)
        if self.rng.random() < 0.25:
            return i
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for k in range(INGESTERS):
                other = (i + k) % INGESTERS
                if self.ingesters[other].process.poll() is None and self.has_partitions(other):
                    return other
            time.sleep(0.05)
        return i

    # ---- disturbing ----

    def kill(self, i):
        child = self.alive(i)
        self.figures["kills"] += 1
        self.figures["kills_while_sending"] += self.sending()
        self.figures["kills_while_reading"] += self.has_partitions(i)
        child.stop(signal.SIGKILL)

    def pause(self, i):
        """So long that the group gives its partitions to others; it does not know when it wakes."""
        child = self.alive(i)
        self.figures["pauses"] += 1
        child.process.send_signal(signal.SIGSTOP)
        time.sleep(SESSION_S * 1.5)
        child.process.send_signal(signal.SIGCONT)

    def leave(self, i):
        child = self.alive(i)
        self.figures["leaves"] += 1
        child.stop(signal.SIGTERM, 60)
        if child.process.returncode == -signal.SIGTERM and not self.log_of(i, child.begun).strip():
            return  # it had hardly begun, and did not mind signals yet
        if child.process.returncode != 0:
            raise AssertionError(f"ingester {i} left with {child.process.returncode}: {child.tail()}")

    def kill_redis(self):
        self.redis.stop(signal.SIGKILL)
        time.sleep(self.rng.uniform(0, 0.5))
        self.redis.start()
        self.figures["redis_kills"] += 1

    def disturb(self):
        absent, rounds = None, 0
        while self.figures["kills"] < self.kills or self.sending():
            time.sleep(self.rng.uniform(*self.pause_s))
            i = self.choose()
            if absent is not None:  # who was away while others had its partitions
                self.start(absent)
            if i != absent:
                other = (i + 1) % INGESTERS
                if rounds % 10 == 4:
                    self.pause(other)
                elif rounds % 10 == 7:
                    self.leave(other)
                    self.start(other)
                self.kill(i)
                if self.figures["kills"] >= self.kills:
                    self.sender.free.set()
                absent = i if self.rng.random() < 0.25 else None
                if absent is None:
                    self.start(i)
                if self.redis and self.redis_every and rounds % self.redis_every == 2:
                    self.kill_redis()
                rounds += 1
                if self.figures["kills"] % 10 == 0:
                    self.say(f"{self.store}: {self.figures}")
            else:
                absent = None
        if absent is not None:
            self.start(absent)

    # ---- comparing ----

    def stop_all(self):
        for i in range(INGESTERS):
            child = self.alive(i)
            child.stop(signal.SIGTERM, 60)
            if child.process.returncode != 0:
                raise AssertionError(f"ingester {i}: {child.tail()}")

    def ingest(self, config, *words):
        return moerank.run_json("ingest", "--config", config, "--until-end", *words, timeout_s=1800)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def dumps(self, tag):
        """The state, or the three, once all of the topic is in it."""
        out = []
        if self.store == "redis":
            self.received = self.ingest(self.configs[0])["received"]
            moerank.run("dump", "--config", self.configs[0], "--to", self.path(tag), timeout_s=900)
            return [self.read(tag)]
        self.received = 0
        for i in range(INGESTERS):
            self.received += self.ingest(self.configs[i], "--dump", self.path(tag))["received"]
            out.append(self.read(tag))
        return out

    def dead_letters(self, topic):
        done = subprocess.run(["kcat", "-C", "-b", self.kafka.bootstrap, "-t", topic, "-o",
                               "beginning", "-e", "-q", "-f", "%h\n"], capture_output=True,
                              timeout=300, check=True)
        return set(re.findall(rb"x-partition=(\d+),x-offset=(\d+)", done.stdout))

    def compare(self):
        disturbed = self.dumps("disturbed.dump")
        calm = self.ingest(self.calm, "--dump", self.path("calm.dump"))
        undisturbed = self.read("calm.dump")
        dead = self.topic + "-dead"
        self.figures.update(
            received=calm["received"], applied=calm["applied"], states=len(disturbed),
            states_equal=sum(d == undisturbed for d in disturbed), dump_bytes=len(undisturbed),
            read_again=self.received,
            dead_letters=calm["dead_lettered"],
            dead_letters_missing=len(self.dead_letters(dead + "-calm") - self.dead_letters(dead)),
            dead_letters_wrong=len(self.dead_letters(dead) - self.dead_letters(dead + "-calm")),
            rebalances=sum(self.log_of(i).count("partitions assigned") for i in range(INGESTERS)),
            lost_writes=sum(self.log_of(i).count("lost writes: of partition")
                            for i in range(INGESTERS)))
        self.control(undisturbed)

    def control(self, undisturbed):
        """One event twice, as if an offset had been taken again: every dump must show it."""
        with open(self.path("events"), "rb") as f:
            f.seek(-100_000, os.SEEK_END)
            lines = [x for x in f.read().splitlines()[1:] if b'"type":"click"' in x]
        newest = max(lines, key=lambda x: json.loads(x)["event_time_us"])  # surely not too late
        with open(self.path("twice"), "wb") as f:
            f.write(newest + b"\n")
        moerank.run("send", "--config", self.calm, "--file", self.path("twice"), "--quiet")
        self.figures["control_differs"] = all(
            _without_offsets(d) != _without_offsets(undisturbed) for d in self.dumps("control.dump"))

    # ---- all of it ----

    def run(self):
        begun = time.monotonic()
        try:
            self.prepare()
            for i in range(INGESTERS):
                self.start(i)
            self.disturb()
            self.sender.finish(1800)
            time.sleep(SESSION_S)
            self.stop_all()
            self.compare()
        finally:
            for child in [*self.ingesters, getattr(self, "sender", None)]:
                if child is not None:
                    child.process.send_signal(signal.SIGCONT)
                    child.stop(signal.SIGKILL)
        self.figures["seconds"] = round(time.monotonic() - begun, 1)
        return self.figures

    def complaints(self):
        """What the figures say against the store; none: all is well."""
        f, out = self.figures, []
        if f["states_equal"] != f["states"]:
            out.append(f"{f['states'] - f['states_equal']} of {f['states']} states differ from the "
                       f"undisturbed one; see {self.folder}")
        if f["applied"] < 0.97 * self.events or f["dump_bytes"] < 100_000:
            out.append("hardly anything was applied: nothing is proven")
        if f["dead_letters_missing"] or f["dead_letters_wrong"]:
            out.append(f"dead letters: {f['dead_letters_missing']} missing, "
                       f"{f['dead_letters_wrong']} too many")
        if f["kills_while_sending"] < self.kills or f["kills_while_reading"] * 2 < f["kills"]:
            out.append(f"too few kills fell into the stream: {f}")
        if not f["control_differs"]:
            out.append("the control: an event applied twice shows in no dump")
        return out


def _without_offsets(dump):
    """A dump's lines but for those that say how far partitions are."""
    return [x for x in dump.splitlines() if b'"partition"' not in x]
