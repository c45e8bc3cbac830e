"""What is built from producer-py, and from where."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# In the interpreter's own words, changed where `told` says so.
BUILD = """
import json, sys, sysconfig
from setuptools import build_meta
what, into, told = sys.argv[1:]
sysconfig.get_config_vars().update(json.loads(told))
getattr(build_meta, what)(into)
"""

USE = """
import sys, mlwatch
with mlwatch.Monitor("m", n_classes=2, dir=sys.argv[1], ring_bytes=1) as monitor:
    assert monitor.collect([0.25, 0.75])
print(mlwatch.__file__)
"""


def build(what, source, into, **told):
    """The one file that setuptools makes of the project in `source`; nothing is fetched for it."""
    into.mkdir()
    command = [sys.executable, "-c", BUILD, f"build_{what}", into, json.dumps(told)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[-W" not in done.stderr, f"the compiler warns:\n{done.stderr}"
    (built,) = into.iterdir()
    return built


def unpacked_sdist(source, place):
    with tarfile.open(build("sdist", source, place / "made")) as archive:
        archive.extractall(place / "unpacked", filter="data")
    (project,) = (place / "unpacked").iterdir()
    return project


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """A source distribution where nothing of the repository stands beside it; made of another one, as packagers do."""
    first = unpacked_sdist(ROOT / "producer-py", tmp_path_factory.mktemp("first"))
    return unpacked_sdist(first, tmp_path_factory.mktemp("second"))


@pytest.mark.parametrize("told, limited", [({}, True), ({"Py_GIL_DISABLED": 1}, False)], ids=["usual", "free-threaded"])
def test_a_source_distribution_builds_by_itself_for_either_kind_of_interpreter(distributed, tmp_path, ring_dir, told, limited):
    wheel = build("wheel", distributed, tmp_path / "made", **told)
    assert ("-cp311-abi3-" in wheel.name) == limited
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": os.fspath(tmp_path / "installed")}
    used = subprocess.check_output([sys.executable, "-c", USE, ring_dir], env=environment, text=True)
    assert Path(used.strip()) == tmp_path / "installed" / "mlwatch" / "__init__.py"
