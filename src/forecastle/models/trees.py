"""Boosted trees as LightGBM's own text, and how they answer: by LightGBM's library itself, through its C interface.

The library lies in the folder of the package ``lightgbm`` and is opened without importing that package, which takes a
second and draws in much else: what only forecasts needs nothing but the library. Training uses the package. Both are
the same machine code, so the same text gives the same bits.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from forecastle.errors import RegistryUnavailable
from forecastle.settings import apply_library_defaults

Floats = npt.NDArray[np.float64]

THREADS = 2
FEW = 2_000  # rows predicted at once
LIBRARIES = ("lib_lightgbm.so", "lib_lightgbm.dylib", "lib_lightgbm.dll")
_FLOAT32, _FLOAT64, _ROWS_TOGETHER = 0, 1, 1  # as LightGBM's c_api.h numbers them
_NORMAL, _CONTRIBUTIONS = 0, 3
_GAIN = 1
_TOLD = {threads: f"num_threads={threads}".encode() for threads in (1, THREADS)}


@dataclass(frozen=True)
class Trees:
    """A booster as LightGBM's own text."""

    text: str

    def predict(self, matrix: npt.NDArray[Any]) -> Floats:
        """Return the booster's answer for each row of a feature matrix (m, F): (m,)."""
        return self._booster.predict(matrix, _NORMAL)[:, 0]

    def contributions(self, matrix: npt.NDArray[Any]) -> Floats:
        """Return what each feature adds to each row's answer, and last the trees' average: (m, F + 1)."""
        return self._booster.predict(matrix, _CONTRIBUTIONS)

    def gains(self) -> Floats:
        """Return for each feature the squared error that splits on it saved: (F,)."""
        return self._booster.gains()

    @cached_property
    def _booster(self) -> _Booster:
        return _Booster(self.text)


def require_library() -> None:
    """Raise RegistryUnavailable where LightGBM's library cannot be opened."""
    _library()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let the library work by one thread, whatever a call asks for: it keeps a single number for the whole process, so
    that calls made at once that ask for different ones would be in each other's way."""
    library, before = _library(), ctypes.c_int()
    library.LGBM_GetMaxThreads(ctypes.byref(before))
    library.LGBM_SetMaxThreads(ctypes.c_int(1))
    try:
        yield
    finally:
        library.LGBM_SetMaxThreads(before)


class _Booster:
    """A booster in the library's memory; it is given back when nothing refers to it any more."""

    def __init__(self, text: str) -> None:
        self._library = _library()
        self._handle = ctypes.c_void_p()
        rounds = ctypes.c_int()
        self._call("BoosterLoadModelFromString", text.encode(), ctypes.byref(rounds), ctypes.byref(self._handle))
        weakref.finalize(self, self._library.LGBM_BoosterFree, self._handle)
        features = ctypes.c_int()
        self._call("BoosterGetNumFeature", self._handle, ctypes.byref(features))
        self._features = features.value

    def predict(self, matrix: npt.NDArray[Any], kind: int) -> Floats:
        matrix = np.ascontiguousarray(matrix, dtype=None if matrix.dtype == np.float32 else np.float64)
        if matrix.ndim != 2 or matrix.shape[1] != self._features:
            raise ValueError(f"expected rows of {self._features} features, found the shape {matrix.shape}")
        answer = np.empty((len(matrix), 1 if kind == _NORMAL else self._features + 1))
        written = ctypes.c_int64()
        threads = THREADS if len(matrix) > FEW else 1  # waking a thread costs more than a few rows do
        code = self._library.LGBM_BoosterPredictForMat(
            self._handle,
            matrix.ctypes.data,
            _FLOAT32 if matrix.dtype == np.float32 else _FLOAT64,
            *(*matrix.shape, _ROWS_TOGETHER, kind, 0, -1, _TOLD[threads], ctypes.byref(written)),
            answer.ctypes.data,
        )
        self._require(code)
        if written.value != answer.size:
            raise RuntimeError(f"LightGBM wrote {written.value} numbers where {answer.size} were expected")
        return answer

    def gains(self) -> Floats:
        answer = np.empty(self._features)
        numbers = answer.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        self._call("BoosterFeatureImportance", self._handle, ctypes.c_int(0), ctypes.c_int(_GAIN), numbers)
        return answer

    def _call(self, name: str, *arguments: Any) -> None:
        self._require(getattr(self._library, f"LGBM_{name}")(*arguments))

    def _require(self, code: int) -> None:
        if code:
            said = self._library.LGBM_GetLastError().decode(errors="replace")
            raise RegistryUnavailable("trees that LightGBM can read", said, "Publish the model again.")


@lru_cache(maxsize=1)
def _library() -> Any:
    """Open LightGBM's library. Raises RegistryUnavailable where it is not installed or cannot be opened."""
    apply_library_defaults()
    package = find_spec("lightgbm")
    places = [Path(place) for place in package.submodule_search_locations or ()] if package else []
    found = [path for place in places for name in LIBRARIES for path in (place / "lib" / name, place / name)]
    try:
        library = ctypes.CDLL(str(next(path for path in found if path.is_file())))
    except (StopIteration, OSError) as error:
        raise RegistryUnavailable(
            "LightGBM's library in the package lightgbm",
            str(error) or "none",
            "Install the package lightgbm (and, on Debian, libgomp1).",
        ) from None
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    numbers, pointer = ctypes.c_int, ctypes.c_void_p
    library.LGBM_BoosterPredictForMat.argtypes = [  # told once, or ctypes asks every argument at every call
        *(pointer, pointer, numbers, ctypes.c_int32, ctypes.c_int32),
        *(numbers, numbers, numbers, numbers, ctypes.c_char_p, pointer, pointer),
    ]
    return library
