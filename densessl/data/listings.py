"""Files that list images: text, tables, YAML and COCO json."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import yaml

from densessl.errors import SettingError
from densessl.extras import import_extra

# Names of the column of a table that holds paths; the first that is there is taken.
COLUMNS = ("path", "file_name", "filename", "file", "image", "image_path", "img_path", "filepath", "file_path")
LISTINGS = (".txt", ".lst", ".csv", ".parquet", ".yaml", ".yml", ".json")


def listed_paths(place: Path) -> Iterator[str]:
    """Yield the paths that a file lists, as they stand there.

    - .txt, .lst: one path per line; blank lines and lines beginning with "#" are skipped;
    - .csv, .parquet: the column named as one of ``COLUMNS`` (any case);
    - .yaml, .yml: a list of paths, or a mapping with one under such a name or its plural;
    - .json: COCO's ``images[].file_name``.

    Raises:
        SettingError: the contents do not fit the kind of file.
        MissingPackage: a .parquet needs pyarrow.
    """
    readers = {".csv": _csv, ".parquet": _parquet, ".yaml": _yaml, ".yml": _yaml, ".json": _coco}
    try:
        yield from readers.get(place.suffix.lower(), _lines)(place)
    except UnicodeDecodeError as error:
        raise SettingError(f"{place} is not text in UTF-8: {error}") from error


def _lines(place: Path) -> Iterator[str]:
    with open(place, encoding="utf-8-sig", errors="surrogateescape") as lines:
        stripped = (line.strip() for line in lines)
        yield from (line for line in stripped if line and not line.startswith("#"))


def _csv(place: Path) -> Iterator[str]:
    with open(place, encoding="utf-8-sig", newline="") as lines:
        try:
            table = csv.DictReader(lines)
            column = _column(place, table.fieldnames or [])
            yield from (path for row in table if (path := (row[column] or "").strip()))
        except csv.Error as error:
            raise SettingError(f"{place} is not a CSV file: {error}") from error


def _parquet(place: Path) -> Iterator[str]:
    parquet = import_extra("pyarrow.parquet", f"{place}, a Parquet file,")
    try:
        table = parquet.ParquetFile(place)
        column = _column(place, table.schema_arrow.names)
        for batch in table.iter_batches(columns=[column]):
            yield from (str(path) for path in batch.column(0).to_pylist() if path is not None)
    except (OSError, ValueError) as error:  # what pyarrow raises for other files
        raise SettingError(f"{place} is not a Parquet file: {error}") from error


def _yaml(place: Path) -> Iterable[str]:
    try:
        content = yaml.safe_load(place.read_bytes())
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingError(f"{place} is not YAML: {' '.join(str(error).split())}") from error
    if isinstance(content, Mapping):
        names = {str(name).lower(): name for name in content}
        name = next((names[each] for column in COLUMNS for each in (column, f"{column}s") if each in names), None)
        content = content.get(name)
    if not isinstance(content, list) or not all(isinstance(path, str) for path in content):
        raise SettingError(f"{place}: expected a list of paths, or one under {' or '.join(COLUMNS[:4])}")
    return content


def _column(place: Path, names: Iterable[str]) -> str:
    """The name of the column with the paths."""
    names = list(names)
    lower = {str(name).strip().lower(): name for name in names}
    found = next((lower[column] for column in COLUMNS if column in lower), None)
    if found is None:
        raise SettingError(
            f"{place}: expected a column {', '.join(COLUMNS)}; it has {', '.join(map(repr, names[:20])) or 'none'}"
        )
    return found


def _coco(place: Path) -> Iterable[str]:
    try:
        content = json.loads(place.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{place} is not JSON: {error}") from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        found = f"keys {sorted(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise SettingError(f"{place} is not in COCO format: expected a list under 'images', found {found}")
    for number, image in enumerate(images):
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            raise SettingError(f"{place}: images[{number}] has no 'file_name'")
    return (image["file_name"] for image in images)
