import json
from collections import Counter
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.capture import drawn_clip

from edgecount.errors import DatasetError, SourceError
from edgecount.toolchain.quantize.calibration_set import (
    CalibrationImages,
    Judge,
    Manifest,
    Plan,
    build,
    spoil,
)
from edgecount.toolchain.quantize.calibration_set.build import choose


def picture(number, light=1.0):
    random = np.random.default_rng(number)
    made = np.full((48, 64, 3), 140, np.uint8)
    for _ in range(6):
        x, y = (int(v) for v in random.integers(0, 48, 2))
        color = tuple(int(v) for v in random.integers(0, 256, 3))
        cv2.rectangle(made, (x, y), (x + 12, y + 12), color, -1)
    return (made * light).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    (made / "inner").mkdir(parents=True)
    for i in range(40):
        place = made if i % 2 else made / "inner"
        cv2.imwrite(str(place / f"{i:02d}.png"), picture(i, 0.2 if i < 4 else 1.0))
    return made


def made(source, out, **plan):
    return build(Plan(str(source), **plan), out)


class TestFolder:
    def test_files_are_copied_as_they_are(self, folder, tmp_path):
        manifest = made(folder, tmp_path / "set", count=20, copies=0.1)
        assert len(manifest.images) == 20
        assert manifest.seen == 40
        originals = [e for e in manifest.images if not e.why.endswith("copy")]
        assert len(originals) == 18
        for entry in originals:
            copied = (tmp_path / "set" / entry.file).read_bytes()
            assert copied == (folder / entry.origin).read_bytes()
            assert sha256(copied).hexdigest() == entry.sha256

    def test_manifest_and_files_are_all_there_is(self, folder, tmp_path):
        manifest = made(folder, tmp_path / "set", count=20)
        there = {p.name for p in (tmp_path / "set").iterdir()}
        assert there == {e.file for e in manifest.images} | {"manifest.json"}
        assert Manifest.load(tmp_path / "set") == manifest
        assert {p.name for p in tmp_path.iterdir()} == {"pictures", "set"}

    def test_covers_dark_blurred_and_crowded_and_adds_copies(self, folder, tmp_path):
        manifest = made(folder, tmp_path / "set", count=20)
        why = Counter(entry.why for entry in manifest.images)
        assert {k: why[k] for k in ("dark", "blurred", "crowded")} == {
            "dark": 1,
            "blurred": 1,
            "crowded": 1,
        }
        assert why["blurred copy"] == why["dark copy"] == 1
        assert {e.origin for e in manifest.images if e.why == "dark"} < {
            "01.png",
            "inner/00.png",
            "inner/02.png",
            "03.png",
        }

    def test_copies_name_what_they_are_of(self, folder, tmp_path):
        manifest = made(folder, tmp_path / "set", count=20, copies=0.3)
        files = {e.file: e for e in manifest.images}
        copies = [e for e in manifest.images if e.why.endswith("copy")]
        assert len(copies) == 6
        for copy in copies:
            assert not files[copy.origin].why.endswith("copy")
        assert len({c.origin for c in copies}) > 1

    def test_is_the_same_every_time(self, folder, tmp_path):
        first, second = (made(folder, tmp_path / name, count=20) for name in "ab")
        assert first == second
        assert made(folder, tmp_path / "c", count=20, seed=1).sha256 != first.sha256

    def test_duplicates_are_taken_once(self, folder, tmp_path):
        for i in range(10):
            cv2.imwrite(str(folder / f"same{i}.png"), picture(99))
        manifest = made(folder, tmp_path / "set", count=60, copies=0.0)
        assert len(manifest.images) == 41

    def test_a_model_tells_what_is_crowded(self, folder, tmp_path):
        def blue(image):
            return float(image[..., 0].mean())

        manifest = build(Plan(str(folder), count=20), tmp_path / "set", Judge("blue-counter", blue))
        assert manifest.crowded_by == "blue-counter"
        (crowded,) = (e for e in manifest.images if e.why == "crowded")
        values = sorted(blue(cv2.imread(str(p))) for p in folder.rglob("*.png"))
        assert crowded.crowding >= values[-4] - 1e-3

    def test_a_damaged_picture_is_told_and_left_out(self, folder, tmp_path):
        (folder / "bad.jpg").write_bytes(b"no picture")
        told = []
        manifest = build(Plan(str(folder), count=20), tmp_path / "set", notice=told.append)
        assert manifest.seen == 40
        assert len(told) == 1
        assert "bad.jpg" in told[0]


