"""Numbers by which torch's graphs, which hold tensors and numbers alone, name a tile; valid in this process."""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakValueDictionary

_tiles: WeakValueDictionary[int, Any] = WeakValueDictionary()  # Any: a Tile or a Grid, which import this
_count = itertools.count()


def number(tile: Any) -> int:
    """A new number, by which `numbered` finds that tile as long as it is in use."""
    own = next(_count)
    _tiles[own] = tile
    return own


def numbered(own: int) -> Any:
    """The tile of that number."""
    return _tiles[own]
