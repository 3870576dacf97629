"""Memory that both processes see: tensors lie in it, messages only say where.

One arena per channel, and so per run under way: inputs from the start, outputs behind them. A memfd, because containers
have a /dev/shm of 64 MiB or none at all; it counts as memory of the container and is gone with both processes.
Source: Linux memfd_create(2).
"""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpier_server.ipc.packets import Place
from modelpier_server.protocol import binary
from modelpier_server.protocol.datatypes import DATATYPES
from modelpier_server.protocol.http import Body

ALIGNMENT = 64
"""A cache line, and what vector instructions like best."""
SMALLEST = 1 << 16
_NAMES = {datatype.numpy: name for name, datatype in DATATYPES.items()}


class Arena:
    """`descriptor`: of a memfd, which is closed with the arena."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)

    @classmethod
    def make(cls) -> Arena:
        """Raises OSError."""
        descriptor = os.memfd_create("modelpier-tensors", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, SMALLEST)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def capacity(self) -> int:
        return len(self._map)

    def see(self, capacity: int) -> None:
        """Follows the other side, which made the memory larger or smaller."""
        if capacity != self.capacity:
            # The old mapping goes when the last array in it goes.
            self._map = mmap.mmap(self.descriptor, capacity)

    def put(self, arrays: list[tuple[str, npt.NDArray[Any]]], start: int) -> list[Place]:
        """Copies arrays behind `start`, making room for them first. Raises OSError where there is none."""
        places: list[Place] = []
        contents: list[bytes | memoryview] = []
        at = start
        for name, array in arrays:
            content = binary.bytes_of(array)
            at += -at % ALIGNMENT
            places.append(Place(name, _NAMES[array.dtype], array.shape, at, len(content)))
            contents.append(content)
            at += len(content)
        self._reserve(at)
        for place, content in zip(places, contents, strict=True):
            self._map[place.offset : place.offset + place.size] = content
        return places

    def take(self, place: Place) -> npt.NDArray[Any]:
        """A view of the arena, good until its next `put`; strings are copies."""
        view = memoryview(self._map)[place.offset : place.offset + place.size]
        datatype = DATATYPES[place.datatype]
        if datatype.numpy.hasobject:
            return binary.strings(view, place.shape, place.name)
        array: npt.NDArray[Any] = np.frombuffer(view, datatype.numpy)
        return array.reshape(place.shape)

    def put_bytes(self, data: Body) -> None:
        """Without its being mapped: for what only the other side reads, from the start. Raises OSError. The
        interpreter is free meanwhile.
        """
        self._reserve(len(data))
        view, at = memoryview(data), 0
        while at < len(view):
            at += os.pwrite(self.descriptor, view[at:], at)

    def view(self, size: int) -> memoryview:
        """The first bytes, good until they are written again."""
        return memoryview(self._map)[:size]

    def shrink(self) -> None:
        """Gives back what a large message took; nothing that was taken of it may be used any longer."""
        os.ftruncate(self.descriptor, SMALLEST)
        self.see(SMALLEST)

    def close(self) -> None:
        """Arrays that were taken keep their memory until they go."""
        os.close(self.descriptor)
        with contextlib.suppress(BufferError):
            self._map.close()

    def _reserve(self, size: int) -> None:
        if size > self.capacity:
            larger = 1 << (size - 1).bit_length()
            os.ftruncate(self.descriptor, larger)
            self.see(larger)


def end_of(places: list[Place]) -> int:
    return max((place.offset + place.size for place in places), default=0)
