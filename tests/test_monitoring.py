# SPDX-License-Identifier: Apache-2.0
"""The files for operators: scrape configuration, rules and dashboard.

They are checked with promtool, against Grafana's schema, and against the metrics of csp1d.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import CollectorRegistry, generate_latest

from csp1d.events import CHAPTERS, ActiveProblem, Event
from csp1d.interfaces.metrics import SnapshotCollector
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.reading import DirectionReading, PhaseCurrent, Reading
from csp1d.phase import Phase

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))
import fleet  # noqa: E402

MONITORING = ROOT / "monitoring"
RULES = MONITORING / "csp1d.rules.yml"
RULES_TESTS = sorted(MONITORING.glob("csp1d.rules.*test.yml"))
DASHBOARD = MONITORING / "csp1d-dashboard.json"
FLEET = ROOT / "docs" / "fleet.md"


def promtool(*arguments: str | Path, given: str = "") -> str:
    # tools/environment installs it next to Python.
    command = [str(Path(sys.executable).with_name("promtool")), *map(str, arguments)]
    ran = subprocess.run(command, input=given, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def rule_names(kind: str, file: Path = RULES) -> list[str]:
    return re.findall(rf"^ +- {kind}: (\S+)$", file.read_text(), re.MULTILINE)


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def queries() -> dict[str, str]:
    """The dashboard's queries as Prometheus receives them, by panel and letter."""
    found = {}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$instance", "house-1")
            expression = expression.replace("$__rate_interval", "1m")
            found[f"{panel['title']}, {target['refId']}"] = expression
    return found


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.parametrize("file", RULES_TESTS, ids=lambda file: file.name)
def test_alerts_fire_only_when_they_should(file: Path) -> None:
    promtool("test", "rules", file)


def test_recordings_are_named_as_prometheus_recommends() -> None:
    """level:metric:operations, and a ratio names both metrics."""
    for name in rule_names("record"):
        _, metric, operations = name.split(":")
        assert ("_per_" in metric) == operations.startswith("ratio")


def test_each_alert_is_tested() -> None:
    alerts = rule_names("alert")
    assert len(set(alerts)) == len(alerts) > 0
    expected = "".join(file.read_text() for file in RULES_TESTS)
    tested = re.findall(r'alertname="(\w+)"', expected) + re.findall(r"alertname: (\w+)", expected)
    assert set(tested) == set(alerts)


def test_the_handbook_has_severity_and_time_of_each_alert() -> None:
    units = {"m": "min", "h": "h", "d": "day"}
    rule = r"- alert: (\w+)\n.*?\n +for: (\d+)(\w)\n.*?\n +severity: (\w+)"
    rules = [
        (alert, severity, f"{number} {units[unit]}")
        for alert, number, unit, severity in re.findall(rule, RULES.read_text(), re.DOTALL)
    ]
    assert [alert for alert, _, _ in rules] == rule_names("alert")
    row = r"^\| `(Csp1d\w+)` \| (\w+) \| ([^|]+) \|"
    assert re.findall(row, FLEET.read_text(), re.MULTILINE) == rules


def test_each_alert_has_a_runbook() -> None:
    handbook = (ROOT / "docs/troubleshoot.md").read_text()
    titles = re.findall(r"^##+ (.*)$", handbook, re.MULTILINE)
    anchors = {title.lower().replace(" ", "-") for title in titles}
    base = "file:///usr/share/doc/csp1d/troubleshoot.md#"
    runbooks = re.findall(rf"^ +runbook_url: {base}(\S+)$", RULES.read_text(), re.MULTILINE)
    assert len(runbooks) == len(rule_names("alert"))
    assert {*runbooks} <= anchors
    table = handbook.split("\n## Alerts\n")[1]
    shown = {
        alert: see
        for alerts, see in re.findall(r"^\| (`Csp1d.*`) \| (.*) \|$", table, re.MULTILINE)
        for alert in re.findall(r"`(Csp1d\w+)`", alerts)
    }
    assert shown.keys() == {*rule_names("alert")}
    for alert, runbook in zip(rule_names("alert"), runbooks, strict=True):
        assert f"(#{runbook})" in shown[alert] or (runbook == "alerts" and "(#" not in shown[alert])


