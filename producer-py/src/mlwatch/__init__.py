"""Write an inference loop's predictions, features and labels into a ring that the mlwatch sidecar reads.

    monitor = mlwatch.Monitor("digits", n_classes=10)
    monitor.collect(proba)

Opening a Monitor may raise. ``collect`` does not, unless ``strict=True``: it returns False, and what was lost is counted.
"""

import logging
import math
import operator
import os

from ._core import Dropped, Producer, __version__
from ._reference import Reference

__all__ = ["Dropped", "Monitor", "Reference", "__version__"]

_log = logging.getLogger("mlwatch")

_DTYPES = {"f16": 1, "bf16": 2, "f32": 3, "f64": 4}
_TASKS = {"classification": 1, "regression": 2}
_KINDS = {"numerical": 0, "categorical": 1, "embedding": 2}
_BY_ROW = (1 << 32) - 1
_ALLOW_DISK = 1
_MOST_REASONS = 64  # a reason names values: without a bound a broken loop would fill the memory and the log


def _one_of(options, name, value):
    try:
        return options[value]
    except (KeyError, TypeError):
        raise ValueError(f"{name} is {value!r}, want one of {', '.join(options)}") from None


def _integer(name, value, bits):
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, want an integer") from None
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{name} is {number}, want 0 or more and less than 2**{bits}")
    return number


def _text(name, value):
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, want a string")
    return value


def _number(name, value):
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} is {value!r}, want a number")
    return float(value)


def _names(name, value, count):
    if value is None:
        return ()
    names = () if isinstance(value, str) else tuple(value)
    if isinstance(value, str) or not all(isinstance(n, str) for n in names):
        raise TypeError(f"{name} is {value!r}, want a sequence of strings")
    if len(names) != count:
        raise ValueError(f"{name} has {len(names)} names, want {count}")
    return names


def _kinds(value, count):
    if value is None:
        return b""
    kinds = bytes(_one_of(_KINDS, f"feature_kinds[{i}]", kind) for i, kind in enumerate(value))
    if len(kinds) != count:
        raise ValueError(f"feature_kinds has {len(kinds)} kinds, want {count}")
    return kinds


def _segment_by(feature, by_row, feature_names, kinds):
    if feature is None:
        return _BY_ROW if by_row else 0
    if by_row:
        raise ValueError("segment_feature and segments exclude one another: a row has one segment")
    if isinstance(feature, str):
        names = feature_names or tuple(f"feat_{i}" for i in range(len(kinds)))
        if feature not in names:
            raise ValueError(f"segment_feature is {feature!r}, which is none of feature_names")
        index = names.index(feature)
    else:
        index = _integer("segment_feature", feature, 32)
    if kinds[index : index + 1] != bytes([_KINDS["categorical"]]):
        raise ValueError(f"segment_feature is {feature!r}, want a feature whose kind in feature_kinds is 'categorical'")
    return index + 1


def _period_ns(seconds):
    if seconds is None:
        return 0
    seconds = _number("period", seconds)
    if not (math.isfinite(seconds) and 1e-9 <= seconds < 1e10):
        raise ValueError(f"period is {seconds!r}, want a positive number of seconds")
    return round(seconds * 1e9)


class Monitor(Producer):
    """One stream of predictions of one model, written into a ring of its own.

    A Monitor serves one thread at a time: a thread that finds it in use drops its batch, counted as contended.
    Open one Monitor per thread. After ``os.fork`` the child's first call opens a ring of the child's own.

    proba and features are stored as ``dtype``: f16, bf16, f32 or f64. ``period`` (seconds) and ``reservoir`` (rows)
    are wishes to the sidecar. ``segment_feature`` names a categorical feature by whose values the sidecar keeps statistics
    apart; with ``segments=True`` ``collect`` takes them instead, a number per row. ``dir`` is by default $MLWATCH_DIR, else /dev/shm/mlwatch. With ``strict`` a rejected batch
    raises ValueError and a dropped one Dropped; a batch of several records may then be in the ring in part.
    """

    def __init__(
        self,
        model,
        *,
        n_classes,
        n_features=0,
        version="",
        instance=None,
        task="classification",
        class_names=None,
        feature_names=None,
        feature_kinds=None,
        dtype="f32",
        threshold=0.5,
        period=None,
        reservoir=None,
        segment_feature=None,
        segments=False,
        dir=None,
        ring_bytes=None,
        allow_disk=False,
        strict=False,
    ):
        n_classes = _integer("n_classes", n_classes, 32)
        n_features = _integer("n_features", n_features, 32)
        self._model = model
        self._strict = strict
        self._logged = set()
        feature_names = _names("feature_names", feature_names, n_features)
        feature_kinds = _kinds(feature_kinds, n_features)
        super().__init__(
            model=_text("model", model),
            version=_text("version", version),
            instance=None if instance is None else _text("instance", instance),
            task=_one_of(_TASKS, "task", task),
            flags=_ALLOW_DISK if allow_disk else 0,
            n_classes=n_classes,
            n_features=n_features,
            dtype=_one_of(_DTYPES, "dtype", dtype),
            class_names=_names("class_names", class_names, n_classes),
            feature_names=feature_names,
            feature_kinds=feature_kinds,
            threshold=_number("threshold", threshold),
            period_ns=_period_ns(period),
            reservoir_rows=0 if reservoir is None else _integer("reservoir", reservoir, 64),
            dir=b"" if dir is None else os.fsencode(dir),
            ring_bytes=0 if ring_bytes is None else _integer("ring_bytes", ring_bytes, 64),
            strict=strict,
            segment_by=_segment_by(segment_feature, segments, feature_names, feature_kinds),
        )

    def _rejected(self, reason):
        if reason not in self._logged and len(self._logged) < _MOST_REASONS:
            self._logged.add(reason)
            _log.warning("%s: batch rejected: %s", self._model, reason)
        if self._strict:
            raise ValueError(reason)

    def __reduce__(self):
        raise TypeError(
            "a Monitor is neither pickled nor copied: its ring belongs to this process; open one in the child, or use fork"
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __repr__(self):
        return f"<mlwatch.Monitor {self._model!r} {'closed' if self.closed else 'open'} {self.path}>"
