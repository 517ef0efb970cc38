"""Runs a state machine of Hypothesis for what it is to be tried with."""

from __future__ import annotations

import hypothesis
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def check(
    machine: type[RuleBasedStateMachine], *, examples: int, steps: int, **attributes: object
) -> None:
    """Run so many examples of a machine, whose class has these attributes meanwhile."""
    # The last hypothesis for Python 3.10 has no types here.
    run_state_machine_as_test(  # type: ignore[no-untyped-call,unused-ignore]
        type(machine.__name__, (machine,), attributes),
        settings=hypothesis.settings(
            hypothesis.settings(), max_examples=examples, stateful_step_count=steps, deadline=None
        ),
    )