def test_each_event_that_lasts_has_one_alert() -> None:
    """Csp1dProblem is for those that no other alert is for."""
    excluded = re.findall(r'event!~"([^"]+)"', RULES.read_text())
    others = {
        event.event_name
        for event, chapter in CHAPTERS.items()
        if chapter and any(re.fullmatch(pattern, event.event_name) for pattern in excluded)
    }
    assert others == {
        *("adc-lost", "adc-stalled", "adc-slow", "readings-lost", "input-failed", "clipping"),
        *("scans-lost", "p1-port-lost", "request-line-lost", "telegram-dropped"),
        *("telegrams-aborted", "configuration-rejected", "wiring-doubtful"),
    }


@pytest.mark.parametrize(
    "command",
    [
        "check config prometheus.yml",
        "check config --agent agent.yml",
        "check config receiver.yml",
        "check web-config web.yml",
    ],
)
def test_prometheus_accepts_the_examples(command: str, tmp_path: Path) -> None:
    shutil.copytree(MONITORING, tmp_path, dirs_exist_ok=True)
    fleet.make_certificates(tmp_path / "tls")
    *words, file = command.split()
    promtool(*words, tmp_path / file)


def test_each_device_belongs_to_one_agent(tmp_path: Path) -> None:
    names = {f"house-{number}" for number in range(40)}
    entries = [
        {"targets": [f"{name}.example:19510"], "labels": {"instance": name}} for name in names
    ]
    # JSON is YAML.
    (tmp_path / "csp1d.targets.yml").write_text(json.dumps(entries))
    fleet.make_certificates(tmp_path / "tls")
    agent, kept = tmp_path / "agent.yml", list[str]()
    for regex in ('regex: "0"', 'regex: "1"'):
        agent.write_text((MONITORING / "agent.yml").read_text().replace('regex: "0"', regex))
        shown = promtool("check", "service-discovery", "--timeout=1s", agent, "csp1d")
        targets = json.loads(shown[shown.index("[\n") :])
        share = [target["labels"]["instance"] for target in targets if target["labels"]]
        assert 10 < len(share) < 30
        kept += share
    assert sorted(kept) == sorted(names)


@pytest.mark.parametrize("page", ["measuring", "stalled", "failed", "starting"])
def test_promtool_accepts_the_metrics(page: str) -> None:
    golden = ROOT / "tests" / "interfaces" / f"metrics-{page}.txt"
    promtool("check", "metrics", given=golden.read_text())


def collector() -> SnapshotCollector:
    """That of a device that has all series at the same time."""
    phases = dict.fromkeys(Phase, PhaseCurrent(1.0, 1.5, 0.0, 0))
    direction = DirectionReading(dict.fromkeys(Phase, 1.0), frozenset(), "", "")
    reading = Reading(1, 0, 1.0, phases, 50.0, 4000, 0, direction)
    state = Snapshot(
        reading=reading,
        clipped_samples_total=dict.fromkeys(Phase, 0),
        charge_coulombs_total=dict.fromkeys(Phase, 0.0),
        problems=tuple(ActiveProblem(event, "any", "", 0) for event in Event),
    )
    return SnapshotCollector(lambda: state, lambda: 0)


def emitted() -> Iterator[str]:
    """Names of all metrics of csp1d."""
    for family in collector().collect():
        if family.type == "gauge":
            yield family.name
        yield from (sample.name for sample in family.samples)


@pytest.mark.parametrize("config", ["prometheus.yml", "agent.yml"])
def test_a_device_with_all_faults_is_far_from_the_limits(config: str) -> None:
    text = (MONITORING / config).read_text()
    (series,) = re.findall(r"^    sample_limit: (\d+)$", text, re.MULTILINE)
    (kilobytes,) = re.findall(r"^    body_size_limit: (\d+)KB$", text, re.MULTILINE)
    registry = CollectorRegistry()
    registry.register(collector())
    page = generate_latest(registry).decode()
    assert 50 < len(re.findall(r"^[^#]", page, re.MULTILINE)) < int(series) * 0.75
    assert len(page) < int(kilobytes) * 1024 / 5


@pytest.mark.parametrize("config", ["prometheus.yml", "receiver.yml"])
def test_what_evaluates_alerts_sends_them_to_an_alertmanager(config: str) -> None:
    text = (MONITORING / config).read_text()
    assert "rule_files:" in text
    assert re.search(r"^alerting:\n  alertmanagers:\n(?:    .*\n)+", text, re.MULTILINE)


