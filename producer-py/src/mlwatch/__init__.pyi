from collections.abc import Sequence
from os import PathLike
from types import TracebackType
from typing import Literal, NoReturn, Self

from ._core import Dropped as Dropped
from ._core import Producer
from ._core import __version__ as __version__
from ._reference import Reference as Reference

__all__ = ["Dropped", "Monitor", "Reference", "__version__"]

class Monitor(Producer):
    def __init__(
        self,
        model: str,
        *,
        n_classes: int,
        n_features: int = 0,
        version: str = "",
        instance: str | None = None,
        task: Literal["classification", "regression"] = "classification",
        class_names: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        feature_kinds: Sequence[Literal["numerical", "categorical", "embedding"]] | None = None,
        dtype: Literal["f16", "bf16", "f32", "f64"] = "f32",
        threshold: float = 0.5,
        period: float | None = None,
        reservoir: int | None = None,
        segment_feature: str | int | None = None,
        segments: bool = False,
        dir: str | PathLike[str] | None = None,
        ring_bytes: int | None = None,
        allow_disk: bool = False,
        strict: bool = False,
    ) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
