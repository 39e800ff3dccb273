"""The service end to end: a real Kafka, a real Redis, and a standard gRPC client. Events go in by
Feedback and change what comes out; parts are taken away and calls go on; what was served can be
made again bit for bit."""
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

import grpc

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import moerank
from kafka import Kafka
from redis import Redis

CONFIG = os.path.join(moerank.ROOT, "docs", "examples", "synthetic.yaml")
EVENTS, USERS, ITEMS = 20_000, 200, 300
START_US = 1767225600000000  # where the generated stream begins; it covers seven days
NOW_US = START_US + 8 * 86400 * 10**6
ITEM_IDS = [f"i{n}" for n in range(1, ITEMS + 1)]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def click(number, user, item, at_us=NOW_US, kind="click"):
    return json.dumps({"id": f"t{number}", "event_time_us": at_us,
                       "interaction": {"user": user, "item": item, "type": kind}})


class ServiceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kafka = Kafka(partitions=8)
        cls.kafka.__enter__()
        try:
            cls.redis = Redis()
            cls.redis.__enter__()
            cls.folder = tempfile.mkdtemp(prefix="moerank-service-")
            cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
            cls.events = os.path.join(cls.folder, "events.jsonl")
            cls.model = os.path.join(cls.folder, "model.safetensors")
            moerank.run("generate", "--events", EVENTS, "--users", USERS, "--items", ITEMS, "--to",
                        cls.events, "--quiet")
            moerank.run("train", "--config", CONFIG, "--events", cls.events, "--model", cls.model,
                        "--set", "train.epochs=1", "--quiet")
        except BaseException:
            cls.kafka.close()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.redis.close()
        cls.kafka.close()

    def setUp(self):
        """A topic of this test's own, holding the generated events."""
        self.topic = self.id().rsplit(".", 1)[1].replace("_", "-")
        self.home = tempfile.mkdtemp(prefix="moerank-served-", dir=self.folder)
        self.admin = f"127.0.0.1:{free_port()}"
        self.numbers = 0

    def sets(self, *more):
        return [f"kafka.brokers={self.kafka.bootstrap}", f"kafka.topic={self.topic}",
                f"kafka.dead_letter_topic={self.topic}-dead", f"kafka.group={self.topic}",
                f"redis.socket={self.redis.socket}", f"redis.prefix={self.topic}:",
                f"serving.path={self.model}", f"admin.listen={self.admin}",
                f"state.snapshot={self.home}/state.snap", *more]

    def server(self, *more, events=True):
        if events:
            self.kafka.create_topic(self.topic)
            words = [w for s in self.sets() for w in ("--set", s)]
            moerank.run("send", "--config", CONFIG, *words, "--file", self.events, "--quiet")
        server = moerank.Server(CONFIG, self.home, *self.sets(*more))
        self.addCleanup(server.close)
        server.start()
        if events:  # SERVING means nearly caught up
            server.child.wait_until(lambda: self.applied(server) == EVENTS, 60)
        return server

    def applied(self, server):
        return sum(a.offset + 1 for a in server.model().applied)

    def status_of(self, call, *args, **kwargs):
        with self.assertRaises(grpc.RpcError) as caught:
            call(*args, **kwargs)
        return caught.exception.code(), caught.exception.details()

    def send_clicks(self, server, user, items, **more):
        lines = []
        for item in items:
            self.numbers += 1
            lines.append(click(self.numbers, user, item, **more))
        reply = server.feedback(json_lines="\n".join(lines))
        self.assertEqual(len(reply.rejected), 0, reply)
        self.assertEqual(len(reply.tokens), len(items))
        return reply.tokens[-1]

    # ---- the four methods ----

    def test_rank_orders_by_score(self):
        server = self.server()
        reply = server.rank(request_id="r1", user="u1", items=ITEM_IDS, now_us=NOW_US)
        self.assertEqual(reply.request_id, "r1")
        self.assertEqual(sorted(reply.order), list(range(ITEMS)))
        self.assertEqual(list(reply.scores), sorted(reply.scores, reverse=True))
        self.assertEqual([t.task for t in reply.tasks], ["click", "like", "order"])
        for task in reply.tasks:
            self.assertEqual(len(task.probabilities), ITEMS)
            self.assertTrue(all(0 < p < 1 for p in task.probabilities))
        self.assertGreater(reply.user_epoch, 0)
        self.assertFalse(reply.cached)
        model = server.model()
        self.assertEqual(model.version, reply.model_version)
        self.assertEqual(list(model.tasks), ["click", "like", "order"])
        self.assertEqual(sorted(a.partition for a in model.applied), list(range(8)))
        self.assertEqual(sum(a.offset + 1 for a in model.applied), EVENTS)
        self.assertIn("layers", json.loads(model.spec_json))
        self.assertIn("features", json.loads(model.plan_json))
        self.assertGreater(model.trained_at_us, NOW_US - 10**15)

        top = server.rank(user="u1", items=ITEM_IDS, now_us=NOW_US, top_n=3, explain=True)
        self.assertEqual(list(top.order), list(reply.order[:3]))
        self.assertEqual(list(top.scores), list(reply.scores[:3]))
        self.assertEqual(len(top.explanations), 3)
        self.assertEqual(top.explanations[0].item, ITEM_IDS[top.order[0]])
        self.assertTrue(top.explanations[0].features and top.explanations[0].gates)

    def test_answers_are_cached_until_the_user_does_something(self):
        server = self.server()
        first = server.rank(request_id="a", user="u2", items=ITEM_IDS, now_us=NOW_US)
        again = server.rank(request_id="b", user="u2", items=ITEM_IDS, now_us=NOW_US)
        self.assertFalse(first.cached)
        self.assertTrue(again.cached)
        self.assertEqual(again.request_id, "b")
        self.assertEqual(list(again.order), list(first.order))
        self.assertEqual(list(again.scores), list(first.scores))
        self.assertFalse(server.rank(user="u2", items=ITEM_IDS, now_us=NOW_US, no_cache=True).cached)
        self.assertFalse(server.rank(user="u2", items=ITEM_IDS[1:], now_us=NOW_US).cached)
        token = self.send_clicks(server, "u2", ["i7"])
        after = server.rank(user="u2", items=ITEM_IDS, now_us=NOW_US, after=token)
        self.assertFalse(after.cached)
        self.assertEqual(after.user_epoch, first.user_epoch + 1)
        server.child.wait_until(  # counted after the reply
            lambda: server.metrics(self.admin)["moerank_rank_calls_total"] == 5, 20)
        metrics = server.metrics(self.admin)
        self.assertEqual(metrics["moerank_result_cache_hits_total"], 1)
        self.assertEqual(metrics["moerank_events_applied_total"], EVENTS + 1)
        self.assertEqual(metrics["moerank_ingest_lag_events"], 0)

    def test_tenants_share_a_model_and_nothing_else(self):
        server = self.server()
        ask = {"user": "u2", "items": ITEM_IDS, "now_us": NOW_US}
        ours = server.rank(**ask)
        self.assertGreater(ours.user_epoch, 0)
        theirs = server.rank(tenant="shop", **ask)
        self.assertEqual((theirs.user_epoch, theirs.cached), (0, False))
        event = json.loads(click(1, "u2", "i7"))
        event["tenant"] = "shop"
        token = server.feedback(json_lines=json.dumps(event)).tokens[0]
        after = server.rank(tenant="shop", after=token, **ask)
        self.assertEqual((after.user_epoch, after.cached), (1, False))
        self.assertNotEqual(list(after.scores), list(theirs.scores))
        again = server.rank(**ask)
        self.assertEqual((again.user_epoch, again.cached), (ours.user_epoch, True))

    def test_an_answer_asked_for_again_at_once_is_cached(self):
        server = self.server()
        for first in range(40):  # whichever worker answers, and however soon
            self.assertFalse(server.rank(user="u4", items=ITEM_IDS[first:], now_us=NOW_US).cached)
            self.assertTrue(server.rank(user="u4", items=ITEM_IDS[first:], now_us=NOW_US).cached)

    def test_feedback_moves_what_is_recommended(self):
        server = self.server()
        before = server.recommend(user="u3", n=10)
        self.assertEqual(len(before.items), 10)
        token = self.send_clicks(server, "u3", [before.items[0], before.items[1]])
        after = server.recommend(user="u3", n=10, after=token)
        self.assertEqual(after.user_epoch, before.user_epoch + 2)
        self.assertNotEqual(list(after.items), list(before.items))
        self.assertNotIn(before.items[0], after.items)  # just seen
        self.assertNotIn(before.items[1], after.items)
        origin, end = after.origin, time.monotonic() + 20
        while origin != "list" and time.monotonic() < end:  # the near-line thread comes to it
            origin = server.recommend(user="u3", n=10).origin
        self.assertEqual(origin, "list")
        self.assertIsNotNone(self.redis.command("GET", f"{self.topic}:list:u3"))

    def test_feedback_says_what_is_wrong_and_sends_the_rest(self):
        server = self.server()
        pb = moerank.messages()[0]
        good = pb.Event(id="g", event_time_us=NOW_US,
                        interaction=pb.InteractionEvent(user="u4", item="i1", type="click"))
        bad = pb.Event(id="b", event_time_us=NOW_US, interaction=pb.InteractionEvent(user="u4", item="i1"))
        reply = server.feedback(events=[bad, good], json_lines="{]\n" + click(1, "u4", "i2"))
        self.assertEqual(len(reply.tokens), 2)
        self.assertEqual([r.index for r in reply.rejected], [0, 2])
        self.assertIn("type", reply.rejected[0].reason)
        self.assertEqual({t.partition for t in reply.tokens}, {reply.tokens[0].partition})  # one user
        ranked = server.rank(user="u4", items=["i1"], after=reply.tokens[1])
        self.assertGreaterEqual(ranked.user_epoch, 2)

    # ---- what a standard client asks besides ----

    def test_health_and_reflection(self):
        server = self.server()
        self.assertTrue(server.serving())
        health = moerank.messages()[1].HealthCheckResponse
        self.assertEqual(server.health("moerank.v1.Ranking"), health.SERVING)
        self.assertEqual(self.status_of(server.health, "nope")[0], grpc.StatusCode.NOT_FOUND)
        replies = server.reflect({"list_services": ""}, {"file_containing_symbol": "moerank.v1.Ranking"},
                                 {"file_containing_symbol": "no.such.Thing"})
        names = [s.name for s in replies[0].list_services_response.service]
        self.assertIn("moerank.v1.Ranking", names)
        self.assertIn("grpc.health.v1.Health", names)
        self.assertIn(b"RankRequest",
                      replies[1].file_descriptor_response.file_descriptor_proto[0])
        self.assertEqual(replies[2].error_response.error_code, 5)
        with urllib.request.urlopen(f"http://{self.admin}/healthz", timeout=10) as f:
            self.assertEqual(f.status, 200)
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://{self.admin}/nope", timeout=10)
        self.assertEqual(caught.exception.code, 404)

    def test_errors_have_codes(self):
        server = self.server("grpc.items_max=500", "grpc.message_max=64KiB", "grpc.wait_max=300ms")
        pb = moerank.messages()[0]
        code = grpc.StatusCode
        self.assertEqual(self.status_of(server.rank, user="u1")[0], code.INVALID_ARGUMENT)
        many = self.status_of(server.rank, items=["i"] * 501)
        self.assertEqual(many[0], code.INVALID_ARGUMENT)
        self.assertIn("500", many[1])
        column = pb.CandidateColumn(name="score", values=[1.0])
        self.assertEqual(self.status_of(server.rank, items=["a", "b"], columns=[column])[0],
                         code.INVALID_ARGUMENT)
        self.assertEqual(self.status_of(server.rank, user="u" * 70000, items=["a"])[0],
                         code.RESOURCE_EXHAUSTED)
        self.assertEqual(self.status_of(server._ranking, "Nope", pb.RankRequest(), pb.RankResponse, 5)[0],
                         code.UNIMPLEMENTED)
        never = pb.Token(partition=0, offset=10**9)
        waited = self.status_of(server.rank, items=["a"], after=never)
        self.assertEqual(waited[0], code.DEADLINE_EXCEEDED)
        self.assertEqual(self.status_of(server.rank, items=["a"], after=never, timeout=0.05)[0],
                         code.DEADLINE_EXCEEDED)
        raw = server.channel.unary_unary("/moerank.v1.Ranking/Rank")
        self.assertIn(self.status_of(raw, b"\xff\xff\xff", timeout=5)[0],
                      (code.DATA_LOSS, code.INVALID_ARGUMENT))
        self.assertEqual(len(server.rank(user="u1", items=["i1"]).order), 1)  # none the worse

    # ---- parts taken away ----

    def test_redis_stopped_under_load_fails_no_call(self):
        """Four clients rank while Redis is killed, brought back, and made to hang."""
        redis = Redis()
        self.addCleanup(redis.close)
        redis.__enter__()
        server = self.server(f"redis.socket={redis.socket}")
        stop, failed, done = threading.Event(), [], [0] * 4

        def load(k):
            n = 0
            while not stop.is_set():
                n += 1
                try:
                    reply = server.rank(user=f"u{(n * 4 + k) % USERS}", items=ITEM_IDS, now_us=NOW_US)
                    if len(reply.order) != ITEMS:
                        failed.append(reply)
                    if n % 20 == 0:
                        server.recommend(user=f"u{n % USERS}")
                except grpc.RpcError as e:
                    failed.append(e)
                done[k] += 1

        threads = [threading.Thread(target=load, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()

        def wait_calls(n):
            until, end = sum(done) + n, time.monotonic() + 60
            while sum(done) < until and time.monotonic() < end and not failed:
                time.sleep(0.01)

        try:
            wait_calls(1000)
            redis.stop(signal.SIGKILL)
            wait_calls(1000)
            redis.start()
            wait_calls(1000)
            hits = server.metrics(self.admin)["moerank_result_cache_hits_total"]
            redis.pause()
            wait_calls(300)
            redis.resume()
            wait_calls(1000)
        finally:
            stop.set()
            for t in threads:
                t.join()
        self.assertEqual(failed, [])
        metrics = server.metrics(self.admin)
        self.assertGreater(hits, 0)
        self.assertGreater(metrics["moerank_result_cache_errors_total"], 0)
        self.assertEqual(metrics["moerank_rank_failed_total"], 0)

    def test_kafka_stopped_ranking_goes_on(self):
        kafka = Kafka(partitions=2)
        self.addCleanup(kafka.close)
        kafka.__enter__()
        kafka.create_topic("events")
        sets = [f"kafka.brokers={kafka.bootstrap}", "kafka.topic=events"]
        moerank.run("send", "--config", CONFIG, "--set", sets[0], "--set", sets[1], "--file",
                    self.events, "--quiet")
        server = self.server(*sets, events=False)
        kafka.stop(signal.SIGKILL)
        self.assertEqual(len(server.rank(user="u1", items=ITEM_IDS).order), ITEMS)
        code, details = self.status_of(server.feedback, json_lines=click(1, "u1", "i1"), timeout=2)
        self.assertIn(code, (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE))
        self.assertEqual(len(server.rank(user="u1", items=ITEM_IDS).order), ITEMS)
        kafka.start()
        reply = self.until_it_answers(
            lambda: server.feedback(json_lines=click(2, "u1", "i2"), timeout=10))
        # a call waits a few seconds for its token; the consumer may take longer to come back
        reply = self.until_it_answers(
            lambda: server.rank(user="u1", items=["i1"], after=reply.tokens[0], timeout=10))
        self.assertGreater(reply.user_epoch, 0)

    def until_it_answers(self, call, seconds=90):
        end = time.monotonic() + seconds
        while True:
            try:
                return call()
            except grpc.RpcError:
                if time.monotonic() > end:
                    raise

    # ---- the end, and the day after ----

    def test_sigterm_finishes_calls_in_flight(self):
        server = self.server("grpc.workers=1")
        pb = moerank.messages()[0]
        last = {a.partition: a.offset for a in server.model().applied}[0]
        results = []

        def slow():  # waits for an event that comes during the drain
            try:
                results.append(server.rank(user="u1", items=ITEM_IDS, after=pb.Token(
                    partition=0, offset=last + 1), timeout=20))
            except grpc.RpcError as e:
                results.append(e)

        thread = threading.Thread(target=slow)
        thread.start()
        code = None
        while code != grpc.StatusCode.DEADLINE_EXCEEDED:  # then the one worker is taken
            try:
                server.model(timeout=0.3)
            except grpc.RpcError as e:
                code = e.code()
        server.child.process.send_signal(signal.SIGTERM)
        code, end = None, time.monotonic() + 20
        while code != grpc.StatusCode.UNAVAILABLE and time.monotonic() < end:
            with grpc.insecure_channel(server.address) as fresh:
                server_channel, server.channel = server.channel, fresh
                try:
                    server.model(timeout=1)
                except grpc.RpcError as e:
                    code = e.code()
                server.channel = server_channel
        self.assertEqual(code, grpc.StatusCode.UNAVAILABLE)
        self.assertIsNone(server.child.process.poll())
        # any user whose events go to partition 0
        words = [w for s in self.sets() for w in ("--set", s)]
        with open(os.path.join(self.home, "more"), "w", encoding="utf-8") as f:
            f.writelines(click(n, f"u{n}", "i1") + "\n" for n in range(1, 60))
        moerank.run("send", "--config", CONFIG, *words, "--file", f.name, "--quiet")
        thread.join(30)
        self.assertEqual(len(results), 1)
        self.assertNotIsInstance(results[0], grpc.RpcError, results)
        self.assertEqual(len(results[0].order), ITEMS)
        server.child.process.wait(20)
        self.assertEqual(server.child.process.returncode, 0, server.child.tail())

    def test_a_restart_goes_on_where_it_was(self):
        server = self.server()
        before = server.rank(user="u5", items=ITEM_IDS, now_us=NOW_US, no_cache=True)
        self.assertEqual(server.stop(), 0)
        again = self.server(events=False)
        after = again.rank(user="u5", items=ITEM_IDS, now_us=NOW_US, no_cache=True)
        self.assertEqual(after.SerializeToString(), before.SerializeToString())
        self.assertEqual(again.metrics(self.admin)["moerank_events_applied_total"], 0)

    def test_served_requests_are_made_again_bit_for_bit(self):
        log = os.path.join(self.home, "requests")
        server = self.server(f"log.requests={log}")
        for n in range(120):
            fields = {"user": f"u{n % 7}", "items": ITEM_IDS[n % 5:], "no_cache": n % 3 == 0}
            if n % 2:
                fields["now_us"] = NOW_US + n * 10**6
            if n % 5 == 0:
                fields["tenant"] = "shop"
            server.rank(**fields)
            if n % 4 == 0:
                self.send_clicks(server, f"u{n % 7}", [f"i{1 + n}"], at_us=NOW_US + n * 10**6)
        self.assertEqual(server.stop(), 0)
        words = [w for s in self.sets() for w in ("--set", s)]
        result = moerank.run_json("replay", "--config", CONFIG, *words, "--requests", log)
        self.assertEqual(result["requests"], 120)
        self.assertEqual(result["different"], 0)
        self.assertEqual(result["equal"] + result["cached"], 120)
        self.assertGreater(result["equal"], 60)

    def test_a_new_model_is_served_without_a_restart(self):
        path = os.path.join(self.home, "model")
        with open(self.model, "rb") as f, open(path, "wb") as g:
            g.write(f.read())
        server = self.server(f"serving.path={path}")
        old = server.model().version
        with open(path + ".bad", "wb") as g:
            g.write(b"not a model")
        os.rename(path + ".bad", path)
        server.child.wait_until(lambda: "the model stays as it was" in server.child.tail(), 30)
        self.assertEqual(server.rank(user="u1", items=["i1"]).model_version, old)
        moerank.run("train", "--config", CONFIG, "--events", self.events, "--model", path, "--set",
                    "train.epochs=1", "--set", "train.seed=2", "--quiet")
        end = time.monotonic() + 30
        while server.model().version == old and time.monotonic() < end:
            time.sleep(0.05)
        new = server.model().version
        self.assertNotEqual(new, old)
        self.assertEqual(server.rank(user="u1", items=["i1"]).model_version, new)


if __name__ == "__main__":
    program = unittest.main(exit=False, verbosity=2)
    sys.exit(0 if program.result.wasSuccessful() and program.result.testsRun > 0 else 1)
