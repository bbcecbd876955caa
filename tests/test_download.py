"""Fetching from a server that breaks off, lies, stalls and alters, and archives that must not be unpacked."""

import contextlib
import gzip
import hashlib
import http.server
import io
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from lib.data import download, esc50, unpacking

TABLE = "meta/esc50.csv"


def packed(files=None, kind="zip", root="ESC-50-1234", *, deflated=False):
    """An archive of small files below one folder."""
    files = {TABLE: b"filename,fold\n", "audio/a.wav": bytes(range(256)) * 400} if files is None else files
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
            for name, content in files.items():
                archive.writestr(f"{root}/{name}", content)
    else:
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"{root}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


class Server:
    """A server on the loopback address that serves ``content`` as ``behave`` says; counts its connections."""

    def __init__(self, content, behave=None):
        self.content, self.asked, test = content, [], self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                test.asked.append(self.headers.get("Range"))
                (behave or whole)(self, test, len(test.asked))

            def log_message(self, *words):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


def answer(handler, content, *, cut=None, length=None, ranges=True):
    """Serve ``content`` from where it is asked, ``cut`` off after so many bytes of it."""
    asked = handler.headers.get("Range") if ranges else None
    begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
    if begin >= len(content):
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(content)}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    rest = content[begin:]
    handler.send_response(206 if asked else 200)
    if asked:
        handler.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(length or len(rest)))
    handler.end_headers()
    handler.wfile.write(rest[:cut])
    handler.wfile.flush()
    handler.close_connection = True


def whole(handler, test, number):
    answer(handler, test.content)


def source(content, **changes):
    known = f"sha256:{hashlib.sha256(content).hexdigest()}"
    given = {"url": "http://127.0.0.1:9/gone.zip", "archive": "ESC-50.zip", "digest": known}
    return download.Source(**given | {"folder": "ESC-50", "table": TABLE} | changes)


def fetch(content, behave, folder, *, known=None, **settings):
    with Server(content, behave) as server:
        options = {"mirror": server.url, "pause": 0.01, "timeout": 5.0, "say": lambda line: None}
        try:
            return server, download.fetch(known or source(content), folder, **options | settings)
        except Exception as error:
            error.asked = server.asked
            raise


def left(folder):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_data_set_is_fetched_and_only_it_stays(tmp_path, kind):
    _, folder = fetch(packed(kind=kind), whole, tmp_path / "data")
    assert left(tmp_path / "data") == ["ESC-50"]
    assert (folder / TABLE).read_text() == "filename,fold\n"
    assert (folder / "audio/a.wav").stat().st_size == 102400


def test_what_is_there_is_not_fetched_again(tmp_path):
    (tmp_path / "ESC-50").mkdir()
    server, folder = fetch(packed(), whole, tmp_path)
    assert folder == tmp_path / "ESC-50"
    assert server.asked == []


