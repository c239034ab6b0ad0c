"""Files that were made to do harm: each is a clear error in bounded memory and time, and nothing falls but a child."""

from __future__ import annotations

import gzip
import io
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from databrokkr_assets.core.errors import AccessError, DataError, Unavailable
from databrokkr_assets.engine.duckdb import open_duck
from resources.support.child import Child
from resources.support.file_settings import Limits
from tests.connectors.carrying import mark
from tests.connectors.files_reading import powerless, read, reader, write
from tests.connectors.test_files_sink import put
from tests.memory import peak_kilobytes

ROWS = b"a,b\n1,x\n"
ZEROS = bytes(70_000_000)


def zipped(
    path: Path, members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda info: None
) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, content)
    return path


def tarred(path: Path, members: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix in {".gz", ".tgz"} else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return path


def tar_info(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@contextmanager
def in_bounded_memory(megabytes: int) -> Iterator[None]:
    """This process grows by no more than that within the block."""
    before = peak_kilobytes()
    yield
    assert peak_kilobytes() - before < megabytes * 1024


# --- archives ---


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("ending", ["1", "1.csv"])
def test_archives(tmp_path: Path, pack: Callable[..., Path], ending: str) -> None:
    suffix = ".zip" if pack is zipped else ".tar.gz"
    members = {
        "b.csv": ROWS,
        "in/größe a.csv": b"a,b\n2,y\n3\n",
        "README.txt": b"?",
        "__MACOSX/b.csv": b"?",
        "0.csv": b"",
    }
    pack(tmp_path / f"{ending}{suffix}", members)
    write(tmp_path / "2.csv", "a,b\n9,z\n")
    found = read(tmp_path)
    assert found.rows == [(1, "x"), (2, "y"), (9, "z")]
    assert [reject.position for reject in found.rejects] == [f"{ending}{suffix}!in/größe a.csv:3"]
    assert found.cursor is not None
    assert sorted(found.cursor["files"]) == sorted([f"{ending}{suffix}", "2.csv"])
    assert read(tmp_path, after=found.cursor).rows == []


def test_members_are_chosen(tmp_path: Path) -> None:
    zipped(tmp_path / "1.zip", {"x/a.txt": ROWS, "b.csv": b"a,b\n2,y\n", "c.csv.gz": gzip.compress(b"a,b\n3,z\n")})
    assert read(tmp_path / "1.zip").rows == [(2, "y"), (3, "z")]
    assert read(tmp_path / "1.zip", members="*.txt", format="csv").rows == [(1, "x")]
    assert read(tmp_path / "1.zip", members="x/*", format="text").rows[0] == ("a,b", 1)
    with pytest.raises(DataError, match=r"1\.zip: holds no file to read; it holds x/a\.txt, b\.csv"):
        read(tmp_path / "1.zip", format="parquet")
    renamed = (tmp_path / "1.zip").rename(tmp_path / "1.data")
    assert read(renamed, compression="zip", format="csv").rows == [(2, "y"), (3, "z")]


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".tar", None), (".tar.bz2", "bz2"), (".tar.zst", "zstd"), (".tgz", "gzip")]
)
def test_every_tar(tmp_path: Path, suffix: str, codec: str | None) -> None:
    whole = tarred(tmp_path / "plain", {"1.csv": ROWS}).read_bytes()
    path = tmp_path / f"1{suffix}"
    if codec:
        with pa.CompressedOutputStream(path, codec) as out:
            out.write(whole)
    else:
        path.write_bytes(whole)
    assert read(path).rows == [(1, "x")]


def test_an_archive_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "1.zip", {"1.csv": ROWS})
    reading = reader(path, tmp_path)
    with open_duck() as duck:
        relation = reading.relation(duck, next(iter(reading.streams())), None)
        assert relation is not None
        duck.execute(relation.query).fetchall()
        zipped(path, {"1.csv": ROWS, "2.csv": ROWS})
        with pytest.raises(Unavailable, match=r"changed while being read: 1\.zip"):
            relation.advance(lambda expression: None)


@pytest.mark.parametrize("name", ["../1.csv", "/etc/1.csv", "a/../../1.csv", "..\\1.csv", "C:\\1.csv", "a\n.csv"])
def test_names_that_lead_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    for path in (
        zipped(tmp_path / "in/1.zip", {"1.csv": ROWS, name: ROWS}),
        tarred(tmp_path / "in/1.tar", {name: ROWS}),
    ):
        with pytest.raises(DataError, match=rf"{path.name}: names a place outside itself: "):
            read(path)
    assert sorted(path.name for path in tmp_path.rglob("*.csv")) == []


