"""Anyone's labelled pictures."""

import pytest

from tellsign.data.labelled import read_labelled
from tellsign.errors import SettingError


def test_a_manifest_is_read_relative_to_its_folder(tmp_path):
    file = tmp_path / "pictures.csv"
    file.write_text("path,label,group\na.jpg,1,x\nb.jpg,0,\n")
    first, second = read_labelled(file)
    assert (first.path, first.fake, first.group) == (tmp_path / "a.jpg", True, "x")
    assert (second.fake, second.group) == (False, "b.jpg")


@pytest.mark.parametrize(
    ("text", "words"),
    [("path\na\n", "without ['label']"), ("path,label\na,fake\n", "label of a takes 0"), (None, "a CSV")],
)
def test_a_manifest_that_cannot_be_read_says_why(tmp_path, text, words):
    file = tmp_path / "pictures.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingError) as caught:
        read_labelled(file)
    assert words in str(caught.value)
