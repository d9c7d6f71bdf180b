"""Errors teach: the value, the nearest right value, the exit code. Registries answer with them."""

import pytest

from sfumato.core.errors import ConfigError, NonFiniteError, OutputError, SfumatoError, UnknownNameError, UsageError, WeightsError
from sfumato.core.registry import Registry


def test_message_and_hint_are_both_told():
    error = UsageError("size is 3", "a multiple of 16")
    assert str(error) == "size is 3\n  a multiple of 16"
    assert (error.message, error.hint) == ("size is 3", "a multiple of 16")
    assert str(UsageError("alone")) == "alone"


@pytest.mark.parametrize(("kind", "code"), [(UsageError, 2), (ConfigError, 2), (WeightsError, 1), (OutputError, 1), (NonFiniteError, 1)])
def test_exit_codes_tell_usage_from_failure(kind: type[SfumatoError], code: int):
    assert kind("x").exit_code == code


def test_unknown_name_offers_the_nearest_and_lists_all():
    error = UnknownNameError("solver", "eular", ["heun", "euler", "dpm++2m"])
    assert error.nearest[0] == "euler"
    assert "did you mean 'euler'" in str(error) and "dpm++2m, euler, heun" in str(error)
    assert "did you mean" not in str(UnknownNameError("solver", "zzzz", ["heun"]))
    assert "known: none" in str(UnknownNameError("model", "x", []))


def test_registry_gives_what_was_added_and_imports_lazy_entries_once():
    parts: Registry[object] = Registry("part")

    @parts.add("here")
    class Here:
        pass

    parts.lazy("there", "collections:OrderedDict")
    from collections import OrderedDict

    assert parts.get("here") is Here and parts.get("there") is OrderedDict
    assert list(parts) == ["here", "there"] and "there" in parts and "nowhere" not in parts
    with pytest.raises(UnknownNameError, match="did you mean 'there'"):
        parts.get("ther")


def test_registering_a_name_twice_is_a_programming_error():
    parts: Registry[object] = Registry("part")
    parts.lazy("a", "m:x")
    parts.lazy("a", "m:x")
    with pytest.raises(ValueError, match="twice"):
        parts.lazy("a", "m:y")