def test_links_and_devices(tmp_path: Path) -> None:
    def link(info: zipfile.ZipInfo) -> None:
        info.external_attr = (stat.S_IFLNK | 0o777) << 16

    hostile = [zipped(tmp_path / "0.zip", {"1.csv": b"/etc/passwd"}, link)]
    kinds = {"sym": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "fifo": tarfile.FIFOTYPE}
    for number, kind in enumerate(kinds.values(), start=1):
        info = tar_info("link.csv", kind, "/etc/passwd")
        hostile.append(tarred(tmp_path / f"{number}.tar", {"1.csv": ROWS}, info))
    for path in hostile:
        with pytest.raises(DataError, match="is a link"):
            read(path)


def test_archives_that_are_encrypted_or_damaged(tmp_path: Path) -> None:
    whole = bytearray(zipped(tmp_path / "1.zip", {"1.csv": ROWS * 1000}).read_bytes())
    central = whole.index(b"PK\x01\x02")
    whole[6] |= 1
    whole[central + 8] |= 1
    with pytest.raises(DataError, match=r"1\.zip: 1\.csv is encrypted"):
        read(write(tmp_path / "1.zip", bytes(whole)))
    plain = zipped(tmp_path / "1.zip", {"1.csv": os.urandom(5000).hex().encode()}).read_bytes()
    broken = bytearray(plain)
    broken[1000] ^= 1
    tar = tarred(tmp_path / "1.tar", {"1.csv": ROWS, "2.csv": ROWS}).read_bytes()
    packed = tarred(tmp_path / "1.tgz", {"1.csv": os.urandom(5000).hex().encode()}).read_bytes()
    damaged = [
        ("1.zip", plain[:-10]),
        ("1.zip", bytes(broken)),
        ("1.zip", b"PK"),
        ("1.tar", tar[:1300]),
        ("1.tar", b"x"),
    ]
    for name, content in [*damaged, ("1.tar", tar[:1024]), ("1.tgz", packed[:-100])]:
        with pytest.raises(DataError, match=r"1\.\w+: (is not a whole|holds no file)"):
            read(write(tmp_path / name, content))


def test_archives_of_too_much(tmp_path: Path) -> None:
    many = zipped(tmp_path / "many.zip", {f"{number}.csv": b"" for number in range(101)})
    with pytest.raises(DataError, match=r"many\.zip: holds more than 100 files\n.*limits: {members: …}"):
        read(many, limits={"members": 100})
    double = io.BytesIO()
    with zipfile.ZipFile(double, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("1.csv", ROWS)
        archive.writestr("1.csv", ROWS)
    with pytest.raises(DataError, match=r"holds 1\.csv twice"):
        read(write(tmp_path / "double.zip", double.getvalue()))


@pytest.mark.parametrize("kind", ["gz", "bz2", "zst", "zip", "tgz"])
def test_bombs(tmp_path: Path, kind: str) -> None:
    if kind == "zip":
        path = zipped(tmp_path / "1.zip", {"1.csv": ZEROS})
    elif kind == "tgz":
        path = tarred(tmp_path / "1.tgz", {"1.csv": ZEROS})
    else:
        path = tmp_path / f"1.csv.{kind}"
        codec = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}[kind]
        with pa.CompressedOutputStream(path, codec) as out:
            out.write(ZEROS)
    with in_bounded_memory(40), pytest.raises(DataError) as error:
        read(path)
    assert f"{path.name}: becomes more than 200 times its size when it is unpacked" in str(error.value)
    assert "limits: {ratio: …}" in str(error.value)
    with pytest.raises(DataError, match=r"becomes more than 1 MB when it is unpacked\n.*limits: {unpacked_mb: …}"):
        read(path, limits={"unpacked_mb": 1})


def test_limits_are_checked() -> None:
    with pytest.raises(ValidationError):
        reader("1.csv", Path(), limits={"ratio": 0})


# --- XML ---

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "head",
    [
        f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]>',
        '<!DOCTYPE a [<!ENTITY l9 SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p; <!ENTITY l9 "x">]>',
    ],
)
def test_entities(tmp_path: Path, head: str) -> None:
    path = write(tmp_path / "1.xml", f"{head}<a><b>&l9;</b></a>")
    with pytest.raises(DataError, match=r"1\.xml: (declares entities|is no whole XML document)"):
        read(path, xml={"row": "a/b"})


def test_xml_out_of_all_bounds(tmp_path: Path) -> None:
    deep = "<a>" * 100_000 + "</a>" * 100_000
    long = f"<a><b>{'x' * 11_000_000}</b></a>"
    for text in (deep, long):
        with pytest.raises(DataError, match=r"1\.xml: is no whole XML document"):
            read(write(tmp_path / "1.xml", text), xml={"row": "a/b"})
    outside = '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a><b>1</b></a>'
    assert read(write(tmp_path / "1.xml", outside), xml={"row": "a"}).rows == [(1,)]


