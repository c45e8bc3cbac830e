"""References made by the sidecar's own program, so that they have the same bytes wherever they are made."""

import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

# What memoryview calls an element, and what numpy.save does.
_DESCR = {
    "e": "<f2",
    "f": "<f4",
    "d": "<f8",
    "b": "|i1",
    "B": "|u1",
    "?": "|b1",
    "h": "<i2",
    "H": "<u2",
    "i": "<i4",
    "I": "<u4",
    "l": "<i8",
    "L": "<u8",
    "q": "<i8",
    "Q": "<u8",
}


def _program():
    named = os.environ.get("MLWATCH_BIN")
    found = named or shutil.which("mlwatch")
    if not found or not os.path.isfile(found):
        where = f"MLWATCH_BIN names {named!r}, which is no file" if named else "there is no mlwatch in PATH"
        raise FileNotFoundError(f"{where}: references are made by the mlwatch program; build it with `make sidecar`, or name it in MLWATCH_BIN")
    return found


def _view(name, value):
    """The bytes of an array, row by row, with its shape and what its elements are."""
    for convert in (lambda x: x, lambda x: x.detach().cpu().numpy(), lambda x: x.to_numpy(), _packed):
        try:
            view = memoryview(convert(value))
        except (TypeError, AttributeError, BufferError):
            continue
        kind = view.format.lstrip("@=<")
        if kind not in _DESCR:
            raise TypeError(f"{name} has elements of format {view.format!r}, want floats, integers or bools of this machine's byte order")
        return view, _DESCR[kind]
    raise TypeError(f"{name} is {type(value).__name__}, want an array, a tensor, or rows of numbers")


def _packed(rows):
    """Nested sequences as an array of doubles."""
    rows = list(rows)
    if not rows or not hasattr(rows[0], "__iter__"):
        return memoryview(struct.pack(f"{len(rows)}d", *rows)).cast("d")
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        raise ValueError("its rows differ in length")
    flat = struct.pack(f"{len(rows) * width}d", *(x for row in rows for x in row))
    return memoryview(flat).cast("B").cast("d", [len(rows), width]) if width else memoryview(b"")


def _paths(given):
    one = isinstance(given, str | os.PathLike)
    paths = [os.fspath(path) for path in ([given] if one else given)]
    if not paths:
        raise ValueError("there are no reports: give the paths of metrics-*.jsonl files")
    return paths


def _write_npy(path, name, value):
    view, descr = _view(name, value)
    shape = ", ".join(map(str, view.shape)) + ("," if view.ndim == 1 else "")
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("latin1"))
        file.write(view.tobytes())


class Reference:
    """What a model was like when all was well: ``mlwatch.Reference.fit(X, proba, y, model="digits").save("digits.mlwref")``.

    The file goes into the directory that the sidecar's ``--reference`` names.
    """

    def __init__(self, command, arrays, options, names, files=()):
        self._command, self._arrays, self._options, self._names, self._files = command, arrays, options, names, files

    @classmethod
    def fit(
        cls,
        X=None,
        proba=None,
        y=None,
        *,
        model,
        version="",
        feature_names=None,
        class_names=None,
        categorical=(),
        task="classification",
        threshold=0.5,
    ):
        """Of features (rows, features), predictions (rows, classes) and labels (rows,), or some of them; numpy is not needed.

        With predictions and labels it learns what the probabilities mean: the sidecar's estimates of accuracy without labels are then
        calibrated, and compared with how right the model was here. Best of rows that the model was not trained on.

        Columns are compared by name with those of the ring: names must be those that the Monitor was given. Nothing is copied
        before ``save``.
        """
        if X is None and proba is None:
            raise ValueError("X and proba are both None: a reference is of something")
        arrays = {"features": X, "proba": proba, "labels": y}
        options = {"model": model, "version": version, "task": task, "threshold": repr(float(threshold))}
        names = {"feature-names": feature_names, "class-names": class_names, "categorical": list(categorical) or None}
        return cls("build", {what: array for what, array in arrays.items() if array is not None}, options, names)

    @classmethod
    def from_reports(cls, reports, *, model, version="", threshold=0.5):
        """Of the sidecar's report files (``metrics-*.jsonl``), a path or several: moments and counts are those of all rows of the
        whole periods in them, distributions are interpolated. With a version only its periods count."""
        options = {"model": model, "version": version, "threshold": repr(float(threshold))}
        return cls("build", {}, options, {}, [f"--reports={path}" for path in _paths(reports)])

    @classmethod
    def merge(cls, *references, version=None):
        """Of the files of references of one model, in any order: as if it had been made from all their rows. Those of several
        versions want to know of which version the merged one is, "" for any."""
        if not references:
            raise ValueError("there is nothing to merge: give the paths of references")
        options = {} if version is None else {"version": version}
        return cls("merge", {}, options, {}, ["--", *map(os.fspath, references)])

    def save(self, path):
        """Writes the file. ValueError says what is wrong with the arrays, names or files, FileNotFoundError that there is no program."""
        program = _program()
        with tempfile.TemporaryDirectory(prefix="mlwatch-reference-") as directory:
            command = [program, "reference", self._command, "--output", os.fspath(path)]
            for option, value in self._options.items():
                command += [f"--{option}={value}"]
            for what, array in self._arrays.items():
                file = Path(directory, f"{what}.npy")
                _write_npy(file, what, array)
                command += [f"--{what}", file]
            for option, given in self._names.items():
                if given is not None:
                    file = Path(directory, option)
                    file.write_text("".join(f"{name}\n" for name in given))
                    command += [f"--{option}", f"@{file}"]
            command += self._files
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=os.environ | {"MLWATCH_LOG": "off"})
        if done.returncode:
            raise ValueError(done.stderr.strip().removeprefix("mlwatch: ").replace(f"{directory}/", ""))
