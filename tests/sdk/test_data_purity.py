import pytest

from tellsign.data.purity import TAG, ImpureDataError, check_purity, purpose, tag
from tellsign.errors import SettingError, TellsignError
from tellsign.schemas import Task


def test_data_of_the_own_task_passes_and_other_data_is_refused_unless_forced(tmp_path):
    tag(tmp_path, Task.PIXEL)
    check_purity(tmp_path, Task.PIXEL)
    with pytest.raises(ImpureDataError, match=f"{tmp_path}.*pixel task.*semantic model") as caught:
        check_purity(tmp_path, Task.SEMANTIC)
    assert (caught.value.found, caught.value.wanted) == ("pixel", "semantic")
    assert isinstance(caught.value, TellsignError)
    check_purity(tmp_path, Task.SEMANTIC, force=True)


def test_data_of_unknown_purpose_is_refused(tmp_path):
    assert purpose(tmp_path) is None
    with pytest.raises(SettingError, match=TAG):
        check_purity(tmp_path, Task.SEMANTIC)
    check_purity(tmp_path, Task.SEMANTIC, force=True)


def test_a_folder_keeps_its_purpose(tmp_path):
    tag(tmp_path, Task.SEMANTIC)
    tag(tmp_path, Task.SEMANTIC)
    with pytest.raises(ImpureDataError):
        tag(tmp_path, Task.PIXEL)
    assert purpose(tmp_path) is Task.SEMANTIC


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"task": "colour"}', '{"task": 3}'])
def test_a_tag_that_cannot_be_understood_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / TAG).write_text(text)
    with pytest.raises(SettingError, match=TAG):
        check_purity(tmp_path, Task.SEMANTIC)
