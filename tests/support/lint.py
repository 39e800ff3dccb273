"""What the lint tests share: which files there are, and a main that proves each rule can fail.

A rule is a function check(path, text) that yields complaints. Before the tree is read, the rule is
run on small bad samples and must complain about each, and on good ones and must not.
"""
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CODE = ("base", "proto", "features", "moe", "ranker", "tools")


def tracked(suffixes, folders=CODE):
    """Paths from the root of the files git knows; of all files where there is no git."""
    git = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--", *folders],
                         capture_output=True, text=True)
    if git.returncode == 0 and git.stdout:
        paths = git.stdout.split("\0")
    else:
        paths = [os.path.relpath(os.path.join(at, name), ROOT) for folder in folders
                 for at, _, names in os.walk(os.path.join(ROOT, folder)) for name in names]
    return sorted(p for p in paths
                  if p.endswith(tuple(suffixes)) and os.path.exists(os.path.join(ROOT, p)))


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def blank(text, keep_strings=False):
    """C text with comments (and strings) blanked out, line by line as before."""
    out, i, n = [], 0, len(text)
    while i < n:
        c, two = text[i], text[i:i + 2]
        if two == "/*":
            end = text.find("*/", i + 2)
            end = n if end < 0 else end + 2
        elif two == "//":
            end = text.find("\n", i)
            end = n if end < 0 else end
        elif c in "\"'":
            end = i + 1
            while end < n and text[end] not in (c, "\n"):
                end += 2 if text[end] == "\\" else 1
            end = min(end + 1, n)
            if keep_strings:
                out.append(text[i:end])
                i = end
                continue
        else:
            out.append(c)
            i += 1
            continue
        out.append("".join(ch if ch == "\n" else " " for ch in text[i:end]))
        i = end
    return "".join(out)


def run(check, paths, bad, good=()):
    """bad: [(path, text, part of the complaint)]; good: [(path, text)]. Exits."""
    for path, text, part in bad:
        complaints = list(check(path, text))
        if not any(part in c for c in complaints):
            sys.exit(f"self-check: '{part}' was not found in {path!r}: {complaints}")
    for path, text in good:
        complaints = list(check(path, text))
        if complaints:
            sys.exit(f"self-check: complaints about good text: {complaints}")
    if not paths:
        sys.exit("no files to look at")
    found = [f"{path}: {c}" for path in paths for c in check(path, read(path))]
    print("\n".join(found) if found else f"{len(paths)} files, nothing to complain about")
    sys.exit(1 if found else 0)
