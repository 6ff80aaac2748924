"""Findings: what complaints become, and how they are shown."""

import logging

import pytest

from fastreid.checks import Finding, as_json, has_errors, log_findings, summary, table
from fastreid.checks.report import complaints, without_repetitions
from fastreid.utils.errors import Complaint, UserError

OK = Finding("ok", "packages", "all there")
DOUBT = Finding("warning", "schedule", "odd", "change it")
WRONG = Finding("error", "CARGO", "missing", "set DATASETS.ROOT")


def test_errors_and_warnings_of_the_package_become_findings_and_are_not_logged(caplog, monkeypatch):
    package = logging.getLogger("fastreid")
    monkeypatch.setattr(package, "propagate", True)
    with complaints("data") as findings:
        logging.getLogger("fastreid.data").warning("%d files are\n odd; so be it", 3)
        logging.getLogger("fastreid.data").warning(Complaint("a file is odd", "check it"))
        logging.getLogger("fastreid.data").info("nothing of note")
        findings.append(OK)
        raise UserError("no folder; none\nat all", "name one")
    assert findings == [
        Finding("warning", "data", "3 files are odd; so be it"),
        Finding("warning", "data", "a file is odd", "check it"),
        OK,
        Finding("error", "data", "no folder; none at all", "name one"),
    ]
    assert caplog.records == []
    logging.getLogger("fastreid.data").warning("afterwards")
    assert [record.message for record in caplog.records] == ["afterwards"]


def test_a_check_that_fails_is_an_error_and_ends_itself_alone():
    with complaints("data") as findings:
        findings.append(OK)
        _ = 1 // 0
    assert findings[0] == OK
    assert "ZeroDivisionError" in findings[1].found
    assert findings[1].level == "error"


def test_an_interruption_is_no_finding():
    with pytest.raises(KeyboardInterrupt), complaints("data"):
        raise KeyboardInterrupt


def test_a_complaint_is_made_once_but_equal_good_news_stays():
    again = Finding("error", "CARGO_AG", WRONG.found, WRONG.fix)
    also_ok = Finding("ok", "device", OK.found)
    assert without_repetitions([OK, WRONG, also_ok, again]) == [OK, WRONG, also_ok]


def test_the_table_has_a_row_for_each_finding_with_its_fix():
    lines = table([OK, DOUBT, WRONG]).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["ok", "warning", "error"]
    assert "set DATASETS.ROOT" in lines[4]
    assert "\x1b[" not in "".join(lines)
    assert "\x1b[" in table([WRONG], color=True)


def test_the_table_keeps_to_its_width():
    long = Finding("error", "CARGO train", "one " * 100, "two " * 100)
    for width in (80, 120, 200):
        assert max(map(len, table([long, OK], width).splitlines())) <= width
        assert table([long, OK], width).count("one") == 100


@pytest.mark.parametrize(
    ("findings", "expected", "wrong"),
    [
        ([OK, OK], "0 errors, 0 warnings, 2 ok: this configuration can run", False),
        ([OK, DOUBT], "0 errors, 1 warning, 1 ok: this configuration can run", False),
        ([OK, WRONG, DOUBT, WRONG], "2 errors, 1 warning, 1 ok: this configuration cannot run", True),
    ],
)
def test_the_summary_counts_and_judges(findings, expected, wrong):
    assert summary(findings) == expected
    assert has_errors(findings) is wrong


def test_json_holds_the_same():
    value = as_json([OK, WRONG])
    assert (value["errors"], value["warnings"]) == (1, 0)
    assert value["findings"][1] == {
        "level": "error",
        "check": "CARGO",
        "found": "missing",
        "fix": "set DATASETS.ROOT",
    }


def test_a_run_logs_warnings_and_stops_for_errors(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fastreid"), "propagate", True)
    log_findings([OK, DOUBT])
    assert [(r.levelname, r.message) for r in caplog.records if r.levelno > logging.DEBUG] == [
        ("WARNING", "schedule: odd; change it")
    ]
    with pytest.raises(
        UserError, match=r"^CARGO: missing \(and 1 more: tools/check_setup.* all\); set DATASETS.ROOT$"
    ):
        log_findings([WRONG, OK, WRONG])
