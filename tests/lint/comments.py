"""Every source and header opens with a comment that says what it is: at least a line of words."""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import lint


def check(path, text):
    opening = re.match(r"/\*(.*?)\*/|//([^\n]*)", text, re.S)
    if not opening:
        yield "does not open with a comment"
    elif len(re.findall(r"\w+", opening.group())) < 4:
        yield "opens with a comment that says nothing"


lint.run(check, lint.tracked((".c", ".h"), (*lint.CODE, "tests")),
         bad=[("x.h", "#pragma once\n/* x.h: late words about it */\n", "does not open"),
              ("x.c", "/* x */\nint f(void);\n", "says nothing")],
         good=[("x.c", "/* x.c: what it does and why.\n * More. */\n"),
               ("x.c", "// x.c: what it does\n")])
