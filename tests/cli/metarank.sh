#!/bin/bash
# Metarank's documented events and extractors: the events are read as they are, the configuration
# becomes settings that train, and what has no equivalent is named with its line.
source tests/cli/common.bash

# Its event schema: every documented key, times as a text of milliseconds, as ISO 8601 and as a
# number, fields of every type, an interaction without ranking and one without user.
cat >"$tmp/events.jsonl" <<'JSON'
{"event":"item","id":"e1","timestamp":"1599391467000","item":"item1","fields":[{"name":"title","value":"Your favourite cat"},{"name":"color","value":["white","black"]},{"name":"is_cute","value":true},{"name":"price","value":69.0},{"name":"sizes","value":[10,12,13]},{"name":"created_at","value":"2020-09-01T10:15:30+01:00"},{"name":"category","value":"pets"}]}
{"event":"item","id":"e2","timestamp":"2020-09-06T11:24:28Z","tenant":null,"item":"item2","fields":[{"name":"title","value":"A dog"},{"name":"color","value":"red"},{"name":"price","value":12},{"name":"created_at","value":"1598483661"}]}
{"event":"item","id":"e3","timestamp":1599391468000,"item":"item3","fields":[{"name":"color","value":["red","white"]},{"name":"price","value":30}]}
{"event":"user","id":"e4","timestamp":"1599391469000","user":"user1","fields":[{"name":"age","value":33},{"name":"gender","value":"m"}]}
{"event":"ranking","id":"r1","timestamp":"1599391470000","user":"user1","session":"session1","fields":[{"name":"query","value":"cat"},{"name":"source","value":"search"},{"name":"localts","value":"2020-09-06T13:24:30+02:00"},{"name":"ua","value":"Mozilla/5.0 (X11; Linux x86_64; rv:98.0) Gecko/20100101 Firefox/98.0"},{"name":"referer","value":"http://www.google.com"},{"name":"banner_examined","value":true}],"items":[{"id":"item3","fields":[{"name":"relevancy","value":2.0}]},{"id":"item1","fields":[{"name":"relevancy","value":1.0}],"label":1.0},{"id":"item2","fields":[{"name":"relevancy","value":0.1}]}]}
{"event":"interaction","id":"k1","ranking":"r1","timestamp":"1599391475000","user":"user1","session":"session1","type":"click","item":"item1","fields":[]}
{"event":"interaction","id":"k2","ranking":"r1","timestamp":"1599391476000","user":"user1","session":"session1","type":"purchase","item":"item1","fields":[{"name":"count","value":1},{"name":"shipping","value":"DHL"}]}
{"event":"ranking","id":"r2","timestamp":"1599391480000","items":[{"id":"item1"},{"id":"item2"}]}
{"event":"interaction","id":"k3","timestamp":"1599391481000","type":"click","item":"item2"}
JSON
want 0 "$moerank" validate --events "$tmp/events.jsonl" --quiet --json
json "$out" 'r["events"] == 9 and r["bad"] == 0 and r["naming_nobody_share"] == 1 / 3'

cat >"$tmp/config.yml" <<'YAML'
api: {port: 8080, host: "0.0.0.0"}
core:
  clickthrough: {maxParallelSessions: 10000, maxSessionLength: 10m}
  tracking: {analytics: true, errors: true}
state:
  type: memory
source:
  type: kafka
  brokers: [broker1, "broker2:9092"]
  topic: shop
  groupId: metarank
  offset: last=1h
  format: json
inference: {embedder: {type: bi-encoder}}
train: {type: discard}
models:
  default:
    type: lambdamart
    backend: {type: xgboost, iterations: 50, seed: 7, maxDepth: 8}
    weights: {click: 1, purchase: 5.5}
    split: time=80%
    eval: [NDCG@10]
    warmup: {sampledRequests: 100}
    selector: {rankingField: source, value: search}
  random: {type: shuffle, maxPositionChange: 5}
  others: {type: trending}
