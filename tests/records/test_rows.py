"""Objects to rows and back: nothing is lost, whatever it holds, and old rows read with today's defaults."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.sandbox import BakedFile, NetworkMode, Port, Resources, SandboxSpec
from atoll.domain.workspace import WorkspaceMount
from atoll.records.rows import spec_of, spec_text

TEXT = st.text(max_size=40)  # surrogates and NUL included: JSON escapes them
NUMBERS = st.integers(0, 2**53)
SECONDS = st.none() | st.floats(0.001, 1e9)
SPECS = st.builds(
    SandboxSpec,
    image=TEXT,
    command=st.lists(TEXT, max_size=3).map(tuple),
    env=st.dictionaries(TEXT, TEXT, max_size=3),
    work_dir=TEXT,
    tty=st.booleans(),
    cols=NUMBERS,
    rows=NUMBERS,
    resources=st.builds(
        Resources,
        NUMBERS,
        NUMBERS,
        NUMBERS,
        NUMBERS,
        NUMBERS,
        timeout_s=SECONDS,
        idle_s=SECONDS,
        max_age_s=SECONDS,
        suspend_idle_s=SECONDS,
    ),
    network=st.sampled_from(NetworkMode),
    ports=st.lists(st.builds(Port, NUMBERS, TEXT, st.none() | NUMBERS), max_size=3).map(tuple),
    setup=st.lists(TEXT, max_size=3).map(tuple),
    files=st.lists(st.builds(BakedFile, TEXT, st.binary(max_size=50)), max_size=3).map(tuple),
    layers=st.lists(TEXT, max_size=3).map(tuple),
    maker=TEXT,
    workspaces=st.lists(st.builds(WorkspaceMount, TEXT, TEXT, st.booleans(), TEXT), max_size=3).map(tuple),
)


@given(SPECS)
def test_any_spec_survives_the_way_there_and_back_as_plain_ascii(spec: SandboxSpec) -> None:
    text = spec_text(spec)
    assert text.isascii()
    assert "\0" not in text
    assert spec_of(text) == spec


def test_a_row_from_before_a_field_existed_reads_with_its_default() -> None:
    assert spec_text(SandboxSpec()) == "{}"
    assert spec_of("{}") == SandboxSpec()
    assert spec_of('{"resources":{"pids":3}}').resources == Resources(pids=3)
