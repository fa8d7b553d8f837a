"""The reload check: validates a changed configuration and prepares its certificates, in the process that reads the keys.

A master needs this module, but not the objects that serve (`mailserver.wiring.services`), whose import takes half a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import frozen

from mailserver.config import at_start, load
from mailserver.config.directories import reader_trust
from mailserver.config.model import Config
from mailserver.net.log.events import log, log_event
from mailserver.net.service.dkim_keys import with_dkim_keys
from mailserver.net.serving.serving import ReloadCheck
from mailserver.problems import check_named
from mailserver.tls.acme.acme_state import with_account
from mailserver.tls.changes.activation import Activation
from mailserver.tls.client import client_creator
from mailserver.tls.keypair.pair import BadPair
from mailserver.tls.serving import policy
from mailserver.tls.state.history import CannotRecord, History


@frozen
class PreparedReload:
    """A valid changed configuration, with the certificates that were read for it."""

    config: Config
    tls: policy.Prepared


def read_policy(config: Config, seconds: Callable[[], float] = time.monotonic) -> tuple[policy.TlsPolicy, Activation]:
    """Read the certificates and keys of a configuration, and their history. Raises: SystemExit."""
    history = History.open(config.server.state_dir, config.tls.history, config.tls.history_days)
    activation = Activation(history, trusted=reader_trust(config))
    if activation.history.problem:
        log.warn("{reason}", event="history-problem", reason=activation.history.problem)
    made: policy.TlsPolicy | None = None
    try:
        try:
            # No command may change certificates before the found ones are recorded: its change would be undone.
            with activation.history.transaction():
                made = policy.TlsPolicy(config, log_event, source=activation, seconds=seconds)
                activation.note(made.served, made.served.by_host, "found at the start")
        except CannotRecord as error:
            log.warn("{reason}", event="history-problem", reason=str(error))
        return made or policy.TlsPolicy(config, log_event, source=activation, seconds=seconds), activation
    except (policy.CannotServe, BadPair, OSError) as error:
        raise SystemExit(str(error)) from error


def check_reload(running: Config, tls: policy.TlsPolicy) -> ReloadCheck[PreparedReload]:
    """Check the changed file and everything that it names. Runs in a thread.

    Settings that take effect only at the start keep their running values. A certificate that cannot be served does not
    refuse the rest: the last good one of its host stays.
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
    config, _dkim = with_dkim_keys(config)
    prepared = tls.prepare(config)
    refused = any(outcome.state == "refused" for outcome in prepared.outcomes)
    return ReloadCheck(config, lines, PreparedReload(config, prepared), whole=not refused)