features:
  - {name: price, type: number, scope: item, field: item.price, refresh: 0s, ttl: 60d}
  - {name: relevancy, type: number, scope: item, source: item.relevancy}
  - {name: old_relevancy, type: relevancy}
  - {name: user_age, type: number, scope: user, source: user.age}
  - {name: cute, type: boolean, scope: item, source: item.is_cute}
  - {name: banner, type: boolean, scope: item, field: ranking.banner_examined}
  - {name: sizes, type: vector, scope: item, field: item.sizes, reduce: [first, last, min, max, avg, random, sum, size, euclidean_distance, vector10]}
  - {name: color, type: string, scope: item, encode: onehot, source: item.color, values: [red, white, black]}
  - {name: gender, type: string, scope: user, encode: index, source: user.gender, values: [m, f]}
  - {name: source, type: string, scope: ranking, source: ranking.source, values: [search, main]}
  - {name: any_color, type: string, scope: item, source: item.color}
  - {name: title_length, type: word_count, scope: item, source: item.title}
  - {name: colors, type: list_size, scope: item, source: item, field: color}
  - {name: since, type: time_diff, source: item.created_at}
  - {name: freshness, type: item_age, source: item.created_at, refresh: 1h}
  - {name: updated, type: item_age, source: item.timestamp}
  - {name: hour, type: local_time, parse: time_of_day, source: ranking.localts}
  - {name: weekday, type: local_time, parse: day_of_week, source: ranking.timestamp}
  - {name: clock, type: local_time, parse: second, source: ranking.localts}
  - {name: platform, type: ua, source: ranking.ua, field: platform}
  - {name: os, type: ua, source: ranking.ua, field: os}
  - {name: browser, type: ua, source: ranking.ua, field: browser}
  - {name: bot, type: ua, source: ranking.ua, field: bot}
  - {name: referer, type: referer, source: ranking.referer, scope: user}
  - {name: late_referer, type: referer, source: interaction.referer, scope: user}
  - {name: clicked, type: interacted_with, interaction: click, field: [item.color, item.category], scope: user, count: 50, duration: 30d}
  - {name: bought, type: interacted_with, interaction: purchase, field: item.color, scope: session}
  - {name: clicks, type: interaction_count, interaction: click, scope: item}
  - {name: carts, type: interaction_count, interaction: purchase, scope: session}
  - {name: weeks, type: window_count, interaction: click, scope: item, bucket: 24h, periods: [7, 14], count: 10}
  - {name: old_weeks, type: window_event_count, interaction: click, scope: user, bucket_size: 24h, windows: [7]}
  - {name: ctr, type: rate, top: click, bottom: impression, bucket: 24h, periods: [7, 30], normalize: {weight: 5}}
  - {name: ctr_category, type: rate, top: click, bottom: impression, scope: item.category, bucket: 24h, periods: [7, 30]}
  - {name: ctr_query, type: rate, top: click, bottom: impression, scope: ranking.query, bucket: 24h, periods: [7]}
  - {name: price_diff, type: diversity, source: item.price, top: 10}
  - {name: color_diff, type: diversity, source: item.color}
  - {name: position, type: position, position: 5}
  - {name: luck, type: random}
  - {name: match_terms, type: field_match, itemField: item.title, rankingField: ranking.query, method: {type: term, language: en}}
  - {name: match_grams, type: field_match, itemField: item.title, rankingField: ranking.query, method: {type: ngram, language: generic, n: 3}}
  - {name: match_bm25, type: field_match, itemField: item.title, rankingField: ranking.query, method: {type: bm25, language: generic, termFreq: /tf.json}}
  - {name: match_bert, type: field_match, itemField: item.title, rankingField: ranking.query, distance: cos, method: {type: bi-encoder, dim: 384}}
  - {name: match_ce, type: field_match, itemField: item.title, rankingField: ranking.query, method: {type: cross-encoder}}
  - {name: country, type: ip_country, source: ranking.ip}
YAML
expect import_metarank 0 "$moerank" import-metarank "$tmp/config.yml" --output "$tmp/shop" --events "$tmp/events.jsonl"
expect import_metarank_yaml 0 cat "$tmp/shop/moerank.yaml"
want 0 "$moerank" validate --config "$tmp/shop/moerank.yaml" --events "$tmp/events.jsonl" --quiet --json
json "$out" 'r["bad"] == 0 and r["rows_made"] == 6'
want 0 "$moerank" train --config "$tmp/shop/moerank.yaml" --events "$tmp/events.jsonl" --model "$tmp/shop/model.safetensors" --set train.epochs=1 --set train.validation=0 --quiet --json
json "$out" 'r["rows"] == 5 and [t["task"] for t in r["tasks"]] == ["click", "purchase"]'

# Redis: the same features.
sed -i 's/^  type: memory/  type: redis\n  host: redis.local\n  auth: {user: u, password: p}\n  format: binary/' "$tmp/config.yml"
want 0 "$moerank" import-metarank "$tmp/config.yml" --output "$tmp/shared" --json
grep -q 'scope: item.category' "$tmp/shared/moerank.yaml" || complain "no sum over items"
json "$out" 'not [n for n in r["notes"] if "above the last click" in n["what"]]'
[ "$(grep -c cascade "$tmp/shared/moerank.yaml")" = 3 ] || complain "impressions are not those above the last click"
grep -q 'store: redis, redis_addresses: \["redis.local:6379"\]' "$tmp/shared/moerank.yaml" || complain "no redis"

# Not Metarank's.
echo 'features: {}' >"$tmp/other.yml"
want 2 "$moerank" import-metarank "$tmp/other.yml" --output "$tmp/shop"
grep -q "no list 'features'" "$err" || complain "not said why"
want 2 "$moerank" import-metarank "$tmp/config.yml" --output "$tmp/shop" --model random
want 3 "$moerank" import-metarank "$tmp/nowhere.yml" --output "$tmp/shop"
