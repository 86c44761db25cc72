import numpy as np
import pytest
from PIL import Image

from cnn_flax import augment, gallery
from cnn_flax.cli import main

# Crops and sizes have no range or share one; noise and colours are random.
WITHOUT_A_ROW = {
    *("add_noise", "center_crop", "crop", "jitter", "normalize", "resize"),
    # Not operations on images.
    *("OPERATIONS", "apply_operations", "compose", "one_of", "some_of"),
    # Take two images and their labels.
    *("blend_pairs", "cutmix", "cutmix_or_mixup", "mix_chains", "mixup", "paste_pairs"),
}


def test_every_operation_is_on_a_sheet():
    rows = [*gallery._SWEEPS, *gallery._RANDOM, *gallery._POLICIES]
    shown = {row.split(",")[0] for row in rows}
    operations = {name for name in augment.__all__ if not name.startswith("draw_")}
    assert shown == operations - WITHOUT_A_ROW


@pytest.fixture
def few_rows(monkeypatch):
    """Just enough operations to show the layout of a sheet."""
    for table, names in (
        ("_SWEEPS", ("solarize, threshold", "invert")),
        ("_RANDOM", ("random_horizontal_flip",)),
        ("_POLICIES", ()),
    ):
        rows = {name: getattr(gallery, table)[name] for name in names}
        monkeypatch.setattr(gallery, table, rows)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((120, 200, 3), (200, 100, 50), np.uint8)).save(path)
    return path


@pytest.mark.slow
def test_a_sheet_shows_an_operation_over_its_range(few_rows, photo, tmp_path, capsys):
    out = tmp_path / "new" / "sheets"
    assert main(["gallery", str(photo), "--out", str(out)]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [
        f"{out}/{name}.png" for name in ("operations", "random", "policies")
    ]
    sheet = np.asarray(Image.open(out / "operations.png"))
    colours = {tuple(colour) for colour in sheet.reshape(-1, 3).tolist()}
    assert {(255, 255, 255), (200, 100, 50), (55, 155, 205)} <= colours
    # The original, then the threshold that inverts nothing, ..., and everything.
    row = sheet[80]
    assert tuple(row[200]) == tuple(row[300]) == (200, 100, 50)
    assert tuple(row[-30]) == (55, 155, 205)
    # The name of the row ends next to it.
    is_ink = (sheet[30:110, :176] < 128).all(-1).any(0)
    assert 150 < np.flatnonzero(is_ink).max() < 172


def test_what_cannot_be_read_or_written_is_told(few_rows, photo, tmp_path, capsys):
    assert main(["gallery", "nope.png", "--out", str(tmp_path)]) == 2
    assert "There is no image nope.png" in capsys.readouterr().err
    assert main(["gallery", str(photo), "--out", str(photo)]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["gallery", str(photo)]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.long
def test_all_rows_are_drawn(photo):
    sheets = gallery.draw_sheets(np.asarray(Image.open(photo)))
    assert all(sheet.size[0] == 984 for sheet in sheets.values())
