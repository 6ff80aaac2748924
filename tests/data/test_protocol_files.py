"""Protocol files: which images are queries and which are gallery."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastreid.data.datasets.files import parse_protocol, read_protocol_file
from fastreid.utils.errors import UserError

component = st.text("abcXYZ019_-+ ", min_size=1, max_size=8).map(str.strip).filter(bool)
file_name = component.map(lambda stem: f"{stem}.jpg")
query_path = st.tuples(component.map(lambda c: f"query{c}"), file_name)
gallery_path = st.tuples(component.filter(lambda c: not c.startswith("query")), component, file_name)


@given(
    query=st.lists(query_path, unique=True),
    gallery=st.lists(gallery_path, unique=True),
    line_end=st.sampled_from(["\n", "\r\n", " \n", "\t\r\n", "\n\n", "\n  \r\n"]),
    separator=st.sampled_from(["/", "\\"]),
    final=st.booleans(),
    data=st.data(),
)
def test_every_way_to_write_the_lines_gives_the_same_lists(query, gallery, line_end, separator, final, data):
    lines = data.draw(st.permutations(query + gallery))
    text = line_end.join(separator.join(parts) for parts in lines) + (line_end if final else "")
    parsed_query, parsed_gallery = parse_protocol(text, "p.txt")
    assert parsed_query == ["/".join(parts) for parts in lines if parts in set(query)]
    assert parsed_gallery == ["/".join(parts) for parts in lines if parts in set(gallery)]


@given(st.text())
def test_any_text_is_parsed_or_refused_with_the_line_number(text):
    query, gallery, complaint = [], [], ""
    try:
        query, gallery = parse_protocol(text, "p.txt")
    except UserError as error:
        complaint = str(error)
    assert not complaint or complaint.startswith("p.txt, line ")
    assert all(path.startswith("query") for path in query)
    assert not any(path.startswith("query") for path in gallery)


@pytest.mark.parametrize(
    "line", ["0001_c3.jpg", "/query/0001_c3.jpg", "query/../0001_c3.jpg", "query/0001_c3", "query/notes.txt"]
)
def test_a_line_that_is_no_image_path_is_named_by_file_and_number(line):
    with pytest.raises(UserError, match=r"^p\.txt, line 3: "):
        parse_protocol(f"query/a.jpg\n\n{line}\n", "p.txt")


def test_an_image_listed_twice_counts_once_with_a_warning(caplog):
    query, gallery = parse_protocol("query/a.jpg\ngal/b.jpg\nquery\\a.jpg\n./gal/b.jpg", "twice.txt")
    assert (query, gallery) == (["query/a.jpg"], ["gal/b.jpg"])
    assert "twice.txt lists 2 images more than once" in caplog.text


@pytest.mark.parametrize("encoded", ["utf-8", "utf-8-sig"])
def test_the_last_character_of_a_file_without_final_newline_is_read(image_tree, encoded):
    root = image_tree(["query/a.jpg", "gallery/b.jpeg"])
    (root / "p.txt").write_bytes("query/a.jpg\r\ngallery/b.jpeg".encode(encoded))
    query, gallery = read_protocol_file("LAGPeR", str(root), "p.txt")
    assert query == [str(root / "query/a.jpg")]
    assert gallery == [str(root / "gallery/b.jpeg")]


def test_missing_images_are_counted_and_the_first_is_named(image_tree):
    root = image_tree(["query/a.jpg"])
    (root / "p.txt").write_text("query/a.jpg\nquery/c.jpg\ngallery/b.jpg")
    with pytest.raises(UserError, match="names 3 images, of which 2 are missing, first .*gallery/b.jpg"):
        read_protocol_file("LAGPeR", str(root), "p.txt")


def test_a_folder_that_may_not_be_read_is_named(image_tree, monkeypatch):
    root = image_tree(["query/a.jpg"])
    (root / "p.txt").write_text("query/a.jpg\nquery/c.jpg\ngallery/b.jpg")

    def refuse(folder: str):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="cannot read folder .*: Permission denied"):
        read_protocol_file("LAGPeR", str(root), "p.txt")


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"protocol file not found: .*p\.txt; set DATASETS\.ROOT"):
        read_protocol_file("LAGPeR", str(tmp_path), "p.txt")
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\x00query")
    with pytest.raises(UserError, match=r"cannot read protocol file .*p\.txt"):
        read_protocol_file("LAGPeR", str(tmp_path), "p.txt")


def test_an_empty_protocol_is_refused_with_numbers(tmp_path):
    from fastreid.data import DATASET_REGISTRY

    (tmp_path / "LAGPeR").mkdir()
    (tmp_path / "LAGPeR" / "exp3_A2G+.txt").write_text("\n\r\n")
    with pytest.raises(
        UserError, match=r"0 usable query images \(of 0\) and 0 gallery images \(of 0\) in .*exp3"
    ):
        _ = DATASET_REGISTRY.get("LAGPeR_A2G")(root=str(tmp_path)).gallery
