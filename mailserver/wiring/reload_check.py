"""What is served of a configuration, decided by who reads its keys: at the start, and at a reload.

A master needs this and none of the objects that serve (`mailserver.wiring.services`), which would take it half a second to load.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import frozen

from mailserver.config import at_start, load
from mailserver.config.directories import reader_trust
from mailserver.config.model import Config
from mailserver.net.log.events import log, log_event
from mailserver.net.serving.serving import ReloadCheck
from mailserver.problems import check_named
from mailserver.tls.acme.acme_state import with_account
from mailserver.tls.changes.activation import Activation
from mailserver.tls.client import client_creator
from mailserver.tls.keypair.pair import BadPair
from mailserver.tls.serving import policy
from mailserver.tls.state.history import CannotRecord, History


@frozen
class Judged:
    """A changed configuration that can be taken up, with the certificates that were read for it."""

    config: Config
    tls: policy.Prepared


def read_policy(config: Config, seconds: Callable[[], float] = time.monotonic) -> tuple[policy.TlsPolicy, Activation]:
    """The certificates and keys of a configuration, with their history. Raises: SystemExit."""
    history = History.open(config.server.state_dir, config.tls.history, config.tls.history_days)
    activation = Activation(history, trusted=reader_trust(config))
    if activation.history.problem:
        log.warn("{reason}", event="history-problem", reason=activation.history.problem)
    made: policy.TlsPolicy | None = None
    try:
        try:
            # A command beside us must not change in between what is then recorded as found: it would be taken back.
            with activation.history.transaction():
                made = policy.TlsPolicy(config, log_event, source=activation, seconds=seconds)
                activation.note(made.served, made.served.by_host, "found at the start")
        except CannotRecord as error:
            log.warn("{reason}", event="history-problem", reason=str(error))
        return made or policy.TlsPolicy(config, log_event, source=activation, seconds=seconds), activation
    except (policy.CannotServe, BadPair, OSError) as error:
        raise SystemExit(str(error)) from error


def judge(running: Config, tls: policy.TlsPolicy) -> ReloadCheck[Judged]:
    """Read and judge the changed file and all that it names; in a thread.

    What is taken up at the start alone stays as it is in the running configuration. A pair that cannot be served is no
    reason to refuse the rest: the last good one of its name stays.
    """
    source = running.source
    reading = load.read(source, embedded=running.embedded)
    config = reading.config
    if config is None:
        return ReloadCheck(None, list(map(str, reading.problems)), None)
    problems = reading.with_problems(check_named(config))
    lines = list(map(str, problems))
    if not all(problem.warning for problem in problems):
        return ReloadCheck(None, lines, None)
    if config.submission.relay is not None:
        try:
            client_creator(config.submission.relay)
        except (BadPair, OSError) as error:
            return ReloadCheck(None, [*lines, f"{source} [submission.relay]: {error}"], None)
    config, waiting = at_start.keep_start_settings(running, config)
    lines += waiting
    try:
        config = with_account(config)
    except CannotRecord as error:
        lines.append(f"acme: {error}")
    prepared = tls.prepare(config)
    refused = any(outcome.state == "refused" for outcome in prepared.outcomes)
    return ReloadCheck(config, lines, Judged(config, prepared), whole=not refused)
