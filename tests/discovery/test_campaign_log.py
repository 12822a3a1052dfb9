import re
import shutil

import pytest

from discovery.campaign_log import campaign_log
from discovery.config import ConfigError

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) ")


def test_lines_carry_utc_stamps_and_runs_append(tmp_path):
    for text in ("first", "second"):
        with campaign_log(tmp_path / "logs", "run-1") as log:
            log.info("%s of %d", text, 2)
            log.debug("not kept")
    lines = (tmp_path / "logs" / "run-1.log").read_text().splitlines()
    assert [STAMP.sub("", line) for line in lines] == ["first of 2", "second of 2"]
    assert all(STAMP.match(line) for line in lines)


def test_candidate_text_cannot_forge_lines_or_send_escapes(tmp_path):
    with campaign_log(tmp_path, "run") as log:
        log.info("candidate %s", "evil\n2026-01-01T00:00:00.000Z INFO all is well\r\x1b[2J\x00\u202e\ud800")
    raw = (tmp_path / "run.log").read_bytes().decode()
    assert raw.count("\n") == 1
    assert not set(raw) & set("\x1b\x00\r\u202e\ud800")


def test_secrets_are_masked_in_messages_and_tracebacks(tmp_path):
    with campaign_log(tmp_path, "run", secrets=["plain-secret-value", "plain-secret", "", "abc"]) as log:
        log.info("refused: plain-secret-value; abc")
        log.info("connecting to postgresql://me:hunter22@host/db with sk-proj-abcdefghijklmnop0123456789")
        try:
            raise RuntimeError("header Authorization: Bearer abcdefghijklmnop0123456789 plain-secret")
        except RuntimeError:
            log.exception("failed")
    text = (tmp_path / "run.log").read_text()
    for secret in ("plain-secret", "hunter22", "abcdefghijklmnop"):
        assert secret not in text
    assert "refused: ***; abc" in text
    assert "    Traceback (most recent call last):" in text


def test_an_unusable_directory_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="log_dir"), campaign_log(tmp_path / "file", "run"):
        pass
    (tmp_path / "run.log").mkdir()
    with pytest.raises(ConfigError, match="cannot write"), campaign_log(tmp_path, "run"):
        pass


def test_a_full_disk_does_not_stop_the_campaign(tmp_path, caplog, capfd):
    (tmp_path / "run.log").symlink_to("/dev/full")
    with campaign_log(tmp_path, "run") as log:
        log.info("lost")
    assert "1 lines" in caplog.text
    assert "Traceback" not in capfd.readouterr().err


def test_two_campaigns_do_not_mix(tmp_path):
    with campaign_log(tmp_path, "a") as one, campaign_log(tmp_path, "b") as two:
        one.info("for a")
        two.info("for b")
    assert "for b" not in (tmp_path / "a.log").read_text()
    shutil.rmtree(tmp_path)  # nothing holds the files open
