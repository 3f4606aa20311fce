"""What holds for all configuration files: they round-trip, and any text gives a model or a ConfigError."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pywg.config.model import Dialect, strip
from pywg.config.parse import parse
from pywg.config.positions import ConfigError, Position
from pywg.config.write import write
from tests.unit.config.strategies import configs, plain_configs, texts

patient = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Not dependent on what else the machine does."""


@patient
@given(configs)
def test_what_is_written_is_read_back_the_same(config):
    assert parse(write(config), "x.conf", Dialect.WG_QUICK) == config


@patient
@given(plain_configs)
def test_a_stripped_model_is_a_file_that_wg_reads(config):
    stripped = strip(config)
    assert parse(write(stripped), "x.conf", Dialect.WG) == stripped


@pytest.mark.parametrize("dialect", Dialect)
@patient
@given(text=texts | st.text())
def test_any_text_is_a_model_or_a_config_error(dialect, text):
    with contextlib.suppress(ConfigError):
        parse(text, "x.conf", dialect)


@patient
@given(texts)
def test_every_mistake_is_one_short_printable_line(text):
    try:
        config = parse(text, "x.conf", Dialect.WG_QUICK)
    except ConfigError as error:
        found = error.mistakes
    else:
        found = config.warnings
    for mistake in found:
        assert str(mistake).isprintable()
        assert len(str(mistake)) < 250


@patient
@given(texts)
def test_every_mistake_points_into_the_text(text):
    try:
        parse(text, "x.conf", Dialect.WG_QUICK)
    except ConfigError as error:
        lines = text.removeprefix("\ufeff").split("\n")
        for mistake in error.mistakes:
            if mistake.position != Position("x.conf"):
                assert 1 <= mistake.position.line <= len(lines)
                assert 1 <= mistake.position.column <= len(lines[mistake.position.line - 1]) + 1


def _respell(line: str, random) -> str:
    key, equals, value = line.partition("=")
    if not equals:
        key = "".join(random.choice([char.lower(), char.upper()]) for char in key)
        return random.choice(["", " ", "\t"]) + key + random.choice(["", "  ", "\r", " # text", "#"])
    key = "".join(random.choice([char.lower(), char.upper()]) for char in key)
    spaces = [random.choice(["", " ", "\t ", "\v"]) for _ in range(3)]
    end = (
        ""
        if key.strip().lower() in ("preup", "postup", "predown", "postdown", "# name")
        else random.choice(["", "#x", "\r"])
    )
    return spaces[0] + key.strip() + spaces[1] + "=" + spaces[2] + value.strip() + end


def respelled(text: str, random) -> str:
    """The same file in another's hand."""
    lines = []
    for line in text.split("\n"):
        lines.append(_respell(line, random) if line else random.choice(["", "  ", "# [Peer]", "\t#"]))
    return "\n".join(lines)


@patient
@given(configs, st.randoms(use_true_random=False))
def test_case_white_space_comments_and_empty_lines_do_not_matter(config, random):
    assert parse(respelled(write(config), random), "x.conf", Dialect.WG_QUICK) == config
