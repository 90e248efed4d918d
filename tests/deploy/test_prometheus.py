"""What deploy/ gives to Prometheus and Grafana, held to a real Prometheus that scrapes a real server."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import yaml

from atoll.domain.price import TokenUse
from atoll.telemetry.metrics import Metrics
from tests.deploy.prometheus import DEPLOY, RULES, Prometheus, needed, promtool, scraping
from tests.surfaces.conftest import House, Opener, open_house  # noqa: F401

DASHBOARD = json.loads((DEPLOY / "grafana" / "atoll.json").read_text())
PANELS = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
OF_A_SECOND_STORE = "backup_age_seconds"  # and this server has none


# what needs no Prometheus


def test_the_dashboard_asks_one_data_source_that_is_chosen_when_it_is_shown() -> None:
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    assert variables["instance"]["includeAll"] and variables["instance"]["allValue"] == ".*"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert all(panel["datasource"] == chosen for panel in PANELS)
    assert all(target["datasource"] == chosen for panel in PANELS for target in panel["targets"])
    assert DASHBOARD["uid"] == "atoll" and DASHBOARD["schemaVersion"] >= 36 and "__inputs" not in DASHBOARD


def test_its_panels_have_titles_units_and_places_that_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert panel["title"] and at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"] and panel["targets"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_each_query_asks_for_metrics_that_there_are_of_the_servers_that_are_chosen() -> None:
    known = {family.name for family in Metrics().registry.collect()} | {
        "up", "isolation_proved", "backup_age_seconds", "disk_free_bytes", "disk_size_bytes", "atoll_build_info",
    }  # fmt: skip
    for expression in EXPRESSIONS:
        for name, labels in re.findall(r"([a-z_]+)\{([^}]*)\}", expression):
            assert re.sub("_(total|bucket|count|sum)$", "", name) in known, name
            assert 'job="atoll", instance=~"$instance"' in labels, expression


def test_each_alert_says_how_bad_it_is_what_it_means_and_what_to_do() -> None:
    page = (DEPLOY.parent / "docs" / "observability.md").read_text()
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]
        assert f"`{rule['alert']}`" in page, f"docs/observability.md does not know {rule['alert']}"


# with one


@needed
async def test_every_rule_loads_and_each_alert_fires_on_its_own_cause_alone() -> None:
    assert f"{len(ALERTS)} rules found" in await promtool("check", "rules", RULES)
    await promtool("check", "config", "--syntax-only", DEPLOY / "prometheus" / "prometheus.yml")
    proof = DEPLOY / "prometheus" / "alerts.test.yml"
    assert "SUCCESS" in await promtool("test", "rules", proof)
    proved = {
        one["alertname"]
        for test in yaml.safe_load(proof.read_text())["tests"]
        for one in test["alert_rule_test"]
        if one.get("exp_alerts")
    }
    assert proved == {rule["alert"] for rule in ALERTS}


@needed
async def test_every_query_of_the_dashboard_has_an_answer_after_traffic(
    open_house: Opener,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    async with open_house() as house, scraping(house.url.removeprefix("http://"), folder) as prometheus:
        await _scrapes(prometheus, 1)
        await _traffic(house)
        await _scrapes(prometheus, 3)
        for expression in EXPRESSIONS:
            asked = expression.replace("$__rate_interval", "20s").replace("$instance", ".*")
            found = await prometheus.series(asked)
            assert found or OF_A_SECOND_STORE in asked, asked
        await _exact_names(prometheus)
        rules = (await prometheus.ask("rules"))["groups"][0]["rules"]
        assert {rule["name"] for rule in rules} == {rule["alert"] for rule in ALERTS}
        assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


async def _scrapes(prometheus: Prometheus, more: int) -> None:
    """Wait for so many more."""
    before: float | None = None
    async with asyncio.timeout(30):
        while True:
            found = await prometheus.series('count_over_time(up{job="atoll"}[10m])')
            count = float(found[0]["value"][1]) if found else 0.0
            before = count if before is None else before
            if count >= before + more:
                return
            await asyncio.sleep(0.2)


async def _traffic(house: House) -> None:
    """One of everything that the dashboard shows; models and webhooks are counted as their services count them."""
    made = await house.create()
    await house.exec(made["id"], ["echo", "hi"])
    assert (await house.call("POST", "/v1/workspaces", json={"name": "default"})).status_code == 201
    kept = (await house.call("POST", "/snapshot/create")).json()
    back = await house.call("POST", "/snapshot/restore", json={"snapshot_id": kept["snapshot_id"]})
    assert back.status_code == 200, back.text
    metrics = house.app.metrics
    metrics.quota_exceeded("sandboxes")
    metrics.tasks.ended("codex", "completed", 1.0)
    metrics.models.called("openai", "answered")
    metrics.models.used(TokenUse(3, 1))
    metrics.ledger.held("taken")
    metrics.ledger.transferred("usage_deduction", 10)
    metrics.audit.delivered(ok=True)


async def _exact_names(prometheus: Prometheus) -> None:
    """Seed 002's metrics, with its labels and no others."""
    wanted: dict[str, set[str]] = {
        "sandbox_created_total": set(),
        "sandbox_exec_total": {"sandbox_id", "command"},
        "sandbox_active": set(),
        "sandbox_exec_duration_seconds_bucket": {"le"},
        "snapshot_created_total": set(),
        "snapshot_restored_total": set(),
        "snapshot_size_bytes_bucket": {"le"},
        "http_requests_total": {"method", "path", "status"},
        "http_request_duration_seconds_bucket": {"method", "path", "le"},
        "quota_violations_total": {"quota_type"},
    }
    for name, labels in wanted.items():
        found: list[Any] = await prometheus.series(name)
        assert found, name
        assert {frozenset(one["metric"]) - {"__name__", "job", "instance"} for one in found} == {frozenset(labels)}, (
            name
        )
    buckets = await prometheus.series('http_request_duration_seconds_bucket{path="/v1/sessions"}')
    bounds = [".005", ".01", ".025", ".05", ".1", ".25", ".5", "1", "2.5", "5", "10", "+Inf"]
    assert {one["metric"]["le"].removeprefix("0").removesuffix(".0") for one in buckets} == set(bounds)
