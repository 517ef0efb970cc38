"""The tests that every log has to pass are in a module of their own."""

import pytest

pytest.register_assert_rewrite("tests.contract.event_store", "tests.contract.event_machine")
