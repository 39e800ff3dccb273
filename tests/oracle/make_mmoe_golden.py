#!/usr/bin/env python3
"""make_mmoe_golden.py: logits, gradients and a loss curve of four small models, by PyTorch autograd
in float64, written to tests/golden/. An independent implementation: it shares with moe/ only the
names and shapes of tensors (docs/models.md), not a line of code.

    pip install torch==2.15.0 && python3 tests/oracle/make_mmoe_golden.py

Run once; the files are committed and read by tests/unit/moe_golden.c.
"""
import json
import os
import torch

torch.set_default_dtype(torch.float64)
HERE = os.path.dirname(os.path.abspath(__file__))
ACT = {
    "relu": torch.relu,
    "silu": torch.nn.functional.silu,
    "gelu": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}


def rounded(t):
    """Values that float32 holds exactly, so that both sides start equal."""
    return t.float().double()


class Mlp:
    def __init__(self, g, sizes, act, act_last):
        self.act, self.act_last = ACT[act], act_last
        self.fields = []
        for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
            self.fields.append(("w%d" % i, torch.randn(a, b, generator=g) / a**0.5))
            self.fields.append(("b%d" % i, 0.1 * torch.randn(1, b, generator=g)))

    def params(self):
        return [p for _, p in self.fields]

    def __call__(self, x):
        n = len(self.fields) // 2
        for i in range(n):
            x = x @ self.fields[2 * i][1] + self.fields[2 * i + 1][1]
            if i < n - 1 or self.act_last:
                x = self.act(x)
        return x


class NormedMlp(Mlp):
    """Every layer normalised by its batch before the activation; the bias is the shift."""

    def __init__(self, g, sizes, act):
        super().__init__(g, sizes, act, True)
        for i, n in enumerate(sizes[1:]):
            self.fields.append(("gain%d" % i, 1 + 0.3 * torch.randn(1, n, generator=g)))
        self.running = [(torch.zeros(n), torch.ones(n)) for n in sizes[1:]]

    def __call__(self, x):
        n = len(self.running)
        for i, (mean, var) in enumerate(self.running):
            w, b, gain = self.fields[2 * i][1], self.fields[2 * i + 1][1], self.fields[2 * n + i][1]
            x = torch.nn.functional.batch_norm(x @ w, mean, var, gain[0], b[0], training=True, momentum=0.1, eps=1e-5)
            x = self.act(x)
        return x


class Golden:
    """Everything of one case; tensors by the names of the model file."""

    def __init__(self, name, spec, tasks, seed):
        self.name, self.spec, self.tasks = name, spec, tasks
        self.g = torch.Generator().manual_seed(seed)
        self.single = {}  # name -> tensor
        self.stacks = {}  # name -> list of Mlp, one expert each: [experts x P]

    def normal(self, *shape, scale=1.0):
        return scale * torch.randn(*shape, generator=self.g)

    def finish(self):
        def own(t):
            return rounded(t).requires_grad_(True)

        self.single = {k: own(v) for k, v in self.single.items()}
        for experts in self.stacks.values():
            for e in experts:
                e.fields = [(n, own(p)) for n, p in e.fields]

    def all_params(self):
        out = list(self.single.values())
        for experts in self.stacks.values():
            for e in experts:
                out += e.params()
        return out

    def dump(self, pick):
        """name -> flat list of pick(tensor); experts as rows of [E x P], towers by field."""
        out = {k: pick(v).flatten().tolist() for k, v in self.single.items()}
        for name, experts in self.stacks.items():
            if len(experts) > 1:
                flat = [torch.cat([pick(p).flatten() for p in e.params()]) for e in experts]
                out[name] = torch.cat(flat).tolist()
            else:
                for field, p in experts[0].fields:
                    out[name + "." + field] = pick(p).flatten().tolist()
        return out


def standardise(rows, fit):
    """value encoding with missing bits: mean and sd over the known numbers of each column."""
    values, bits = [], []
    for c in range(rows.shape[1]):
        known = fit[:, c][~torch.isnan(fit[:, c])]
        sd = known.std(unbiased=False)
        x = (rows[:, c] - known.mean()) / sd
        values.append(torch.where(torch.isnan(rows[:, c]), torch.zeros_like(x), x))
        if torch.isnan(fit[:, c]).any():
            bits.append(torch.isnan(rows[:, c]).double())
    return torch.stack(values + bits, 1)


