import logging

import pytest

from cis490.errors import Cis490Error
from cis490.logs import MILESTONE, WATCHED, LiveTerminal, Terminal, job, logger


def test_a_known_error_is_one_line_and_exit_code_1(tmp_path, capsys):
    with pytest.raises(SystemExit) as done, job(tmp_path / "deep/job.log"):
        raise Cis490Error("what, where and what to do")
    assert done.value.code == 1
    assert capsys.readouterr().err == "error: what, where and what to do\n"
    assert "Traceback" not in (tmp_path / "deep/job.log").read_text()


def test_an_unknown_error_leaves_its_traceback_in_the_log_and_fails_the_job(tmp_path):
    with pytest.raises(ZeroDivisionError), job(tmp_path / "job.log"):
        1 / 0  # noqa: B018
    assert "Traceback" in (tmp_path / "job.log").read_text()


def test_the_log_has_everything_and_the_terminal_milestones(tmp_path, capsys):
    with job(tmp_path / "job.log"):
        logger.info("detail")
        logger.log(MILESTONE, "milestone")
    assert capsys.readouterr().err == "milestone\n"
    assert "detail" in (tmp_path / "job.log").read_text()


def test_long_work_is_seen_now_and_then(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("cis490.logs.time.monotonic", lambda: now[0])
    terminal = Terminal("train/cnn")
    for second in range(13):
        now[0] = float(second)
        terminal.handle(logging.makeLogRecord({"msg": f"epoch {second}", "levelno": logging.INFO}))
    assert capsys.readouterr().err == "train/cnn: epoch 5\ntrain/cnn: epoch 10\n"


def test_under_a_live_view_only_milestones_are_said(monkeypatch, capsys):
    monkeypatch.setenv(WATCHED, "1")
    now = [0.0]
    monkeypatch.setattr("cis490.logs.time.monotonic", lambda: now[0])
    terminal = Terminal("train/cnn")
    for level in (logging.INFO, MILESTONE, logging.INFO):
        now[0] += 1000
        terminal.handle(logging.makeLogRecord({"msg": f"at {now[0]:.0f}", "levelno": level}))
    assert capsys.readouterr().err == "at 2000\n"


def test_on_a_terminal_of_its_own_one_line_is_rewritten_and_milestones_stay(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "10")
    terminal = LiveTerminal()
    for level, text in ((logging.INFO, "epoch 1 of 60"), (MILESTONE, "seed 42: 0.81 of 1")):
        terminal.handle(logging.makeLogRecord({"msg": text, "levelno": level}))
    terminal.handle(logging.makeLogRecord({"msg": "epoch 1", "levelno": logging.INFO}))
    terminal.close()
    new = "\r\x1b[K"
    assert capsys.readouterr().err == (f"epoch 1 o{new}seed 42: 0.81 of 1\nepoch 1{new}")
