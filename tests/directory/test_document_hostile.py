"""Documents that nobody means well: each is applied as it stands, or refused by sentences that say where."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.cli import main
from mailserver.cli.directory_document import CHECKS
from mailserver.directory import applying, plan, reading
from mailserver.directory.changing import Author
from mailserver.directory.document import write
from mailserver.directory.document_parse import parse
from mailserver.directory.document_tables import MOST_FAULTS
from mailserver.directory.model import Refused
from mailserver.directory.plan import Plan, Surroundings
from mailserver.directory.sqlite import SQLiteDatabase

ROOT = Author("root", 1_790_000_000)
HERE = Surroundings(domains=("example.test",))
KEYS = f"4096,c2FsdA==,{'A' * 43}=,{'B' * 43}="
WHOLE = f"""[directory]
id = "x"
serial = 4
[[domain]]
name = "example.net"
alias_of = "example.test"
detail = "-"
limits = {{ networks = ["192.0.2.0/24"], protocols = ["imap"] }}
enabled = false
[[domain]]
name = "example.test"
[[user]]
name = "anna@example.test"
password = "{{PLAIN}}x"
scram_sha256 = "{KEYS}"
password_protocols = ["imap"]
home = "/home/anna"
full_name = "Anna"
limits = {{ networks = ["local"], storage = 10, messages = 20, mailboxes = 30, protocols = ["pop3"] }}
enabled = false
[[user]]
name = "ben@example.test"
[[app_password]]
user = "anna@example.test"
label = "phone"
digest = "{"0a" * 32}"
scram_sha256 = "{KEYS}"
protocols = ["imap"]
expires = 1800000000
created = 1790000000
made_by = "root"
[[alias]]
address = "info@example.test"
targets = ["anna@example.test", "ben+x@example.test"]
no_send = ["anna@example.test"]
note = "a note"
[[group]]
address = "@example.test"
targets = ["info@example.test"]
enabled = true
[[forward]]
address = "away@example.test"
targets = ["x@elsewhere.test"]
[[delegate]]
user = "anna@example.test"
over = "example.test"
expires = 1800000000
why = "while Ben is away"
"""
VALUES = (
    "1", "-1", "0", "9223372036854775808", "1" * 30, "1" * 5000, "0x" + "f" * 5000, "1.5", "nan", "-inf", "true", "false",
    '""', '"x"', '"\\u0000"', '"\\uD800"', '"a\\u0000b@example.test"', '"\\U0010FFFF@example.test"', "'''\n[[user]]\n'''",
    '"@"', '"@@"', '"@example.test"', '"ANNA@example.test"', '"anna@EXAMPLE.test"', '"anna@example.test."', '"a b@example.test"',
    '"{"', '"{PLAIN}"', '"{ARGON2ID}$"', '"{SCRAM-SHA-256}1,,,"', '",,,"', '"9999999999,A,A,A"', '"../x"', '"/a/../b"', '"x/y"',
    "[]", "[1]", "[[]]", '["x", 1]', '[""]', '["\\u0000"]', '["anna@example.test", "ANNA@example.test"]', "{}", "{ a = 1 }",
    "{ networks = 5 }", '{ networks = ["x"] }', '{ networks = ["192.0.2.0/33"] }', "{ storage = true }", "{ storage = -1 }",
    "{ storage = 99999999999999999999 }", "{ storage = 1979-05-27 }", "{ protocols = {} }", '{ protocols = ["\\u0000"] }',
    "{ a.b.c.d = 1 }", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "1979-02-30", "[" * 2000 + "]" * 2000,
    "{a=" * 2000 + "1" + "}" * 2000, "[[[[[[1]]]]]]", '"' + "x" * 70_000 + '"', '"' + "ä" * 300 + '@example.test"',
    '"xn--a@xn--0.test"', '"' + "a." * 200 + 'test"', '"* @example.test"', '"*.example.test"', '"192.0.2.1"', '"[192.0.2.1]"',
)  # fmt: skip


def apply(text: str, *, delete: bool) -> Plan:
    """The plan of a document for an empty directory; without faults it is applied, and then nothing is left to change."""
    with tempfile.TemporaryDirectory() as directory:
        database = SQLiteDatabase.create(Path(directory) / "directory.db")
        made = plan.make(applying.load(database), parse(text, CHECKS), HERE, delete=delete, force=True)
        for step in made.steps:
            step.words()
        if not made.faults:
            applying.apply(database, ROOT, made.steps, reading.identity(database))
            exported = "\n".join(write(applying.load(database)))
            again = plan.make(applying.load(database), parse(exported, CHECKS), HERE, delete=True, force=True)
            assert (again.faults, again.steps) == ((), ())
        database.close()
    return made


def test_the_whole_document_is_right() -> None:
    assert apply(WHOLE, delete=True).faults == ()


LINES = WHOLE.splitlines()
ASSIGNMENTS = [number for number, line in enumerate(LINES) if " = " in line]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:40].encode("unicode_escape").decode())
def test_any_value_at_any_place(value: str) -> None:
    for number in ASSIGNMENTS:
        key = LINES[number].partition(" = ")[0]
        text = "\n".join([*LINES[:number], f"{key} = {value}", *LINES[number + 1 :]])
        for fault in parse(text, CHECKS).faults:
            places = ("line ", "number ", "[directory]")
            assert fault.line is not None or any(each in fault.text for each in places), fault
            assert len(str(fault)) < 1000


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutations_are_applied_or_refused(data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        number = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(("value", "twice", "gone", "moved", "key", "cut", "text"))):
            case "value":
                lines[number] = f"{lines[number].partition(' = ')[0]} = {data.draw(st.sampled_from(VALUES))}"
            case "twice":
                lines.insert(data.draw(st.integers(0, len(lines))), lines[number])
            case "gone":
                del lines[number]
            case "moved":
                lines.insert(data.draw(st.integers(0, len(lines) - 1)), lines.pop(number))
            case "key":
                lines[number] = data.draw(st.sampled_from(LINES)).partition(" = ")[0] + lines[number]
            case "cut":
                lines[number] = lines[number][: data.draw(st.integers(0, len(lines[number])))]
            case "text":
                lines[number] += data.draw(st.text(max_size=5))
        if not lines:
            break
    # A tracebackless refusal of the database is one, too.
    try:
        apply("\n".join(lines), delete=data.draw(st.booleans()))
    except Refused as error:
        pytest.fail(f"a fault that the plan does not have: {error}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "directory.db"
    SQLiteDatabase.create(path).close()
    return path


def run(path: Path, command: str, text: bytes) -> Result:
    file = path.parent / "wanted.toml"
    file.write_bytes(text)
    options = ["--yes"] if command == "apply" else []
    return CliRunner().invoke(main, ["directory", command, str(file), *options, "--directory", str(path)])


USER = b'[[user]]\nname = "anna@example.test"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\n\nx = " + b"[" * 100_000, "line 3: this is no TOML: its lists or tables are in each other too deeply"),
        (b"\nx = " + b"{a=" * 100_000, "line 2: this is no TOML: its lists or tables are in each other too deeply"),
        (b"\nx = " + b"1" * 100_000, "line 2: this is no TOML: Exceeds the limit"),
        (b"\nx" + b".x" * 1_000_000 + b" = 1\n", "line 2: this is no TOML: a key has too many parts"),
        (b"[x" + b".x" * 1_000_000 + b"]\n", "line 1: this is no TOML: a key has too many parts"),
        (USER + b"limits." + b".".join([b"x"] * 18) + b" = 1\n", "line 1: anna@example.test: there is no limit 'x'"),
        (USER + b"\xff", "is no UTF-8"),
        (USER + b'note = "\xed\xa0\x80"\n', "is no UTF-8"),
        (USER + b'full_name = "\\uD800"\n', "this is no TOML"),
        (USER + b"x" * 100_000 + b" = 1\n", "line 1: [[user]] has no key 'xxxx"),
        (b"[[" + b"x" * 100_000 + b"]]\n", "there is no [[xxxx"),
        (b'user = [{ nme = "x" }]\n', "[[user]] number 1: [[user]] has no key 'nme'"),
        (USER + b'[[delegate]]\nuser = "anna@example.test"\nover = "example.test"\nwhy = "x"\n' * 2,
         "line 7: the delegate [anna@example.test over example.test] has a name that line 3 has already"),
        (USER * 20_000, "it has 19999 faults, of which the first 1000 are kept"),
        (USER[:-1] + b"\0\n", "line 2"),
    ],
    ids=["lists", "tables", "number", "parts", "parts-of-a-head", "limits", "octet", "surrogate", "escaped-surrogate", "key",
         "kind", "inline", "delegates", "faults", "nul"],
)  # fmt: skip
def test_hostile_texts(path: Path, text: bytes, said: str) -> None:
    for command in ("plan", "apply"):
        done = run(path, command, text)
        assert isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code == 1
        assert said in done.output
        assert len(done.output) < 50_000


def test_faults_that_are_kept_are_bounded() -> None:
    faults = parse((USER * (MOST_FAULTS + 10)).decode(), CHECKS).faults
    assert len(faults) == MOST_FAULTS + 1


def test_a_file_that_is_too_large(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailserver.cli.directory_document._LARGEST", 100)
    assert "is larger than 100 octets" in run(path, "plan", b"#" * 101).output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (USER + b'home = "mail/anna"\n', "line 1: anna@example.test: home must be an absolute path"),
        (USER + b'home = "/home/../root"\n', "line 1: anna@example.test: home must not have .. as a part"),
        (USER + b'[[delegate]]\nuser = "anna@example.test"\nover = "@example.test"\nwhy = "x"\n',
         "line 3: the delegate anna@example.test: @example.test is the name of a catch-all"),
        (USER + b'[[delegate]]\nuser = "anna@example.test"\nover = "nobody"\nwhy = "x"\n',
         "line 3: the delegate anna@example.test: 'nobody' is neither a user nor a domain here"),
        (USER + b'[[delegate]]\nuser = "anna@example.test"\nover = "Anna@example.test"\nwhy = "x"\n',
         "line 3: the delegate anna@example.test: anna@example.test logs in as itself without this"),
        (USER + b'[[delegate]]\nuser = "anna@example.test"\nover = "example.test"\nwhy = " "\n',
         "line 3: anna@example.test over example.test: the reason must be 1 to 200 printable characters"),
        (USER + b"limits = { storage = -1 }\n", "line 1: anna@example.test: a limit is a number from 0 to"),
        (b'[[domain]]\nname = "example.net"\nlimits = { storage = 1 }\n', "example.net: there is no limit 'storage'"),
    ],
    ids=["relative", "above", "catch-all", "unknown", "itself", "why", "negative", "limit-of-a-domain"],
)  # fmt: skip
def test_what_commands_refuse(path: Path, text: bytes, said: str) -> None:
    done = run(path, "plan", text)
    assert (said in done.output, done.exit_code) == (True, 1), done.output


@pytest.mark.parametrize("home", ["mail/anna", "/home/../root"])
def test_an_import_refuses_the_same_homes(path: Path, home: str) -> None:
    file = path.parent / "users"
    file.write_text(f"anna@example.test:{{PLAIN}}x::::{home}\n")
    done = CliRunner().invoke(main, ["directory", "import", str(file), "--directory", str(path)])
    assert (done.exit_code, "line 1: home must" in done.output) == (1, True), done.output
