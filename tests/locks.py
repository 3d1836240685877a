"""K-9 with a lock of its privacy taken away: what tests of the promise are tested with."""

from __future__ import annotations

from dataclasses import replace

from k9_broker.adapters.redis_ledger import RedisLedger
from k9_broker.jobs import Claim, Job
from k9_broker.policy import Policy, PrivacyPolicy
from k9_broker.requests import InferenceRequest, Kind, Privacy
from k9_broker.snapshot import Snapshot
from k9_broker.strategy.decision import Decision
from k9_broker.strategy.engine import Router


class Careless(Router):
    """Knows what is private, and does not care where it goes."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        changes = {
            "privacy": PrivacyPolicy(detect=()),
            "tenants": {
                name: one.model_copy(update={"privacy": None}) for name, one in policy.tenants.items()
            },
            "rules": tuple(
                rule.model_copy(update={"then": rule.then.model_copy(update={"privacy": None})})
                for rule in policy.rules
            ),
        }
        self._free = Router(policy.model_copy(update=changes))

    def decide(self, request: InferenceRequest, snapshot: Snapshot) -> Decision:
        known = super().decide(request, snapshot)
        free = self._free.decide(replace(request, privacy=Privacy.ANY), snapshot)
        return replace(free, privacy=known.privacy, privacy_by=known.privacy_by)


class Forgetful(RedisLedger):
    """Does not tell the scripts what is private."""

    async def admit(
        self, job_id: str, request: InferenceRequest, decision: Decision, *, waiter: str | None = None
    ) -> Job:
        return await super().admit(job_id, request, replace(decision, privacy=Privacy.ANY), waiter=waiter)


class Gullible(RedisLedger):
    """Believes every worker to be a local one."""

    async def claim(self, job_id: str, generation: int, worker: str, kind: Kind) -> Claim | None:
        return await super().claim(job_id, generation, worker, Kind.LOCAL)
