"""A model published for int8 while its fp32 form is served: swapped in under calls, with its own
item cache, large slates split; and all of it made again bit for bit."""
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import moerank

# no feature hangs on user and item together, so halves are kept by item
SETTINGS = """
features:
  - {name: clicks, kind: count, scope: user, on: click, scale: log}
  - {name: last, kind: last_n, on: click, n: 10, embed: true, table: item}
  - {name: item, kind: category, source: item.id, hash: 2048, embed: 8, table: item}
  - {name: price, kind: number, source: item.price}
  - {name: rate, kind: rate, scope: item, top: click, bottom: impression, prior_weight: 20}
examples: {from: ranking}
tasks:
  - {name: click, positive: click}
model:
  layers:
    - {kind: mmoe, experts: 4, expert: {kind: mlp, hidden: [32], out: 16}, gate: {kind: softmax}}
train: {epochs: 1, threads: 1}
"""
ITEMS = [f"i{n}" for n in range(400)]


def has_int8():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return "avx512_vnni" in f.read()


class PrecisionTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="moerank-precision-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.config = self.path("c.yaml")
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(SETTINGS)
        moerank.run("generate", "--events", 12000, "--users", 100, "--items", len(ITEMS), "--to", self.path("e.jsonl"), "--quiet")
        moerank.run("train", "--config", self.config, "--events", self.path("e.jsonl"), "--model", self.path("m.st"),
                    "--state", self.path("s.snap"), "--quiet")

    def path(self, name):
        return os.path.join(self.folder, name)

    def server(self, *sets):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.admin = f"127.0.0.1:{s.getsockname()[1]}"
        server = moerank.Server(self.config, self.folder, f"serving.path={self.path('live.st')}", f"admin.listen={self.admin}",
                                f"state.snapshot={self.path('s.snap')}", f"log.requests={self.path('log')}",
                                "grpc.workers=2", *sets)
        self.addCleanup(server.close)
        server.start()
        return server

    def rank(self, server, n):
        items = (ITEMS * 4)[n % 7:] if n % 5 == 0 else ITEMS[n % 7:]
        return server.rank(user=f"u{n % 20}", items=items, now_us=1767225600000000 + 8 * 86400 * 10**6, top_n=20)

    def replay(self, model):
        return moerank.run_json("replay", "--config", self.config, "--events", self.path("e.jsonl"), "--model", model,
                                "--requests", self.path("log"))

    @unittest.skipUnless(has_int8(), "this CPU has no int8")
    def test_int8_is_swapped_in_and_made_again(self):
        shutil.copy(self.path("m.st"), self.path("live.st"))
        server = self.server()
        stop, failed = threading.Event(), []

        def ask():
            for n in range(100000):
                if stop.is_set():
                    return
                try:
                    self.rank(server, n)
                except Exception as e:
                    failed.append(e)
                    return

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for t in threads:
            t.start()
        try:
            plain = server.model().version
            moerank.run("quantize", "--config", self.config, "--events", self.path("e.jsonl"), "--model", self.path("m.st"),
                        "--out", self.path("m8.st"), "--overlap-min", 0.9, "--auc-loss-max", 0.01, "--quiet")
            shutil.copy(self.path("m8.st"), self.path("next.st"))
            os.rename(self.path("next.st"), self.path("live.st"))
            end = time.monotonic() + 30
            while server.model().version == plain and time.monotonic() < end:
                time.sleep(0.05)
            self.assertEqual(server.model().version, plain + "-int8")
            for n in range(20):
                self.assertEqual(self.rank(server, n).model_version, plain + "-int8")
        finally:
            stop.set()
            for t in threads:
                t.join()
        self.assertEqual(failed, [])
        time.sleep(0.5)  # counters are told twice a second and more
        seen = server.metrics(self.admin)
        self.assertGreater(seen["moerank_item_cache_hits_total"], 20 * len(ITEMS))
        self.assertGreaterEqual(seen["moerank_item_cache_misses_total"], 2 * len(ITEMS))  # each model's own
        self.assertGreater(seen["moerank_item_cache_bytes"], 0)
        self.assertEqual(server.stop(), 0)
        for model in ("m.st", "m8.st"):
            result = self.replay(self.path(model))
            self.assertGreater(result["equal"], 10)
            self.assertGreater(result["other_model"], 10)
            self.assertEqual(result["different"], 0)


if __name__ == "__main__":
    unittest.main()