class TestNotes:
    def notes(self, *arguments, **plan):
        return "\n".join(made(*arguments, **plan).notes)

    def test_few_pictures_and_fewer_than_asked(self, folder, tmp_path):
        notes = self.notes(folder, tmp_path / "set", count=100)
        assert "only 40 pictures that differ" in notes
        assert "44 pictures are few" in notes
        assert "no dark pictures" not in notes

    def test_a_source_without_night(self, tmp_path):
        for i in range(20):
            cv2.imwrite(str(tmp_path / f"{i}.png"), picture(i))
        assert "no dark pictures" in self.notes(tmp_path, tmp_path / "set", count=18)


class TestRefusals:
    def test_too_few_different_pictures(self, tmp_path):
        (tmp_path / "few").mkdir()
        for i in range(50):
            cv2.imwrite(str(tmp_path / "few" / f"{i}.png"), picture(i % 3))
        with pytest.raises(DatasetError, match=r"gave 50 pictures, of which only 3 differ"):
            made(tmp_path / "few", tmp_path / "set")
        assert [p.name for p in tmp_path.iterdir()] == ["few"]

    def test_no_picture(self, tmp_path):
        (tmp_path / "none").mkdir()
        with pytest.raises(DatasetError, match="holds no pictures"):
            made(tmp_path / "none", tmp_path / "set")

    def test_a_set_that_is_too_small_to_ask_for(self, folder, tmp_path):
        with pytest.raises(DatasetError, match="ask for 16 at least"):
            made(folder, tmp_path / "set", count=5)

    def test_a_folder_that_is_not_empty_is_never_overwritten(self, folder):
        with pytest.raises(DatasetError, match="exists"):
            made(folder, folder)

    def test_a_source_that_does_not_exist(self, tmp_path):
        with pytest.raises(SourceError, match="there is no file"):
            made(tmp_path / "none.mp4", tmp_path / "set")

    def test_a_place_that_cannot_be_written(self, folder, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(DatasetError, match="cannot write"):
            made(folder, tmp_path / "file" / "set")


class TestClip:
    def test_frames_are_stored_with_the_pixels_that_were_decoded(self, tmp_path):
        clip = drawn_clip(tmp_path / "clip.avi", frames=60)
        manifest = made(clip, tmp_path / "set", count=20)
        assert manifest.seen == 60
        frames = {}
        capture = cv2.VideoCapture(str(clip))
        while True:
            ok, image = capture.read()
            if not ok:
                break
            frames[f"frame {len(frames)}"] = image
        for entry in manifest.images[:18]:
            stored = cv2.imread(str(tmp_path / "set" / entry.file))
            assert (stored == frames[entry.origin]).all()

    def test_a_still_camera_shows_one_picture(self, tmp_path):
        clip = str(tmp_path / "still.avi")
        writer = cv2.VideoWriter(clip, cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
        for _ in range(20):
            writer.write(picture(1))
        writer.release()
        with pytest.raises(DatasetError, match="only 1 differ"):
            made(clip, tmp_path / "set")

    def test_at_most_so_many_frames_per_second(self, tmp_path):
        clip = drawn_clip(tmp_path / "clip.avi", frames=60, fps=20.0)
        assert made(clip, tmp_path / "set", count=16, fps=10.0).seen == 30


class TestImages:
    def test_reads_what_was_made(self, folder, tmp_path):
        manifest = made(folder, tmp_path / "set", count=20)
        images = CalibrationImages(tmp_path / "set")
        assert len(images) == 20
        assert images.sha256 == manifest.sha256
        for _ in range(2):
            read = list(images)
            assert [i.shape for i in read] == [(48, 64, 3)] * 20

    def test_the_first_few(self, folder, tmp_path):
        made(folder, tmp_path / "set", count=20)
        few = CalibrationImages(tmp_path / "set", 5)
        assert len(list(few)) == len(few) == 5
        assert few.sha256 != CalibrationImages(tmp_path / "set").sha256

    def test_a_changed_picture_is_found(self, folder, tmp_path):
        manifest = made(folder, tmp_path / "set", count=20)
        victim = tmp_path / "set" / manifest.images[3].file
        cv2.imwrite(str(victim), picture(1000))
        with pytest.raises(DatasetError, match=f"{victim.name} was changed"):
            list(CalibrationImages(tmp_path / "set"))
        victim.unlink()
        with pytest.raises(DatasetError, match=f"cannot read .*{victim.name}"):
            list(CalibrationImages(tmp_path / "set"))

    def test_any_folder_will_do_with_a_warning(self, folder):
        images = CalibrationImages(folder)
        assert len(list(images)) == 40
        assert "few" in images.notes[0]
        assert "no manifest" in images.notes[1]

    def test_a_damaged_picture_is_named(self, folder):
        (folder / "bad.png").write_bytes(b"no picture")
        with pytest.raises(DatasetError, match=r"bad\.png cannot be read"):
            list(CalibrationImages(folder))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("no json", "no manifest of a calibration set"),
            ("[]", "no manifest of a calibration set"),
            ('{"format": 9}', "format"),
        ],
    )
    def test_a_damaged_manifest(self, tmp_path, text, message):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(DatasetError, match=message):
            CalibrationImages(tmp_path)

    def test_a_manifest_changed_by_hand(self, folder, tmp_path):
        made(folder, tmp_path / "set", count=20)
        path = tmp_path / "set" / "manifest.json"
        data = json.loads(path.read_text())
        data["images"].pop()
        path.write_text(json.dumps(data))
        with pytest.raises(DatasetError, match="changed after it was made"):
            CalibrationImages(tmp_path / "set")

    def test_no_folder_and_an_empty_one(self, tmp_path):
        for place in (tmp_path, tmp_path / "none"):
            with pytest.raises(DatasetError, match="edgecount calibrate-set"):
                CalibrationImages(place)

    @pytest.mark.parametrize(("count", "word"), [(299, "few"), (801, "more than needed")])
    def test_warns_below_300_and_above_800(self, count, word):
        from edgecount.toolchain.quantize.calibration_set import count_notes

        assert word in count_notes(count)[0]
        assert count_notes(300) == count_notes(800) == []


