"""Where the time of a run goes, as its log tells at the end."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar('Item')
REST = 'training'


class Clock:
    """Seconds by name; what has none is training."""

    def __init__(self):
        self.began = time.perf_counter()
        self.spent: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what happens within under a name."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - began

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, the wait for each counted under a name."""
        remaining = iter(items)
        while True:
            with self(name):
                try:
                    item = next(remaining)
                except StopIteration:
                    return
            yield item

    def text(self) -> str:
        """Seconds and shares, as in 'in 60.0 s: training 90.0 %, evaluation 6.0 s, 10.0 %'."""
        total = max(time.perf_counter() - self.began, 1e-9)
        spent = {REST: total - sum(self.spent.values()), **self.spent}
        parts = [f'{name} {100 * took / total:.1f} %' for name, took in spent.items()]
        return f'in {total:.1f} s: {", ".join(parts)}'
