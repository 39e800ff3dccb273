"""What benchmarks of training share: one run of `moerank train --table`, means with intervals, and
the one form of figures. Standard library only."""
import json
import math
import os
import statistics
import subprocess
import sys

# Student's t, 97.5 %, by degrees of freedom
T = [0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]


def half_width(values):
    """Of the 95 % interval of a mean."""
    if len(values) < 2:
        return math.nan
    t = T[len(values) - 1] if len(values) <= len(T) else 1.96
    return t * statistics.stdev(values) / math.sqrt(len(values))


def train(program, config, table, test, sets):
    """The JSON result of one run; a failure ends the benchmark with the program's own words."""
    command = [program, "train", "--config", config, "--table", table, "--test", test, "--json", "--quiet"]
    for key, value in sets.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def row(what, values, unit="", target=None, at_least=True, within=None, of=statistics.fmean):
    """One figure: the mean of its runs, or `of` them. within: (centre, distance) in place of a bound."""
    mean = of(values)
    text, ok = None, None
    if within:
        text, ok = f"{within[0]:g} +- {within[1]:g}", abs(mean - within[0]) <= within[1]
    elif target is not None:
        text, ok = f"{'>=' if at_least else '<='} {target:g}", mean >= target if at_least else mean <= target
    return {"what": what, "value": mean, "unit": unit, "target": text, "ok": ok, "runs": len(values),
            "min": min(values), "max": max(values), "half_width_95": half_width(values)}


def write(name, path, rows, table=True, **more):
    """The file of figures, and the table on stdout."""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        cpu = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown")
    result = {"name": name, "commit": os.environ.get("MOERANK_COMMIT", "unknown"), "cpu": cpu,
              "isa": os.environ.get("MOERANK_ISA", "host"), "cores": os.cpu_count(), **more, "rows": rows}
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1, allow_nan=False, default=str)
    for r in rows if table else []:
        spread = "" if r["half_width_95"] is None else f"+- {r['half_width_95']:.5f}"
        verdict = "" if r["ok"] is None else ("ok" if r["ok"] else "short")
        print(f"{r['what']:<46} {r['value']:>9.5f} {spread:<11} {r['target'] or '':>14} {verdict}")
    print(f"{path}: {len(rows)} rows; {cpu}", file=sys.stderr)


def finite(rows):
    """JSON has no NaN: a single run has no interval."""
    for r in rows:
        if r["half_width_95"] is not None and math.isnan(r["half_width_95"]):
            r["half_width_95"] = None
    return rows
