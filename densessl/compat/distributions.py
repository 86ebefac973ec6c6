"""Two distributions that own one import package overwrite each other's files: say so, and say how to mend it."""

from importlib.metadata import PackageNotFoundError, version

# For each import package, the distributions that install it, the one this library asks for last.
OWNERS = {
    "mmengine": ("mmengine", "mmengine-lite", "onedl-mmengine"),
    "mmcv": ("mmcv", "mmcv-full", "mmcv-lite", "onedl-mmcv"),
    "mmdet": ("mmdet", "onedl-mmdetection"),
    "mmseg": ("mmsegmentation", "onedl-mmsegmentation"),
}


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_distributions() -> None:
    """Check that each of mmengine, mmcv, mmdet and mmseg comes from at most one installed distribution.

    Raises:
        ImportError: names the import package, its owners with their versions, and the pip commands that mend it.
            Uninstalling one owner removes files of the other, hence the reinstallation.
    """
    for package, names in OWNERS.items():
        owners = _installed(names)
        if len(owners) < 2:
            continue
        listed = " and ".join(f"{name} {number}" for name, number in owners.items())
        kept = list(owners)[-1]
        raise ImportError(
            f"The import package '{package}' is owned by {len(owners)} installed distributions: {listed}. "
            f"Their files overwrite each other; expected exactly one. Keep one, for instance {kept}:\n"
            f"  pip uninstall -y {' '.join(owners)}\n"
            f"  pip install --no-deps {kept}=={owners[kept]}",
            name=package,
        )
