"""Functions have at most 60 lines, files at most 600: what does not fit in a head is cut."""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import lint

FUNCTION_LINES, FILE_LINES = 60, 600


def without_directives(text):
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*",
                  lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.M)


def functions(text):
    """(name, first line, lines) of each function body; a head without '=' that has a '('."""
    text = without_directives(lint.blank(text))
    depth, head_at, body = 0, 0, None
    for i, c in enumerate(text):
        if c == "{":
            if depth == 0:
                head = text[head_at:i]
                name = re.search(r"(\w+)\s*\(", head)
                body = None
                if name and "=" not in head:
                    body = (name.group(1), head_at + len(head) - len(head.lstrip()))
            depth += 1
        elif c == "}":
            depth -= 1
            if depth == 0:
                if body:
                    first = text.count("\n", 0, body[1]) + 1
                    yield body[0], first, text.count("\n", 0, i) + 2 - first
                head_at = i + 1
        elif c == ";" and depth == 0:
            head_at = i + 1
    if depth != 0:
        yield "unbalanced braces", 1, FUNCTION_LINES + 1


def check(path, text):
    lines = text.count("\n")
    if lines > FILE_LINES:
        yield f"{lines} lines, {FILE_LINES} are allowed"
    for name, first, length in functions(text):
        if length > FUNCTION_LINES:
            yield f"{first}: {name} has {length} lines, {FUNCTION_LINES} are allowed"


def body(lines):
    return "static struct a *f(int x,\n                   int y) {\n" + "    x++;\n" * (lines - 3) + "}\n"


EXACT = body(FUNCTION_LINES)
assert EXACT.count("\n") == FUNCTION_LINES
lint.run(check, lint.tracked((".c", ".h")),
         bad=[("x.c", body(FUNCTION_LINES + 1), "f has 61 lines"),
              ("x.c", "struct s { int a; };\nint g;\n" + body(70), "3: f has 70 lines"),
              ("x.c", "static const int t[] = {1};\n#define M(x) { \\\n  x\n" + body(70), "f has 70"),
              ("x.c", "\n" * (FILE_LINES + 1), "601 lines"),
              ("x.c", "int f(void) {\n", "unbalanced")],
         good=[("x.c", EXACT),
               ("x.c", "static const int t[] = {\n" + "    f(1),\n" * 100 + "};\n"),
               ("x.c", "struct s {\n" + "    int a; /* { */\n" * 100 + "};\n"),
               ("x.c", "const char *q = \"{\";\nchar c = '{';\n" + EXACT)])
