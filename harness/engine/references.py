"""A cache of decoded references, so that each is decoded once for all of its chunks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

from harness.imaging import decode
from harness.imaging.decode import Decoded


class KeptReferences:
    """The most recently used references, at most `count`: the chunks of a reference follow one another."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: OrderedDict[str, Future[Decoded]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str) -> Decoded:
        """The image at `path`, decoded by the thread that asks first. Raises UsageError as `decode.read_hashed` does."""
        with self._lock:
            found = self._kept.get(path)
            mine = found is None
            if found is None:
                found = self._kept[path] = Future()
                if len(self._kept) > self._count:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(path)
        if mine:
            try:
                found.set_result(decode.read_hashed(path))
            except BaseException as error:
                found.set_exception(error)
                raise
        return found.result()

    def forget(self) -> None:
        """Remove all."""
        with self._lock:
            self._kept.clear()