def pooled(table, ids):
    live = (ids > 0).double()
    v = table[ids] * live[:, :, None]
    return v.sum(1) / live.sum(1).clamp(min=1)[:, None]


def batch(gold, groups, rows, query_columns, cand_columns, tables):
    g = gold.g
    b = {"n_groups": groups, "n_rows": rows}
    b["query"] = rounded(gold.normal(groups, query_columns, scale=3))
    b["cand"] = rounded(gold.normal(rows, cand_columns, scale=2) + 5)
    b["cand"][torch.rand(rows, cand_columns, generator=g) < 0.1] = float("nan")
    b["group"] = torch.sort(torch.randint(0, groups, (rows,), generator=g)).values
    b["query_ids"] = torch.randint(0, tables[0], (groups, 1), generator=g) if tables else None
    b["cand_ids"] = torch.randint(0, tables[1], (rows, 3), generator=g) if tables else None
    b["labels"] = torch.randint(0, 2, (rows, len(gold.tasks)), generator=g).double()
    b["labels"][torch.rand(rows, len(gold.tasks), generator=g) < 0.15] = float("nan")
    b["weight"] = rounded(0.5 + torch.rand(rows, generator=g))
    return b


def loss_of(logits, b, task_weight):
    """sum of weight * bce over known labels, by the batch's weight"""
    known = ~torch.isnan(b["labels"])
    y = torch.where(known, b["labels"], torch.zeros_like(b["labels"]))
    e = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
    w = b["weight"][:, None] * torch.tensor(task_weight)[None, :]
    return (e * w * known.double()).sum() / b["weight"].sum()


def mixture(gates, experts):
    """gates [rows x E], experts: list of [rows x out]"""
    return sum(gates[:, i : i + 1] * y for i, y in enumerate(experts))


def gate_of(gold, name, x):
    return torch.softmax(x @ gold.single[name + ".gate.w"] + gold.single[name + ".gate.b"], 1)


def mmoe():
    spec = {
        "layers": [{"kind": "mmoe", "experts": 3, "expert": {"hidden": [6], "out": 4, "act": "silu"}}],
        "tower": {"hidden": [5], "act": "gelu"},
        "wide": True,
    }
    gold = Golden("mmoe", spec, ["click", "buy"], 1)
    tables = [(7, 2), (11, 3)]
    b = batch(gold, 5, 22, 3, 4, [t[0] for t in tables])
    for i, (rows, dim) in enumerate(tables):
        gold.single["table%d.v" % i] = gold.normal(rows, dim, scale=0.5)
    xq = standardise(b["query"], b["query"])
    xc = standardise(b["cand"], b["cand"])
    d = xq.shape[1] + 2 + xc.shape[1] + 3
    gold.stacks["level0.shared.experts"] = [Mlp(gold.g, [d, 6, 4], "silu", True) for _ in range(3)]
    for t in gold.tasks:
        gold.single["level0.%s.gate.w" % t] = gold.normal(d, 3, scale=0.5)
        gold.single["level0.%s.gate.b" % t] = gold.normal(1, 3, scale=0.5)
        gold.stacks["tower.%s" % t] = [Mlp(gold.g, [4, 5, 1], "gelu", False)]
    gold.single["wide.w"] = gold.normal(d, 2, scale=0.1)
    gold.single["wide.b"] = gold.normal(1, 2, scale=0.1)
    gold.finish()

    def forward():
        q = torch.cat([xq, pooled(gold.single["table0.v"], b["query_ids"])], 1)
        c = torch.cat([xc, pooled(gold.single["table1.v"], b["cand_ids"])], 1)
        x = torch.cat([q[b["group"]], c], 1)
        y = [e(x) for e in gold.stacks["level0.shared.experts"]]
        cols = []
        for t in gold.tasks:
            m = mixture(gate_of(gold, "level0." + t, x), y)
            cols.append(gold.stacks["tower." + t][0](m))
        return torch.cat(cols, 1) + x @ gold.single["wide.w"] + gold.single["wide.b"]

    return gold, b, tables, forward, [1.0, 0.5], "adam", 0.01, 0.0


