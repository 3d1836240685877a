"""Run a scenario: the one call that the command line makes."""

from __future__ import annotations

from k9_broker.simulation.report import Report
from k9_broker.simulation.scenario import Scenario
from k9_broker.simulation.world import World


def simulate(scenario: Scenario) -> Report:
    """What comes of it, in virtual time. Raises `ConfigurationError` for a trace that cannot be read."""
    return World(scenario).run().report()
