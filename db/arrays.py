"""Arrays as bytes: a trial's arrays as one compressed .npz, a fingerprint as raw float64."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sandbox.reports import Fingerprint

ARRAYS_SCHEMA = 1  # an .npz of plain arrays: one .npy member per array name, deflated
POINTS = 20  # kept of an axis: as many as a chart needs
FEW = 200  # numbers of an array with several axes that are kept one by one
MAX_UNPACKED = 64 * 2**20  # bytes of all arrays of a trial
MAX_MEMBERS = 512
_MAX_LISTED = 1_000  # bytes of a member's entry in the list: its name and some fifty
_MAX_HEADER = 4_096
_END = struct.Struct("<4s4H2LH")  # the last record of a zip archive without a comment
BROKEN = (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)
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


def kept_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What an archive keeps of a trial's arrays unless all of them are asked for: what pages show.

    Arrays of one short axis, such as a score per world, are kept to the last bit. Of a longer axis, the last one of an
    array, `POINTS` points are kept, evenly spread, the first and the last among them; ``NAME.at`` says which, counted from
    0. Numbers with more than one axis become float32. Where that still leaves more than `FEW` numbers, ``NAME.mean`` holds
    their means over all axes but the last, and ``NAME.last`` the values at its end, in place of ``NAME``.
    """
    kept: dict[str, NDArray[Any]] = {}
    for name, values in arrays.items():
        made, length = values, values.shape[-1] if values.ndim else 0
        if length > POINTS:
            at = np.linspace(0, length - 1, POINTS).round().astype(np.int32)
            made, kept[f"{name}.at"] = values[..., at], at
        if made.ndim < 2 or not np.issubdtype(made.dtype, np.floating):
            kept[name] = made
        elif made.size <= FEW:
            kept[name] = _as_float32(made)
        else:
            kept |= {f"{name}.mean": _as_float32(means_along(made)), f"{name}.last": _as_float32(made[..., -1])}
    return kept


def means_along(values: NDArray[Any]) -> NDArray[np.float64]:
    """(..., S) to (S,): means over all axes but the last, of what is finite; NaN where nothing is."""
    table = values.reshape(-1, values.shape[-1]).astype(np.float64)
    finite = np.isfinite(table)
    counts = finite.sum(0)
    with np.errstate(over="ignore"):
        sums = np.where(finite, table, 0.0).sum(0)
    found: NDArray[np.float64] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return found


def _as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is beyond float32's range is infinite on a page too
        return values.astype(np.float32)


def unpack_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Inverse of `pack_arrays`, for bytes of any origin: a few MB can claim to hold gigabytes.

    Raises:
        BROKEN: one of these; the bytes are not such an archive, or one that is
            larger than `MAX_UNPACKED` or has more than `MAX_MEMBERS` arrays.
    """
    _require_few_members(data)
    found: dict[str, NDArray[Any]] = {}
    left = MAX_UNPACKED
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name in found or info.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
                raise ValueError("an array is there twice, or is compressed in another way")
            if info.file_size > left:
                raise ValueError(f"the arrays are larger than {MAX_UNPACKED:,} bytes")
            with archive.open(info) as member:  # gives `file_size` bytes at most, whatever is compressed in it
                found[name] = _read_array(member, left)
            left -= info.file_size
    return found


def _require_few_members(data: bytes) -> None:
    """Look at the zip archive's last record, before the list of members is read. Raises ValueError."""
    end = data[-_END.size :]
    if len(end) < _END.size:
        raise ValueError("no zip archive")
    signature, _, _, _, members, listing, _, comment = _END.unpack(end)
    if signature != b"PK\x05\x06" or comment or members > MAX_MEMBERS or listing > MAX_MEMBERS * _MAX_LISTED:
        raise ValueError("no zip archive of a few arrays")


def _read_array(member: IO[bytes], most: int) -> NDArray[Any]:
    """One array in NumPy's format 1.0. Its header is believed only as far as there are bytes for it. Raises ValueError."""
    if np.lib.format.read_magic(member) != (1, 0):
        raise ValueError("an array of another format than 1.0")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(member, max_header_size=_MAX_HEADER)
    if dtype.kind not in "biufcSU" or dtype.itemsize == 0:
        raise ValueError("an array of something else than numbers and texts")
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize > most:
        raise ValueError("an array is larger than its bytes")
    size = math.prod(shape) * dtype.itemsize
    content = member.read(size)
    if len(content) != size or member.read(1):
        raise ValueError("an array has other bytes than its header says")
    return np.frombuffer(bytearray(content), dtype).reshape(shape, order="F" if is_fortran else "C")


def pack_fingerprint(fingerprint: Fingerprint) -> bytes:
    """Rows one after another, float64 little-endian; NaN marks a non-finite entry."""
    return np.asarray(fingerprint.values, dtype="<f8").tobytes()


def fingerprint_table(data: bytes, rows: int) -> NDArray[np.float64]:
    """(rows, columns) float64."""
    return np.frombuffer(data, dtype="<f8").astype(np.float64).reshape(rows, -1)


def unpack_fingerprint(data: bytes, rows: int) -> Fingerprint:
    return Fingerprint(tuple(tuple(row) for row in fingerprint_table(data, rows).tolist()))