def ple():
    spec = {
        "layers": [
            {"kind": "ple", "levels": 2, "shared": 2, "own": 2,
             "expert": {"hidden": [5], "out": 4, "act": "relu"}}
        ],
        "tower": {"hidden": [], "act": "relu"},
        "cross": 2,
        "cross_rank": 3,
    }
    gold = Golden("ple", spec, ["click", "like", "buy"], 2)
    b = batch(gold, 4, 19, 2, 3, None)
    xq = standardise(b["query"], b["query"])
    xc = standardise(b["cand"], b["cand"])
    d = xq.shape[1] + xc.shape[1]
    for i in range(2):
        gold.single["cross.v%d" % i] = gold.normal(d, 3, scale=0.4)
        gold.single["cross.u%d" % i] = gold.normal(3, d, scale=0.4)
        gold.single["cross.b%d" % i] = gold.normal(1, d, scale=0.2)
    for l in range(2):
        a = d if l == 0 else 4
        for who in ["shared"] + gold.tasks:
            n = (2 + 2 * 3) if who == "shared" else 4
            gold.stacks["level%d.%s.experts" % (l, who)] = [
                Mlp(gold.g, [a, 5, 4], "relu", True) for _ in range(2)
            ]
            if l == 0 or who != "shared":
                gold.single["level%d.%s.gate.w" % (l, who)] = gold.normal(a, n, scale=0.5)
                gold.single["level%d.%s.gate.b" % (l, who)] = gold.normal(1, n, scale=0.5)
    for t in gold.tasks:
        gold.stacks["tower." + t] = [Mlp(gold.g, [4, 1], "relu", False)]
    gold.finish()

    def forward():
        x0 = torch.cat([xq[b["group"]], xc], 1)
        x = x0
        for i in range(2):
            s = gold.single
            x = x0 * (x @ s["cross.v%d" % i] @ s["cross.u%d" % i] + s["cross.b%d" % i]) + x
        now = {who: x for who in ["shared"] + gold.tasks}
        for l in range(2):
            y = {who: [e(now[who]) for e in gold.stacks["level%d.%s.experts" % (l, who)]] for who in now}
            after = {}
            for t in gold.tasks:
                after[t] = mixture(gate_of(gold, "level%d.%s" % (l, t), now[t]), y["shared"] + y[t])
            if l == 0:
                every = y["shared"] + sum((y[t] for t in gold.tasks), [])
                after["shared"] = mixture(gate_of(gold, "level0.shared", now["shared"]), every)
            now = after
        return torch.cat([gold.stacks["tower." + t][0](now[t]) for t in gold.tasks], 1)

    return gold, b, [], forward, [1.0, 2.0, 0.25], "adamw", 0.02, 0.05


def cgc(name, k):
    """Shared experts and each task's own; all weights of the softmax, or the k greatest, renormalised."""
    gate = {"kind": "topk", "k": k, "aux_loss": 0.0} if k else {"kind": "softmax"}
    spec = {
        "layers": [{"kind": "cgc", "shared": 3, "own": 2, "expert": {"hidden": [6], "out": 5, "act": "gelu"},
                    "gate": gate}],
        "tower": {"hidden": [4], "act": "silu"},
    }
    gold = Golden(name, spec, ["click", "like", "buy"], 4 if k else 3)
    tables = [(7, 2), (11, 3)]
    b = batch(gold, 6, 25, 3, 4, [t[0] for t in tables])
    for i, (rows, dim) in enumerate(tables):
        gold.single["table%d.v" % i] = gold.normal(rows, dim, scale=0.5)
    xq = standardise(b["query"], b["query"])
    xc = standardise(b["cand"], b["cand"])
    d = xq.shape[1] + 2 + xc.shape[1] + 3
    gold.stacks["level0.shared.experts"] = [Mlp(gold.g, [d, 6, 5], "gelu", True) for _ in range(3)]
    for t in gold.tasks:
        gold.stacks["level0.%s.experts" % t] = [Mlp(gold.g, [d, 6, 5], "gelu", True) for _ in range(2)]
        gold.single["level0.%s.gate.w" % t] = gold.normal(d, 5, scale=0.5)
        gold.single["level0.%s.gate.b" % t] = gold.normal(1, 5, scale=0.5)
        gold.stacks["tower.%s" % t] = [Mlp(gold.g, [5, 4, 1], "silu", False)]
    gold.finish()

    def forward():
        q = torch.cat([xq, pooled(gold.single["table0.v"], b["query_ids"])], 1)
        c = torch.cat([xc, pooled(gold.single["table1.v"], b["cand_ids"])], 1)
        x = torch.cat([q[b["group"]], c], 1)
        shared = [e(x) for e in gold.stacks["level0.shared.experts"]]
        cols = []
        for t in gold.tasks:
            own = [e(x) for e in gold.stacks["level0.%s.experts" % t]]
            w = gate_of(gold, "level0." + t, x)
            if k:
                kept = torch.zeros_like(w).scatter(1, w.topk(k, 1).indices, 1.0)
                w = w * kept / (w * kept).sum(1, keepdim=True)
            cols.append(gold.stacks["tower." + t][0](mixture(w, shared + own)))
        return torch.cat(cols, 1)

    return gold, b, tables, forward, [1.0, 0.5, 2.0], "adamw", 0.01, 0.02


