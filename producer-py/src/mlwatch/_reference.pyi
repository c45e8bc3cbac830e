from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, Literal, Self

class Reference:
    @classmethod
    def fit(
        cls,
        X: Any = None,
        proba: Any = None,
        y: Any = None,
        *,
        model: str,
        version: str = "",
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        categorical: Iterable[str] = (),
        task: Literal["classification", "regression"] = "classification",
        threshold: float = 0.5,
    ) -> Self: ...
    @classmethod
    def from_reports(
        cls,
        reports: str | PathLike[str] | Iterable[str | PathLike[str]],
        *,
        model: str,
        version: str = "",
        threshold: float = 0.5,
    ) -> Self: ...
    @classmethod
    def merge(cls, *references: str | PathLike[str], version: str | None = None) -> Self: ...
    def save(self, path: str | PathLike[str]) -> None: ...
