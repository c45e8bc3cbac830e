from typing import Any

__version__: str

class Dropped(RuntimeError): ...

class Producer:
    def __init__(
        self,
        model: str,
        version: str,
        instance: str | None,
        task: int,
        flags: int,
        n_classes: int,
        n_features: int,
        dtype: int,
        class_names: tuple[str, ...],
        feature_names: tuple[str, ...],
        feature_kinds: bytes,
        threshold: float,
        period_ns: int,
        reservoir_rows: int,
        dir: bytes,
        ring_bytes: int,
        strict: bool,
        segment_by: int,
    ) -> None: ...
    def collect(
        self,
        proba: Any,
        features: Any = None,
        labels: Any = None,
        ids: Any = None,
        timestamp: float | None = None,
        segments: Any = None,
    ) -> bool: ...
    def close(self) -> None: ...
    @property
    def path(self) -> str | None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def counters(self) -> dict[str, int]: ...