# --- Excel ---


def compound(streams: dict[str, bytes]) -> bytes:
    """An OLE compound file with these streams of at least 4,096 bytes, as Office packs old and protected workbooks."""
    free, end, sector = 0xFFFFFFFF, 0xFFFFFFFE, 512
    chains: list[int] = [0xFFFFFFFD]
    entries = [("Root Entry", 5, end, 0)]
    body = b""
    for name, content in streams.items():
        count = -(-len(content) // sector)
        first = len(chains)
        chains += [*range(first + 1, first + count), end]
        body += content.ljust(count * sector, b"\0")
        entries.append((name, 2, first, len(content)))
    directory = len(chains)
    chains.append(end)
    rows = b""
    for number, (name, kind, first, size) in enumerate(entries):
        text = name.encode("utf-16-le") + b"\0\0"
        right = number + 1 if 0 < number < len(entries) - 1 else free
        links = struct.pack("<III", free, right, 1 if number == 0 else free)
        rows += text.ljust(64, b"\0") + struct.pack("<HBB", len(text), kind, 1) + links + bytes(36)
        rows += struct.pack("<IQ", first, size)
    table = b"".join(struct.pack("<I", chain) for chain in chains).ljust(sector, b"\xff")
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    head += struct.pack("<IIIIIIIII", 0, 1, directory, 0, 4096, end, 0, end, 0) + struct.pack("<I", 0)
    return head.ljust(sector, b"\xff") + table + body + rows.ljust(sector, b"\0")


def record(kind: int, content: bytes) -> bytes:
    return struct.pack("<HH", kind, len(content)) + content


def old_workbook(*more: bytes) -> bytes:
    """A workbook as Excel 97 wrote it: the sheet S with `a` above 1.5; `more` are records of the workbook."""
    begin = record(0x809, struct.pack("<HHHHII", 0x600, 5, 0, 0, 0, 0))
    sheet = record(0x809, struct.pack("<HHHHII", 0x600, 0x10, 0, 0, 0, 0))
    sheet += record(0x204, struct.pack("<HHHHB", 0, 0, 0, 1, 0) + b"a")
    sheet += record(0x203, struct.pack("<HHHd", 1, 0, 0, 1.5)) + record(0x0A, b"")
    before = begin + b"".join(more)
    named = record(0x85, struct.pack("<IBBBB", len(before) + 13 + 4, 0, 0, 1, 0) + b"S")
    return compound({"Workbook": (before + named + record(0x0A, b"") + sheet).ljust(4096, b"\0")})


def test_old_and_protected_workbooks(tmp_path: Path) -> None:
    assert read(write(tmp_path / "1.xls", old_workbook())).rows == [(1.5,)]
    protected = [
        ("1.xls", old_workbook(record(0x2F, b"\1" + bytes(53)))),
        ("1.xlsx", compound({"EncryptionInfo": bytes(4096), "EncryptedPackage": bytes(4096)})),
    ]
    for name, content in protected:
        with pytest.raises(DataError, match=rf"{name}: is protected by a password"):
            read(write(tmp_path / name, content))


def test_a_workbook_that_swells(tmp_path: Path) -> None:
    put(tmp_path / "1.xlsx", "SELECT 'x' AS a", mark(1))
    swollen = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "1.xlsx") as small, zipfile.ZipFile(swollen, "w", zipfile.ZIP_DEFLATED) as big:
        for name in small.namelist():
            content = small.read(name)
            if name.endswith("sheet1.xml"):
                cell = b'<c r="A2" t="inlineStr"><is><t>' + b"x" * 300_000_000 + b"</t></is></c></row></sheetData>"
                content = content.replace(b"</row></sheetData>", cell)
            big.writestr(name, content)
    path = write(tmp_path / "2.xlsx", swollen.getvalue())
    del swollen, content, cell
    with in_bounded_memory(40), pytest.raises(DataError) as error:
        read(path, limits={"memory_mb": 250})
    assert "2.xlsx: takes more than 250 MB of memory to be read" in str(error.value)


# --- headers that lie ---


