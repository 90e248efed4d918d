"""Metrics: bounded labels whose sums never fall."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from atoll.telemetry import metrics
from atoll.telemetry.metrics import Metrics


def execs(of: Metrics) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(of.render().decode())
    samples = next(family.samples for family in families if family.name == "sandbox_exec")
    return {(sample.labels["sandbox_id"], sample.labels["command"]): sample.value for sample in samples}


def test_a_command_is_counted_by_its_base_name() -> None:
    found = Metrics()
    for argv in (["/usr/bin/python3", "-c", "x"], ["python3"], ["/bin/sh"]):
        found.exec_started("sess_1", argv)
    assert execs(found) == {("sess_1", "python3"): 2, ("sess_1", "sh"): 1}


def test_rare_commands_share_a_label_and_a_frequent_one_earns_its_own() -> None:
    found = Metrics()
    for number in range(metrics.MAX_COMMAND_LABELS):
        found.exec_started("sess_1", [f"known{number}"])
    found.exec_started("sess_1", ["late"])
    assert execs(found)[("sess_1", "other")] == 1
    for _ in range(5):
        found.exec_started("sess_1", ["late"])
    after = execs(found)
    assert after[("sess_1", "late")] >= 4
    assert len(after) <= metrics.MAX_COMMAND_LABELS + 1
    assert sum(after.values()) == metrics.MAX_COMMAND_LABELS + 6


def test_endless_names_cost_bounded_memory() -> None:
    found = Metrics()
    for number in range(20_000):
        found.exec_started("sess_1", [f"name{number}"])
    assert len(execs(found)) <= metrics.MAX_COMMAND_LABELS + 1
    assert len(found._execs._commands._seen) <= metrics.MAX_COUNTED_COMMANDS + 1
    assert sum(execs(found).values()) == 20_000


def test_sandboxes_beyond_the_bound_share_a_label() -> None:
    found = Metrics()
    for number in range(metrics.MAX_SANDBOX_LABELS + 50):
        found.exec_started(f"sess_{number}", ["true"])
    after = execs(found)
    assert len({sandbox_id for sandbox_id, _ in after}) == metrics.MAX_SANDBOX_LABELS + 1
    assert after[("other", "true")] == 50


def test_an_ended_sandboxs_counts_move_to_other() -> None:
    found = Metrics()
    found.exec_started("sess_1", ["true"])
    found.exec_started("sess_2", ["true"])
    found.sandbox_ended("sess_1")
    found.sandbox_ended("sess_1")
    assert execs(found) == {("sess_2", "true"): 1, ("other", "true"): 1}


def test_a_label_says_nothing_that_could_break_the_format() -> None:
    found = Metrics()
    found.exec_started("sess_1", ['ev"il\n\\' + "x" * 500])
    found.exec_started("sess_1", [])
    assert sum(execs(found).values()) == 2
    assert all(len(command) <= metrics.COMMAND_LABEL_CHARS for _, command in execs(found))


def test_dropped_uses_of_keys_are_a_counter() -> None:
    metrics = Metrics()
    dropped = 3
    metrics.count_dropped_uses(lambda: dropped)
    assert b"key_uses_dropped_total 3.0" in metrics.render()
    dropped = 5
    assert b"key_uses_dropped_total 5.0" in metrics.render()


def test_snapshots_are_counted_with_their_size() -> None:
    found = Metrics()
    found.snapshot_created(1500)
    found.snapshot_restored()
    text = found.render().decode()
    assert "snapshot_created_total 1.0" in text and "snapshot_restored_total 1.0" in text
    assert 'snapshot_size_bytes_bucket{le="1024.0"} 0.0' in text
    assert 'snapshot_size_bytes_bucket{le="10240.0"} 1.0' in text


def test_a_status_that_is_none_of_https_is_counted_by_its_class() -> None:
    found = Metrics()
    for status in (101, 200, 418, 599, *range(900, 1000), *range(430, 500)):
        found.request("GET", "/preview/{sandbox_id}/{port}/{path}", status, 0.01)
    families = text_string_to_metric_families(found.render().decode())
    samples = [sample for family in families if family.name == "http_requests" for sample in family.samples]
    told = {sample.labels["status"]: sample.value for sample in samples if sample.name.endswith("_total")}
    assert told == {"101": 1, "200": 1, "418": 1, "431": 1, "451": 1, "499": 1, "4xx": 67, "5xx": 1, "9xx": 100}
    assert len(found._request_children) == len(told)
