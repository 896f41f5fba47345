"""Named deadlines. `now` is always given; nothing here reads a clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterator


class Timers:
    """Deadlines by name: setting one again replaces it. `on_set` hears of every one."""

    def __init__(self, on_set: Callable[[], None] = lambda: None) -> None:
        self._on_set = on_set
        self._at: dict[Hashable, float] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._serial = 0

    def set(self, name: Hashable, at: float) -> None:
        """Let `name` fall due at `at`."""
        self._at[name] = at
        self._serial += 1
        heapq.heappush(self._heap, (at, self._serial, name))
        self._on_set()
        if len(self._heap) > 64 + 4 * len(self._at):
            self._compact()

    def get(self, name: Hashable) -> float | None:
        """When `name` falls due; None when it is not set."""
        return self._at.get(name)

    def cancel(self, name: Hashable) -> None:
        """Forget `name`; unknown names are no error."""
        self._at.pop(name, None)

    def clear(self) -> None:
        """Forget all."""
        self._at.clear()
        self._heap.clear()

    def next(self) -> float | None:
        """The earliest deadline."""
        while self._heap:
            at, _, name = self._heap[0]
            if self._at.get(name) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> Hashable | None:
        """Remove and return one name that has fallen due."""
        at = self.next()
        if at is None or at > now:
            return None
        _, _, name = heapq.heappop(self._heap)
        del self._at[name]
        return name

    def __contains__(self, name: Hashable) -> bool:
        return name in self._at

    def __iter__(self) -> Iterator[Hashable]:
        return iter(list(self._at))

    def _compact(self) -> None:
        self._heap = [(at, serial, name) for at, serial, name in self._heap if self._at.get(name) == at]
        heapq.heapify(self._heap)