def varint(number: int) -> bytes:
    number, found = number << 1, b""  # zigzag
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def test_parquet_footers_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "1.parquet"
    pq.write_table(pa.table({"a": range(30_001), "b": [f"{n}" for n in range(30_001)]}), path, compression="none")
    whole = path.read_bytes()
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    column = pq.read_metadata(path).row_group(0).column(1)
    lies = [
        (varint(30_001), varint(1_000_000), "counts its rows wrongly"),
        (varint(column.data_page_offset), varint(1_000_000_000), "names parts outside of the file"),
        (varint(column.dictionary_page_offset), varint(1_000_000_000), "names parts outside of the file"),
        (varint(column.total_uncompressed_size), varint(10**15), "becomes more than 50,000 MB"),
    ]
    for true, lie, problem in lies:
        footer = whole[start:-8].replace(true, lie, 1)
        assert footer != whole[start:-8]
        write(path, whole[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
        with pytest.raises(DataError, match=rf"1\.parquet: has a (footer that |part that ){problem}"):
            read(path)
    write(path, whole[:-8] + (2**31 - 1).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(DataError, match=r"1\.parquet: is not a whole Parquet file"):
        read(path)


@pytest.mark.parametrize("form", ["orc", "avro", "arrow", "parquet"])
def test_bytes_that_are_wrong_anywhere(tmp_path: Path, form: str) -> None:
    put(tmp_path / f"1.{form}", "SELECT i AS a, i::VARCHAR AS b, [i, i] AS l FROM range(2000) AS given(i)", mark(1))
    whole = (tmp_path / f"1.{form}").read_bytes()
    module = "parquet_check" if form == "parquet" else f"{form}_files"
    chance = random.Random(form)
    outcomes = set()
    with Child(tmp_path, Limits(memory_mb=500, seconds=20)) as child:
        for _ in range(60):
            wrong = bytearray(whole)
            for _ in range(chance.choice([1, 3])):
                place = chance.choice([chance.randrange(len(whole)), chance.randrange(len(whole) - 400, len(whole))])
                wrong[place] = chance.choice([0, 127, 255, wrong[place] ^ 1 << chance.randrange(8)])
            write(tmp_path / "2", bytes(wrong))
            try:
                child.call(f"{module}:store_file", "2", source=str(tmp_path / "2"), target=str(tmp_path / "out"))
                outcomes.add("read")
            except DataError as error:
                assert str(error).startswith("2: ")
                outcomes.add("refused")
    assert "refused" in outcomes


# --- the child ---


@contextmanager
def waiting_child(tmp_path: Path, **limits: int) -> Iterator[tuple[Child, Callable[[], Any]]]:
    """A child, and a call that waits for a pipe that nobody writes."""
    os.mkfifo(tmp_path / "pipe")
    with Child(tmp_path, Limits(**limits)) as child:
        yield child, lambda: child.call("orc_files:store_file", "1.orc", source=str(tmp_path / "pipe"), target="")


def test_a_child_that_takes_too_long(tmp_path: Path) -> None:
    with waiting_child(tmp_path, seconds=2) as (_, call):
        began = time.monotonic()
        with pytest.raises(DataError, match=r"1\.orc: takes longer than 2 seconds to be read"):
            call()
        assert time.monotonic() - began < 10


def test_a_child_that_dies_and_one_after_it(tmp_path: Path) -> None:
    with waiting_child(tmp_path) as (child, call):
        process = child._start()
        threading.Timer(0.5, process.send_signal, [signal.SIGSEGV]).start()
        with pytest.raises(DataError, match=r"1\.orc: cannot be read: the process that reads it died \(SIGSEGV\)"):
            call()
        with pytest.raises(DataError, match=r"2\.orc: "):
            child.call("orc_files:store_file", "2.orc", source="/dev/null", target="")


def test_a_child_knows_no_secrets_and_ends_with_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABROKKR_TEST_SECRET", "hunter2")
    script = f"""
import os, signal
from pathlib import Path
from resources.support.child import Child
from resources.support.file_settings import Limits
process = Child(Path({str(tmp_path)!r}), Limits())._start()
print(process.pid, flush=True)
input()
os.kill(os.getpid(), signal.SIGKILL)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin and parent.stdout
        number = int(parent.stdout.readline())
        while not (environment := Path(f"/proc/{number}/environ").read_bytes()):
            assert parent.poll() is None  # the kernel is still at starting it
        parent.communicate(b"\n")
    assert b"PYTHONPATH=" in environment
    assert b"hunter2" not in environment
    for _ in range(100):
        if not Path(f"/proc/{number}").exists() or " Z " in Path(f"/proc/{number}/stat").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")


def test_a_file_without_a_right_is_no_broken_file() -> None:
    with powerless() as folder:
        path = zipped(folder / "1.zip", {"1.csv": ROWS})
        path.chmod(0)
        with pytest.raises(AccessError, match=r"1\.zip cannot be read: Permission denied"):
            read(path)