def test_what_sends_to_the_receiver_has_a_client_certificate() -> None:
    """web.yml requires one."""
    assert "RequireAndVerifyClientCert" in (MONITORING / "web.yml").read_text()
    agent = (MONITORING / "agent.yml").read_text().partition("\nremote_write:\n")[2]
    alloy = (ROOT / "docs/integrate.md").read_text().partition("\nprometheus.remote_write ")[2]
    for example in (agent, alloy.partition("```")[0]):
        assert {"ca_file", "cert_file", "key_file"} <= {*re.findall(r"\w+_file", example)}


@pytest.mark.parametrize("file", [RULES, *RULES_TESTS, DASHBOARD], ids=lambda file: file.name)
def test_the_metrics_in_rules_and_dashboard_exist(file: Path) -> None:
    names = set(re.findall(r"\b(?:\w+:)?csp1d_[\w:]*\w", file.read_text()))
    assert names
    assert names <= {*emitted(), *rule_names("record")}


def test_the_dashboards_queries_are_promql(tmp_path: Path) -> None:
    rules = [
        {"record": "x", "expr": query, "labels": {"at": at}} for at, query in queries().items()
    ]
    file = tmp_path / "queries.yml"
    # JSON is YAML.
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", file)


def test_no_panel_reads_a_day_of_all_devices_at_each_refresh() -> None:
    for query in queries().values():
        assert "house-1" in query or not re.search(r"\[\d+[hdw]\]", query)


@pytest.mark.parametrize(
    ("panel", "alert"),
    [
        ("Down", "Csp1dDown"),
        ("Not measuring", "Csp1dNotMeasuring"),
        ("Rejected reloads", "Csp1dReloadRejected"),
    ],
)
def test_a_number_of_devices_is_that_of_the_alert(panel: str, alert: str) -> None:
    """One fault counts in one panel."""
    rule = re.search(
        rf"- alert: {alert}\n +expr: (?:\|\n)?(.*?)\n +for:", RULES.read_text(), re.DOTALL
    )
    assert rule
    # If an alert for the whole fleet replaces it, the number remains.
    condition = " ".join(rule[1].split()).partition(" unless on () ALERTS")[0]
    assert queries()[f"{panel}, A"] == f"count({condition})"


def test_the_dashboard_is_identified_and_portable() -> None:
    loaded = dashboard()
    ids = [panel["id"] for panel in loaded["panels"]]
    assert len(set(ids)) == len(ids)
    assert loaded["uid"] == "csp1d"
    # Grafana assigns the id of a dashboard; a given one would overwrite another dashboard.
    assert "id" not in loaded
    variables = {variable["name"]: variable["type"] for variable in loaded["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query"}
    sources = re.findall(r'"uid": "([^"]+)"', DASHBOARD.read_text())
    assert set(sources) == {"csp1d", "${datasource}"}


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    """Grafana's grid has 24 columns; it would move overlapping panels."""
    covered = [
        (x, y)
        for grid in (panel["gridPos"] for panel in dashboard()["panels"])
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len({*covered}) == len(covered)
    assert all(0 <= x < 24 for x, _ in covered)


def test_the_dashboard_matches_grafanas_schema() -> None:
    plugins.register_default_plugins()
    parsed = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard())))
    assert list(lost(dashboard(), parsed)) == []


def lost(given: Any, parsed: Any, where: str = "") -> Iterator[str]:
    """Values that the schema drops or changes. It may add defaults."""
    if isinstance(given, dict) and isinstance(parsed, dict):
        for key, value in given.items():
            yield from lost(value, parsed.get(key), f"{where}/{key}")
    elif isinstance(given, list) and isinstance(parsed, list) and len(given) == len(parsed):
        for number, pair in enumerate(zip(given, parsed, strict=True)):
            yield from lost(*pair, f"{where}/{number}")
    elif given != parsed:
        yield f"{where}: {given!r}, parsed as {parsed!r}"


def test_the_certificates_of_the_handbook_satisfy_strict_clients(tmp_path: Path) -> None:
    """Python from 3.13 on, and so Debian 13, rejects a CA without its key usage."""
    (commands,) = re.findall(r"^    new=.*?(?=\n\n)", FLEET.read_text(), re.MULTILINE | re.DOTALL)
    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, check=True, capture_output=True)
    verify = "openssl verify -x509_strict -CAfile ca.pem -purpose"
    for purpose, certificate in (("sslserver", "server.pem"), ("sslclient", "prometheus.pem")):
        command = [*verify.split(), purpose, certificate]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
