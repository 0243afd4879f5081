"""The guard that keeps one task's supervision out of the other task's model.

Task-model alignment (arXiv 2512.06746) trains the semantic branch on meaning alone and the pixel branch on traces
alone, because either supervision dilutes the other. So a folder of training data says which task it was made for, and
training for another task refuses it.
"""

from __future__ import annotations

import json
from pathlib import Path

from tellsign.errors import SettingError, TellsignError
from tellsign.schemas import Task

TAG = "purity.json"
"""Name of the file that says what a folder of training data was made for."""


class ImpureDataError(TellsignError):
    """Training data made for one task was given to the training of another.

    Attributes
    ----------
    folder : str
    found : str
        The task that the data was made for.
    wanted : str
    """

    def __init__(self, folder: Path, found: Task, wanted: Task) -> None:
        self.folder, self.found, self.wanted = str(folder), found.value, wanted.value
        super().__init__(
            f"{folder} holds data for the {found.value} task, and the {wanted.value} model must not learn from it;"
            " force it to measure what mixing costs"
        )


def tag(folder: Path, task: Task) -> None:
    """Write into `folder` that its data was made for `task`.

    Raises
    ------
    ImpureDataError
        The folder was made for another task before.
    """
    if (folder / TAG).is_file():
        check_purity(folder, task)
    (folder / TAG).write_text(json.dumps({"task": task.value}) + "\n", encoding="utf-8")


def purpose(folder: Path) -> Task | None:
    """The task that a folder's data was made for; None where it does not say.

    Raises
    ------
    SettingError
        The tag is there and cannot be understood.
    """
    file = folder / TAG
    if not file.is_file():
        return None
    try:
        return Task(json.loads(file.read_text(encoding="utf-8"))["task"])
    except (ValueError, KeyError, TypeError) as error:
        allowed = ", ".join(Task)
        raise SettingError(str(file), f'{{"task": one of {allowed}}}', file.read_text("utf-8", "replace")) from error


def check_purity(folder: Path, task: Task, *, force: bool = False) -> None:
    """Refuse data that was made for another task.

    Parameters
    ----------
    folder : Path
        Of training data.
    task : Task
        What is to be trained.
    force : bool, default False
        Let it pass all the same: an experiment about mixing.

    Raises
    ------
    ImpureDataError
        The folder says that it is for another task and `force` is not set.
    SettingError
        The folder does not say what it is for: data of unknown purpose is refused as well, unless forced.
    """
    if force:
        return
    found = purpose(folder)
    if found is None:
        raise SettingError("folder", f"a folder with {TAG}, which `prepare` writes", str(folder))
    if found is not task:
        raise ImpureDataError(folder, found, task)
