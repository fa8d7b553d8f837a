"""Debian packages that are unpacked privately: mail transfer agents, which exclude each other when they are installed.

`apt-get download` needs the network, or a mirror, and the lists of `apt-get update`. Without them the tests are skipped, except in
continuous integration, where they fail.
"""

from __future__ import annotations

import errno
import functools
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.server import ROOT

PACKAGES = {
    "postfix": ("libdb5.3t64", "libicu76", "libnsl2", "libsasl2-2", "libtlsrpt0"),
    "exim4-daemon-heavy": (
        *("libdb5.3t64", "libgnutls-dane0t64", "libidn12", "libldap2", "libmariadb3", "libnsl2", "libperl5.40"),
        *("libpq5", "libsasl2-2", "libspf2-2t64", "libunbound8"),
    ),
}
"""The libraries of each program's package; those that are installed are used as they are."""
LIBRARIES = ("usr/lib/postfix", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib")


@functools.cache
def unpacked(name: str) -> Path:
    """The directory in which that package and its libraries are unpacked; it stays for later runs."""
    if os.getuid() != 0:
        pytest.skip(f"{name} changes users: it needs root")
    directory = ROOT / "var" / "packages" / name
    if not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        # Other processes of the tests may do the same at this time: the first one's is used.
        with tempfile.TemporaryDirectory(dir=directory.parent) as place:
            try:
                _unpack(name, Path(place) / name)
            except (OSError, subprocess.SubprocessError) as error:
                detail = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
                message = f"{name} cannot be downloaded: {detail}"
                if os.environ.get("CI"):
                    pytest.fail(message)
                pytest.skip(message)
            _rename(Path(place) / name, directory)
    return directory


def library_path(directory: Path) -> str:
    """The LD_LIBRARY_PATH of programs that are unpacked there."""
    return ":".join(str(directory / each) for each in LIBRARIES if (directory / each).is_dir())


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _unpack(name: str, directory: Path) -> None:
    directory.mkdir()
    packages = [name, *(library for library in PACKAGES[name] if not _is_installed(library))]
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *packages]
    subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True, timeout=300)
    for package in packages:
        (archive,) = directory.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, directory], check=True, capture_output=True, text=True, timeout=60)
        archive.unlink()


def _is_installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${Status}", package]
    return "ok installed" in subprocess.run(query, check=False, capture_output=True, text=True, timeout=60).stdout
