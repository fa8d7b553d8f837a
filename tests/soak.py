"""`make soak`: the random tests of the store for as long as wanted, with a new seed each round, which is printed.

The first round has what is exhaustive, too: crashes, power cuts, killed workers, fifty clients on one mailbox for ten
minutes each way (ours, and ImapTest's where it is installed), all of testssl.sh at every listener, and each command's
hostile case in large mailboxes.

python -m tests.soak [--minutes 30] [--seed N]     one round with that seed, if given
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import time

RANDOM = (
    "tests/store/test_machine.py",
    "tests/store/test_view.py",
    "tests/store/live/test_machine.py",
    "tests/store/test_two_processes.py",
    "tests/imap/test_condstore.py",
    "tests/imap/test_convergence.py",
    "tests/imap/test_fetch_pipelined.py",
    "tests/imap/test_fetch_single.py",
    "tests/imap/test_resync_histories.py",
    "tests/message/test_header_size.py",
    "tests/store/test_search.py",
)
EXHAUSTIVE = (
    "tests/auth/test_schemes.py",
    "tests/imap/test_transcripts.py",
    "tests/store/test_crash.py",
    "tests/store/test_powercut.py",
    "tests/store/test_faults.py",
    "tests/store/maildir/text_index/test_damage.py",
    "tests/store/maildir/text_index/test_text_index.py",
    "tests/workers/test_certificates.py",
    "tests/workers/test_kill.py",
    "tests/stress/test_stress.py",
    "tests/interop/test_imaptest.py",
    "tests/interop/test_testssl.py",
    "tests/hostile/test_costs.py",
    "tests/hostile/test_fetch.py",
    "tests/hostile/test_messages.py",
)


def run_round(seed: int, files: tuple[str, ...], *, runs: int, steps: int) -> bool:
    """Whether all passed."""
    print(f"seed {seed}: {' '.join(files)}", flush=True)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "--hypothesis-profile=others",
            f"--hypothesis-seed={seed}",
            "--timeout=3600",
            "-o",
            "faulthandler_timeout=3700",
            *files,
        ],
        env={
            **os.environ,
            "MAILSERVER_RUNS": str(runs),
            "MAILSERVER_STEPS": str(steps),
            "MAILSERVER_SEED": str(seed),
            "MAILSERVER_RESTARTS": "50",
            "MAILSERVER_SWEEPS": "whole",
            "MAILSERVER_TESTSSL": "whole",
            "MAILSERVER_SCALE": "50",
            "MAILSERVER_STRESS_CLIENTS": "50",
            "MAILSERVER_STRESS_SECONDS": "600",
        },
        check=False,
    )
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--runs", type=int, default=500, help="state machine runs a round")
    parser.add_argument("--steps", type=int, default=80, help="steps a run")
    options = parser.parse_args()
    end = time.monotonic() + options.minutes * 60
    rounds = 0
    while True:
        seed = secrets.randbits(32) if options.seed is None else options.seed
        files = RANDOM if rounds else (*RANDOM, *EXHAUSTIVE)
        if not run_round(seed, files, runs=options.runs, steps=options.steps):
            print(
                f"failed; again with: python -m tests.soak --seed {seed} --runs {options.runs} --steps {options.steps}"
            )
            return 1
        rounds += 1
        if options.seed is not None or time.monotonic() >= end:
            print(f"{rounds} rounds passed")
            return 0


if __name__ == "__main__":
    sys.exit(main())
