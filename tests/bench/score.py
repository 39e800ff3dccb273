#!/usr/bin/env python3
"""moerank's packed scoring against ONNX Runtime, on one core, interleaved in one run.

The same model (moerank bench score --export) becomes four ONNX graphs: a Gemm per expert, the
first layers concatenated, the same split by hand into a query and a candidate half, and the better
plain graph quantised to int8. ONNX Runtime runs one intra-op thread (its best here) and is given
the network's inputs ready made; moerank encodes them itself. Both processes are pinned to the same
CPU and take turns, so they never run at once and a slow spell of the machine hits both. Times are
CPU time of the one thread: a busy machine takes the CPU away from long requests more often.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

TARGETS = {  # times ONNX Runtime's better plain fp32 graph, at 500 candidates of ple14
    "fp32": 1.85, "bf16": 3.6, "int8": 7.0, "bf16+cache": 8.5, "int8+cache": 15.0}
SPARSE_TARGETS = {"int8": 20.0}  # of omoe8-top2, times the same model dense
PEAK_TARGETS = {"fp32": 92.0, "bf16": 90.0, "int8": 82.0, "int8+cache": 65.0}


class Model:
    """model.json and model.f32 of --export."""

    def __init__(self, folder):
        with open(os.path.join(folder, "model.json"), encoding="utf-8") as f:
            self.tree = json.load(f)
        self.floats = np.fromfile(os.path.join(folder, "model.f32"), np.float32)

    def get(self, m):
        return self.floats[m["at"]:m["at"] + m["rows"] * m["cols"]].reshape(m["rows"], m["cols"])


class Graph:
    def __init__(self):
        self.nodes, self.constants, self.n = [], {}, 0

    def constant(self, a):
        name = f"c{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(a), name)
        return name

    def op(self, kind, inputs, **attributes):
        self.n += 1
        out = f"v{self.n}"
        self.nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    def split(self, x, parts):
        outs = [f"s{self.n}_{i}" for i in range(parts)]
        self.n += 1
        self.nodes.append(helper.make_node("Split", [x], outs, axis=1, num_outputs=parts))
        return outs

    def gemm(self, x, w, b):
        return self.op("Gemm", [x, self.constant(w), self.constant(b.reshape(-1))])

    def act(self, kind, x):
        if kind == "silu":
            return self.op("Mul", [x, self.op("Sigmoid", [x])])
        if kind == "gelu":
            return self.op("Gelu", [x], approximate="tanh")
        return self.op("Relu", [x]) if kind == "relu" else x


def first_layer(g, model, dq, split, layers):
    """[w, b] pairs that all read the input -> their products, before activation."""
    out = []
    for w, b in layers:
        if split and dq:
            user = g.op("Gemm", ["q", g.constant(w[:dq]), g.constant(b.reshape(-1))])
            out.append(g.op("Add", [g.op("MatMul", ["c", g.constant(w[dq:])]), user]))
        else:
            out.append(g.gemm("x", w, b))
    return out


def bias_of(model, d, n):
    return model.get(d["b"]) if "b" in d else np.zeros((1, n), np.float32)


def build(model, form):
    """form: 'expert', 'concatenated' or 'split'."""
    t, g = model.tree, Graph()
    split = form == "split"
    if len(t["levels"]) != 1 or any(k["kind"] not in ("softmax", "topk") for k in t["levels"][0]["gates"]):
        raise SystemExit("score.py: one level with softmax gates is what it can export")
    level = t["levels"][0]
    firsts = [(model.get(e["layers"][0]["w"]), model.get(e["layers"][0]["b"])) for e in level["experts"]]
    same = len({w.shape for w, _ in firsts}) == 1
    if form == "concatenated" and same:
        whole = g.gemm("x", np.concatenate([w for w, _ in firsts], 1), np.concatenate([b for _, b in firsts], 1))
        act = level["experts"][0]["layers"][0]["act"]
        hidden = g.split(g.act(act, whole), len(firsts))
    else:
        hidden = [g.act(e["layers"][0]["act"], h)
                  for e, h in zip(level["experts"], first_layer(g, model, t["dq"], split, firsts))]
    axis = g.constant(np.array([1], np.int64))
    outputs = []
    for e, h in zip(level["experts"], hidden):
        for layer in e["layers"][1:]:
            h = g.act(layer["act"], g.gemm(h, model.get(layer["w"]), model.get(layer["b"])))
        outputs.append(g.op("Unsqueeze", [h, axis]))
    modules = {}
    for gate in level["gates"]:
        stacked = g.op("Concat", [outputs[e] for e in gate["experts"]], axis=1)
        if len(gate["experts"]) == 1:
            modules[gate["module"]] = g.op("Squeeze", [stacked, axis])
            continue
        w, b = model.get(gate["w"]), bias_of(model, gate, len(gate["experts"]))
        (logits,) = first_layer(g, model, t["dq"], split, [(w, b)])
        weights = g.op("Unsqueeze", [g.op("Softmax", [logits], axis=1), axis])
        modules[gate["module"]] = g.op("Squeeze", [g.op("MatMul", [weights, stacked]), axis])
    names = []
    wide = None
    if "wide_w" in t:
        (wide,) = first_layer(g, model, t["dq"], split, [(model.get(t["wide_w"]), model.get(t["wide_b"]))])
        wide = g.split(wide, t["tasks"]) if t["tasks"] > 1 else [wide]
    for task, tower in enumerate(t["towers"]):
        h = modules[tower["module"]]
        for layer in tower["layers"]:
            h = g.act(layer["act"], g.gemm(h, model.get(layer["w"]), model.get(layer["b"])))
        if wide:
            h = g.op("Add", [h, wide[task]])
        names.append(g.op("Sigmoid", [h]))
    f = TensorProto.FLOAT
    inputs = ([helper.make_tensor_value_info("q", f, [1, t["dq"]]), helper.make_tensor_value_info("c", f, ["K", t["dc"]])]
              if split else [helper.make_tensor_value_info("x", f, ["K", t["dq"] + t["dc"]])])
    outs = [helper.make_tensor_value_info(n, f, ["K", 1]) for n in names]
    graph = helper.make_graph(g.nodes, form, inputs, outs, list(g.constants.values()))
    m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    m.ir_version = 9
    onnx.checker.check_model(m)
    return m


class Ort:
    def __init__(self, model, proto):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
        self.query, self.cand = model.get(model.tree["query"]), model.get(model.tree["cand"])
        self.names = [i.name for i in self.session.get_inputs()]

    def feed(self, rows):
        c = self.cand[:rows]
        if self.names == ["x"]:
            return {"x": np.ascontiguousarray(np.concatenate([np.repeat(self.query, rows, 0), c], 1))}
        return {k: v for k, v in {"q": self.query, "c": np.ascontiguousarray(c)}.items() if k in self.names}

    def scores(self, rows):
        return np.concatenate(self.session.run(None, self.feed(rows)), 1).T

    def time_us(self, rows, requests):
        feed, times = self.feed(rows), []
        for _ in range(requests):
            start = time.thread_time_ns()
            self.session.run(None, feed)
            times.append((time.thread_time_ns() - start) * 1e-3)
        return statistics.median(times)


class Moerank:
    def __init__(self, program, choice, rows_max, cpu):
        self.process = subprocess.Popen(
            [program, "bench", "score", "--serve", "--cpu", str(cpu), "--rows", f"[{rows_max}]", *choice],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("score.py: moerank bench score --serve ended")
        return answer

    def number(self, line):
        return float(self.ask(line))

    def stages(self, form, rows):
        """name -> microseconds, the least of some requests."""
        words = self.ask(f"stages {form} {rows}").split()
        return dict(zip(words[::2], map(float, words[1::2])))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def quantised(proto, folder):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    plain, low = os.path.join(folder, "plain.onnx"), os.path.join(folder, "int8.onnx")
    onnx.save(proto, plain)
    quantize_dynamic(plain, low, weight_type=QuantType.QInt8)
    with open(low, "rb") as f:
        return f.read()


def requests_for(us):
    """So many that a turn lasts some 20 ms, three at least."""
    return max(3, min(200, int(20000 / max(us, 1))))


def interleave(rivals, forms, moerank, rows, rounds):
    """name -> microseconds of one request, per round; and peaks seen between the turns."""
    times = {k: [] for k in [*rivals, *forms]}
    peaks = {}
    for _ in range(rounds):
        for name, rival in rivals.items():
            times[name].append(rival.time_us(rows, requests_for(rival.time_us(rows, 1))))
        for form in forms:
            n = requests_for(moerank.number(f"time {form} {rows} 1"))
            times[form].append(moerank.number(f"time {form} {rows} {n}"))
            precision = form.split("+")[0]
            peaks[precision] = max(peaks.get(precision, 0), moerank.number(f"peak {precision}"))
    return times, peaks


def row(what, value, unit, target, runs, low, high):
    ok = None if target is None else bool(value >= target)
    return {"what": what, "value": value, "unit": unit, "target": None if target is None else f">= {target:g}",
            "ok": ok, "runs": runs, "min": low, "max": high}


def ratio_rows(times, base, names, rows, sample):
    out = []
    for name in names:
        if not times[name] or times[name][0] != times[name][0]:  # NaN: not possible here
            continue
        each = [b / t for b, t in zip(times[base], times[name])]
        target = None if name.startswith("ORT") else 1.0
        if rows == 500:
            target = {"ple14": TARGETS, "omoe8-top2": SPARSE_TARGETS}.get(sample, {}).get(name, target)
        out.append(row(f"{name}, K = {rows}: times the better plain fp32 graph", statistics.median(each), "x", target,
                       len(each), min(each), max(each)))
    return out


def mflop(t, cache):
    """Per candidate, as moerank counts: products and mixing, query part excluded."""
    level, dc, total = t["levels"][0], t["dc"], 0.0
    for e in level["experts"]:
        for i, y in enumerate(e["layers"]):
            total += 0 if cache and i == 0 else 2.0 * (dc if i == 0 else y["w"]["rows"]) * y["w"]["cols"]
    out = level["experts"][0]["layers"][-1]["w"]["cols"]
    for gate in level["gates"]:
        total += len(gate["experts"]) * ((0 if cache else 2.0 * dc) + 2.0 * out)
    for tower in t["towers"]:
        total += sum(2.0 * y["w"]["rows"] * y["w"]["cols"] for y in tower["layers"])
    return total * 1e-6


def off_dense(program, sample, rows):
    """Choosing all experts is choosing none: how far the scores of -top8 are from the dense graph."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, "bench", "score", "--export", folder, "--rows", f"[{rows}]", "--sample", sample], check=True)
        model = Model(folder)
        dense = Ort(model, build(model, "expert").SerializeToString()).scores(rows)
        return [row(f"{sample}, {k}: largest difference from the dense graph", float(np.abs(model.get(v) - dense).max()),
                    "", None, 1, None, None) for k, v in model.tree["scores"].items()]


