"""Arrays as bytes: a trial's arrays as one compressed .npz, a fingerprint as raw float64."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sandbox.reports import Fingerprint

ARRAYS_SCHEMA = 1  # an .npz of plain arrays: one .npy member per array name, deflated
_LEVEL = 1  # curves hardly shrink further at higher levels, which cost several times as long
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal arrays give equal bytes


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The arrays as an .npz that `numpy.load(..., allow_pickle=False)` reads.

    Raises:
        ValueError: an array holds Python objects.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for name, values in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue(), compresslevel=_LEVEL)
    return buffer.getvalue()


def unpack_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Inverse of `pack_arrays`. Raises ValueError or zipfile.BadZipFile for bytes that are not one."""
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


def pack_fingerprint(fingerprint: Fingerprint) -> bytes:
    """Rows one after another, float64 little-endian; NaN marks a non-finite entry."""
    return np.asarray(fingerprint.values, dtype="<f8").tobytes()


def fingerprint_table(data: bytes, rows: int) -> NDArray[np.float64]:
    """(rows, columns) float64."""
    return np.frombuffer(data, dtype="<f8").astype(np.float64).reshape(rows, -1)


def unpack_fingerprint(data: bytes, rows: int) -> Fingerprint:
    return Fingerprint(tuple(tuple(row) for row in fingerprint_table(data, rows).tolist()))
