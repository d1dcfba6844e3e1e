"""Pickles read as data: numbers, text, plain containers and numpy arrays. Nothing that a file names is ever imported or called.

Every global of a file is looked up in a table of stand-ins, objects of this module which take what numpy's own pickle functions would take
and do nothing but interpret bytes as numbers. So not even numpy's C code for restoring arrays sees the file. The stand-ins are instances
without attributes: a file can neither build new ones (NEWOBJ needs a class) nor change them (BUILD is refused).
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from expo_bench.errors import UserError

NUMERIC = "biuf"  # numpy kinds admitted: bool, int, unsigned, float
EXPECTED = "plain lists, dicts, numbers, text and numeric numpy arrays only"


class Refused(pickle.UnpicklingError):
    """The file asks for something other than data."""


class _Dtype:
    """Stands for a `numpy.dtype` while it is restored: its code first, its byte order with the state."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any) -> None:
        code = code.decode("ascii", "replace") if isinstance(code, bytes) else code
        # Only codes such as "f8": a dtype may also be spelled as a structure, an object or a subarray.
        if not (isinstance(code, str) and len(code) in (2, 3) and code[0] in NUMERIC and code[1:].isdigit()):
            raise Refused(f"a numpy array of type {str(code)[:30]!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder({"<": "<", ">": ">"}.get(order, "="))

    def values(self, raw: Any, shape: Any, fortran: bool) -> np.ndarray:
        """`raw` bytes (text where Python 2 wrote them) as an array of `shape`."""
        raw = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
        shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        if any(n < 0 for n in shape) or math.prod(shape) * self.dtype.itemsize != len(raw):
            raise Refused(f"a numpy array of shape {shape} and type {self.dtype} in {len(raw)} bytes")
        flat = np.frombuffer(raw, self.dtype).astype(self.dtype.newbyteorder("="))
        return flat.reshape(shape, order="F" if fortran else "C")


class _Array:
    """Stands for an array between its creation and its state; `value` is the array once it is there."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, (bytes, bytearray, str)):
            raise Refused("a numpy array of objects")
        self.value = dtype.values(raw, shape, bool(fortran))


class _StandIn:
    """What a file gets for a global: callable by subclass, never changeable."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise Refused("a change of one of numpy's functions")


class _Ndarray(_StandIn):  # numpy.ndarray: only ever an argument of _reconstruct
    __slots__ = ()


class _MakeDtype(_StandIn):  # numpy.dtype(code, align, copy)
    __slots__ = ()

    def __call__(self, code: Any, *_: Any) -> _Dtype:
        return _Dtype(code)


class _Reconstruct(_StandIn):  # numpy.core.multiarray._reconstruct(ndarray, (0,), b"b"); the content follows as its state
    __slots__ = ()

    def __call__(self, *_: Any) -> _Array:
        return _Array()


class _Scalar(_StandIn):  # numpy.core.multiarray.scalar(dtype, bytes)
    __slots__ = ()

    def __call__(self, dtype: _Dtype, raw: Any) -> Any:
        return dtype.values(raw, (), False)[()]


class _FromBuffer(_StandIn):  # numpy.core.numeric._frombuffer(buffer, dtype, shape, order): protocol 5
    __slots__ = ()

    def __call__(self, raw: Any, dtype: _Dtype, shape: Any, order: str, *_: Any) -> _Array:
        array = _Array()
        array.value = dtype.values(raw, shape, order == "F")
        return array


class _Encode(_StandIn):  # _codecs.encode(text, "latin1"): how protocol 2 spells bytes
    __slots__ = ()

    def __call__(self, text: str, encoding: str = "latin1") -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise Refused(f"the encoding {str(encoding)[:30]!r}")
        return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], _StandIn] = {
    ("numpy", "ndarray"): _Ndarray(),
    ("numpy", "dtype"): _MakeDtype(),
    ("_codecs", "encode"): _Encode(),
    # numpy 1 said numpy.core, numpy 2 says numpy._core.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Reconstruct() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar() for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer() for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise Refused(f"the global {module}.{name}") from None


def load(path: Path) -> Any:
    """The content of a pickle: lists, tuples, dicts, text, numbers, and `numpy.ndarray` for every array.

    Raises UserError for a file that asks for anything else (naming it; it is not executed), and for a truncated or damaged one.
    """
    try:
        with open(path, "rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        return _plain(content)
    except Refused as error:
        raise UserError(f"{path}: the pickle asks for {' '.join(str(error).split())}, expected {EXPECTED}; it was not executed") from None
    except EOFError:
        raise UserError(f"{path}: the pickle ends too early, is the file truncated? expected a complete pickle") from None
    except Exception as error:  # a damaged stream may raise nearly anything; none of it is the program's own failure
        reason = " ".join(str(error).split())[:80]
        early = "truncated" in reason or "ran out of" in reason
        raise UserError(
            f"{path}: {'the pickle is truncated' if early else 'not a readable pickle'} ({reason or type(error).__name__}), "
            "expected a complete pickle"
        ) from None


def _plain(value: Any) -> Any:
    """`value` with every stand-in replaced by its array."""
    if isinstance(value, _Array):
        if value.value is None:
            raise Refused("a numpy array without content")
        return value.value
    if isinstance(value, dict):
        strange = [key for key in value if not isinstance(key, (str, int))]
        if strange:
            raise Refused(f"a dict key of type {type(strange[0]).__name__.lstrip('_')!r}")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, (_StandIn, _Dtype)):
        raise Refused(f"a bare {type(value).__name__.lstrip('_').lower()}")
    return value