def against_reference(times, rows):
    """Each form against moerank's own path over OpenBLAS."""
    out = []
    for form in times:
        if form == "reference" or form.startswith("ORT") or times[form][0] != times[form][0]:
            continue
        each = [b / t for b, t in zip(times["reference"], times[form])]
        out.append(row(f"{form}, K = {rows}: times the reference path", statistics.median(each), "x", 1.0, len(each),
                       min(each), max(each)))
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--program", default="build/release/moerank")
    p.add_argument("--out", default="build/bench/score.json")
    p.add_argument("--model", help="a model file instead of the sample")
    p.add_argument("--sample", default="ple14")
    p.add_argument("--rows", default="1,2,5,10,20,50,100,200,500,1000,2000")
    p.add_argument("--rounds", type=int, default=11)
    p.add_argument("--cpu", type=int, default=os.cpu_count() - 1)
    o = p.parse_args()
    os.sched_setaffinity(0, {o.cpu})
    sizes = [int(k) for k in o.rows.split(",")]
    choice = ["--model", o.model] if o.model else ["--sample", o.sample]
    name = o.model or o.sample
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([o.program, "bench", "score", "--export", folder, "--rows", f"[{max(sizes)}]", *choice], check=True)
        model = Model(folder)
        protos = {k: build(model, k) for k in ("expert", "concatenated", "split")}
        rivals = {f"ORT {k}": Ort(model, v.SerializeToString()) for k, v in protos.items()}
        rivals["ORT int8"] = Ort(model, quantised(protos["expert"], folder))
    moerank = Moerank(o.program, choice, max(sizes), o.cpu)
    forms = [k for k in model.tree["scores"]]
    rows = []
    sparse = any(g["kind"] != "softmax" for g in model.tree["levels"][0]["gates"])
    for k, v in model.tree["scores"].items():
        if not sparse:  # the graphs are dense: another function
            off = np.abs(model.get(v) - rivals["ORT expert"].scores(max(sizes))).max()
            rows.append(row(f"{k}: largest difference of a score", float(off), "", None, 1, None, None))
    if name == "omoe8-top2":
        rows += off_dense(o.program, "omoe8-top8", 500)
    for k in sizes:
        times, peaks = interleave(rivals, forms, moerank, k, o.rounds)
        base = min(("ORT expert", "ORT concatenated"), key=lambda n: statistics.median(times[n]))
        for n, us in times.items():
            if us[0] == us[0]:
                rows.append(row(f"{n}, K = {k}: candidates", k * 1e6 / statistics.median(us), "1/s", None, len(us),
                                k * 1e6 / max(us), k * 1e6 / min(us)))
        rows += ratio_rows(times, base, forms + ["ORT split", "ORT int8"], k, name)
        rows += against_reference(times, k)
        for form in forms:
            rows += [row(f"{form}, K = {k}: {stage}", us, "us", None, 1, None, None)
                     for stage, us in moerank.stages(form, k).items()]
        for form in forms:
            per_row = mflop(model.tree, form.endswith("cache"))
            if sparse or times[form][0] != times[form][0]:
                continue
            shares = [100 * per_row * k / us * 1e3 / peaks[form.split("+")[0]] for us in times[form]]
            target = PEAK_TARGETS.get(form) if name == "ple14" and k == 500 else None
            rows.append(row(f"{form}, K = {k}: of its peak", statistics.median(shares), "%", target, len(shares),
                            min(shares), max(shares)))
        if "int8" in times and times["int8"][0] == times["int8"][0]:
            each = [b / t for b, t in zip(times["ORT int8"], times["int8"])]
            target = 3.0 if name == "ple14" and k == 500 else None
            rows.append(row(f"int8, K = {k}: times ORT's int8", statistics.median(each), "x", target, len(each), min(each),
                            max(each)))
    moerank_peaks = {k: moerank.number(f"peak {k}") for k in ("fp32", "bf16", "int8")}
    moerank.close()
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        cpu = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown")
    result = {"name": "score", "commit": os.environ.get("MOERANK_COMMIT", "unknown"), "cpu": cpu,
              "isa": os.environ.get("MOERANK_ISA", "host"), "cores": os.cpu_count(), "model": name,
              "onnxruntime": ort.__version__, "peaks": moerank_peaks, "rows": rows}
    os.makedirs(os.path.dirname(o.out) or ".", exist_ok=True)
    with open(o.out, "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
    for r in rows:
        value = f"{r['value']:.6g}" if abs(r["value"]) < 1000 else f"{r['value']:.0f}"
        verdict = "" if r["ok"] is None else ("ok" if r["ok"] else "short")
        print(f"{r['what']:<62} {value:>10} {r['unit']:<4} {r['target'] or '':>8} {verdict}")
    print(f"{o.out}: {len(rows)} rows; {cpu}, ONNX Runtime {ort.__version__}", file=sys.stderr)


if __name__ == "__main__":
    main()