class TestChoose:
    def test_hard_ones_first_then_the_most_different(self):
        points = np.arange(40, dtype=np.float32)[:, None]
        hardness = {"dark": -np.arange(40, dtype=np.float32)}
        chosen = choose(points, hardness, 20)
        assert chosen[0][1] == "dark"
        assert chosen[0][0] < 4
        assert {why for _, why in chosen[1:]} == {"diverse"}
        assert len({index for index, _ in chosen}) == 20

    def test_all_of_them(self):
        points = np.arange(5, dtype=np.float32)[:, None]
        chosen = choose(points, {"dark": points[:, 0], "blurred": -points[:, 0]}, 5)
        assert sorted(index for index, _ in chosen) == [0, 1, 2, 3, 4]


class TestZoomOut:
    def test_part_of_the_set_is_mosaics(self, folder, tmp_path):
        manifest = made(folder, tmp_path / "set", count=20, copies=0.0, zoom_out=0.2)
        mosaics = [e for e in manifest.images if e.why == "zoomed out"]
        assert (len(manifest.images), len(mosaics)) == (20, 4)
        assert [len(e.origin.split("; ")) for e in mosaics] == [9, 16, 9, 16]
        assert len(CalibrationImages(tmp_path / "set")) == 20

    def test_a_set_may_be_of_mosaics_alone(self, folder, tmp_path):
        manifest = made(folder, tmp_path / "set", count=16, zoom_out=1.0)
        assert {e.why for e in manifest.images} == {"zoomed out"}
        image = cv2.imread(str(tmp_path / "set" / manifest.images[0].file))
        assert image.shape == (416, 416, 3)

    def test_each_picture_covers_its_cell(self):
        grey = [np.full((20, 40, 3), 10 * (i + 1), np.uint8) for i in range(9)]
        whole = spoil.zoomed_out(grey, 100)
        assert [int(whole[y, x, 0]) for y in (0, 50, 99) for x in (0, 50, 99)] == [
            10 * (i + 1) for i in range(9)
        ]
        assert whole.min() >= 10
