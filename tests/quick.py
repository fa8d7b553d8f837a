"""`make quick`: the unit tests and transcripts that a change concerns, in about a minute.

A change is what differs from the merge base with `main`, committed or not. It concerns each test module that imports a
changed module, directly or through others, and each that names the folder of a changed data file. All unit tests and
transcripts run with `--all`, and where no test is concerned, as on `main` itself.

python -m tests.quick [--all] [OPTIONS OF PYTEST]
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
BASE = os.environ.get("BASE", "main")
"""The branch whose merge base is compared."""
WITH_SERVERS = ("disk", "embedding", "hostile", "interop", "live", "oracle", "stress", "upgrade", "workers")
"""Folders of tests/ whose tests start real servers or clients."""
LONG = (
    "tests/auth/test_plugins.py",
    "tests/auth/test_schemes.py",
    "tests/cli/test_auth.py",
    "tests/cli/test_ca.py",
    "tests/cli/test_demo.py",
    "tests/cli/test_dns.py",
    "tests/cli/test_domain.py",
    "tests/cli/test_exposures.py",
    "tests/cli/test_user.py",
    "tests/config/test_acme.py",
    "tests/config/test_bad_configs.py",
    "tests/config/test_dovecot.py",
    "tests/imap/test_convergence.py",
    "tests/imap/test_fetch_bounds.py",
    "tests/imap/test_fetch_large.py",
    "tests/imap/test_fetch_sections.py",
    "tests/imap/test_fetch_single.py",
    "tests/message/test_header_size.py",
    "tests/message/test_hostile.py",
    "tests/message/test_matcher.py",
    "tests/message/test_preview.py",
    "tests/message/test_sort_keys.py",
    "tests/net/test_acme.py",
    "tests/net/test_pinned_sources.py",
    "tests/net/test_private_ca.py",
    "tests/net/test_turn_limit.py",
    "tests/net/test_versions.py",
    "tests/notify/test_two_processes.py",
    "tests/probe/test_faults.py",
    "tests/store/maildir/test_dovecot.py",
    "tests/store/maildir/text_index/test_damage.py",
    "tests/store/maildir/text_index/test_text_index.py",
    "tests/store/test_columns.py",
    "tests/store/test_crash.py",
    "tests/store/test_faults.py",
    "tests/store/test_machine.py",
    "tests/store/test_maildir_adopted.py",
    "tests/store/test_maildir_dovecot.py",
    "tests/store/test_maildir_dovecot_busy.py",
    "tests/store/test_maildir_full_disk.py",
    "tests/store/test_mutation.py",
    "tests/store/test_powercut.py",
    "tests/store/test_scan_pool.py",
    "tests/store/test_two_processes.py",
    "tests/test_deflate.py",
    "tests/test_packaging.py",
    "tests/test_server.py",
    "tests/tls/test_acme_hostile.py",
    "tests/tls/test_ca_profile.py",
    "tests/tls/test_certificate_crash.py",
    "tests/tls/test_many_names.py",
    "tests/tls/test_policy_reload.py",
    "tests/tls/test_private_ca.py",
    "tests/tls/test_private_names.py",
)
"""Modules of sweeps and of large inputs, which take many seconds: `make test` runs them."""
FOR_ALL = ("setup.cfg", "constraints.txt", "requirements")
"""Files and folders that concern every test."""
MARKS = "not slow and not interop"
PROCESSES = 2 * len(os.sched_getaffinity(0))
"""The number for `-n auto`: unit tests compute, and each further process collects all of them once more."""


def git(*arguments: str) -> list[str]:
    """The lines that git prints."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def changed_paths() -> list[str]:
    """The files that differ from the merge base, and those that git does not know yet."""
    base = git("merge-base", "HEAD", BASE)
    return [*git("diff", "--name-only", *(base or ["HEAD"])), *git("ls-files", "--others", "--exclude-standard")]


def module_name(path: str) -> str:
    """The name by which a source file is imported."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_quick(path: str) -> bool:
    """Whether a file is a module of unit tests."""
    parts = Path(path).parts
    return parts[0] == "tests" and parts[1] not in WITH_SERVERS and path not in LONG and parts[-1].startswith("test_")


def folder_word(path: str) -> str:
    """The folder by which tests name a data file: `docs`, `transcripts`."""
    parts = Path(path).parts
    return parts[1] if parts[0] == "tests" else parts[0]


def naming(words: Iterable[str]) -> set[str]:
    """The modules of tests/ that have one of these words as a string or in a path."""
    marks = [mark for word in words for mark in (f'"{word}"', f'"{word}/', f"/{word}/")]
    found = set()
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text()
        if any(mark in text for mark in marks):
            found.add(module_name(str(path.relative_to(ROOT))))
    return found


def concerned(paths: list[str]) -> list[str]:
    """The modules of unit tests that changed files concern, as paths; none means that nothing tells."""
    if any(path.startswith(FOR_ALL) or path == "tests/conftest.py" for path in paths):
        return []
    graph = grimp.build_graph("mailserver", "tests", cache_dir=None)
    sources = [path for path in paths if path.endswith(".py")]
    data = {folder_word(path) for path in paths if "/" in path and not path.endswith(".py")}
    start = ({module_name(path) for path in sources} | naming(data)) & graph.modules
    modules = start.union(*(graph.find_downstream_modules(module) for module in start))
    for path in sources:
        if path.endswith("/conftest.py"):
            folder = module_name(path).rpartition(".")[0]
            modules |= {module for module in graph.modules if module.startswith(folder + ".")}
    found = (module.replace(".", "/") + ".py" for module in sorted(modules))
    return [path for path in found if is_quick(path) and (ROOT / path).exists()]


def main() -> int:
    """Run pytest, and return its exit status."""
    arguments = sys.argv[1:]
    everything = "--all" in arguments
    options = [argument for argument in arguments if argument != "--all"]
    chosen = [] if everything else concerned(changed_paths())
    if chosen:
        print(f"{len(chosen)} test modules for what has changed since {BASE}; ALL=1 runs all")
    ignored = [f"--ignore={path}" for path in (*(f"tests/{folder}" for folder in WITH_SERVERS), *LONG)]
    command = [sys.executable, "-m", "pytest", "-m", MARKS, *ignored, *options, *chosen]
    environment = {"PYTEST_XDIST_AUTO_NUM_WORKERS": str(PROCESSES), **os.environ}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
