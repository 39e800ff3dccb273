#!/usr/bin/env python3
"""Census-Income (KDD), three tasks in one model, inputs of the MMoE paper: AUC, calibration ratio and
ECE on the dev half, which nothing is chosen by. The validation rows are cut from the training file.
The file of figures is written anew after each model, so that a run that is stopped leaves what it has.

The judged settings have trees' log-odds among the inputs (docs/tables.md); --config names those without.

Mixtures and their controls have equal active FLOPs: a shared bottom as wide as all experts together,
sparse ones so narrow that the experts all tasks may choose at once cost no more than the dense ones.
"""
import argparse
import os
import sys

import bench_train

TARGETS = {"income": 0.9524, "marital": 0.9949, "education": 0.9000}
FLOORS = {"income": 0.949, "marital": 0.994, "education": 0.895}
SPARSE = "experts: 16, expert: {kind: mlp, hidden: [85], out: 64, act: silu}"
MODELS = {  # model.layers; mmoe is the settings file's own
    "mmoe": None,
    "shared_bottom": "[{kind: shared_bottom, expert: {kind: mlp, hidden: [1024], out: 64, act: silu}}]",
    "ple": "[{kind: ple, levels: 2, shared: 2, own: 2, expert: {kind: mlp, hidden: [128], out: 64, act: silu}}]",
    "topk gate": "[{kind: mmoe, " + SPARSE + ", gate: {kind: topk, k: 4}}]",
    "relu gate": "[{kind: mmoe, " + SPARSE + ", gate: {kind: relu, k: 4}}]",
}


def measure(o, name, files):
    """Lists over the seeds: (task, figure) and mflop."""
    seen = {}
    for seed in range(1, (o.seeds if name == "mmoe" else o.control_seeds) + 1):
        sets = {"train.seed": seed}
        if MODELS[name]:
            sets["model.layers"] = MODELS[name]
        if o.epochs:
            sets["train.epochs"] = o.epochs
        result = bench_train.train(o.program, o.config, *files, sets)
        seen.setdefault("mflop", []).append(result["active_mflop_per_row"])
        for task in result["test"]:
            for key in ("auc", "ratio", "ece"):
                seen.setdefault((task["task"], key), []).append(task[key])
        aucs = ", ".join(f"{t['task']} {t['auc']:.4f} x{t['ratio']:.3f}" for t in result["test"])
        print(f"{name}, seed {seed}: {aucs}; epoch {result['best_epoch']}, {result['seconds']:.0f} s", file=sys.stderr,
              flush=True)
    return seen


def figures(name, seen):
    rows = []
    for task, target in TARGETS.items():
        judged = name == "mmoe"
        rows.append(bench_train.row(f"{name}, {task}: AUC", seen[task, "auc"], target=target if judged else None))
        if not judged:
            continue
        rows.append(bench_train.row(f"{name}, {task}: AUC, floor", seen[task, "auc"], target=FLOORS[task]))
        rows.append(bench_train.row(f"{name}, {task}: prediction / rate", seen[task, "ratio"], within=(1, 0.01)))
        rows.append(bench_train.row(f"{name}, {task}: ECE", seen[task, "ece"], target=0.005, at_least=False))
    rows.append(bench_train.row(f"{name}: active MFLOP a row", seen["mflop"]))
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--program", default="build/release/moerank")
    p.add_argument("--out", default="build/bench/census.json")
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--control-seeds", type=int, default=3, help="of all models but mmoe")
    p.add_argument("--models", default=",".join(MODELS), help="of: " + ", ".join(MODELS))
    p.add_argument("--epochs", type=int, help="fewer, for a quick look")
    p.add_argument("--config", default="docs/examples/census_trees.yaml",
                   help="docs/examples/census.yaml: without trees among the inputs")
    o = p.parse_args()
    folder = os.path.join(os.environ.get("MOERANK_DATA", "../shared/data"), "census-income-kdd")
    files = [os.path.join(folder, n) for n in ("census-income.data.xz", "census-income.test.dev-half.xz")]
    for f in files:
        if not os.path.exists(f):
            raise SystemExit(f"census.py: {f} is missing; set MOERANK_DATA")
    rows = []
    for name in o.models.split(","):
        rows += figures(name, measure(o, name, files))
        bench_train.write("census", o.out, bench_train.finite(rows), table=name == o.models.split(",")[-1],
                          seeds=o.seeds, control_seeds=o.control_seeds, epochs=o.epochs or "as the settings say")


if __name__ == "__main__":
    main()
