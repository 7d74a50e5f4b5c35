"""Where built things are kept between runs, and how they get there whole or not at all."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_jv5.rebuildable import Plain


def cache_folder() -> Path:
    """Return the folder that everything we build once is kept in; it need not exist yet.

    ``LIGHTNING_JV5_CACHE`` says where; without it ``$XDG_CACHE_HOME/lightning_jv5``, else ``~/.cache/lightning_jv5``.
    """
    if chosen := os.environ.get("LIGHTNING_JV5_CACHE"):
        return Path(chosen).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "lightning_jv5"
    return Path.home() / ".cache" / "lightning_jv5"


def fingerprint(*parts: Plain) -> str:
    """Hash plain data to 32 hexadecimal digits: the same in every process and on every machine.

    Args:
        parts: Strings, numbers, None, lists and dicts of them; the order of a dict's keys does not matter.

    Raises:
        ValueError: If a part is something else.

    >>> fingerprint("a", {"x": 1, "y": 2}) == fingerprint("a", {"y": 2, "x": 1})
    True
    >>> fingerprint(["a"], "b") == fingerprint("a", ["b"])
    False
    """
    try:
        text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    except TypeError as error:
        raise ValueError(
            f"Got {parts!r} to fingerprint; need plain data (strings, numbers, None, lists, dicts with string keys): "
            f"{error}. Turn it into plain data first, for instance with lightning_jv5.rebuildable.describe."
        ) from error
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@contextlib.contextmanager
def atomic_file(final: Path) -> Iterator[Path]:
    """Give the name of a temporary file to write, which becomes ``final`` when the block ends and vanishes if it fails.

    Whoever reads ``final`` sees what was there before or the new file, never a part.

    Args:
        final: The file to write; its folder is made if it is not there.

    Yields:
        A name beside ``final``, of no file yet.

    >>> import tempfile
    >>> final = Path(tempfile.mkdtemp()) / "new" / "rows.txt"
    >>> with atomic_file(final) as file:
    ...     written = file.write_text("done")
    >>> [path.name for path in final.parent.iterdir()]
    ['rows.txt']
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write plain data as JSON; whoever reads sees the old file or the new one, never a part.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(Path(folder, "new", "value.json"), {"value": 1})
    ...     Path(folder, "new", "value.json").read_text(encoding="utf-8").split()
    ['{', '"value":', '1', '}']
    """
    with atomic_file(Path(path)) as file:
        file.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def atomic_folder(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder to build in, which becomes ``final`` when the block ends and vanishes when it fails.

    Several processes may build the same folder at once: the first to finish wins, and the others discard their own.

    Args:
        final: The folder to build; check that it does not exist yet before going to the work.
        replace: Whether a folder that is there makes room, once the new one is complete.

    Yields:
        An empty folder beside ``final``.

    >>> import tempfile
    >>> final = Path(tempfile.mkdtemp()) / "built"
    >>> with atomic_folder(final) as folder:
    ...     written = (folder / "rows.txt").write_text("done")
    >>> (final / "rows.txt").read_text()
    'done'
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    building = final.parent / f".{final.name}.{uuid.uuid4().hex}"
    building.mkdir()
    try:
        yield building
        if replace and final.is_dir():
            old = building.with_name(f"{building.name}.old")
            final.rename(old)
            building.rename(final)
            shutil.rmtree(old, ignore_errors=True)
            return
        try:
            building.rename(final)
        except OSError:
            if not final.is_dir():  # otherwise another process was quicker, and what it built is as good
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
