#!/usr/bin/env python3
"""Two tasks of a chosen correlation (synthetic data of the MMoE paper): test error of Shared-Bottom,
OMoE and MMoE as the tasks grow apart, means over seeds with 95 % intervals, and a figure.

u1, u2 orthogonal units; w1 = c u1, w2 = c (rho u1 + sqrt(1 - rho^2) u2); x ~ N(0, I);
y_k = w_k x + sum_i sin(alpha_i w_k x + beta_i) + N(0, 0.1^2); d = 100, c = 0.3, m = 5.

The noise alone gives an error of 0.01. Rows are many: with 10,000 of them (--rows 10000 --epochs 20) what
is measured is how little a hundred inputs can be learnt from, not what the models are able to say.
"""
import argparse
import math
import operator
import os
import random
import statistics
import tempfile

import bench_train

D, C, M = 100, 0.3, 5
EXPERT = "{kind: mlp, hidden: [], out: 16, act: relu}"
MODELS = {  # equal widths: 8 experts of 16, or one of 128
    "shared_bottom": "[{kind: shared_bottom, expert: {kind: mlp, hidden: [], out: 128, act: relu}}]",
    "omoe": "[{kind: omoe, experts: 8, expert: " + EXPERT + "}]",
    "mmoe": "[{kind: mmoe, experts: 8, expert: " + EXPERT + "}]",
}
SETTINGS = """
table: {number: [%s]}
tasks: [{name: y1, loss: mse}, {name: y2, column: "%s", loss: mse}]
model: {numbers: {encode: [value]}, tower: {hidden: [8]}}
train: {epochs: %d, batch_rows: 128, rate: %g, weight_decay: 0, validation: 0.1, patience: 0}
"""


def unit(r, against=None):
    v = [r.gauss(0, 1) for _ in range(D)]
    if against:
        along = sum(a * b for a, b in zip(v, against))
        v = [a - along * b for a, b in zip(v, against)]
    n = math.sqrt(sum(a * a for a in v))
    return [a / n for a in v]


def label(r, z, waves):
    return z + sum(math.sin(a * z + b) for a, b in waves) + r.gauss(0, 0.1)


def write_rows(path, n, r, u1, u2, waves, rhos):
    """One file for all rho: the inputs, y1, and the second task at each rho."""
    with open(path, "w", encoding="utf-8") as f:
        f.write(",".join([f"x{i}" for i in range(D)] + ["y1"] + [column(rho) for rho in rhos]) + "\n")
        for _ in range(n):
            x = [r.gauss(0, 1) for _ in range(D)]
            p1, p2 = (sum(map(operator.mul, u, x)) for u in (u1, u2))
            ys = [label(r, C * p1, waves)]
            ys += [label(r, C * (rho * p1 + math.sqrt(1 - rho * rho) * p2), waves) for rho in rhos]
            f.write(",".join([f"{v:.5g}" for v in x + ys]) + "\n")


def column(rho):
    return f"y2 at {rho:g}"


def figure(seen, rhos, path):
    """Bars of text, and the same as an SVG with intervals."""
    most = max(statistics.fmean(v) for v in seen.values())
    colours = dict(zip(MODELS, ("#888888", "#4477aa", "#cc6677")))
    svg = ['<svg xmlns="http://www.w3.org/2000/svg" width="560" height="320" font-family="sans-serif" font-size="12">',
           '<text x="20" y="20">test error (mean square) by task correlation</text>']

    def place(i, v):
        return 60 + 105 * i, 280 - 230 * v / (1.15 * most)
    for i, rho in enumerate(rhos):
        svg.append(f'<text x="{60 + 105 * i}" y="300" text-anchor="middle">{rho:g}</text>')
        for name in MODELS:
            mean = statistics.fmean(seen[name, rho])
            print(f"{f'rho {rho:g}' if name == 'shared_bottom' else '':<10}{name:<14} {'#' * round(40 * mean / most):<40} {mean:.4f}")
    for j, name in enumerate(MODELS):
        points = []
        for i, rho in enumerate(rhos):
            mean, half = statistics.fmean(seen[name, rho]), bench_train.half_width(seen[name, rho])
            x, y = place(i, mean)
            points.append(f"{x + 4 * (j - 1):.1f},{y:.1f}")
            if not math.isnan(half):
                svg.append(f'<line x1="{x + 4 * (j - 1)}" x2="{x + 4 * (j - 1)}" y1="{place(i, mean - half)[1]:.1f}" '
                           f'y2="{place(i, mean + half)[1]:.1f}" stroke="{colours[name]}"/>')
        svg.append(f'<polyline fill="none" stroke-width="2" stroke="{colours[name]}" points="{" ".join(points)}"/>')
        svg.append(f'<text x="380" y="{40 + 16 * j}" fill="{colours[name]}">{name}</text>')
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(svg + ["</svg>"]) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--program", default="build/release/moerank")
    p.add_argument("--out", default="build/bench/correlation.json")
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--rows", type=int, default=100000)
    p.add_argument("--epochs", type=int, default=6)
    p.add_argument("--rate", type=float, default=0.003)
    p.add_argument("--rho", default="1,0.8,0.5,0,-0.5")
    o = p.parse_args()
    rhos = [float(v) for v in o.rho.split(",")]
    seen, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        config, train, test = (os.path.join(folder, n) for n in ("c.yaml", "train.csv", "test.csv"))
        for seed in range(1, o.seeds + 1):
            r = random.Random(seed)  # the same directions, waves, x and noise for every rho and model
            u1 = unit(r)
            u2 = unit(r, u1)
            waves = [(r.uniform(1, 5), r.uniform(0, 6.28)) for _ in range(M)]
            write_rows(train, o.rows, r, u1, u2, waves, rhos)
            write_rows(test, 5000, r, u1, u2, waves, rhos)
            for rho in rhos:
                with open(config, "w", encoding="utf-8") as f:
                    f.write(SETTINGS % (", ".join(f"x{i}" for i in range(D)), column(rho), o.epochs, o.rate))
                for name, layers in MODELS.items():
                    got = bench_train.train(o.program, config, train, test, {"train.seed": seed, "model.layers": layers})
                    seen.setdefault((name, rho), []).append(statistics.fmean(t["mse"] for t in got["test"]))
    for rho in rhos:
        for name in MODELS:
            rows.append(bench_train.row(f"{name}, rho {rho:g}: test error", seen[name, rho]))
        for name in ("shared_bottom", "omoe"):  # paired by seed: positive is in favour of MMoE
            gap = [a - b for a, b in zip(seen[name, rho], seen["mmoe", rho])]
            rows.append(bench_train.row(f"{name} - mmoe, rho {rho:g}", gap))
    bench_train.write("correlation", o.out, bench_train.finite(rows), seeds=o.seeds, train_rows=o.rows)
    figure(seen, rhos, os.path.splitext(o.out)[0] + ".svg")


if __name__ == "__main__":
    main()
