#!/usr/bin/env python3
"""census_torch.py: Census-Income by a mixture written in PyTorch, with the encodings, sizes, schedule
and averaging of docs/examples/census.yaml plus cross layers: does moe/ train as it should? It shares no
code with moe/. Prints the loss of the training rows and figures of the held-out rows after each epoch.

    xz -dc census-income.data.xz | awk 'NR % 5' >train.csv; xz -dc census-income.data.xz | awk 'NR % 5 == 0' >held.csv
    pip install torch==2.15.0 scikit-learn==1.9.1 && python3 tests/oracle/census_torch.py train.csv held.csv
"""
import argparse
import collections
import csv

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

NAMES = (
    "age class_of_worker industry occupation education wage_per_hour enrolled marital major_industry "
    "major_occupation race hispanic sex union unemployment full_or_part_time capital_gains capital_losses "
    "dividends tax_filer prev_region prev_state household household_summary instance_weight migration_msa "
    "migration_region migration_within same_house migration_sunbelt employer_persons family_under_18 "
    "father_birth mother_birth self_birth citizenship self_employed veterans_admin veterans_benefits "
    "weeks_worked year income").split()
NUMBERS = "age wage_per_hour capital_gains capital_losses dividends employer_persons weeks_worked".split()
CATEGORIES = [n for n in NAMES if n not in NUMBERS + ["education", "marital", "instance_weight", "income"]]
DEGREES = {
    "Associates degree-occup /vocational", "Associates degree-academic program", "Bachelors degree(BA AB BS)",
    "Masters degree(MA MS MEng MEd MSW MBA)", "Prof school degree (MD DDS DVM LLB JD)",
    "Doctorate degree(PhD EdD)"}
EXPERTS, HIDDEN, OUT, BATCH, EMA, EMA_EVERY = 8, 128, 64, 1024, 0.999, 8


def load(path):
    with open(path, encoding="utf-8") as f:
        rows = [[c.strip() for c in r] for r in csv.reader(f) if r]
    column = {n: [r[i] for r in rows] for i, n in enumerate(NAMES)}
    y = [[c == "50000+." for c in column["income"]], [c == "Never married" for c in column["marital"]],
         [c in DEGREES for c in column["education"]]]
    return column, np.array(y, np.float32).T


