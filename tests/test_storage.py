"""Opening databases, refusing what cannot work, hiding passwords, waiting out what passes."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from fixtures_db import PostgresServer
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_play import make_study, outcome, processes, report, take

from hpo.errors import HpoError, MismatchError, StorageError
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import Claim
from hpo.storage import default_url, open_engine, parse_url, passes, patiently, redact, schema, writing
from hpo.storage.mounts import file_system, refuse_network_folder
from hpo.storage.tables import metadata, slots

SECRET = "s3cr3t/pa ss"


def tables_of(engine: sa.Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names())


# --- which database


def test_the_default_database_is_a_file_in_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPO_STORAGE", raising=False)
    assert default_url() == "sqlite:///hpo.db"
    monkeypatch.setenv("HPO_STORAGE", "postgresql://host/db")
    assert default_url() == "postgresql://host/db"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_takes_the_driver_that_is_installed(scheme: str) -> None:
    url = parse_url(f"{scheme}://user:pass@host:5433/db?sslmode=require")

    assert url.drivername == "postgresql+psycopg"
    assert (url.host, url.port, url.password, dict(url.query)) == (
        "host",
        5433,
        "pass",
        {"sslmode": "require"},
    )


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("hpo.db", "no database URL"),
        ("", "no database URL"),
        ("postgresql://u:p@host:port/db", "no database URL"),
        ("mysql://u:p@host/db", "mysql database is not supported"),
        ("sqlite://", "in-memory"),
        ("sqlite:///:memory:", "in-memory"),
        ("postgresql://u:p@ss@host/db", "more than one @"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, what: str) -> None:
    with pytest.raises(StorageError, match=what) as caught:
        open_engine(url)

    assert "p@ss" not in str(caught.value)


# --- passwords


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("postgresql://u:secret@host/db", "postgresql://u:***@host/db"),
        ("postgresql+psycopg://u:se:cr/et@host/db", "postgresql+psycopg://u:***@host/db"),
        ("a postgres://u:s@cret@host/db failed", "a postgres://u:***@host/db failed"),
        ("postgresql://:secret@/db", "postgresql://:***@/db"),
        ("postgresql://u@host/db?password=secret&x=1", "postgresql://u@host/db?password=***&x=1"),
        ("host=h password=secret dbname=d", "host=h password=*** dbname=d"),
        (r"password='it\'s secret' user=u", "password=*** user=u"),
        ("PGPASSWORD=secret hpo run", "PGPASSWORD=*** hpo run"),
        ("{'password': 'secret', 'host': 'h'}", "{'password': ***, 'host': 'h'}"),
        ("sqlite:////data/hpo.db at 12:30, mail a@b", "sqlite:////data/hpo.db at 12:30, mail a@b"),
        ("postgresql://u@host:5432/db", "postgresql://u@host:5432/db"),
        ("no URL at all", "no URL at all"),
    ],
)
def test_redact_hides_the_password_and_nothing_else(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@settings(deadline=None)
@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=6))
def test_no_password_survives_in_a_rendered_url(password: str) -> None:
    url = sa.URL.create("postgresql", "user", password, "host.example", 5432, "db")
    rendered = url.render_as_string(hide_password=False)

    assert redact(rendered) == "postgresql://user:***@host.example:5432/db"
    assert redact(f"postgresql://user:{password}@host.example/db") == "postgresql://user:***@host.example/db"


def test_a_server_that_cannot_be_reached_is_one_line_without_the_password() -> None:
    url = sa.URL.create("postgresql", "user", SECRET, "127.0.0.1", 1, "db", query={"sslpassword": "other7"})
    with pytest.raises(StorageError) as caught:
        open_engine(url.render_as_string(hide_password=False))

    said = f"{caught.value} {caught.value.__cause__}"
    assert "127.0.0.1" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert SECRET not in said
    assert "s3cr3t" not in said
    assert "other7" not in said


# --- what is refused


def test_a_folder_that_is_missing_or_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"does not exist.*mkdir"):
        open_engine(f"sqlite:///{tmp_path / 'nowhere' / 'hpo.db'}")
    # Not even root can make a file there.
    with pytest.raises(StorageError, match="can be written"):
        open_engine("sqlite:////proc/hpo.db")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("my notes " * 200)

    with pytest.raises(StorageError, match="is not an SQLite database"):
        open_engine(f"sqlite:///{file}")
    assert file.read_text() == "my notes " * 200


def test_reading_makes_no_database(tmp_path: Path) -> None:
    file = tmp_path / "hpo.db"
    with pytest.raises(StorageError, match="there is no database"):
        open_engine(f"sqlite:///{file}", create=False)
    assert not file.exists()

    sqlite3.connect(file).close()
    with pytest.raises(StorageError, match="no study"):
        open_engine(f"sqlite:///{file}", create=False)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p", "lustre"])
def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "on the net"
    folder.mkdir()
    escaped = str(folder).replace(" ", "\\040")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {escaped} {kind} rw 0 0\n")

    with pytest.raises(StorageError, match=f"({kind}).*postgresql://"):
        refuse_network_folder(folder, mounts)
    refuse_network_folder(tmp_path, mounts)
    assert file_system(folder, tmp_path / "no such table") == ""


# --- the schema


def test_our_migrations_make_exactly_our_tables(database_url: str) -> None:
    from alembic.autogenerate import compare_metadata

    engine = open_engine(database_url)
    options = {"include_name": lambda name, kind, _: kind != "table" or name in metadata.tables}
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    engine.dispose()

    assert differences == []


def test_the_revisions_in_the_code_are_the_newest(sqlite_url: str) -> None:
    plain = optuna.storages.RDBStorage(sqlite_url)

    assert ScriptDirectory.from_config(migrations()).get_heads() == [schema.REVISION]
    assert plain.get_head_version() == schema.OPTUNA_REVISION
    plain.engine.dispose()


def test_a_plain_optuna_database_gains_our_tables_and_keeps_its_studies(empty_url: str) -> None:
    storage = optuna.storages.RDBStorage(parse_url(empty_url).render_as_string(hide_password=False))
    theirs = optuna.create_study(study_name="theirs", storage=storage)
    theirs.add_trial(optuna.trial.create_trial(value=2.0, user_attrs={"by": "hand"}))

    engine = open_engine(empty_url)
    ledger = Ledger(engine)
    study = make_study(ledger, 1)
    ledger.finish(take(ledger, study), outcome())
    assert [row.name for row in ledger.studies()] == ["study"]
    kept = optuna.load_study(study_name="theirs", storage=storage).trials
    assert [(trial.value, trial.user_attrs) for trial in kept] == [(2.0, {"by": "hand"})]
    engine.dispose()
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize("older", ["base", "0001"])
def test_an_older_schema_is_brought_up_to_date(database_url: str, older: str) -> None:
    engine = open_engine(database_url)
    study = make_study(Ledger(engine), 2)
    with writing(engine) as connection:
        config = migrations()
        config.attributes["connection"] = connection
        command.downgrade(config, older)
    assert not set(metadata.tables) <= tables_of(engine)
    engine.dispose()

    engine = open_engine(database_url, create=older == "base")
    kept = [row.name for row in Ledger(engine).studies()]
    assert set(metadata.tables) <= tables_of(engine)
    assert kept == ([] if older == "base" else [study.name])
    engine.dispose()


def migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    return config


@pytest.mark.parametrize(
    ("table", "version", "what"),
    [(schema.VERSION_TABLE, "9999", "schema 9999"), ("alembic_version", "v9.0.0.a", "newer Optuna")],
)
def test_a_newer_schema_is_refused_and_left_alone(
    database_url: str, table: str, version: str, what: str
) -> None:
    engine = open_engine(database_url)
    with writing(engine) as connection:
        connection.execute(sa.text(f"UPDATE {table} SET version_num = :v"), {"v": version})

    with pytest.raises(MismatchError, match=what):
        open_engine(database_url)
    with engine.connect() as connection:
        assert connection.execute(sa.text(f"SELECT version_num FROM {table}")).scalar() == version
    engine.dispose()


def test_an_older_optuna_schema_is_refused_with_the_command_that_mends_it(database_url: str) -> None:
    engine = open_engine(database_url)
    with writing(engine) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'v3.0.0.d'"))
    engine.dispose()

    with pytest.raises(MismatchError, match="optuna storage upgrade"):
        open_engine(database_url)


def open_and_count_tables(url: str) -> int:
    engine = open_engine(url)
    count = len(tables_of(engine))
    engine.dispose()
    return count


def test_eight_processes_may_make_the_tables_at_once(empty_url: str) -> None:
    with processes(8) as pool:
        counts = list(pool.map(open_and_count_tables, [empty_url] * 8))

    assert len(set(counts)) == 1


@pytest.mark.postgres
def test_who_makes_the_tables_is_waited_for_whatever_the_servers_timeouts(postgres_url: str) -> None:
    other = sa.create_engine(parse_url(postgres_url), isolation_level="AUTOCOMMIT")
    with other.connect() as holder:
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            holder.execute(sa.text(f"ALTER DATABASE {parse_url(postgres_url).database} SET {name} = '2s'"))
        holder.execute(sa.select(sa.func.pg_advisory_lock(schema._LOCK_KEY)))
        release = threading.Timer(3, holder.execute, [sa.select(sa.func.pg_advisory_unlock_all())])
        release.start()

        open_engine(postgres_url, busy_timeout_s=0.5).dispose()
        release.join()
    other.dispose()


def test_sqlite_is_set_up_for_several_processes(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    with engine.connect() as connection:
        found = {
            name: connection.execute(sa.text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    engine.dispose()

    assert found == {"journal_mode": "wal", "synchronous": 1, "busy_timeout": 60_000, "foreign_keys": 1}


# --- patience


def test_a_foreign_lock_on_the_file_is_waited_out(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    ledger = Ledger(engine)
    study = make_study(ledger, 1)
    foreign = sqlite3.connect(parse_url(sqlite_url).database or "", check_same_thread=False)
    foreign.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.5, foreign.rollback)
    release.start()

    started = time.monotonic()
    claim = ledger.claim(study.study_id, "w", lease_s=60)
    assert claim is not None
    assert time.monotonic() - started > 0.3
    release.join()
    foreign.close()
    engine.dispose()


def impatient(url: str) -> sa.Engine:
    """An engine on an SQLite file that does not wait for locks."""
    return sa.create_engine(url, connect_args={"timeout": 0})


def test_a_lock_beyond_the_busy_timeout_is_waited_out_with_a_message(ready_sqlite_url: str) -> None:
    engine = impatient(ready_sqlite_url)
    foreign = sqlite3.connect(parse_url(ready_sqlite_url).database or "")
    foreign.execute("BEGIN IMMEDIATE")
    heard: list[str] = []
    waits: list[float] = []

    def write() -> str:
        with engine.begin() as connection:
            connection.execute(sa.update(slots).values(state="free"))
        return "written"

    def wait(pause_s: float) -> None:
        waits.append(pause_s)
        if len(waits) == 4:
            foreign.rollback()

    assert patiently(write, notify=heard.append, wait=wait) == "written"
    assert len(waits) == 4
    assert waits[3] > waits[0]
    assert "locked" in heard[0]
    assert "is back" in heard[-1]
    foreign.close()
    engine.dispose()


def test_a_full_disk_is_waited_out_and_nothing_is_lost(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    ledger = Ledger(engine)
    study = make_study(ledger, 1)
    claim = take(ledger, study)
    limits: list[int] = []

    @sa.event.listens_for(engine, "checkout")
    def limit(connection: Any, *_: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0] if not limits else 2**30
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> list[bool]:
        return [report(ledger, claim, epoch, 1.0) for epoch in range(1, 400)]

    with pytest.raises(sa.exc.OperationalError, match="full") as caught:
        fill()
    assert passes(caught.value)
    assert all(patiently(fill, wait=limits.append))
    assert len(ledger.curve(claim)) == 399
    engine.dispose()


def test_other_errors_are_raised_at_once(engine: sa.Engine) -> None:
    calls: list[int] = []

    def broken() -> None:
        calls.append(1)
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT no_such_column FROM hpo_slot"))

    with pytest.raises(sa.exc.DBAPIError, match="no_such_column"):
        patiently(broken, wait=lambda _: pytest.fail("waited"))
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 / 0)
    assert len(calls) == 1


def test_the_end_of_patience_is_a_clean_error(ready_sqlite_url: str) -> None:
    engine = impatient(ready_sqlite_url)
    foreign = sqlite3.connect(parse_url(ready_sqlite_url).database or "")
    foreign.execute("BEGIN IMMEDIATE")

    def write() -> None:
        with engine.begin() as connection:
            connection.execute(sa.update(slots).values(state="free"))

    with pytest.raises(StorageError, match=r"could not be used for .* s \(database is locked\)"):
        patiently(write, patience_s=0.3)
    foreign.close()
    engine.dispose()


def test_a_server_that_is_away_passes_but_a_wrong_name_does_not(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as away:
        open_engine("postgresql://user:secret@127.0.0.1:1/db")
    with pytest.raises(HpoError) as wrong:
        open_engine(f"sqlite:///{tmp_path / 'nowhere' / 'hpo.db'}")

    assert passes(away.value)
    assert not passes(wrong.value)


@pytest.mark.postgres
def test_a_database_that_is_not_there_does_not_pass(postgres_url: str) -> None:
    with pytest.raises(StorageError, match="does not exist") as caught:
        open_engine(postgres_url.replace("hpo_", "hpo_no_"))

    assert not passes(caught.value)


@pytest.mark.postgres
def test_a_database_that_was_dropped_is_a_clean_error_at_once(postgres_url: str) -> None:
    engine = sa.create_engine(parse_url(postgres_url.replace("hpo_", "hpo_no_")))

    with pytest.raises(StorageError, match=r"cannot be used: .* does not exist"):
        patiently(lambda: engine.connect(), wait=lambda _: pytest.fail("waited"))


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("step", "ends"),
    [
        # One statement that is its own transaction, and the third of several.
        (lambda ledger, claim: ledger.finish(claim, outcome(0.5)), "complete"),
        (lambda ledger, claim: ledger.give_back(claim), "free"),
    ],
)
def test_a_connection_cut_in_the_middle_of_a_transaction_is_waited_out(
    ready_postgres_url: str, step: Callable[[Ledger, Claim], bool], ends: str
) -> None:
    engine = open_engine(ready_postgres_url)
    ledger = Ledger(engine)
    study = make_study(ledger, 1)
    claim = take(ledger, study)
    killer = open_engine(ready_postgres_url)
    cuts: list[int] = []

    def cut(connection: sa.Connection, cursor: Any, statement: str, *_: Any) -> None:
        is_inside = "INTO trial_values" in statement or statement.startswith("UPDATE trials")
        if is_inside and len(cuts) < 2:
            cuts.append(connection.connection.driver_connection.info.backend_pid)
            with killer.begin() as other:
                other.execute(sa.select(sa.func.pg_terminate_backend(cuts[-1])))
            time.sleep(0.05)

    sa.event.listen(engine, "before_cursor_execute", cut)
    assert patiently(lambda: step(ledger, claim), wait=lambda _: None)
    assert len(cuts) == 2
    assert getattr(ledger.counts(study.study_id), ends) == 1
    engine.dispose()
    killer.dispose()


@pytest.mark.postgres
def test_a_connection_cut_while_it_lay_idle_is_replaced_unnoticed(
    ready_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.storage.engine._PING_AFTER_S", 0.0)  # 5 s otherwise
    engine = open_engine(ready_postgres_url)
    ledger = Ledger(engine)
    study = make_study(ledger, 1)
    killer = open_engine(ready_postgres_url)
    with killer.begin() as other:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        other.execute(sa.text(others + "AND pid <> pg_backend_pid()"))

    assert ledger.counts(study.study_id).free == 1
    engine.dispose()
    killer.dispose()


@pytest.mark.postgres
def test_a_server_that_crashes_and_comes_back_is_waited_out(
    ready_postgres_url: str, postgres_server: PostgresServer
) -> None:
    if postgres_server.restart is None:
        pytest.skip("the server of HPO_TEST_POSTGRES is not ours to restart")
    engine = open_engine(ready_postgres_url)
    ledger = Ledger(engine)
    study = make_study(ledger, 1)
    claim = take(ledger, study)
    restart = threading.Thread(target=postgres_server.restart)
    restart.start()

    heard: list[str] = []
    for epoch in range(1, 200):
        assert patiently(lambda epoch=epoch: report(ledger, claim, epoch, 1.0), notify=heard.append)
        if heard and not restart.is_alive():
            break
        time.sleep(0.02)
    restart.join()
    assert patiently(lambda: ledger.finish(claim, outcome()))
    assert ledger.counts(study.study_id).complete == 1
    engine.dispose()
