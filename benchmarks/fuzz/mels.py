"""Mels in NumPy's files, compared with what `numpy.load` reads."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from benchmarks.fuzz.contract import Case, Kind, Wrong, check_message
from benchmarks.fuzz.corpus import MemoryTree
from benchmarks.fuzz.mutating import mutated, mutated_text
from melmill.errors import Error
from melmill.stages.ingest.readers.mel_folder import LAYOUTS, MelFolder

_DTYPES = ("<f4", "<f4", "<f4", "<f2", "<f8", ">f4", ">f8", "<i2", "<i8", "u1", "?", "<c8", "<U4", "S4", "<M8[s]", "<g")
_SHAPES = (
    (80, 12),
    (12, 80),
    (1, 80, 12),
    (80, 80),
    (80, 1),
    (80, 0),
    (0, 80),
    (80,),
    (),
    (2, 80, 12),
    (1, 1, 80, 12),
    (79, 12),
)
_WORDS = (
    "'descr'", "'fortran_order'", "'shape'", "True", "False", "None", "(", ")", "()", "(80, 12)", "(80,)", "80", "12",
    "-1", "0", "1e3",
    "9" * 30, "99999999999", "4294967296", "'<f4'", "'|O'", "'<f4,<f4'", "[('a', '<f4')]", "'>f8'", "'<f16'", "'<V4'",
    "{", "}", ",", ":",
    "[", "]", "__import__('os')", "1+1", "'" * 3, "\\x00", "\n", "(80, 12, 1)", "80L", "12j", "(((((((((", "-" * 50,
    "(True, 12)",
)  # fmt: skip


class Mels(Kind):
    """Files of ``.npy`` arrays."""

    name = "mels"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.readers = [MelFolder(root="corpus", preset="hifigan", layout=layout) for layout in (None, *LAYOUTS)]

    def case(self, rng: Random) -> Case:
        """Return an array's file whose header or bytes are mutated."""
        dtype, shape = np.dtype(rng.choice(_DTYPES)), rng.choice(_SHAPES[:2] if rng.random() < 0.6 else _SHAPES)
        generator = np.random.default_rng(rng.randrange(50))
        values: Any = generator.uniform(-11.0, 2.0, shape)
        if rng.random() < 0.02:
            values = np.array([{"a": 1}], dtype=object)
            data = pickle.dumps(values)
            return Case("a.npy", rng.choice((data, _file(values, (1, 0)))))
        # A long double has bytes of padding, which hold anything.
        array = np.zeros(shape, dtype) if dtype.kind in "SUM" or dtype.char == "g" else values.astype(dtype)
        if rng.random() < 0.2:
            array = np.asfortranarray(array)
        data = _file(array, rng.choice(((1, 0), (1, 0), (2, 0), (3, 0))))
        match rng.randrange(5):
            case 0:
                pass
            case 1 | 2:
                data = _with_header(data, rng)
            case _:
                data = mutated(data, rng)
        return Case("a.npy", data)

    def judge(self, case: Case) -> bool:
        """Compare what each layout stores with what `numpy.load` reads."""
        accepted = False
        for reader in self.readers:
            try:
                (utterance,) = reader.discover(MemoryTree({case.name: case.data}), {}).utterances
                outcome = reader.ingest(utterance, case.data)
            except Error as error:
                check_message(error)
                continue
            accepted = True
            stored: NDArray[np.float32] = outcome.array  # type: ignore[assignment]
            try:
                values = np.load(io.BytesIO(case.data), allow_pickle=False)
            except (ValueError, EOFError, OSError) as error:
                raise Wrong("accepted, but numpy refuses it", str(error)) from error
            plane = values.reshape(values.shape[-2:])
            if not any(np.array_equal(stored, each.astype(np.float32)) for each in (plane, plane.T)):
                raise Wrong("other values than numpy reads", f"shape {stored.shape}, numpy {values.shape}")
            if reader.layout is not None and stored.shape != (plane if reader.layout == LAYOUTS[0] else plane.T).shape:
                raise Wrong("another layout than the one asked for", f"{reader.layout}: {stored.shape}")
        return accepted


def _file(array: NDArray[Any], version: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    npy.write_array(file, array, version=version, allow_pickle=True)
    return file.getvalue()


def _with_header(data: bytes, rng: Random) -> bytes:
    """Return a file whose header is mutated as text, with the length that it then has or another."""
    wide = data[6] > 1
    begin = 12 if wide else 10
    size = int.from_bytes(data[8:begin], "little")
    header = mutated_text(data[begin : begin + size].decode("latin-1"), rng, _WORDS).encode("utf-8", "replace")
    header = header[:65000]
    n = len(header) if rng.random() < 0.8 else rng.choice((0, 1, size, len(header) + 1, 65535))
    return data[:8] + n.to_bytes(begin - 8, "little") + header + data[begin + size :]
