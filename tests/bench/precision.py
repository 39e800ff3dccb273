#!/usr/bin/env python3
"""What bf16 and int8 cost trained models: the demo's (MovieLens-100K, trained on its first 80,000
ratings, judged on the rest) and Census-Income's (judged on the dev half). Trains both and runs
`moerank quantize`, whose limits are the targets here. int8 units are chosen on training rows only.
"""
import argparse
import json
import os
import subprocess
import tempfile

import bench_train

LIMITS = {  # greatest difference, top-50 overlap, AUC loss
    "fp32": (1e-5, 0.995, 0.0002),
    "bf16": (None, 0.995, 0.0002),
    "int8": (None, 0.99, 0.0005),
}


def movielens(folder, out, ratings):
    """The demo's events as JSON lines: films, users, then ratings by (time, user, item)."""
    def table(name):
        with open(os.path.join(folder, "ml-100k." + name), encoding="utf-8") as f:
            next(f)
            return [line.rstrip("\n").split("\t") for line in f]

    events = []
    for item, title, year, genres in table("item"):
        fields = {"title": title, "genres": genres.split()}
        if year.isdigit() and int(year) > 0:
            fields |= {"year": int(year), "era": str(int(year) // 5 * 5)}
        events.append({"event": "item", "item": item, "fields": fields})
    for user, age, gender, job, _ in table("user"):
        events.append({"event": "user", "user": user,
                       "fields": {"age": int(age), "gender": gender, "occupation": job}})
    rated = sorted(table("inter"), key=lambda r: (float(r[3]), len(r[0]), r[0], len(r[1]), r[1]))
    known = len(events)
    for user, item, value, at in rated:
        events.append({"event": "interaction", "type": "rating", "user": user, "item": item,
                       "event_time_us": int(float(at)) * 1000000, "fields": {"value": int(value)}})
    first_us = (int(float(rated[0][3])) - 1) * 1000000
    with open(out + ".train", "w", encoding="utf-8") as f, open(out, "w", encoding="utf-8") as all_events:
        for i, e in enumerate(events):
            e = {"id": f"e{i + 1}", "event_time_us": first_us} | e
            e["fields"] = [{"name": k, "value": v} for k, v in e["fields"].items()]
            line = json.dumps(e) + "\n"
            all_events.write(line)
            if i < known + ratings:
                f.write(line)


def run(*command, ok=(0,)):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode not in ok or not done.stdout:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def rows_of(name, result):
    out = []
    for form in result["forms"]:
        difference, overlap, loss = LIMITS[form["form"].split("+")[0]]
        what = f"{name}, {form['form']}"
        out.append(bench_train.row(f"{what}: greatest difference", [form["greatest_difference"]],
                                   target=difference, at_least=False))
        out.append(bench_train.row(f"{what}: top-50 overlap", [form["top_overlap"]], target=overlap))
        out.append(bench_train.row(f"{what}: loss of AUC, worst task", [form["auc_loss"]], target=loss, at_least=False))
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--program", default="build/release/moerank")
    p.add_argument("--out", default="build/bench/precision.json")
    p.add_argument("--models", default="movielens,census")
    p.add_argument("--census-model", help="a model file trained before")
    o = p.parse_args()
    rows, layers = [], {}
    with tempfile.TemporaryDirectory() as tmp:
        for name in o.models.split(","):
            model = os.path.join(tmp, name + ".st")
            if name == "movielens":
                folder = subprocess.run(["tools/fetch_movielens"], capture_output=True, text=True, check=True).stdout.strip()
                config, events = "docs/examples/movielens.yaml", os.path.join(tmp, "ml.jsonl")
                movielens(folder, events, 80000)
                run(o.program, "train", "--config", config, "--events", events + ".train", "--model", model, "--quiet", "--json")
                source = ["--events", events]
            else:
                folder = os.path.join(os.environ.get("MOERANK_DATA", "../shared/data"), "census-income-kdd")
                config = "docs/examples/census.yaml"
                table, test = (os.path.join(folder, f) for f in ("census-income.data.xz", "census-income.test.dev-half.xz"))
                if o.census_model:
                    model = o.census_model
                else:
                    run(o.program, "train", "--config", config, "--table", table, "--model", model, "--quiet", "--json")
                source = ["--table", table, "--test", test]
            result = run(o.program, "quantize", "--config", config, *source, "--model", model, "--quiet", "--json", ok=(0, 1))
            rows += rows_of(name, result)
            layers[name] = result["layers"]
    bench_train.write("precision", o.out, bench_train.finite(rows), layers=layers)


if __name__ == "__main__":
    main()
