"""The events that Metarank was measured with, and requests like its benchmark's: 2,000 items, 5,000
users, 100,000 rankings of 30 items over 30 days and about 160,000 clicks, in Metarank's JSON. One
seed, so the bytes are always the same (EVENTS_MD5, of the stream Metarank's figures are about).

A click depends on the item's quality, how many of its genres the user likes, price, the relevancy the
ranking came with, and the position. What a user likes and how good an item is stand in no event."""
import bisect
import hashlib
import json
import math
import os
import random

ITEMS, USERS, RANKINGS, SLATE = 2000, 5000, 100000, 30
DAY_MS = 86400 * 1000
START_MS, SPAN_MS = 1792454400000, 30 * DAY_MS
END_MS = START_MS + SPAN_MS
EVENTS_MD5 = "9348502795cfb38b62cf8697ae19976d"
GENRES = ("drama comedy thriller action adventure romance crime scifi fantasy family horror mystery "
          "animation history music").split()
CATEGORIES = [f"c{i}" for i in range(10)]
BRANDS = [f"b{i}" for i in range(50)]
TAGS = [f"t{i}" for i in range(200)]
SEGMENTS = ["new", "casual", "regular", "loyal", "vip"]
DEVICES = ["mobile", "desktop", "tablet"]
COUNTRIES = ["us", "de", "fr", "gb", "jp"]


def field(name, value):
    return {"name": name, "value": value}


class Stream:
    """Every draw comes from one generator, in an order that is part of what the stream is."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.events = []  # (ms, number, event)
        self.reach, total = [], 0.0  # of items drawn with probability about 1 / rank
        for i in range(ITEMS):
            total += 1.0 / (i + 20)
            self.reach.append(total)

    def put(self, ms, event):
        event["timestamp"] = str(ms)
        self.events.append((ms, len(self.events), event))

    def slate(self, n):
        chosen = {}
        while len(chosen) < n:
            chosen[bisect.bisect_left(self.reach, self.rng.random() * self.reach[-1])] = 1
        return list(chosen)

    def visitor(self):
        return min(USERS - 1, int(USERS * self.rng.random() ** 1.3))


def make_item(s, i):
    r = s.rng
    genres = r.sample(GENRES, r.randint(1, 3))
    price = round(math.exp(r.gauss(3, 0.8)), 2)
    quality = r.gauss(0, 1)
    category = r.choice(CATEGORIES)
    s.put(START_MS, {"event": "item", "id": f"m{i}", "item": f"i{i}", "fields": [
        field("price", price),
        field("popularity", round(math.exp(r.gauss(2 + quality * 0.5, 1)), 3)),
        field("vote_avg", round(min(10, max(1, 6 + quality + r.gauss(0, 1))), 1)),
        field("runtime", r.randint(60, 180)),
        field("created_at", str((START_MS - r.randint(0, 3 * 365 * DAY_MS)) // 1000)),
        field("category", category),
        field("brand", r.choice(BRANDS)),
        field("genres", genres),
        field("tags", r.sample(TAGS, r.randint(3, 8))),
        field("title", " ".join(f"w{r.randint(0, 5000)}" for _ in range(r.randint(2, 8))))]})
    return set(genres), price, quality


def make_user(s, u):
    r = s.rng
    likes, frugal, segment = set(r.sample(GENRES, 3)), r.gauss(0, 0.5), r.choice(SEGMENTS)
    s.put(START_MS, {"event": "user", "id": f"um{u}", "user": f"u{u}", "fields": [
        field("age", r.randint(16, 80)), field("segment", segment), field("country", r.choice(COUNTRIES))]})
    return likes, frugal


def visit(s, number, items, users, n_clicks):
    """One ranking and its clicks; how many clicks there have been by then."""
    r = s.rng
    ms = START_MS + 3600000 + (SPAN_MS - 7200000) * number // RANKINGS
    u = s.visitor()
    likes, frugal = users[u]
    shown = s.slate(SLATE)
    relevancy = {i: round(items[i][2] * 0.3 + r.gauss(0, 1), 4) for i in shown}
    shown.sort(key=lambda i: -relevancy[i])
    who = {"user": f"u{u}", "session": f"u{u}-{ms // DAY_MS}"}
    s.put(ms, {"event": "ranking", "id": f"r{number}", **who,
               "fields": [field("device", r.choice(DEVICES)), field("query", f"q{r.randint(0, 199)}")],
               "items": [{"id": f"i{i}", "fields": [field("relevancy", relevancy[i])]} for i in shown]})
    clicks = 0
    for place, i in enumerate(shown):
        genres, price, quality = items[i]
        logit = (-3.4 + 0.8 * quality + 1.0 * len(likes & genres) + frugal * (3 - math.log(price))
                 + 0.4 * relevancy[i])
        if r.random() < (1 / (1 + math.exp(-logit))) / (1 + 0.07 * place):
            ms += r.randint(3000, 30000)
            s.put(ms, {"event": "interaction", "id": f"k{n_clicks}", "ranking": f"r{number}", **who,
                       "type": "click", "item": f"i{i}", "fields": []})
            clicks, n_clicks = clicks + 1, n_clicks + 1
            if clicks >= 6:
                break
    return n_clicks


def line(event):
    return json.dumps(event, separators=(",", ":")) + "\n"


def write_stream(path):
    s = Stream(42)
    items = [make_item(s, i) for i in range(ITEMS)]
    users = [make_user(s, u) for u in range(USERS)]
    n_clicks = 0
    for number in range(RANKINGS):
        n_clicks = visit(s, number, items, users, n_clicks)
    s.events.sort(key=lambda e: e[:2])
    with open(path + ".part", "w", encoding="ascii") as f:
        f.writelines(line(e) for _, _, e in s.events)
    os.replace(path + ".part", path)


def write_events(path):
    """Writes the stream unless it is there; checks its bytes."""
    if not os.path.exists(path):
        write_stream(path)
    digest = hashlib.md5()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != EVENTS_MD5:
        raise SystemExit(f"{path}: not the stream Metarank was measured with; another Python's random?")


def split(path):
    """Of the rankings that were clicked, the last fifth is the test: (line index, ms, number) of its
    first one and how many there are; and the same of the fifth before, to choose settings by."""
    rankings, clicked = [], set()
    with open(path, encoding="ascii") as f:
        for index, text in enumerate(f):
            if text.startswith('{"event":"ranking"'):
                e = json.loads(text)
                rankings.append((index, int(e["timestamp"]), e["id"]))
            elif text.startswith('{"event":"interaction"'):
                clicked.add(json.loads(text)["ranking"])
    rankings = [r for r in rankings if r[2] in clicked]
    n = len(rankings) - len(rankings) * 4 // 5
    test, choice = rankings[-n], rankings[-2 * n]
    return {"n": n, "line": test[0], "ms": test[1], "choice_line": choice[0], "choice_ms": choice[1]}


def head(path, lines, to):
    with open(path, "rb") as f, open(to, "wb") as out:
        for index, text in enumerate(f):
            if index == lines:
                return
            out.write(text)


def requests(n, count):
    """Rank requests of n items as of the stream's end: skewed items, any user."""
    s = Stream(7)
    for k in range(count):
        user = f"u{s.visitor()}"
        device, query = s.rng.choice(DEVICES), f"q{s.rng.randint(0, 199)}"
        items = s.slate(n)
        yield {"request_id": f"q{k}", "user": user, "session": user + "-x", "device": device, "query": query,
               "items": [f"i{i}" for i in items], "relevancy": [round(s.rng.gauss(0, 1), 4) for _ in items]}


