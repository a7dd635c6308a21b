"""Where PostgreSQL's files may lie when it runs as another user."""

from pathlib import Path

from deploy.local.parts.postgres import reachable_by_all


def test_a_closed_folder_anywhere_above_makes_a_path_unreachable(tmp_path: Path) -> None:
    # pytest's own temporary folders are closed, so the walk is checked from a folder below /usr as well.
    assert reachable_by_all(Path("/usr/lib"))
    tmp_path.chmod(0o700)
    assert not reachable_by_all(tmp_path / "data")


def test_what_does_not_exist_yet_closes_nothing() -> None:
    assert reachable_by_all(Path("/usr/lib/not/there/yet"))
