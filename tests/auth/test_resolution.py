"""What an address leads to: aliases, groups, details, domains, the catch-all, loops, and the bounds of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.auth import resolution
from mailserver.auth.interfaces import DomainEntry, Entry, User
from mailserver.auth.resolution import MAX_DEPTH, MAX_ENDS
from mailserver.errors import AddressLoop, NoSuchUser, TooManyEnds
from tests.fakes import run_now


class World:
    """Users, entries and domains of a test; example.test is a domain of the configuration."""

    def __init__(self, *users: str) -> None:
        self.users = set(users)
        self.entries: dict[str, tuple[str, ...]] = {}
        self.domains: dict[str, DomainEntry] = {}
        self.asked = 0
        self.asked_domains = 0
        self.pauses = 0
        self.between = 0
        """Questions since the last pause, and the targets in answers to them."""
        self.most_between = 0

    async def find_user(self, name: str) -> User | None:
        self._count(1)
        return User(name) if name in self.users else None

    async def find_address(self, name: str) -> Entry | None:
        self._count(1 + len(self.entries.get(name, ())))
        return Entry(self.entries[name]) if name in self.entries else None

    def _count(self, work: int) -> None:
        self.asked += 1
        self.between += work
        self.most_between = max(self.most_between, self.between)

    async def find_domain(self, name: str) -> DomainEntry | None:
        self.asked_domains += 1
        return self.domains.get(name)

    def is_local_domain(self, domain: str) -> bool:
        return domain == "example.test"

    async def pause(self) -> None:
        self.pauses += 1
        self.between = 0

    def ends(self, address: str, separator: str = "+") -> list[str]:
        """The ends, "user|detail" or an address elsewhere."""
        found = run_now(resolution.resolve(self, address.lower(), separator, self.pause, written=address))
        return [f"{user.name}|{detail}" for user, detail in found.local] + list(found.elsewhere)


def at(*locals_: str) -> tuple[str, ...]:
    return tuple(f"{local}@example.test" for local in locals_)


@pytest.fixture
def world() -> World:
    world = World(*at("anna", "ben"))
    world.entries = {
        "info@example.test": at("anna", "ben"),
        "team@example.test": at("info", "ben+team"),
        "out@example.test": ("x@elsewhere.test", *at("anna")),
        "empty@example.test": at("ben+"),
    }
    return world


@pytest.mark.parametrize(
    ("address", "ends"),
    [
        ("anna@example.test", ["anna@example.test|"]),
        ("anna+Lists/Python@example.test", ["anna@example.test|Lists/Python"]),
        ("anna+a+b@example.test", ["anna@example.test|a+b"]),
        ("info@example.test", ["anna@example.test|", "ben@example.test|"]),
        ("info+Work@example.test", ["anna@example.test|Work", "ben@example.test|Work"]),
        # A target's own detail has precedence.
        ("team+x@example.test", ["anna@example.test|x", "ben@example.test|x", "ben@example.test|team"]),
        ("team@example.test", ["anna@example.test|", "ben@example.test|", "ben@example.test|team"]),
        ("out@example.test", ["anna@example.test|", "x@elsewhere.test"]),
        # An empty detail is none.
        ("info+@example.test", ["anna@example.test|", "ben@example.test|"]),
        ("empty+Work@example.test", ["ben@example.test|Work"]),
    ],
)
def test_ends(world: World, address: str, ends: list[str]) -> None:
    assert world.ends(address) == ends


@pytest.mark.parametrize(
    "address", ["carl@example.test", "carl", "+x@example.test", "anna@elsewhere.test", "carl+x@example.test"]
)
def test_unknown_addresses(world: World, address: str) -> None:
    with pytest.raises(NoSuchUser):
        world.ends(address)


def test_no_details_without_a_separator(world: World) -> None:
    with pytest.raises(NoSuchUser):
        world.ends("anna+x@example.test", "")


def test_an_address_with_the_separator_in_it_is_found_first(world: World) -> None:
    world.entries["anna+list@example.test"] = at("ben")
    assert world.ends("anna+list@example.test") == ["ben@example.test|"]


def test_an_alias_that_names_itself_is_that_user(world: World) -> None:
    world.entries["anna@example.test"] = at("anna", "ben")
    assert world.ends("anna@example.test") == ["anna@example.test|", "ben@example.test|"]
    assert world.ends("anna+x@example.test") == ["anna@example.test|x", "ben@example.test|x"]
    assert world.ends("info@example.test") == ["anna@example.test|", "ben@example.test|"]


def test_targets_that_are_gone_are_left_out_unless_nothing_is_left(world: World) -> None:
    world.entries["info@example.test"] = at("gone", "ben")
    assert world.ends("info@example.test") == ["ben@example.test|"]
    world.entries["info@example.test"] = at("gone", "away")
    with pytest.raises(NoSuchUser):
        world.ends("info@example.test")


def test_the_catch_all_takes_what_is_unknown_alone(world: World) -> None:
    world.entries["@example.test"] = at("ben")
    assert world.ends("nobody@example.test") == ["ben@example.test|"]
    assert world.ends("nobody+x@example.test") == ["ben@example.test|"]
    assert world.ends("anna@example.test") == ["anna@example.test|"]
    assert world.ends("anna+x@example.test") == ["anna@example.test|x"]
    assert world.ends("info+x@example.test") == ["anna@example.test|x", "ben@example.test|x"]


def test_a_catch_all_whose_target_is_gone_is_no_loop(world: World) -> None:
    world.entries["@example.test"] = at("gone")
    with pytest.raises(NoSuchUser):
        world.ends("nobody@example.test")


def test_a_domain_that_stands_for_another(world: World) -> None:
    world.domains["example.com"] = DomainEntry("example.test")
    assert world.ends("anna+x@example.com") == ["anna@example.test|x"]
    assert world.ends("info@example.com") == ["anna@example.test|", "ben@example.test|"]
    world.entries["from@example.test"] = ("anna@example.com",)
    assert world.ends("from@example.test") == ["anna@example.test|"]
    with pytest.raises(NoSuchUser):
        world.ends("nobody@example.com")


def test_a_separator_of_the_domain_and_a_disabled_domain(world: World) -> None:
    world.domains["example.test"] = DomainEntry(detail="-")
    assert world.ends("anna-x@example.test") == ["anna@example.test|x"]
    with pytest.raises(NoSuchUser):
        world.ends("anna+x@example.test")
    world.domains["example.test"] = DomainEntry(enabled=False)
    with pytest.raises(NoSuchUser):
        world.ends("anna@example.test")


def test_a_domain_of_a_back_end_alone_is_not_elsewhere(world: World) -> None:
    world.entries["info@example.test"] = ("x@example.net",)
    assert world.ends("info@example.test") == ["x@example.net"]
    world.domains["example.net"] = DomainEntry()
    with pytest.raises(NoSuchUser):
        world.ends("info@example.test")
    world.users.add("x@example.net")
    assert world.ends("info@example.test") == ["x@example.net|"]


@pytest.mark.parametrize("length", [2, 3, 8])
def test_loops(world: World, length: int) -> None:
    names = at(*(f"a{number}" for number in range(length)))
    for name, after in zip(names, (*names[1:], names[0]), strict=True):
        world.entries[name] = (*at("anna"), after)
    for name in (names[0], names[-1], names[0].replace("@", "+x@")):
        with pytest.raises(AddressLoop):
            world.ends(name)


def test_two_ways_to_one_end_are_no_loop(world: World) -> None:
    world.entries |= {"a@example.test": at("b", "c"), "b@example.test": at("d"), "c@example.test": at("d", "anna")}
    world.entries["d@example.test"] = at("ben")
    assert world.ends("a@example.test") == ["ben@example.test|", "anna@example.test|"]


def test_a_long_way_ends(world: World) -> None:
    for number in range(MAX_DEPTH + 1):
        world.entries[f"a{number}@example.test"] = at(f"a{number + 1}")
    world.users |= set(at(f"a{MAX_DEPTH + 1}"))
    assert world.ends("a1@example.test") == [f"a{MAX_DEPTH + 1}@example.test|"]
    with pytest.raises(AddressLoop):
        world.ends("a0@example.test")


def test_a_large_group_gives_others_their_turn(world: World) -> None:
    names = at(*(f"u{number}" for number in range(MAX_ENDS)))
    world.users |= set(names)
    world.entries["all@example.test"] = names
    assert len(world.ends("all@example.test")) == MAX_ENDS
    assert world.pauses >= MAX_ENDS // 32
    assert (world.asked, world.asked_domains) == (2 * MAX_ENDS + 1, 1)
    world.entries["more@example.test"] = at("all", "anna")
    with pytest.raises(TooManyEnds):
        world.ends("more@example.test")


@pytest.mark.parametrize("targets", [MAX_ENDS + 1, 50_000])
def test_a_group_that_is_too_large_costs_little(world: World, targets: int) -> None:
    world.entries["all@example.test"] = at(*(f"u{number}" for number in range(targets)))
    with pytest.raises(TooManyEnds):
        world.ends("all@example.test")
    assert world.asked < 10


def test_groups_of_groups_cost_no_more_than_a_large_one(world: World) -> None:
    for outer in range(900):
        world.entries[f"g{outer}@example.test"] = at(*(f"gone{outer}.{inner}" for inner in range(900)))
    world.entries["all@example.test"] = at(*(f"g{outer}" for outer in range(900)))
    with pytest.raises(TooManyEnds):
        world.ends("all@example.test")
    assert world.asked < 5 * 2 * MAX_ENDS


def test_groups_with_the_same_members_cost_no_more(world: World) -> None:
    members = at(*(f"u{number}" for number in range(900)))
    world.users |= set(members)
    groups = at(*(f"g{number}" for number in range(900)))
    world.entries |= dict.fromkeys(groups, members)
    world.entries["some@example.test"] = groups[:9]
    assert len(world.ends("some@example.test")) == 900
    world.entries["all@example.test"] = groups
    with pytest.raises(TooManyEnds):
        world.ends("all@example.test")
    assert world.most_between < 3 * MAX_ENDS
    assert world.asked < 5 * MAX_ENDS


def test_domains_that_stand_for_domains(world: World) -> None:
    world.domains |= {"a.test": DomainEntry("b.test"), "b.test": DomainEntry("example.test")}
    assert world.ends("anna+x@a.test") == ["anna@example.test|x"]
    world.domains |= {"c.test": DomainEntry("d.test"), "d.test": DomainEntry("c.test")}
    with pytest.raises(AddressLoop):
        world.ends("anna@c.test")
    world.domains["b.test"] = DomainEntry("example.test", enabled=False)
    with pytest.raises(NoSuchUser):
        world.ends("anna@a.test")


def test_the_path_says_how(world: World) -> None:
    world.domains["example.com"] = DomainEntry("example.test")
    found = run_now(resolution.resolve(world, "info+x@example.com", "+"))
    assert found.path == (
        "info+x@example.com is info+x@example.test, as example.com stands for example.test",
        "info@example.test leads to anna@example.test, ben@example.test",
        "anna@example.test is a user, with the detail x",
        "ben@example.test is a user, with the detail x",
    )


NAMES = [f"{letter}@example.test" for letter in "abcdef"]
GRAPHS = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.sampled_from([*NAMES, "u@example.test", "v@example.test"]))
)


@settings(max_examples=300, deadline=None)
@given(graph=GRAPHS, users=st.sets(st.sampled_from(NAMES)), start=st.sampled_from(NAMES))
def test_beside_a_naive_resolution(graph: dict[str, list[str]], users: set[str], start: str) -> None:
    world = World("u@example.test", *users)
    world.entries = {name: tuple(targets) for name, targets in graph.items()}

    def naive(name: str, way: list[str]) -> set[str]:
        if name in way[:-1] or (name in way and way[-1] != name):
            raise AddressLoop
        if name in graph and not (way and way[-1] == name):
            return set().union(*(naive(target, [*way, name]) for target in graph[name]))
        return {name} & world.users

    def outcome(act: Callable[[], set[str]]) -> object:
        try:
            return act()
        except AddressLoop:
            return AddressLoop
        except NoSuchUser:
            return set()

    ends = outcome(lambda: {each.partition("|")[0] for each in world.ends(start)})
    assert ends == outcome(lambda: naive(start, []))
