"""References made by the sidecar's own program, so that they have the same bytes wherever they are made."""

import os
import shutil
import struct
import subprocess
import tempfile
import warnings
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
        except ValueError as why:
            raise ValueError(f"{name}: {why}") from None
        kind = view.format.lstrip("@=<")
        if kind[-1:] in "Osw":
            # Of objects or text: numbers, or what a list of them says.
            value = value.tolist() if hasattr(value, "tolist") else value.to_numpy().tolist()
            continue
        if kind not in _DESCR:
            raise TypeError(f"{name} has elements of format {view.format!r}, want floats, integers or bools of this machine's byte order")
        return view, _DESCR[kind]
    raise TypeError(f"{name} is {type(value).__name__}, want an array, a tensor, or rows of numbers")


def _indices(labels, classes):
    """Names of classes as their indices, and None and NaN as no label; anything else as it is."""
    values = labels.to_numpy() if hasattr(labels, "to_numpy") else labels
    kind = "O" if isinstance(values, list | tuple) else getattr(getattr(values, "dtype", None), "kind", None)
    if kind not in ("O", "U", "T") or getattr(values, "ndim", 1) != 1 or not any(isinstance(x, str) for x in values):
        return labels
    values = values.tolist() if hasattr(values, "tolist") else values
    if classes is None:
        name = next(x for x in values if isinstance(x, str))
        raise ValueError(f"labels: it holds {name!r}: name the classes with class_names, in the order of proba's columns, or give their indices")
    index = {name: k for k, name in enumerate(classes)}
    index[None] = -1

    def of(value):
        if isinstance(value, float) and value != value:
            return -1
        try:
            return index[value]
        except (KeyError, TypeError):
            raise ValueError(f"labels: it holds {value!r}, which is no class: want one of {', '.join(map(repr, classes))}, None for no label") from None

    return [of(value) for value in values]


def _packed(rows):
    """Nested sequences as an array of doubles."""
    rows = list(rows)
    if not rows or isinstance(rows[0], str | bytes) or not hasattr(rows[0], "__iter__"):
        return memoryview(_doubles(rows)).cast("d")
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        raise ValueError("its rows differ in length")
    flat = _doubles([x for row in rows for x in row])
    return memoryview(flat).cast("B").cast("d", [len(rows), width]) if width else memoryview(b"")


def _doubles(numbers):
    try:
        return struct.pack(f"{len(numbers)}d", *numbers)
    except struct.error:
        wrong = next(x for x in numbers if isinstance(x, str) or not hasattr(x, "__float__"))
        raise ValueError(f"it holds {wrong!r}, want numbers: codes of categories, indices of classes") from None


def _names(what, given, frame=None):
    """Names as they were given, else those of a frame's columns where all of them are text."""
    if given is None:
        columns = getattr(frame, "columns", None)
        names = [] if columns is None or callable(columns) else list(columns)
        return names if names and all(isinstance(name, str) for name in names) else None
    names = None if isinstance(given, str) else list(given)
    if names is None or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{what} is {given!r}, want a sequence of strings")
    return names


def _lines(what, names):
    broken = [name for name in names if len(name.splitlines()) > 1 or name.endswith(("\n", "\r"))]
    if broken:
        raise ValueError(f"{what} has {broken[0]!r}: a name is one line")
    return "".join(f"{name}\n" for name in names)


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
        calibrated, and compared with how right the model was here. Best of rows that the model was not trained on. Of a regression,
        proba holds its outputs and y a target for each, and it learns how large errors are from period to period.

        Columns are compared by name with those of the ring: names must be those that the Monitor was given. Without names, those of
        the columns of X and proba are taken where these are frames. Labels may be names of classes. Nothing is copied before ``save``.
        """
        if X is None and proba is None:
            raise ValueError("X and proba are both None: a reference is of something")
        arrays = {"features": X, "proba": proba, "labels": y}
        options = {"model": model, "version": version, "task": task, "threshold": repr(float(threshold))}
        names = {
            "feature-names": _names("feature_names", feature_names, X),
            "class-names": _names("class_names", class_names, proba),
            "categorical": _names("categorical", categorical) or None,
        }
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
        """Writes the file, and warns of what looks wrong. ValueError says what is wrong with the arrays, names or files, FileNotFoundError that there is no program."""
        program = _program()
        with tempfile.TemporaryDirectory(prefix="mlwatch-reference-") as directory:
            command = [program, "reference", self._command, "--output", os.fspath(path)]
            for option, value in self._options.items():
                command += [f"--{option}={value}"]
            for what, array in self._arrays.items():
                if what == "labels" and self._options["task"] != "regression":
                    array = _indices(array, self._names["class-names"])
                file = Path(directory, f"{what}.npy")
                _write_npy(file, what, array)
                command += [f"--{what}", file]
            for option, given in self._names.items():
                if given is not None:
                    file = Path(directory, option)
                    file.write_text(_lines(option, given), encoding="utf-8")
                    command += [f"--{option}", f"@{file}"]
            command += self._files
            env = os.environ | {"MLWATCH_LOG": "warn"}
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env)
        said = done.stderr.splitlines()
        warned = [line for line in said if " WARN " in line]
        if done.returncode:
            why = "\n".join(line for line in said if line not in warned)
            raise ValueError(why.strip().removeprefix("mlwatch: ").replace(f"{directory}/", ""))
        for line in warned:
            warnings.warn(line.split(" WARN ", 1)[1].strip(), stacklevel=2)