def edges_of(x, bins):
    """Half of them quantiles of all values, half of those other than the commonest."""
    x = np.sort(x)
    values, counts = np.unique(x, return_counts=True)
    rare = x[x != values[counts.argmax()]]

    def quantiles(v, k):
        return [v[len(v) * i // (k + 1)] for i in range(1, k + 1)]
    half = (bins - 1) // 2
    lumpy = len(x) - len(rare) > len(x) / bins
    edges = quantiles(x, half) + quantiles(rare, bins - 1 - half) if lumpy else quantiles(x, bins - 1)
    return np.unique([e for e in edges if e > x[0]]), x[0], x[-1]


def encoded(x, edges, low, high):
    hot = np.eye(len(edges) + 1, dtype=np.float32)[np.searchsorted(edges, x, side="right")]
    start, end = np.concatenate([[low], edges]), np.concatenate([edges, [high]])
    ple = np.clip((x[:, None] - start) / np.maximum(end - start, 1e-9), 0, 1)
    return np.concatenate([ple.astype(np.float32), hot], 1)


def tables(train, held, bins):
    """Numbers [rows x D] and ids [rows x categories] of both; how many ids there are."""
    numbers, ids, total = ([], []), ([], []), 0
    for n in NUMBERS:
        a, b = (np.array(t[n], np.float32) for t in (train, held))
        fit = edges_of(a, bins)
        numbers[0].append(encoded(a, *fit))
        numbers[1].append(encoded(b, *fit))
    for n in CATEGORIES:
        count = collections.Counter(train[n])
        known = {v: i + 1 for i, v in enumerate(v for v in count if count[v] >= 2)}
        for k, t in enumerate((train, held)):
            ids[k].append(np.array([known.get(v, 0) for v in t[n]]) + total)
        total += len(known) + 1
    return [torch.tensor(np.concatenate(x, 1)) for x in numbers], [torch.tensor(np.stack(i, 1)) for i in ids], total


class Net(torch.nn.Module):
    def __init__(self, o, numbers, ids, rates):
        super().__init__()
        d = numbers + len(CATEGORIES) * o.embed
        make, zeros = torch.nn.init.xavier_uniform_, torch.zeros
        self.dropout = o.dropout
        self.table = torch.nn.Embedding(ids, o.embed)
        torch.nn.init.normal_(self.table.weight, 0, 0.05)
        each = range(o.cross)
        self.v = torch.nn.ParameterList([make(torch.empty(d, o.rank)) for _ in each])
        self.u = torch.nn.ParameterList([make(torch.empty(o.rank, d)) for _ in each])
        self.b = torch.nn.ParameterList([zeros(d) for _ in each])
        self.w1 = torch.nn.Parameter(torch.randn(d, EXPERTS * HIDDEN) * (2 / d)**0.5)
        self.b1 = torch.nn.Parameter(zeros(EXPERTS, 1, HIDDEN))
        self.w2 = torch.nn.Parameter(torch.randn(EXPERTS, HIDDEN, OUT) * (2 / HIDDEN)**0.5)
        self.b2 = torch.nn.Parameter(zeros(EXPERTS, 1, OUT))
        self.gates = torch.nn.Linear(d, 3 * EXPERTS)
        self.towers = torch.nn.Parameter(0.1 * torch.randn(3, OUT))
        self.wide = torch.nn.Linear(d, 3)
        with torch.no_grad():
            self.wide.bias.copy_(torch.log(rates / (1 - rates)))

    def forward(self, numbers, ids):
        x0 = x = torch.cat([numbers, self.table(ids).flatten(1)], 1)
        for v, u, b in zip(self.v, self.u, self.b):
            x = x0 * (x @ v @ u + b) + x
        n = len(x)
        h = F.silu((x @ self.w1).view(n, EXPERTS, HIDDEN).transpose(0, 1) + self.b1)
        h = F.silu(torch.bmm(F.dropout(h, self.dropout, self.training), self.w2) + self.b2)
        h = F.dropout(h, self.dropout, self.training)
        g = self.gates(x).view(n, 3, EXPERTS).softmax(-1)
        return (torch.einsum("nte,eno->nto", g, h) * self.towers).sum(-1) + self.wide(x0)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("train")
    p.add_argument("held")
    for name, value in dict(epochs=16, cross=2, rank=16, embed=16, bins=64, dropout=0.4, rate=2e-3, seed=1).items():
        p.add_argument("--" + name, type=type(value), default=value)
    o = p.parse_args()
    torch.manual_seed(o.seed)
    torch.set_num_threads(1)
    (train, y), (held, held_y) = load(o.train), load(o.held)
    (x, held_x), (ids, held_ids), total = tables(train, held, o.bins)
    y, held_y = torch.tensor(y), torch.tensor(held_y)
    net = Net(o, x.shape[1], total, y.mean(0))
    params = list(net.parameters())
    average = [v.detach().clone() for v in params]
    optimizer = torch.optim.AdamW(params, lr=o.rate, weight_decay=1e-3)
    batches = -(-len(y) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, o.rate, total_steps=o.epochs * batches, cycle_momentum=False)
    step = 0
    for epoch in range(o.epochs):
        net.train()
        total = 0
        for rows in torch.randperm(len(y)).split(BATCH):
            loss = F.binary_cross_entropy_with_logits(net(x[rows], ids[rows]), y[rows], reduction="none").mean(0).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() / batches
            step += 1
            if step % EMA_EVERY == 0:
                keep = min(EMA, (1 + step) / (10 + step))**EMA_EVERY
                with torch.no_grad():
                    for a, v in zip(average, params):
                        a.lerp_(v, 1 - keep)
        net.eval()
        now = [v.detach().clone() for v in params]
        with torch.no_grad():
            torch._foreach_copy_(params, average)
            z = torch.cat([net(a, b) for a, b in zip(held_x.split(4096), held_ids.split(4096))])
            torch._foreach_copy_(params, now)
        loss = F.binary_cross_entropy_with_logits(z, held_y, reduction="none").mean(0).sum()
        aucs = " ".join(f"{roc_auc_score(held_y[:, k], z[:, k]):.4f}" for k in range(3))
        print(f"epoch {epoch + 1}: training rows {total:.5f}, held-out rows {loss:.5f}, AUC {aucs}", flush=True)


if __name__ == "__main__":
    main()
