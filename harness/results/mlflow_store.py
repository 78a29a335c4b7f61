"""Connecting to MLflow: without output, with a time limit, and with a complete database file.

MLflow takes seconds to create a database's tables; after a kill in between, MLflow refuses the database for good. So a new
database is created in a temporary file, by one process at a time, and moved into place. An incomplete one is renamed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness.files.lock import held
from harness.runtime import libraries
from harness.runtime.threads import meanwhile

_log = logging.getLogger(__package__)

_SECONDS_FOR_A_LOCK = 20.0
# An unreachable server must not delay the work, and only our own lines may appear on the terminal.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_LOGGERS = ("mlflow", "alembic", "urllib3")
_SQLITE = "sqlite:///"


def client(uri: str, artifacts: str | None, on_new: Callable[[], None]) -> Any:
    """MLflow's client for `uri`; an absent or incomplete database file is created first.

    `artifacts`: the folder of the files of a new database's default experiment. `on_new` is called before a new database is
    moved into place: it does not have the runs of earlier ones.
    """
    path = uri.removeprefix(_SQLITE)
    if uri.startswith(_SQLITE) and path and "?" not in path and not path.startswith((":memory:", "file:")):
        _make_whole(Path(path).absolute(), artifacts, on_new)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _make_whole(path: Path, artifacts: str | None, on_new: Callable[[], None]) -> None:
    if _is_whole(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(f"{path.name}.lock")):
        if _is_whole(path):  # created by another process meanwhile
            return
        if path.exists() and path.stat().st_size:
            aside = _free_name(path)
            for ending in ("-journal", "-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{path}{ending}", f"{aside}{ending}")
            _log.info(f"{path}: an incomplete MLflow database (interrupted while it was created); renamed to {aside.name}")
        new = path.with_name(f"{path.name}.making")
        _remove(new)
        _make(new, artifacts)
        on_new()
        os.replace(new, path)


def _is_whole(path: Path) -> bool:
    """Whether MLflow can use the database; False where it is absent, empty, or incomplete.

    One with runs never counts as incomplete: MLflow itself says what to do about a database of another version.
    Raises sqlite3.DatabaseError for a file that is not a database: MLflow would try it ten times, over 100 seconds.
    """
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return False
    # Writable, because the first process that opens the database after a kill restores it from the journal.
    uri = path.as_uri() + "?mode=rw"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_SECONDS_FOR_A_LOCK)) as database:
        tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
        if tables and not tables & {"experiments", "alembic_version"}:
            return True  # another program's database: MLflow adds its tables
        if "runs" in tables and database.execute("select count(*) from (select 1 from runs limit 1)").fetchone()[0]:
            return True
        if "alembic_version" not in tables:
            return False
        found = [row[0] for row in database.execute("select version_num from alembic_version")]
    return found == [_latest_version()]


def _latest_version() -> str:
    from mlflow.store.db import utils as untyped

    utils: Any = untyped
    return str(utils._get_latest_schema_revision())


def _make(path: Path, artifacts: str | None) -> None:
    """A new database at `path`, on disk and closed."""
    from mlflow.store.tracking import sqlalchemy_store

    kind: Any = sqlalchemy_store.SqlAlchemyStore
    uri = f"{_SQLITE}{path}"
    kind(uri, artifacts or (path.parent / "mlartifacts").as_uri()).engine.dispose()
    kind._engine_map.pop(uri, None)  # else it would continue with this file under its later name
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        Path(f"{path}{ending}").unlink(missing_ok=True)


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.half-made-{number}") for number in range(1, 10_000))
    return next(name for name in names if not os.path.lexists(name))


class Exchange:
    """An action in another thread, with our environment and log levels; the caller continues until `wait`.

    MLflow's changes to the process (environment, warnings) are undone after `wait`, which the same thread calls.
    """

    def __init__(self, action: Callable[[], None], seconds: float) -> None:
        self._seconds, self._until = seconds, time.monotonic() + seconds
        self._process = ExitStack()
        self._process.enter_context(warnings.catch_warnings())
        self._process.enter_context(libraries.environment(_ENVIRONMENT))

        def work() -> None:
            import mlflow.tracking  # noqa: F401

            with libraries.loggers_at(logging.ERROR, _LOGGERS):
                action()

        # A thread, because a database's driver has no timeout of its own.
        self._work = meanwhile(work)

    @property
    def over(self) -> bool:
        """Whether `wait` would return at once."""
        return self._work.done()

    def wait(self) -> None:
        """Wait for the end, until the action has had its time. Raises what the action raised, or TimeoutError."""
        with self._process:
            try:
                error = self._work.exception(max(0.0, self._until - time.monotonic()))
            except TimeoutError:
                raise TimeoutError(f"no answer in {self._seconds:g} s") from None
        if error is not None:
            raise error if isinstance(error, Exception) else RuntimeError(repr(error))