def test_a_connection_that_drops_at_every_tenth_goes_on_where_it_was(tmp_path):
    content = packed()

    def drops(handler, test, number):
        answer(handler, content, cut=len(content) // 10 + 1)

    server, folder = fetch(content, drops, tmp_path)
    assert (folder / TABLE).is_file()
    begins = [0, *(int(asked[6:-1]) for asked in server.asked[1:])]
    assert begins == [n * (len(content) // 10 + 1) for n in range(10)]


def test_a_server_without_ranges_is_asked_from_the_beginning(tmp_path):
    content = packed()

    def forgets(handler, test, number):
        answer(handler, content, cut=len(content) // 2 if number == 1 else None, ranges=False)

    server, folder = fetch(content, forgets, tmp_path)
    assert (folder / "audio/a.wav").stat().st_size == 102400
    assert len(server.asked) == 2


def test_a_stall_is_a_broken_connection(tmp_path):
    content = packed()

    def stalls(handler, test, number):
        if number == 1:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content[:1000])
            handler.wfile.flush()
            time.sleep(1.0)
        else:
            answer(handler, content)

    server, folder = fetch(content, stalls, tmp_path, timeout=0.2)
    assert (folder / TABLE).is_file()
    assert server.asked == [None, "bytes=1000-"]


def test_a_length_too_long_is_not_believed(tmp_path):
    content = packed()

    def boasts(handler, test, number):
        answer(handler, content, length=len(content) + 500 if number == 1 else None)

    server, folder = fetch(content, boasts, tmp_path)
    assert (folder / TABLE).is_file()
    assert server.asked[1] == f"bytes={len(content)}-"


@pytest.mark.parametrize("files", [False, True], ids=["archive hash", "files decide"])
def test_a_length_too_short_is_found_out(tmp_path, files):
    content = packed()

    def cuts(handler, test, number):
        answer(handler, content, length=len(content) - 500, cut=len(content) - 500)

    with pytest.raises(download.Damaged, match=r"hash is .*, not sha256:"):
        fetch(content, cuts, tmp_path, known=source(content, files=listed(tmp_path) if files else None))
    assert left(tmp_path / ".") == (["listed.csv"] if files else [])


def listed(folder, content=bytes(range(256)) * 400):
    path = Path(folder) / "listed.csv"
    path.write_text(f"path,md5\naudio/a.wav,{hashlib.md5(content).hexdigest()}\n")
    return path


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_an_altered_byte_is_found_out_before_unpacking(tmp_path, place):
    content = packed()

    def alters(handler, test, number):
        wrong = bytearray(content)
        wrong[int(place * len(content))] ^= 1
        answer(handler, bytes(wrong))

    with pytest.raises(download.Damaged, match="hash"):
        fetch(content, alters, tmp_path)
    assert left(tmp_path) == []


def test_another_archive_of_the_same_files_is_taken(tmp_path):
    content = packed(kind="zip", root="ESC-50-packed-anew")
    known = source(content, digest="sha256:" + "0" * 64, files=listed(tmp_path))
    _, folder = fetch(content, whole, tmp_path, known=known)
    assert (folder / "audio/a.wav").is_file()


def test_another_archive_of_other_files_is_not(tmp_path):
    content = packed({TABLE: b"filename\n", "audio/a.wav": b"another sound"})
    known = source(content, digest="sha256:" + "0" * 64, files=listed(tmp_path))
    with pytest.raises(download.Damaged, match=r"audio/a\.wav is not the known file"):
        fetch(content, whole, tmp_path, known=known)
    assert left(tmp_path) == ["listed.csv"]


def test_an_altered_byte_is_found_out_where_the_files_decide(tmp_path):
    content = bytearray(packed(deflated=True))
    content[content.index(b"a.wav") + 40] ^= 0xFF
    known = source(b"", files=listed(tmp_path))
    with pytest.raises(download.Damaged, match=r"ESC-50\.zip"):
        fetch(bytes(content), whole, tmp_path, known=known)
    assert left(tmp_path) == ["listed.csv"]  # so that another try fetches it anew


def test_a_spoilt_or_unreadable_archive_is_said(tmp_path):
    stream = packed(kind="tar")
    stream = stream[: len(stream) // 2]
    locked = bytearray(packed())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = locked.index(mark) + flags
        locked[at] |= 1
    unknown = bytearray(packed())
    for mark, method in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = unknown.index(mark) + method
        unknown[at] = 99
    for content, said in ((stream, "unpacked"), (locked, "encrypted"), (unknown, "unpacked")):
        with pytest.raises(download.Damaged, match=said):
            fetch(bytes(content), whole, tmp_path)
        assert left(tmp_path) == []


def test_the_files_of_esc50_are_known():
    rows = esc50.ORIGIN.files.read_text().splitlines()
    assert rows[0] == "path,md5"
    assert len(rows) == 1 + 2000 + 1
    assert all(len(row.partition(",")[2]) == 32 for row in rows[1:])


def test_without_network_one_sentence_says_what_to_do(tmp_path):
    known = source(b"", url="http://127.0.0.1:9/ESC-50.zip")
    with pytest.raises(download.Unreachable) as caught:
        download.fetch(known, tmp_path, pause=0.01, say=lambda line: None)
    said = str(caught.value)
    assert "\n" not in said
    assert "http://127.0.0.1:9/ESC-50.zip by hand" in said
    assert str(tmp_path / "ESC-50" / TABLE) in said
    assert "refused" in said


def test_a_data_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "data").write_text("a file")
    for folder in (tmp_path / "data", tmp_path / "data" / "below"):
        with pytest.raises(NotADirectoryError, match=r"data.*, where ESC-50 is to lie, is no folder"):
            download.fetch(source(b""), folder)
    assert (tmp_path / "data").read_text() == "a file"


def test_a_server_that_says_no_is_not_asked_again(tmp_path):
    def gone(handler, test, number):
        handler.send_error(404)

    with pytest.raises(download.Unreachable, match="404") as caught:
        fetch(packed(), gone, tmp_path)
    assert len(caught.value.asked) == 1


def test_what_has_come_stays_for_the_next_try(tmp_path):
    content = packed()

    def dies(handler, test, number):
        answer(handler, content, cut=5000 if number == 1 else 0)

    with pytest.raises(download.Unreachable, match="goes on where this one ended"):
        fetch(content, dies, tmp_path, attempts=2)
    assert (tmp_path / "ESC-50.zip.part").stat().st_size == 5000
    server, _ = fetch(content, whole, tmp_path)
    assert server.asked == ["bytes=5000-"]


@pytest.mark.parametrize("mirror", ["mirror.example", "ftp://mirror.example"])
def test_a_mirror_that_is_no_address_is_not_tried_again(tmp_path, mirror):
    said = []
    with pytest.raises(download.Unreachable, match=r"mirror\.example"):
        download.fetch(source(b""), tmp_path, mirror=mirror, say=said.append)
    assert said == []


def test_a_pause_is_doubled_after_each_failure(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(download.time, "sleep", waits.append)

    def refuses(handler, test, number):
        handler.send_error(503)

    with pytest.raises(download.Unreachable, match="503") as caught:
        fetch(packed(), refuses, tmp_path, pause=1.0, attempts=4)
    assert waits == [2.0, 4.0, 8.0]
    assert len(caught.value.asked) == 4


def test_more_than_the_server_has_is_thrown_away(tmp_path):
    content = packed()
    (tmp_path / "ESC-50.zip.part").write_bytes(content + b"of another archive")
    _, folder = fetch(content, whole, tmp_path)
    assert (folder / TABLE).is_file()


# ------------------------------------------------------------------------- servers that cannot be trusted


def without_length(handler, content, *, pause=0.0, piece=1 << 16):
    handler.send_response(200)
    handler.end_headers()
    for begin in range(0, len(content), piece):
        handler.wfile.write(content[begin : begin + piece])
        handler.wfile.flush()
        time.sleep(pause)
    handler.close_connection = True


def test_an_archive_of_no_stated_length_is_taken(tmp_path):
    content = packed()
    _, folder = fetch(content, lambda handler, test, number: without_length(handler, content), tmp_path)
    assert (folder / TABLE).is_file()
    assert left(tmp_path) == ["ESC-50"]


def test_what_never_ends_is_bounded(tmp_path):
    """No length is stated, and the bytes do not stop."""
    content = packed()

    def pours(handler, test, number):
        with contextlib.suppress(OSError):
            without_length(handler, bytes(1 << 26))

    with pytest.raises(
        download.Damaged, match=r"goes on beyond 300000 bytes, more than this archive can have"
    ):
        fetch(content, pours, tmp_path, known=source(content, largest=300000))
    assert left(tmp_path) == []


def test_a_length_beyond_what_the_archive_can_have_is_refused_at_once(tmp_path):
    content = packed()

    def boasts(handler, test, number):
        answer(handler, content, length=10**13)

    with pytest.raises(download.Damaged, match=r"has 10000000000000 bytes, more than this archive can have"):
        fetch(content, boasts, tmp_path)
    assert left(tmp_path) == []


@pytest.mark.parametrize("length", ["abc", "-5", "1e9", "12 34"])
def test_a_length_that_is_no_number_is_said(tmp_path, length):
    content = packed()

    def babbles(handler, test, number):
        answer(handler, content, length=length)

    with pytest.raises(download.Unreachable, match=f"a length of '{length}'"):
        fetch(content, babbles, tmp_path, attempts=2)
    assert left(tmp_path) == []


def test_a_drip_is_a_broken_connection(tmp_path):
    """A byte now and then outlives each wait for a byte, and would take a year."""
    content = packed()

    def drips(handler, test, number):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            for n in range(200):
                handler.wfile.write(content[n : n + 1])
                handler.wfile.flush()
                time.sleep(0.05)

    with pytest.raises(download.Unreachable, match=r"bytes a second") as caught:
        fetch(content, drips, tmp_path, timeout=0.3, attempts=2)
    assert len(caught.value.asked) == 2


def test_an_answer_that_drips_in_is_given_up(tmp_path):
    content = packed()

    def drips(handler, test, number):
        with contextlib.suppress(OSError):
            for letter in b"HTTP/1.0 200 OK\r\nX-Filler: " + b"x" * 200:
                handler.wfile.write(bytes([letter]))
                handler.wfile.flush()
                time.sleep(0.05)

    with pytest.raises(download.Unreachable, match=r"no answer within 1\.2 s"):
        fetch(content, drips, tmp_path, timeout=0.3, attempts=2)


def test_what_was_fetched_is_never_taken_as_put_there_by_hand(tmp_path, monkeypatch):
    """A kill between fetching and unpacking leaves what the next try checks, unpacks and removes."""
    content = packed()
    monkeypatch.setattr(download, "unpack", lambda *words: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fetch(content, whole, tmp_path)
    monkeypatch.undo()
    assert left(tmp_path) == ["ESC-50.zip.part"]
    server, _ = fetch(content, whole, tmp_path)
    assert server.asked == [f"bytes={len(content)}-"]
    assert left(tmp_path) == ["ESC-50"]


@pytest.mark.parametrize(
    "name", ["a" * 300, "/".join(["d"] * 1500), "/".join(["d"] * 17), "é" * 150, "a/" + "b" * 5000], ids=len
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_no_file_system_holds_are_refused(tmp_path, name, kind):
    content = packed({name: b"x"}, kind=kind)
    with pytest.raises(download.Damaged, match="deeper than 16 folders or longer than any name") as caught:
        fetch(content, whole, tmp_path)
    assert len(str(caught.value)) < 600
    assert left(tmp_path) == []


def test_a_header_of_gigabytes_is_not_read(tmp_path):
    """A pax header of 1.5 GB packs to 1.5 MB, and tarfile would read it in one piece."""
    header = tarfile.TarInfo("ESC-50/pax")
    header.type, header.size = tarfile.XHDTYPE, 1500 << 20
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as packed_:
        packed_.write(header.tobuf(tarfile.USTAR_FORMAT))
        packed_.write(bytes(1 << 20))
    with pytest.raises(download.Damaged, match=r"a member's header has 1572864000 bytes"):
        fetch(out.getvalue(), whole, tmp_path)
    assert left(tmp_path) == []


def test_an_archive_by_hand_that_is_too_large_is_refused_before_it_is_hashed(tmp_path, monkeypatch):
    content = packed()
    with open(tmp_path / "ESC-50.zip", "wb") as file:
        file.truncate(10 << 30)  # sparse
    monkeypatch.setattr(download, "_hash", lambda *words: pytest.fail("10 GB are hashed"))
    with pytest.raises(download.Damaged, match=r"ESC-50\.zip is no sha256"):
        fetch(content, whole, tmp_path)


def test_an_archive_put_there_by_hand_is_taken(tmp_path):
    content = packed()
    (tmp_path / "ESC-50.zip").write_bytes(content)
    server, folder = fetch(content, whole, tmp_path)
    assert (folder / TABLE).is_file()
    assert server.asked == []
    assert (tmp_path / "ESC-50.zip").read_bytes() == content  # what was not fetched is not removed


def test_a_wrong_archive_put_there_by_hand_is_named_and_kept(tmp_path):
    (tmp_path / "ESC-50.zip").write_bytes(b"half of it")
    with pytest.raises(download.Damaged, match=r"ESC-50\.zip is no sha256"):
        fetch(packed(), whole, tmp_path)
    assert (tmp_path / "ESC-50.zip").read_bytes() == b"half of it"


@pytest.mark.parametrize(
    "name", ["../out", "/etc/out", "a/../../../out", "..\\out", "C:/out"], ids=lambda name: repr(name)
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_climbs_out_is_refused(tmp_path, name, kind):
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(zipfile.ZipInfo(name), b"x")
    else:
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(download.Damaged, match="climbs out"):
        fetch(out.getvalue(), whole, tmp_path / "data")
    assert left(tmp_path / "data") == []
    assert left(tmp_path) == ["data"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        member = tarfile.TarInfo("ESC-50/audio")
        member.type, member.linkname = kind, "/etc"
        archive.addfile(member)
    with pytest.raises(download.Damaged, match="link or a device"):
        fetch(out.getvalue(), whole, tmp_path)
    assert left(tmp_path) == []


def test_a_link_in_a_zip_is_refused(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        member = zipfile.ZipInfo("ESC-50/audio")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc")
    with pytest.raises(download.Damaged, match="link or a device"):
        fetch(out.getvalue(), whole, tmp_path)


def test_an_oversized_member_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "LARGEST", 1000)
    with pytest.raises(download.Damaged, match=r"a\.wav has 102400 bytes, more than any recording"):
        fetch(packed(), whole, tmp_path)
    assert left(tmp_path) == []


def test_many_members_may_not_fill_the_disk(tmp_path, monkeypatch):
    bomb = packed({f"audio/{n}.wav": b"\0" * 100000 for n in range(20)}, deflated=True)
    assert len(bomb) < 20000
    monkeypatch.setattr(unpacking, "MOST", 1000000)
    with pytest.raises(download.Damaged, match="holds more than 1000000 bytes"):
        fetch(bomb, whole, tmp_path)
    monkeypatch.setattr(unpacking, "MOST", 10 * unpacking.BLOCK)  # of files with nothing in them
    with pytest.raises(download.Damaged, match="holds more than"):
        fetch(packed({f"audio/{n}.wav": b"" for n in range(20)}), whole, tmp_path)
    assert left(tmp_path) == []


@pytest.mark.parametrize("names", [["a", "a"], ["a", "a/b"], ["a/b", "a"], ["a", "a/b/c"], ["a", "./a"]])
def test_a_name_given_twice_is_refused(tmp_path, names):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(download.Damaged, match="stands in it twice"):
        fetch(out.getvalue(), whole, tmp_path)
    assert left(tmp_path) == []


def test_an_archive_of_something_else_is_refused(tmp_path):
    with pytest.raises(download.Damaged, match=r"holds no meta/esc50\.csv"):
        fetch(packed({"README.md": b"hello"}), whole, tmp_path)
    assert left(tmp_path) == []


def test_what_a_killed_unpacking_left_is_removed(tmp_path):
    (tmp_path / ".ESC-50.4711.unpacking" / "audio").mkdir(parents=True)
    fetch(packed(), whole, tmp_path)
    assert left(tmp_path) == ["ESC-50"]


def test_of_two_at_once_one_fetches(tmp_path):
    content, folders = packed(), []
    with Server(content) as server:
        known = source(content)

        def one():
            folders.append(download.fetch(known, tmp_path, mirror=server.url, say=lambda line: None))

        both = [threading.Thread(target=one) for _ in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert len(server.asked) == 1
    assert folders == [tmp_path / "ESC-50"] * 2
