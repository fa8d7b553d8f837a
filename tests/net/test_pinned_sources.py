"""What this server uses of Twisted's and pyOpenSSL's own sources: every private name, and every method that is replaced.

Where a new version of either changes one of these, nothing else may notice: a step that was added there is then missing
here. Who raises a pin compares the two, writes the new digest, and lists the version in `net.fast.versions`.
"""

from __future__ import annotations

import abc
import ast
import hashlib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet import abstract, base, epollreactor, posixbase, tcp
from twisted.protocols import policies, tls
from twisted.protocols.haproxy import _wrapper

import mailserver
from mailserver.net.fast.versions import NAMES_OF_CONNECTION, NAMES_OF_LAYER, NAMES_OF_REACTOR

CONNECTION: Any = SSL.Connection
POLLING: Any = posixbase._PollLikeMixin
LAYER: Any = tls.TLSMemoryBIOProtocol
EPOLL: Any = epollreactor.EPollReactor

PINNED: list[tuple[str, Callable[..., Any], str]] = [
    ("net.fast.reactor_turn", EPOLL.__init__, "6ab0ab1446e1857e"),
    ("net.fast.reactor_turn", EPOLL.doPoll, "09b62ae68ef01b4b"),
    ("net.fast.reactor_turn", EPOLL._add, "40b4c9a01b98588a"),
    ("net.fast.reactor_turn", EPOLL._remove, "25d0ece303ce0123"),
    ("net.fast.reactor_turn", POLLING._doReadOrWrite, "5ffee55b79492b00"),
    ("net.fast.reactor_turn", posixbase.PosixReactorBase._disconnectSelectable, "9d6de0e555ea44fe"),
    ("net.fast.reactor_turn", base.ReactorBase.callFromThread, "ebe7bb9b16704abf"),
    ("net.fast.reactor_turn", base.ReactorBase.mainLoop, "769125a86d0cd7e9"),
    ("net.fast.reactor_turn", base.ReactorBase.runUntilCurrent, "b9fbbdb8e8414792"),
    ("net.transport.direct", tcp.Connection.connectionLost, "dd7a9a87035a2084"),
    ("net.transport.direct", tcp.Connection._closeSocket, "9aa82f5b862c8498"),
    ("net.transport.direct_port", tcp.Port.doRead, "d240fc123090ee23"),
    ("net.transport.direct", abstract.FileDescriptor.doWrite, "a986d7b1b1054e43"),
    ("net.transport.direct", abstract.FileDescriptor.loseConnection, "e13b8468f05208ae"),
    ("net.transport.stock", tcp.Port.startListening, "2220f5d240f3df6b"),
    ("net.transport.stock", tcp.Port._fromListeningDescriptor, "d0e4e58fff8da03b"),
    ("net.transport.stock", tcp.Connection.writeSomeData, "2dd0d4209260b94e"),
    ("net.transport.stock", tcp._TLSConnectionMixin.write, "ea311df0946d3f99"),
    ("net.transport.stock", tcp._TLSConnectionMixin.writeSequence, "a892b82c72b8fe70"),
    ("net.transport.stock", abstract.FileDescriptor.write, "3e46c97fc173bc7e"),
    ("net.connection.transports", _wrapper.HAProxyProtocolWrapper.dataReceived, "3361e00e52a09a47"),
    ("net.fast.tls", LAYER.makeConnection, "c83b193e6cb07f9f"),
    ("net.fast.tls", LAYER._checkHandshakeStatus, "3902da2549f56145"),
    ("net.fast.tls", LAYER._flushSendBIO, "c034168e4f0faf2c"),
    ("net.fast.tls", LAYER._flushReceiveBIO, "b45e129f60c44862"),
    ("net.fast.tls", LAYER.dataReceived, "0c9326eac628dc89"),
    ("net.fast.tls", LAYER._shutdownTLS, "f72004ba90a03215"),
    ("net.fast.tls", LAYER._tlsShutdownFinished, "e78b042366fe0af0"),
    ("net.fast.tls", LAYER.connectionLost, "db44a0b303d81d19"),
    ("net.fast.tls", LAYER.loseConnection, "5681a9bd1bd76930"),
    ("net.fast.tls", LAYER.abortConnection, "3b083442ea198088"),
    ("net.fast.tls", LAYER.failVerification, "75ba3d1ba6d2e7e2"),
    ("net.fast.tls", LAYER._write, "b795cc8e83620d7d"),
    ("net.fast.tls", LAYER._bufferedWrite, "88a1032b1e8fa054"),
    ("net.fast.tls", LAYER._unbufferPendingWrites, "c2b342c0a2c72978"),
    ("net.fast.tls", tls.TLSMemoryBIOFactory.__init__, "b703d9989165fa86"),
    ("net.fast.tls", CONNECTION.do_handshake, "fcfb0befeab35810"),
    ("net.fast.tls", CONNECTION._raise_ssl_error, "04b0d7964c73ea9e"),
    ("net.fast.tls", CONNECTION._handle_bio_errors, "eaea77f2e1fab12e"),
    ("net.fast.tls", CONNECTION.recv, "84b0e9671ae37797"),
    ("net.fast.tls", CONNECTION.send, "3a17d0bf025164cf"),
    ("net.transport.tls", LAYER.getHandle, "5c7a1b12501164b3"),
    ("net.transport.tls", LAYER.write, "e029bcaebbb754c2"),
    ("net.transport.tls", policies.ProtocolWrapper.dataReceived, "56f1de16cc7c2618"),
    ("net.transport.tls", policies.ProtocolWrapper.connectionLost, "ee245409b3e7d0b5"),
    ("net.transport.tls", CONNECTION.shutdown, "ec6eed3a66f02baa"),
    ("net.transport.tls", CONNECTION.bio_read, "bc83763ed40fc664"),
    ("tls.context.handshake", CONNECTION.bio_write, "2198d63b78ada6dc"),
    ("tls.context.private_names", CONNECTION.__init__, "3161e88318ab2413"),
    ("tls.context.private_names", SSL.Context.__init__, "f8828068227cb8e5"),
    ("tls.context.private_names", SSL.Context.set_tlsext_servername_callback, "e17568eb00bc70de"),
    ("tls.context.private_names", CONNECTION.set_context, "df582de281e94cd0"),
]

