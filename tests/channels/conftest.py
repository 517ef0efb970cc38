"""The tests that every log has to pass are in a module of their own."""

import pytest

pytest.register_assert_rewrite("tests.channels.contract", "tests.channels.machine")
