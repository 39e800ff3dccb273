"""The data folder for Python tests: MOERANK_DATA, default ../shared/data beside the project."""
import os
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def data_path(name):
    """The path of a data file. Skips the test under --without-data; a missing file is an error."""
    if os.environ.get("MOERANK_WITHOUT_DATA"):
        raise unittest.SkipTest("needs data: " + name)
    folder = os.environ.get("MOERANK_DATA") or os.path.join(ROOT, "..", "shared", "data")
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"no {path}: set MOERANK_DATA, or leave such tests out by --without-data")
    return path