PRIVATE: dict[str, set[str]] = {
    "auth.schemes.libcrypt": {"_NamedFuncPointer"},
    "net.connection.transports": {"twisted.protocols.haproxy._wrapper.HAProxyProtocolWrapper"},
    "net.fast.reactor_turn": {name for name in NAMES_OF_REACTOR if name[0] == "_"},
    "net.fast.tls": {
        *NAMES_OF_LAYER,
        *NAMES_OF_CONNECTION,
        # Of instances, where `makeConnection` and the factory's `__init__` set them.
        "_appSendBuffer",
        "_creatorCallable",
        "_tlsConnection",
        "OpenSSL._util.ffi",
        "OpenSSL._util.lib",
    },
    "session.deflate": {"_Compress"},
    "tls.acme.network": {"_content"},
    "tls.context.private_names": {"_context", "_reverse_mapping", "_ssl"},
}
"""Private names of others, by module. Those outside Twisted and pyOpenSSL are of ctypes and of requests, and a type of zlib that is
named in an annotation alone."""

DOCUMENTED = frozenset({"_exit", "_fields", "_make", "_replace"})
"""Of `os` and of named tuples: these only look private."""

BASES = (
    "OpenSSL.SSL",
    "twisted.internet.abstract",
    "twisted.internet.tcp",
    "twisted.internet.unix",
    "twisted.protocols.policies",
    "twisted.protocols.tls",
)
"""Modules of classes that are complete: a method that replaces one of theirs must do what it did. (TimeoutMixin is not.)"""


@pytest.mark.parametrize(
    ("ours", "theirs", "digest"), PINNED, ids=[theirs.__qualname__ for _ours, theirs, _digest in PINNED]
)
def test_a_source_is_as_it_was_compared(ours: str, theirs: Callable[..., Any], digest: str) -> None:
    now = hashlib.sha256(inspect.getsource(theirs).encode()).hexdigest()[:16]
    assert now == digest, f"{theirs.__module__}.{theirs.__qualname__} has changed: compare mailserver.{ours} with it"


def test_the_content_of_an_answer_of_requests_is_kept_where_it_is_set() -> None:
    requests = pytest.importorskip("requests")
    answer = requests.Response()
    answer._content = b"{}"
    assert answer.content == b"{}"


def test_every_private_name_of_others_is_listed() -> None:
    assert {name: found for name, module in modules().items() if (found := private_names(module))} == PRIVATE


def test_every_method_that_is_replaced_is_pinned() -> None:
    pinned = {theirs.__qualname__ for _ours, theirs, _digest in PINNED}
    replaced = {name for module in modules().values() for cls in classes(module) for name in replaced_methods(cls)}
    assert {"TLSMemoryBIOProtocol.dataReceived", "Connection.bio_write", "Connection.writeSomeData"} <= replaced
    assert replaced - pinned == set()


@cache
def modules() -> dict[str, ModuleType]:
    """All modules of the server, by their names in its package."""
    found = pkgutil.walk_packages(mailserver.__path__, "mailserver.")
    names = [each.name for each in found if not each.name.endswith(".__main__")]
    return {name.removeprefix("mailserver."): importlib.import_module(name) for name in names}


def classes(module: ModuleType) -> Iterator[type]:
    return (each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(module: ModuleType) -> set[str]:
    """Those that a module uses and others have: of objects that it is given, by import, and by inheritance."""
    tree = ast.parse(inspect.getsource(module))
    nodes = list(ast.walk(tree))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.attr for node in nodes if _is_of_self(node) and isinstance(node.ctx, ast.Store)}
    found = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and not _is_of_self(node)
        and node.attr not in own | DOCUMENTED
    }
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("mailserver"):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
        else:
            continue
        found |= {name for name in names if any(map(is_private, name.split(".")))}
    return found.union(*(inherited_names(each) for each in classes(module)))


def _is_of_self(node: ast.AST) -> Any:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}


_OF_SELF = re.compile(r"\bself\.(_[a-zA-Z]\w*)")


def inherited_names(cls: type) -> set[str]:
    """Private names that a class shares with classes of Twisted and pyOpenSSL that it inherits from."""
    theirs: set[str] = set()
    for each in cls.__mro__:
        if each.__module__.startswith(("twisted.", "OpenSSL.")):
            theirs |= {*filter(is_private, vars(each)), *_OF_SELF.findall(inspect.getsource(each))}
    if not theirs:
        return set()
    ours = {*filter(is_private, vars(cls)), *_OF_SELF.findall(inspect.getsource(cls))}
    return (theirs & ours) - vars(abc.ABC).keys()


def replaced_methods(cls: type) -> Iterator[str]:
    """The methods of such classes that a class has one of its own for."""
    for name, value in vars(cls).items():
        if not inspect.isfunction(value) or name == "__init__":
            continue
        for each in cls.__mro__[1:]:
            if name in vars(each):
                if each.__module__ in BASES and each is not policies.TimeoutMixin:
                    yield getattr(each, name).__qualname__
                break
