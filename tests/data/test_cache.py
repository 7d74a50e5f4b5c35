import subprocess
import sys
from pathlib import Path

import pytest

from lightning_jv5.data.cache import atomic_folder, cache_folder, fingerprint


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "ours"
    monkeypatch.delenv("LIGHTNING_JV5_CACHE")
    assert cache_folder() == tmp_path / "shared" / "lightning_jv5"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "lightning_jv5"


def test_fingerprint_is_the_same_in_another_process() -> None:
    code = "from lightning_jv5.data.cache import fingerprint; print(fingerprint('a', [1, None], {'y': 2.5, 'x': 'ü'}))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert printed == fingerprint("a", [1, None], {"x": "ü", "y": 2.5})
    assert printed != fingerprint("a", [1, None], {"x": "u", "y": 2.5})


def test_fingerprint_refuses_what_is_not_plain_data() -> None:
    with pytest.raises(ValueError, match=r"need plain data .*describe"):
        fingerprint(Path("x"))  # type: ignore[arg-type]


def test_atomic_folder_leaves_nothing_behind_on_an_error(tmp_path: Path) -> None:
    def build() -> None:
        with atomic_folder(tmp_path / "deep" / "final") as folder:
            (folder / "half").write_text("done")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build()
    assert list((tmp_path / "deep").iterdir()) == []


def test_atomic_folder_discards_its_own_when_another_process_was_quicker(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with atomic_folder(final) as slow:
        (slow / "by").write_text("slow")
        with atomic_folder(final) as quick:
            (quick / "by").write_text("quick")
    assert (final / "by").read_text() == "quick"
    assert list(tmp_path.iterdir()) == [final]


def test_atomic_folder_reports_what_blocks_the_final_name(tmp_path: Path) -> None:
    (tmp_path / "final").write_text("a file is in the way")
    with pytest.raises(OSError, match="final"), atomic_folder(tmp_path / "final"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
