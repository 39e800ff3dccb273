"""Exported names bear their folder's prefix; in base, their file's noun. Read by nm from the
static libraries in MOERANK_BUILD."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import lint

PREFIXES = {
    "proto": r"(ev|rpc)_|moerank__|grpc__",  # the last two: protobuf-c's
    "features": r"feat_",
    "moe": r"moe_",
    "ranker": r"rk_",
}
OTHER_NOUNS = {"status": r"(status_|fail$|fail_in$)", "buf": r"(buf|cursor)_"}
DEFINED = set("TDBRCVWi")


def prefix_of(library, member):
    if library != "base":
        return PREFIXES[library]
    noun = re.match(r"[a-z]+", member).group()
    return OTHER_NOUNS.get(noun, noun + "_")


def check(library, listing):
    """listing: what nm -A -g prints, 'lib.a:member.c.o:0000 T name' a line."""
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[-2] not in DEFINED:
            continue
        name, member = fields[-1], line.split(":")[1]
        if name.startswith("__"):  # the compiler's own
            continue
        if not re.match(prefix_of(library, member), name):
            yield f"{member}: {name} lacks the prefix {prefix_of(library, member)}"


def self_check():
    row = "libmoerank_{}.a:{}.c.o:0000000000000000 {} {}\n"
    bad = [("moe", "gate", "T", "gate_new"), ("base", "arena", "T", "heap_x"),
           ("base", "status", "T", "failing"), ("proto", "x", "D", "moe_x"),
           ("features", "x", "B", "counter")]
    good = [("base", "node_yaml", "T", "node_parse_yaml"), ("base", "status", "T", "fail_in"),
            ("moe", "x", "t", "local"), ("moe", "x", "T", "moe_x.avx2"), ("ranker", "x", "T", "rk_x"),
            ("proto", "x", "T", "moerank__v1__event__init")]
    for library, *rest in bad:
        if not list(check(library, row.format(library, *rest))):
            sys.exit(f"self-check: {rest} was not found")
    for library, *rest in good:
        if list(check(library, row.format(library, *rest))):
            sys.exit(f"self-check: complaint about {rest}")


def main():
    self_check()
    build = os.environ.get("MOERANK_BUILD") or sys.exit("set MOERANK_BUILD to a build folder")
    found, libraries = [], 0
    for library in ["base", *PREFIXES]:
        archive = os.path.join(build, f"libmoerank_{library}.a")
        if not os.path.exists(archive) and not lint.tracked((".c",), (library,)):
            continue
        if not os.path.exists(archive):
            sys.exit(f"no {archive}: build first")
        nm = subprocess.run(["nm", "-A", "-g", "--defined-only", archive], capture_output=True,
                            text=True, check=True)
        if " T " not in nm.stdout:
            sys.exit(f"{archive} exports nothing")
        libraries += 1
        found += check(library, nm.stdout)
    print("\n".join(found) if found else f"{libraries} libraries, nothing to complain about")
    sys.exit(1 if found or not libraries else 0)


main()