CONFIG = """api: {host: "127.0.0.1", port: 18080}
core:
  tracking: {analytics: false, errors: false}
state: {type: memory}
models:
  lightgbm:
    type: lambdamart
    backend: {type: lightgbm, iterations: 100, seed: 0}
    weights: {click: 1}
    features: [price, popularity, vote_avg, runtime, age, relevancy, category, genres, brand, user_age, user_segment, device, ctr, ctr_category, clicks_window, item_clicks, user_clicks, profile, price_diff, position]
features:
  - {name: price, type: number, scope: item, source: item.price}
  - {name: popularity, type: number, scope: item, source: item.popularity}
  - {name: vote_avg, type: number, scope: item, source: item.vote_avg}
  - {name: runtime, type: number, scope: item, source: item.runtime}
  - {name: age, type: item_age, source: item.created_at}
  - {name: relevancy, type: number, scope: item, source: item.relevancy}
  - {name: category, type: string, scope: item, encode: onehot, source: item.category, values: [%(categories)s]}
  - {name: genres, type: string, scope: item, encode: onehot, source: item.genres, values: [%(genres)s]}
  - {name: brand, type: string, scope: item, encode: index, source: item.brand, values: [%(brands)s]}
  - {name: user_age, type: number, scope: user, source: user.age}
  - {name: user_segment, type: string, scope: user, encode: onehot, source: user.segment, values: [%(segments)s]}
  - {name: device, type: string, scope: ranking, encode: onehot, source: ranking.device, values: [%(devices)s]}
  - {name: ctr, type: rate, top: click, bottom: impression, bucket: 24h, periods: [7, 30], normalize: {weight: 10}}
  - {name: ctr_category, type: rate, top: click, bottom: impression, scope: item.category, bucket: 24h, periods: [7, 30]}
  - {name: clicks_window, type: window_count, interaction: click, scope: item, bucket: 24h, periods: [1, 7, 30]}
  - {name: item_clicks, type: interaction_count, interaction: click, scope: item}
  - {name: user_clicks, type: interaction_count, interaction: click, scope: user}
  - {name: profile, type: interacted_with, interaction: click, field: [item.genres, item.tags, item.brand], scope: user, count: 50, duration: 30d}
  - {name: price_diff, type: diversity, source: item.price}
  - {name: position, type: position, position: 10}
""" % {"categories": ", ".join(CATEGORIES), "genres": ", ".join(GENRES), "brands": ", ".join(BRANDS),
       "segments": ", ".join(SEGMENTS), "devices": ", ".join(DEVICES)}
