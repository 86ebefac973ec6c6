"""Match names of images with paths that may begin at another folder."""

from collections import defaultdict
from collections.abc import Iterable


def match_paths(names: Iterable[str], paths: Iterable[str], root: str = "") -> dict[str, str]:
    """Find the path of each name: the same path, or else the only path that ends in the name when joined to ``root``,
    or else the only path that the name ends in.

    ``train2017/1.jpg`` matches itself, ``coco/train2017/1.jpg``, ``1.jpg`` below the root ``/data/train2017`` and, if
    no other name does, ``1.jpg`` below any root, but never ``val2017/1.jpg``. If several paths match a name equally
    well, or several names a path, none is matched.

    Args:
        names: names without duplicates, with "/" between folders.
        paths: paths relative to ``root``, iterated once; only those that a name could match are kept in memory. One
            that comes twice counts once.

    Returns:
        {name: path} of the matched names, in their order.
    """
    names = list(names)
    wanted = {_last(name) for name in names}
    alike: dict[str, dict[str, None]] = defaultdict(dict)
    for path in paths:
        if _last(path) in wanted:
            alike[_last(path)][path] = None
    claims: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name in names:
        ranks = {path: _rank(name, path, root) for path in alike[_last(name)]}
        best = [path for path, rank in ranks.items() if rank == max(ranks.values()) > 0]
        if len(best) == 1:
            claims[best[0]].append((ranks[best[0]], name))
    meant = {}
    for path, claimed in claims.items():
        best = [name for rank, name in claimed if rank == max(claimed)[0]]
        if len(best) == 1:
            meant[best[0]] = path
    return {name: meant[name] for name in names if name in meant}


def _rank(name: str, path: str, root: str) -> int:
    if name == path:
        return 3
    if f"{root}/{path}".endswith(f"/{name}"):
        return 2
    return int(name.endswith(f"/{path}"))


def _last(path: str) -> str:
    return path.rpartition("/")[2]
