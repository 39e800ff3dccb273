"""The second compiler: every source that gcc built must pass clang too, without a warning.

The commands are those of the build (compile_commands.json in MOERANK_BUILD), with clang in gcc's
place and code generation left out. Where the build was clang's, gcc is the second.
"""
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def other_command(command):
    words = shlex.split(command)
    second = "gcc" if "clang" in os.path.basename(words[0]) else "clang"
    out, skip = [second], False
    for word in words[1:]:
        if skip:
            skip = False
        elif word in ("-o", "-MF", "-MT", "-c"):
            skip = word != "-c"
        elif word not in ("-MD",) and not word.startswith(("-fsanitize", "-flto", "-ffat-lto")):
            out.append(word)
    return out + ["-fsyntax-only", "-Werror"]


def compile_one(entry):
    run = subprocess.run(other_command(entry["command"]), cwd=entry["directory"],
                         capture_output=True, text=True)
    return "" if run.returncode == 0 else f"{entry['file']}:\n{run.stderr}"


def self_check(flags):
    with tempfile.TemporaryDirectory() as folder:
        bad = os.path.join(folder, "bad.c")
        with open(bad, "w", encoding="utf-8") as f:
            f.write("static int unused;\n")
        if not compile_one({"command": f"cc -Wall {flags} -o x.o -c {bad}", "directory": folder,
                            "file": bad}):
            sys.exit("self-check: a warning went unseen")


def main():
    build = os.environ.get("MOERANK_BUILD") or sys.exit("set MOERANK_BUILD to a build folder")
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        entries = json.load(f)
    ours = re.compile(re.escape(ROOT) + r"/(base|proto|features|moe|ranker|tools|tests)/.*\.c$")
    entries = [e for e in entries if ours.match(e["file"]) and os.path.exists(e["file"])]
    self_check("-std=gnu17")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [text for text in pool.map(compile_one, entries) if text]
    print("\n".join(found) if found else f"{len(entries)} files, nothing to complain about")
    sys.exit(1 if found or not entries else 0)


main()