def batch_norm():
    spec = {
        "layers": [{"kind": "mmoe", "experts": 3,
                    "expert": {"hidden": [6], "out": 5, "act": "silu", "norm": "batch"}}],
        "tower": {"hidden": [4], "act": "gelu"},
    }
    gold = Golden("batch_norm", spec, ["click", "buy"], 5)
    b = batch(gold, 6, 25, 3, 4, None)
    xq = standardise(b["query"], b["query"])
    xc = standardise(b["cand"], b["cand"])
    d = xq.shape[1] + xc.shape[1]
    gold.stacks["level0.shared.experts"] = [NormedMlp(gold.g, [d, 6, 5], "silu") for _ in range(3)]
    for t in gold.tasks:
        gold.single["level0.%s.gate.w" % t] = gold.normal(d, 3, scale=0.5)
        gold.single["level0.%s.gate.b" % t] = gold.normal(1, 3, scale=0.5)
        gold.stacks["tower.%s" % t] = [Mlp(gold.g, [5, 4, 1], "gelu", False)]
    gold.finish()

    def forward():
        x = torch.cat([xq[b["group"]], xc], 1)
        y = [e(x) for e in gold.stacks["level0.shared.experts"]]
        return torch.cat([gold.stacks["tower." + t][0](mixture(gate_of(gold, "level0." + t, x), y))
                          for t in gold.tasks], 1)

    return gold, b, [], forward, [1.0, 0.5], "adamw", 0.01, 0.02


def optimizer(gold, kind, rate, decay):
    """Matrices decay, biases (one row) do not."""
    p = gold.all_params()
    groups = [
        {"params": [t for t in p if t.shape[0] > 1], "weight_decay": decay},
        {"params": [t for t in p if t.shape[0] == 1], "weight_decay": 0.0},
    ]
    return (torch.optim.AdamW if kind == "adamw" else torch.optim.Adam)(groups, lr=rate)


def write(case):
    gold, b, tables, forward, task_weight, kind, rate, decay = case
    before = gold.dump(lambda p: p.detach())
    logits = forward()
    loss = loss_of(logits, b, task_weight)
    loss.backward()
    grads = gold.dump(lambda p: p.grad)
    opt, curve = optimizer(gold, kind, rate, decay), []
    for _ in range(10):
        opt.zero_grad()
        step = loss_of(forward(), b, task_weight)
        step.backward()
        curve.append(step.item())
        opt.step()

    def plain(t):
        if t is None:
            return []
        return [None if v != v else v for v in t.flatten().tolist()]

    def short(v):
        if isinstance(v, dict):
            return {k: short(x) for k, x in v.items()}
        return [float("%.9g" % x) for x in v]

    out = {
        "made_by": "tests/oracle/make_mmoe_golden.py, torch " + torch.__version__.split("+")[0],
        "spec": gold.spec, "tasks": gold.tasks, "task_weight": task_weight,
        "tables": [{"rows": r, "dim": d} for r, d in tables],
        "batch": {k: (v if isinstance(v, int) else plain(v)) for k, v in b.items()},
        "optimizer": kind, "rate": rate, "weight_decay": decay,
        "params": short(before), "logits": short(logits.flatten().tolist()), "loss": loss.item(),
        "grads": short(grads), "curve": curve,
    }
    running = [v for experts in gold.stacks.values() for e in experts for layer in getattr(e, "running", []) for v in layer]
    if running:  # after the gradient's pass and those of the curve
        out["running"] = short(torch.cat(running).tolist())
    path = os.path.join(HERE, "..", "golden", gold.name + ".json")
    with open(path, "w") as f:
        f.write("{\n" + ",\n".join(json.dumps(k) + ": " + json.dumps(v) for k, v in out.items()) + "\n}\n")
    print(path, os.path.getsize(path), "bytes, loss", loss.item(), "->", curve[-1])


write(mmoe())
write(ple())
write(batch_norm())
write(cgc("cgc", 0))
write(cgc("cgc_topk", 2))
