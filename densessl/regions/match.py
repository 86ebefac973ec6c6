"""Which of a set of paths are meant by names that may begin at another folder."""

from collections import defaultdict
from collections.abc import Iterable


def match_paths(names: Iterable[str], paths: Iterable[str], root: str = "") -> dict[str, str]:
    """Find the path of each name: the same one; or else the only one that, after ``root``, ends in the name; or else
    the only one that the name ends in.

    ``train2017/1.jpg`` is found as itself, as ``coco/train2017/1.jpg``, as ``1.jpg`` of the root ``/data/train2017``
    and, where no other name is, as ``1.jpg`` of any root; never as ``val2017/1.jpg``. Where several paths could be
    meant, or one by several names, none is.

    Args:
        names: each once; "/" between folders.
        paths: relative to ``root``; read once, and kept if a name could mean them.

    Returns:
        {name: path} of the names that were found, in their order.
    """
    names = list(names)
    wanted = {_last(name) for name in names}
    alike: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if _last(path) in wanted:
            alike[_last(path)].append(path)
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
