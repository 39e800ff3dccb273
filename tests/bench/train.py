#!/usr/bin/env python3
"""moerank's training steps against PyTorch's on the same threads, interleaved in one run.

Two models: the 14-expert one of the reference page (8 shared + 3 x 2 own experts 512-256-128, three
tasks, rows with no query part in common) and an MMoE on Census-Income (8 experts 128-64, dropout 0.3,
three tasks). PyTorch is taken at the best of: each expert its own layers or all first layers as one
product; eager or torch.compile; with fused AdamW, and bf16 as autocast. It is given the numbers as
the network's inputs, ready made; moerank encodes them in every step. A step of either is: rows copied
together, forward, loss, backward, AdamW. Both processes take turns, so a slow spell of the machine
hits both. With one thread times are CPU time, with more the wall's.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import bench_train

BATCH = 1024
CENSUS = "[{kind: mmoe, experts: 8, expert: {kind: mlp, hidden: [128], out: 64, act: silu}, gate: {kind: softmax}}]"
MODELS = {
    "ple14": {"shared": 8, "own": 2, "hidden": 256, "out": 128, "act": "relu", "tower": [64], "wide": False,
              "dropout": 0.0, "sets": {}},
    "census": {"shared": 8, "own": 0, "hidden": 128, "out": 64, "act": "silu", "tower": [], "wide": True,
               "dropout": 0.3, "sets": {
                   "model.layers": CENSUS, "model.numbers": "{encode: [quantile, ple], bins: 64}",
                   "model.tower": "{hidden: [], act: silu}", "model.wide": "true", "model.cross": "0",
                   "train.dropout": "0.3"}}}
# At least so many times PyTorch's best: where 512-bit vectors double the width, and elsewhere
TARGETS = {("census", "fp32"): (5.0, 5.0), ("ple14", "fp32"): (1.5, 1.0), ("ple14", "bf16"): (1.0, 1.0)}
AUC_TARGET = 0.0002  # between fp32 and bf16, on Census-Income
PEAK_TARGET = 80.0  # % of the measured fp32 peak, ple14, backward included
TURN_S = 0.4


def products(m, shape):
    """Multiply-adds x 2 of a row's forward and backward pass: what both sides must compute. Nobody
    needs the gradient of plain numbers."""
    tasks, tables = shape["tasks"], shape["tables"]
    embedded = sum(dim for _, dim in tables)
    width = shape["width"] + embedded
    experts = m["shared"] + tasks * m["own"]
    of_task = m["shared"] + m["own"]
    first = experts * m["hidden"] + tasks * of_task + (tasks if m["wide"] else 0)
    tower, at = 0, m["out"]
    for n in [*m["tower"], 1]:
        tower, at = tower + at * n, n
    rest = experts * m["hidden"] * m["out"] + tasks * tower + tasks * of_task * m["out"]
    return 2.0 * (2 * width * first + embedded * first + 3 * rest)


class Moerank:
    def __init__(self, program, arguments, cpu):
        self.process = subprocess.Popen(
            [program, "bench", "train", "--serve", "--quiet", "--cpu", str(cpu), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("train.py: moerank bench train --serve ended")
        return [float(v) for v in answer.split()]

    def steps(self, n):
        wall, cpu, _ = self.ask(f"steps {n}")
        return wall, cpu

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def arguments_of(name, data, config, threads, precision):
    m = MODELS[name]
    sets = {**m["sets"], "train.batch_rows": BATCH, "train.threads": threads, "train.validation": 0}
    if precision != "fp32":
        sets["train.precision"] = precision
    out = []
    if name == "census":
        out = ["--config", config, "--table", data]
    else:
        out = ["--sample", name]
    for k, v in sets.items():
        out += ["--set", f"{k}={v}"]
    return out


# --- the rival: everything below that needs torch ---------------------------------------------------


def torch_model(m, shape, joined):
    import torch
    from torch import nn
    act = {"relu": torch.relu, "silu": nn.functional.silu}[m["act"]]
    tasks, tables = shape["tasks"], shape["tables"]
    width = shape["width"] + sum(dim for _, dim in tables)
    experts, of_task = m["shared"] + tasks * m["own"], m["shared"] + m["own"]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            if tables:
                rows = [n for n, _ in tables]
                self.table = nn.Embedding(sum(rows), tables[0][1])
                self.register_buffer("offset", torch.tensor([sum(rows[:i]) for i in range(len(rows))]))
            if joined:
                self.first = nn.Linear(width, experts * m["hidden"])
                self.w = nn.Parameter(torch.randn(experts, m["hidden"], m["out"]) * (2 / m["hidden"]) ** 0.5)
                self.b = nn.Parameter(torch.zeros(experts, 1, m["out"]))
            else:
                self.experts = nn.ModuleList(
                    nn.ModuleList([nn.Linear(width, m["hidden"]), nn.Linear(m["hidden"], m["out"])])
                    for _ in range(experts))
            self.gates = nn.ModuleList(nn.Linear(width, of_task) for _ in range(tasks))
            sizes = [m["out"], *m["tower"], 1]
            self.towers = nn.ModuleList(
                nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])) for _ in range(tasks))
            self.wide = nn.Linear(width, tasks) if m["wide"] else None
            self.drop = nn.Dropout(m["dropout"])

        def run_experts(self, x):
            if not joined:
                return [self.drop(act(b(self.drop(act(a(x)))))) for a, b in self.experts]
            h = self.drop(act(self.first(x))).view(len(x), experts, m["hidden"]).transpose(0, 1)
            y = self.drop(act(torch.baddbmm(self.b, h, self.w)))
            return list(y.unbind(0))

        def forward(self, x, ids):
            if tables:
                x = torch.cat([x, self.table(ids + self.offset).flatten(1)], 1)
            y = self.run_experts(x)
            logits = []
            for t in range(tasks):
                own = y[: m["shared"]] + y[m["shared"] + t * m["own"]: m["shared"] + (t + 1) * m["own"]]
                g = torch.softmax(self.gates[t](x), 1)
                h = (g.unsqueeze(2) * torch.stack(own, 1)).sum(1)
                for i, layer in enumerate(self.towers[t]):
                    h = layer(self.drop(act(h)) if i else h)
                logits.append(h)
            out = torch.cat(logits, 1)
            return out + self.wide(x) if self.wide is not None else out

    return Net()


class Torch:
    """One way of training the model in PyTorch."""

    def __init__(self, m, shape, arrays, joined, compiled, precision):
        import torch
        torch.manual_seed(1)
        self.torch, self.bf16 = torch, precision == "bf16"
        self.x, self.ids, self.y = arrays
        net = torch_model(m, shape, joined)
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
        self.order, self.at = torch.randperm(len(self.x)), 0

        def loss(x, ids, y):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                logits = net(x, ids)
            return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), y, reduction="none").mean(0).sum()

        self.loss = torch.compile(loss) if compiled else loss

    def step(self):
        pick = self.order[self.at:self.at + BATCH]
        self.at = (self.at + BATCH) % (len(self.x) - BATCH + 1)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.x[pick], self.ids[pick], self.y[pick])
        loss.backward()
        self.optimizer.step()
        return loss

    def steps(self, n):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(n):
            self.step()
        return time.perf_counter() - wall, time.process_time() - cpu


def part(o):
    """One model on one number of threads; prints JSON."""
    import numpy as np
    import torch
    torch.set_num_threads(o.threads)
    if o.threads == 1:
        os.sched_setaffinity(0, {o.cpu})
    m, name = MODELS[o.model], o.model
    rivals, forms = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([o.program, "bench", "train", "--quiet", "--export", folder,
                        *arguments_of(name, o.data, o.config, o.threads, "fp32")], check=True)
        with open(os.path.join(folder, "shape.json"), encoding="utf-8") as f:
            shape = json.load(f)
        x = np.fromfile(os.path.join(folder, "x.f32"), np.float32).reshape(shape["rows"], shape["width"])
        ids = np.fromfile(os.path.join(folder, "ids.u32"), np.uint32).reshape(shape["rows"], shape["slots"])
        y = np.fromfile(os.path.join(folder, "labels.f32"), np.float32).reshape(shape["rows"], shape["tasks"])
    rows = np.array([n for n, _ in shape["tables"]] or [1])
    ids = np.minimum(ids, rows - 1) if shape["slots"] else ids
    arrays = torch.from_numpy(x), torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(np.nan_to_num(y))
    for precision in o.precisions.split(","):
        forms[precision] = Moerank(o.program, arguments_of(name, o.data, o.config, o.threads, precision),
                                   o.cpu if o.threads == 1 else -1)
        for joined in (False, True):
            for compiled in (False, True):
                if compiled and not o.compile:
                    continue
                what = f"{'joined' if joined else 'expert'} {'compiled' if compiled else 'eager'}"
                rival = Torch(m, shape, arrays, joined, compiled, precision)
                rival.steps(3)
                rivals[precision, what] = rival
                print(f"{name} {o.threads}: {precision} {what} ready", file=sys.stderr)
    clock = 1 if o.threads == 1 else 0  # CPU time or the wall's
    all_of = [*rivals, *((p, "moerank") for p in forms)]
    times, peaks = {k: [] for k in all_of}, {p: [] for p in forms}
    steps = {}
    for r in range(o.rounds + 1):
        for k in all_of:
            side = forms[k[0]] if k[1] == "moerank" else rivals[k]
            n = steps.get(k, 2)
            took = side.steps(n)[clock] / n
            if r == 0:  # warms up, and tells how many steps make a turn
                steps[k] = max(2, min(200, int(TURN_S / took)))
            else:
                times[k].append(BATCH / took)
        for p in forms:
            peaks[p].append(forms[p].ask(f"peak {p}")[0])
    for f in forms.values():
        f.close()
    if o.rounds == 0:
        print("null")
        return
    print(json.dumps({"mflop": products(m, shape) * 1e-6, "torch": torch.__version__,
                      "peaks": {p: max(v) for p, v in peaks.items()},
                      "rates": [[*k, v] for k, v in times.items()]}))


# --- the table --------------------------------------------------------------------------------------


def row(what, values, unit, target=None):
    value = statistics.median(values)
    return {"what": what, "value": value, "unit": unit, "target": None if target is None else f">= {target:g}",
            "ok": None if target is None else bool(value >= target), "runs": len(values), "min": min(values),
            "max": max(values)}


def doubles_width(highest):
    """Whether AVX-512 doubles the fp32 peak of AVX2 here."""
    return highest["fp32"] > 1.5 * highest["avx2"]


def rows_of(name, threads, result, highest):
    out, rates = [], {(p, w): v for p, w, v in result["rates"]}
    at = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
    for precision in dict.fromkeys(p for p, _ in rates):
        ours = rates[precision, "moerank"]
        for (p, what), v in rates.items():
            if p == precision:
                out.append(row(f"{at}, {p}: {'' if what == 'moerank' else 'torch '}{what}", v, "rows/s"))
        best = max((w for p, w in rates if p == precision and w != "moerank"),
                   key=lambda w: statistics.median(rates[precision, w]))
        target = TARGETS.get((name, precision))
        out.append(row(f"{at}, {precision}: times torch {best}",
                       [a / b for a, b in zip(ours, rates[precision, best])], "x",
                       None if target is None else target[0 if doubles_width(highest) else 1]))
        if name != "ple14":  # elsewhere columns are folded: the products are not all computed
            continue
        gflops = [v * result["mflop"] * 1e-3 for v in ours]
        # the best seen in the whole run: a peak measured on a busy machine flatters
        peak = max(result["peaks"][precision], highest[precision]) * threads
        out.append(row(f"{at}, {precision}: products", gflops, "GFLOP/s"))
        out.append(row(f"{at}, {precision}: of its peak", [100 * g / peak for g in gflops], "%",
                       PEAK_TARGET if (name, precision) == ("ple14", "fp32") else None))
    return out


def highest_peaks(program):
    """GFLOP/s of one core: fp32 with AVX2 and with AVX-512, bf16; 0 where the CPU lacks it."""
    peaks = {}
    for name, isa, precision in (("avx2", "avx2", "fp32"), ("fp32", "avx512", "fp32"), ("bf16", "avx512", "bf16")):
        done = subprocess.run([program, "bench", "train", "--sample", "small", "--serve"], capture_output=True, text=True,
                              input=f"peak {precision}\n" * 5, env={**os.environ, "MOERANK_ISA": isa}, check=True)
        peaks[name] = max(float(v) for v in done.stdout.split())
    return peaks


def auc_rows(o, seeds):
    """What bf16 costs in AUC: whole trainings of the settings file, on the dev half that nothing is
    chosen by."""
    off = {}
    test = os.path.join(os.path.dirname(o.data), "census-income.test.dev-half.xz")
    for seed in range(1, seeds + 1):
        pair = [bench_train.train(o.program, o.config, o.data, test, {"train.seed": seed, "train.precision": precision})
                for precision in ("fp32", "bf16")]
        for a, b in zip(pair[0]["test"], pair[1]["test"]):
            off.setdefault(a["task"], []).append(b["auc"] - a["auc"])
    out = []
    for task, values in off.items():
        r = row(f"census, {task}: AUC of bf16 less that of fp32", values, "")
        r["target"], r["ok"] = f"+- {AUC_TARGET:g}", all(abs(v) <= AUC_TARGET for v in values)
        out.append(r)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--program", default="build/release/moerank")
    p.add_argument("--out", default="build/bench/train.json")
    p.add_argument("--config", default="docs/examples/census.yaml")
    p.add_argument("--data", default=os.path.join(os.environ.get("MOERANK_DATA", "../shared/data"),
                                                  "census-income-kdd", "census-income.data.xz"))
    p.add_argument("--models", default="ple14,census")
    p.add_argument("--threads-of", default="1,2")
    p.add_argument("--precisions", default="fp32,bf16")
    p.add_argument("--rounds", type=int, default=9, help="0: only compiles, so that the next run need not")
    p.add_argument("--auc", type=int, default=1, help="seeds of whole trainings in fp32 and bf16; 0: none")
    p.add_argument("--cpu", type=int, default=os.cpu_count() - 1)
    p.add_argument("--no-compile", dest="compile", action="store_false")
    p.add_argument("--model", help=argparse.SUPPRESS)
    p.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    o = p.parse_args()
    if o.model:
        part(o)
        return
    highest = highest_peaks(o.program)
    rows, version = [], ""
    for threads in (int(t) for t in o.threads_of.split(",")):
        for name in o.models.split(","):
            done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--model", name, "--threads", str(threads)],
                                  stdout=subprocess.PIPE, text=True, check=True)
            result = json.loads(done.stdout.splitlines()[-1])
            if not result:
                continue
            rows += rows_of(name, threads, result, highest)
            version = result["torch"]
    if o.auc and "bf16" in o.precisions:
        rows += auc_rows(o, o.auc)
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        cpu = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown")
    result = {"name": "train", "commit": os.environ.get("MOERANK_COMMIT", "unknown"), "cpu": cpu,
              "isa": os.environ.get("MOERANK_ISA", "host"), "cores": os.cpu_count(), "torch": version,
              "avx512_doubles_width": doubles_width(highest), "peaks": highest, "rows": rows}
    os.makedirs(os.path.dirname(o.out) or ".", exist_ok=True)
    with open(o.out, "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
    for r in rows:
        value = f"{r['value']:.4g}" if abs(r["value"]) < 1000 else f"{r['value']:.0f}"
        verdict = "" if r["ok"] is None else ("ok" if r["ok"] else "short")
        print(f"{r['what']:<58} {value:>9} {r['unit']:<8} {r['target'] or '':>7} {verdict}")
    print(f"{o.out}: {len(rows)} rows; {cpu}, PyTorch {version}; peaks, GFLOP/s: fp32 "
          f"{highest['avx2']:.0f} (AVX2), {highest['fp32']:.0f} (AVX-512), bf16 {highest['bf16']:.0f}", file=sys.stderr)


if __name__ == "__main__":
    main()
