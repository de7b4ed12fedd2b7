import stat
import zipfile

import pytest

from hyperrec_jax.data.archives import copy_member, member_file, open_zip
from hyperrec_jax.errors import UserError


def _zip(path, name="a.csv", content=b"1,2\n", mode=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo(name)
        member.compress_type = zipfile.ZIP_DEFLATED
        if mode is not None:
            member.external_attr = mode << 16
        archive.writestr(member, content)
    return path


@pytest.mark.parametrize(
    "name",
    ["../a.csv", "x/../../a.csv", "/etc/passwd", "..\\a.csv", "C:\\a.csv", "\\\\host\\a.csv"],
)
def test_names_that_leave_the_folder(tmp_path, name):
    with (
        pytest.raises(UserError, match=r"refused, .*a name that leaves the folder"),
        open_zip(_zip(tmp_path / "x.zip", name)),
    ):
        pass


def test_symbolic_links(tmp_path):
    path = _zip(tmp_path / "x.zip", content=b"/etc/passwd", mode=stat.S_IFLNK | 0o777)
    with pytest.raises(UserError, match=r"refused, .*a symbolic link"), open_zip(path):
        pass


def test_bombs(tmp_path):
    path = _zip(tmp_path / "x.zip", content=bytes(64 << 20))
    with (
        pytest.raises(UserError, match=r"refused, .*\d+ bytes that claim to expand to 67108864"),
        open_zip(path),
    ):
        pass


def test_declared_size_bounds_what_is_read(tmp_path):
    # A member that says it is small and is not: the size in both headers is changed to 4.
    path = _zip(tmp_path / "x.zip", content=bytes(5 << 20))
    path.write_bytes(
        path.read_bytes().replace((5 << 20).to_bytes(4, "little"), (4).to_bytes(4, "little"))
    )
    with (
        open(tmp_path / "copy", "wb") as target,
        pytest.raises(UserError, match="truncated or damaged"),
    ):
        copy_member(path, "a.csv", target)
    assert (tmp_path / "copy").stat().st_size <= 4


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(8, 0x1, "is encrypted"), (8, 0x40, "is encrypted"), (10, 97, "compressed by method 97")],
)
def test_what_is_not_read(tmp_path, offset, value, message):
    path = _zip(tmp_path / "x.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(content)
    with pytest.raises(UserError, match=message), open_zip(path):
        pass


def test_a_damaged_stream(tmp_path):
    path = _zip(tmp_path / "x.zip", content=bytes(range(256)))
    content = bytearray(path.read_bytes())
    content[content.index(b"a.csv") + len("a.csv")] = 0xFF  # no such kind of deflated block
    path.write_bytes(content)
    with (
        open(tmp_path / "copy", "wb") as target,
        pytest.raises(UserError, match="truncated or damaged"),
    ):
        copy_member(path, "a.csv", target)


def test_not_a_zip(tmp_path):
    (tmp_path / "x.zip").write_text("<html>log in</html>")
    with (
        pytest.raises(UserError, match=r"truncated or not a zip file"),
        open_zip(tmp_path / "x.zip"),
    ):
        pass


def test_members_are_read(tmp_path):
    path = _zip(tmp_path / "x.zip", "folder/a.csv", b"hello")
    file = member_file(path, "folder/a.csv")
    assert (file.size, file.open().read()) == (5, b"hello")
