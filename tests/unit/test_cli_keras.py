"""The command line on Keras files, as their user meets it."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import ckptkit
from ckptkit.errors import EditError
from tests.golden.damage import flip
from tests.golden.make import FILES
from tests.unit.listed import values

KERNEL, BIAS = "layers/dense_2/vars/0", "layers/dense_2/vars/1"
"""The weights of the layer that is called ``head``."""

MANIFEST = "ckptkit manifest nested.weights.h5"
WIDEN = ("-e", "resize layer:head/kernel -> 7 axis=1", "-e", "resize layer:head/bias -> 7")
ALONE = ("-e", "drop optimizer/**")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The golden files, in the current folder: paths that people type are relative."""
    for path in FILES.glob("keras_*"):
        shutil.copy(path, tmp_path / path.name.removeprefix("keras_"))
    shards = tmp_path / "shards.weights.json"
    shards.write_bytes(shards.read_bytes().replace(b"keras_shards", b"shards"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def works(run, folder):
    """Run a command line in that folder that has to succeed; what it printed."""

    def call(*args):
        code, out, err = run(*args)
        assert code == 0, err
        return out

    return call


@pytest.fixture
def fails(run, folder):
    """Run a command line in that folder that has to fail; the message, and nothing is written."""

    def call(*args, code):
        before = {path: path.read_bytes() for path in folder.iterdir()}
        found, out, err = run(*args)
        assert (found, out) == (code, "")
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
        assert err.startswith("ckptkit: error: ")
        assert err.count("\n") == 1
        return err.removeprefix("ckptkit: error: ").strip()

    return call


def config_of(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
        return {layer["config"]["name"]: layer["config"] for layer in layers}


class TestLs:
    def test_layers_are_beside_the_names(self, works):
        lines = works("ls", "sequential.keras").splitlines()
        assert lines[0].split() == ["name", "layer", "dtype", "shape", "size"]
        assert lines[8].split() == [KERNEL, "head/kernel", "float32", "[5,3]", "60", "B"]
        assert lines[-1] == "25 tensors, 988 B; keras checkpoint of 1 shard at sequential.keras"

    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("layer:head/kernel", [KERNEL]),
            ("layer:head/*", [KERNEL, BIAS]),
            ("layer:**/bias", ["layers/dense/vars/1", BIAS]),
            ("layers/dense_2/**", [KERNEL, BIAS]),
        ],
    )
    def test_patterns_over_layers(self, as_json, folder, pattern, names):
        found = as_json("ls", "sequential.keras", pattern)["tensors"]
        assert [tensor["name"] for tensor in found] == names
        assert {tensor["layer"].partition("/")[0] for tensor in found} <= {"head", "first"}

    def test_a_layer_that_is_not_there(self, fails):
        assert "did you mean 'head/kernel'" in fails("ls", "legacy.h5", "layer:head/kernl", code=4)

    def test_a_file_that_says_nothing_of_layers(self, run, folder):
        with h5py.File("plain.h5", "w") as file:
            file["a"] = np.zeros(3)
        code, _, err = run("ls", "plain.h5", "layer:a")
        assert code == 4
        assert "says nothing of layers" in err

    def test_where_the_bytes_are(self, as_json, folder):
        (found,) = as_json("ls", "sequential.keras", KERNEL)["tensors"]
        raw = Path("sequential.keras").read_bytes()[found["offset"] :][: found["nbytes"]]
        assert raw == values("sequential.keras")[KERNEL].tobytes()
        assert (found["shard"], found["file"]) == (0, "sequential.keras")
        assert found["checksum"] is None

    def test_of_chunks_there_is_no_offset(self, works, as_json):
        works("edit", "repacked.weights.h5", "some.weights.h5", "-q", "-e", f"{BIAS} *= 2")
        listed = {one["name"]: one for one in as_json("ls", "some.weights.h5", "**")["tensors"]}
        assert {one["file"] for one in listed.values()} == {"some.weights.h5"}
        assert {one["shard"] for one in listed.values()} == {0}
        assert {name for name, one in listed.items() if one["offset"] is None} == {*listed} - {BIAS}
        line = works("ls", "-l", "repacked.weights.h5", BIAS).splitlines()[1]
        assert line.split()[-2:] == ["0", "encoded"]

    def test_shards(self, as_json, works):
        found = as_json("ls", "shards.weights.json")["tensors"]
        assert {one["file"] for one in found} == {f"shards_0000{n}.weights.h5" for n in range(4)}
        assert "checkpoint of 4 shards at" in works("ls", "shards.weights.json")


class TestShow:
    def test_a_weight_of_a_layer(self, works, as_json):
        column = values("sequential.keras")[KERNEL][:, 1]
        found = as_json("show", "sequential.keras", "layer:head/kernel[:, 1]")
        assert found["name"] == KERNEL
        np.testing.assert_array_equal(np.float32(found["values"]), column)
        line = works("show", "sequential.keras", "layer:head/kernel[:, 1]").splitlines()[0]
        wanted = f"{KERNEL}[:, 1] (layer:head/kernel): float32[5, 3], 5 elements of 60 B stored"
        assert line == wanted

    def test_what_is_in_chunks(self, as_json, folder):
        found = as_json("show", "repacked.weights.h5", "layer:head/kernel", "--stats")
        assert found["stats"]["count"] == 15

    def test_one_at_a_time(self, fails):
        message = fails("show", "sequential.keras", "layer:head/*", code=4)
        assert message == "'layer:head/*' stands for 2 tensors, and one is shown at a time"

    def test_a_layer_that_is_not_there(self, fails):
        assert "layer:haed/kernel" in fails("show", "sequential.keras", "layer:haed/kernel", code=4)


class TestVerify:
    def test_an_archive_has_checksums(self, works):
        assert works("verify", "sequential.keras") == (
            "sequential.keras: ok, 32.6 KiB checked, no problems\n"
        )

    def test_weights_have_none_until_there_is_a_manifest(self, works):
        assert works("verify", "nested.weights.h5").splitlines() == [
            f"nested.weights.h5: its tensors have no checksums; this makes some: {MANIFEST}",
            "nested.weights.h5: ok, structure checked, no problems",
        ]
        works("manifest", "nested.weights.h5", "-q")
        first, second = works("verify", "nested.weights.h5").splitlines()
        assert first.endswith("nested.weights.h5.manifest.json")
        assert second == "nested.weights.h5: ok, 612 B checked, no problems"

    def test_a_damaged_byte_of_an_archive(self, works, run, as_json):
        (found,) = as_json("ls", "sequential.keras", KERNEL)["tensors"]
        flip("sequential.keras", found["offset"])
        code, out, _ = run("verify", "sequential.keras")
        assert code == 1
        assert "member 'model.weights.h5': CRC-32 is" in out
        assert "Keras refuses to load it" in out

    def test_a_damaged_byte_of_weights_is_found_by_the_manifest(self, works, run, as_json):
        works("manifest", "nested.weights.h5", "-q")
        found = as_json("ls", "nested.weights.h5", "layer:**/kernel")["tensors"][0]
        flip("nested.weights.h5", found["offset"] + 3)
        code, out, _ = run("verify", "nested.weights.h5")
        assert code == 1
        assert f"tensor {found['name']!r}" in out

    def test_damage_that_does_not_open_is_a_problem_too(self, run, folder):
        whole = Path("sequential.keras").read_bytes()
        Path("sequential.keras").write_bytes(whole[: len(whole) // 2])
        assert run("ls", "sequential.keras")[0] == 3
        code, out, err = run("verify", "sequential.keras")
        assert (code, err) == (1, "")
        assert "end record" in out

    def test_a_manifest_goes_stale(self, works, run):
        works("manifest", "sequential.keras", "-q")
        out = works("edit", "sequential.keras", "--in-place", "-e", "layer:head/bias = 1")
        again = "ckptkit manifest sequential.keras"
        assert f"note: its manifest is of the tensors as they were; anew: {again}" in out
        assert run("verify", "sequential.keras")[0] == 1
        works(*again.split()[1:])
        works("verify", "sequential.keras")


class TestDiff:
    def test_layers_are_beside_the_names(self, works, run, as_json):
        works("edit", "sequential.keras", "b.keras", "-q", "-e", "layer:head/bias[1] += 2")
        code, out, _ = run("diff", "sequential.keras", "b.keras", "--values")
        assert code == 1
        head, line, count = out.splitlines()
        assert head.split()[:3] == ["name", "layer", "difference"]
        assert line.split()[:3] == [BIAS, "head/bias", "values"]
        assert line.split()[-3:-1] == ["1", "2"]
        assert count == "1 difference"
        (found,) = as_json("diff", "sequential.keras", "b.keras", code=1)["differences"]
        assert found["layer"] == "head/bias"

    def test_an_archive_and_its_weights(self, works):
        works("convert", "sequential.keras", "a.weights.h5", "-q")
        assert works("diff", "sequential.keras", "a.weights.h5") == "no differences\n"

    def test_chunks_and_runs_of_bytes(self, works):
        works("edit", "repacked.weights.h5", "a.weights.h5", "--contiguous", "-q")
        assert works("diff", "repacked.weights.h5", "a.weights.h5") == "no differences\n"


class TestEdit:
    EDITS = ("-e", "layer:head/kernel[:, 1] *= 1.5", "-e", "layer:head/bias[1] *= 1.5")

    def check(self, path, before):
        after = values(path)
        np.testing.assert_array_equal(after[KERNEL], before[KERNEL] * np.float32([1, 1.5, 1]))
        np.testing.assert_array_equal(after[BIAS], before[BIAS] * np.float32([1, 1.5, 1]))
        for name in before.keys() - {KERNEL, BIAS}:
            np.testing.assert_array_equal(after[name], before[name])

    @pytest.mark.parametrize("name", ["sequential.keras", "tf_keras.keras"])
    def test_a_copy_of_an_archive(self, works, name):
        label = "layer:head/kernel"
        works("edit", name, "out.keras", "-e", f"{label}[:, 1] *= 1.5")
        with zipfile.ZipFile(name) as old, zipfile.ZipFile("out.keras") as new:
            assert new.testzip() is None
            assert new.namelist() == old.namelist()
            assert new.read("config.json") == old.read("config.json")

    def test_in_place_and_back(self, works):
        raw, before = Path("sequential.keras").read_bytes(), values("sequential.keras")
        out = works("edit", "sequential.keras", "--in-place", "--keep-undo", *self.EDITS)
        assert out.startswith("patch in place sequential.keras\n")
        assert "reused" not in out
        assert "carried over" not in out
        self.check("sequential.keras", before)
        assert len(Path("sequential.keras").read_bytes()) == len(raw)
        with zipfile.ZipFile("sequential.keras") as archive:
            assert archive.testzip() is None
        works("undo", "sequential.keras")
        assert Path("sequential.keras").read_bytes() == raw

    @pytest.mark.parametrize(
        "name", ["old_names.weights.h5", "windows.weights.h5", "legacy_weights.h5", "keras_1.h5"]
    )
    def test_other_writers(self, works, folder, name):
        name = name.removeprefix("keras_") if not Path(name).exists() else name
        before = values(name)
        works("edit", name, "--in-place", "-q", "-e", "** *= 2")
        after = values(name)
        for key, old in before.items():
            np.testing.assert_array_equal(after[key], old * 2)

    def test_a_dry_run_writes_nothing(self, works, folder):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        works("edit", "sequential.keras", "--in-place", "--dry-run", *self.EDITS)
        works("edit", "sequential.keras", "out.keras", "--dry-run", *self.EDITS)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_drop_the_optimizer_and_compact(self, works, folder):
        with h5py.File("big.weights.h5", "w") as file:
            file["layers/dense/vars/0"] = np.ones((4, 4), np.float32)
            file["optimizer/vars/0"] = np.ones(5000, np.float32)
        out = works("edit", "big.weights.h5", "--in-place", "--how", "patch", *ALONE)
        assert "the state of the optimizer goes: Keras loads without it" in out
        assert "dead bytes" in works("ls", "big.weights.h5")
        size = Path("big.weights.h5").stat().st_size
        assert "bytes belong to no tensor" in works("verify", "big.weights.h5")
        works("edit", "big.weights.h5", "--compact", "-q")
        assert size - Path("big.weights.h5").stat().st_size >= 20_000
        assert "dead" not in works("ls", "big.weights.h5")

    def test_a_plan_says_why_it_is_a_patch(self, works):
        out = works("edit", "sequential.keras", "--in-place", "--dry-run", *ALONE)
        assert "patch: only metadata changes, and leaves 636 B dead until --compact" in out
        out = works(
            "edit", "sequential.keras", "--in-place", "--dry-run", "-e", "layer:**/bias = 0"
        )
        assert "patch: writes 96 B, journal included; a copy would write 32.9 KiB" in out

    def test_a_plan_says_why_it_is_no_patch(self, works):
        out = works("edit", "sequential.keras", "--in-place", "-e", "cast layer:** -> float16")
        assert out.startswith("copy in place")
        assert "copy: patch does not go: 'layers/batch_normalization/vars/0' becomes float16" in out

    def test_contiguous(self, works, as_json):
        works("edit", "repacked.weights.h5", "out.weights.h5", "--contiguous")
        found = as_json("ls", "out.weights.h5")["tensors"]
        assert None not in {one["offset"] for one in found}

    def test_chunks_stay_chunks(self, works):
        works("edit", "repacked.weights.h5", "out.weights.h5", "-e", "layer:head/bias *= 2")
        with h5py.File("repacked.weights.h5") as old, h5py.File("out.weights.h5") as new:
            for name in ("layers/batch_normalization/vars/0", KERNEL):
                assert new[name].chunks == old[name].chunks
                assert new[name].compression == old[name].compression

    def test_what_the_config_says_otherwise(self, works):
        out = works("edit", "sequential.keras", "out.keras", *WIDEN, *ALONE)
        assert "note: config.json: layer 'head' has units 3, and its kernel is" in out
        assert "it should be 7" in out
        assert "--sync-config changes the configuration where that can be told" in out
        assert config_of("out.keras")["head"]["units"] == 3

    def test_sync_config(self, works):
        out = works("edit", "sequential.keras", "out.keras", "--sync-config", *WIDEN, *ALONE)
        assert "note: config: head.units changed to go with the weights" in out
        old, new = config_of("sequential.keras"), config_of("out.keras")
        assert new["head"].pop("units") == 7
        assert old["head"].pop("units") == 3
        assert new == old

    def test_sync_config_of_dtypes_in_place(self, works):
        works(
            "edit", "sequential.keras", "--in-place", "--sync-config", *ALONE,
            "-e", "cast layer:head/* -> bfloat16",
        )  # fmt: skip
        config = config_of("sequential.keras")["head"]["dtype"]
        assert config["config"]["name"] == "bfloat16"

    def test_an_optimizer_of_other_shapes_is_told_of(self, works):
        out = works("edit", "sequential.keras", "out.keras", "--dry-run", *WIDEN)
        assert "the state of the optimizer is as it was: Keras fails to load that" in out
        assert '"drop optimizer/**" leaves it out' in out
        out = works("edit", "sequential.keras", "out.keras", "--dry-run", *WIDEN, *ALONE)
        assert "fails to load that" not in out

    def test_what_is_stored_twice_changes_twice(self, works):
        out = works("edit", "loss_scale.weights.h5", "out.weights.h5", "-e", "optimizer/vars/6 = 3")
        assert "holds what 'optimizer/vars/6' does, and changes with it" in out

    def test_resume_is_for_a_new_place(self, works):
        works("edit", "sequential.keras", "out.keras", "--resume", *self.EDITS)
        self.check("out.keras", values("sequential.keras"))
        assert works("recover", "out.keras") == "out.keras: nothing to recover\n"


class TestRefusals:
    """Nothing is written, the message says why, and the exit code what kind of error it is."""

    @pytest.mark.parametrize(
        ("source", "name", "ending"),
        [
            ("sequential.keras", "out.h5", ".weights.h5"),
            ("sequential.keras", "out", ".keras"),
            ("nested.weights.h5", "out.h5", ".weights.h5"),
            ("nested.weights.h5", "out.npz", ".weights.h5"),
            ("shards.weights.json", "out", ".weights.json"),
            ("legacy.h5", "out.weights.h5", ".h5"),
            ("legacy.h5", "out", ".h5"),
        ],
    )
    def test_names_that_keras_would_not_know(self, fails, source, name, ending):
        message = fails("convert", source, name, code=4)
        assert message.endswith(
            f"{name}: Keras tells by its name what a file holds: it has to end in {ending}"
        )

    def test_an_archive_of_weights_alone(self, fails):
        message = fails("convert", "nested.weights.h5", "out.keras", code=4)
        assert "--match TEMPLATE.keras" in message

    def test_shards_of_a_legacy_file(self, fails):
        message = fails("convert", "legacy.h5", "out.weights.json", code=4)
        assert message.endswith(
            "only weights of Keras 3 are cut into shards, and this is a legacy file"
        )

    @pytest.mark.parametrize(
        ("how", "message"),
        [
            (["--in-place", "--how", "append"], "edited in place by patch or copy, not by append"),
            (["b.keras", "--how", "link"], "shares no files with another one; write a copy"),
            (["--in-place", "--sync-config"], "weights alone"),
        ],
    )
    def test_ways_that_there_are_not(self, fails, how, message):
        name = "nested.weights.h5"
        assert message in fails("edit", name, *how, "-e", "layers/** *= 2", code=4)

    def test_a_dtype_that_keras_has_not(self, fails):
        message = fails(
            "edit", "sequential.keras", "b.keras", "-e", "cast ** -> float8_e5m2", code=3
        )
        assert "float8_e5m2" in message

    def test_patch_of_chunks(self, fails):
        line = ("edit", "repacked.weights.h5", "--in-place", "--how", "patch")
        message = fails(*line, "-e", "layer:head/kernel *= 2", code=4)
        assert "is stored in chunks, compressed, or big-endian; write a copy instead" in message

    def test_what_is_there_already(self, fails):
        message = fails("convert", "nested.weights.h5", "subclassed.weights.h5", code=4)
        assert "the destination exists" in message

    def test_what_is_not_there(self, fails):
        assert "none.keras" in fails("ls", "none.keras", code=6)

    @pytest.mark.parametrize("content", [b"", b"PK\3\4", b"hello", b"\x89HDF\r\n\x1a\n"])
    @pytest.mark.parametrize("name", ["x.keras", "x.weights.h5", "x.h5", "x.weights.json"])
    def test_what_is_no_such_file(self, fails, folder, name, content):
        (folder / name).write_bytes(content)
        assert name in fails("ls", name, code=3)


class TestConvert:
    def test_shards_and_back(self, works, as_json):
        line = ("convert", "sequential.keras", "s.weights.json", "--max-shard-size", "200")
        plan = as_json(*line)["plan"]
        assert plan["shards"] == len(list(Path().glob("s_*.weights.h5"))) == 6
        assert works("diff", "sequential.keras", "s.weights.json") == "no differences\n"
        works("convert", "s.weights.json", "back.weights.h5", "-q")
        works("convert", "sequential.keras", "whole.weights.h5", "-q")
        assert works("diff", "back.weights.h5", "whole.weights.h5") == "no differences\n"

    def test_edits_on_the_way(self, works):
        works("convert", "sequential.keras", "w.weights.h5", "-q", *ALONE)
        assert not any(name.startswith("optimizer") for name in values("w.weights.h5"))

    def test_values_where_they_belong(self, works, as_json):
        # A layer in front shifts the others, which their names do not mind.
        with h5py.File("new.weights.h5", "w") as file:
            for number, (name, shape) in enumerate(
                {"added": (5, 5), "dense": (5, 5), "head": (5, 3)}.items()
            ):
                group = file.create_group(
                    f"layers/dense_{number}/vars" if number else "layers/dense/vars"
                )
                group.attrs["name"] = name
                group["0"] = np.zeros(shape, np.float32)
        out = works("convert", "sequential.keras", "out.weights.h5", "--match", "new.weights.h5")
        before, after = values("sequential.keras"), values("out.weights.h5")
        assert not after["layers/dense/vars/0"].any()
        np.testing.assert_array_equal(
            after["layers/dense_1/vars/0"], before["layers/dense_1/vars/0"]
        )
        np.testing.assert_array_equal(after[KERNEL], before[KERNEL])
        lines = out.splitlines()
        assert lines[:4] == [
            "2 of 3 tensors of the template get values",
            "  2 from the tensor of the same name",
            "1 stay as they are in the template",
            "  layers/dense/vars/0: old has no 'added/kernel'",
        ]
        found = as_json(
            "convert", "sequential.keras", "json.weights.h5", "--match", "new.weights.h5"
        )["matching"]
        assert [pair["old"] for pair in found["pairs"]] == ["layers/dense_1/vars/0", KERNEL]
        assert [one["name"] for one in found["unmatched_new"]] == ["layers/dense/vars/0"]

    def test_from_the_format_before(self, works):
        out = works("convert", "legacy.h5", "new.keras", "--match", "sequential.keras")
        assert out.startswith("9 of 25 tensors of the template get values")
        assert f"  {KERNEL} <- model_weights/head/sequential/head/kernel" in out
        before, after = values("legacy.h5"), values("new.keras")
        np.testing.assert_array_equal(
            after[KERNEL], before["model_weights/head/sequential/head/kernel"]
        )

    def test_nothing_in_common(self, run, folder):
        line = ("convert", "nested.weights.h5", "out.keras", "--match", "sequential.keras")
        code, out, err = run(*line)
        assert code == 4
        assert not out
        assert "by name, no tensor has a partner in the template" in err
        assert not Path("out.keras").exists()
        with pytest.raises(EditError, match="no tensor has a partner"):
            ckptkit.convert("nested.weights.h5", "out.keras", match="sequential.keras")

    def test_edits_read_the_old_one_and_others(self, works):
        line = ("convert", "legacy.h5", "new.keras", "--match", "sequential.keras", "-q")
        old = "model_weights/head/sequential/head/kernel"
        edits = (f'{KERNEL} = t("old:{old}") + t("more:{KERNEL}")', f"{KERNEL} *= 2")
        works(*line, "--with", "more=sequential.keras", *(w for e in edits for w in ("-e", e)))
        expected = values("legacy.h5")[old] + values("sequential.keras")[KERNEL]
        np.testing.assert_array_equal(values("new.keras")[KERNEL], expected * np.float32(2))


def test_manifests_of_every_kind(works, as_json):
    names = ("sequential.keras", "nested.weights.h5", "shards.weights.json", "repacked.weights.h5")
    found = as_json("manifest", *names)["manifests"]
    assert [one["path"] for one in found] == [*names]
    assert all(Path(one["manifest"]).exists() for one in found)
    works("verify", *names)


def test_recover_with_nothing_to_recover(works):
    assert works("recover", "sequential.keras") == "sequential.keras: nothing to recover\n"


def test_help_speaks_of_keras_files(works):
    assert "layer:head/kernel" in works("help", "language")
    assert "Keras files (.keras, .weights.h5, .weights.json, .h5)" in works("help", "writing")
