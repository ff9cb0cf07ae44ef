"""What the README shows has to work."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest

import ckptkit
from ckptkit.cli import COMMANDS, main, program
from tests.golden.make import FILES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def command_lines():
    lines = "\n".join(blocks("sh")).replace("&&", "\n").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("ckptkit ")]


def subcommand(name):
    found = program.get_command(click.Context(program), name)
    assert found is not None
    return found


def options(command):
    return {text for parameter in command.params for text in (*parameter.opts, "--help")}


def test_the_first_two_blocks_are_all_the_set_up():
    install, test = blocks("sh")[:2]
    assert install.strip().endswith("&& ckptkit demo")
    assert "pip install '.[all]'" in install
    assert test == "pip install -e '.[test]' && pytest -n auto\n"


def test_extras_that_it_names_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = re.findall(r"'\.\[(\w+)\]'", README)
    assert named
    assert set(named) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("line", command_lines())
def test_command_lines_parse(line):
    _, name, *arguments = shlex.split(line, comments=True)
    given = [item for item in arguments if item.startswith("-")]
    command = subcommand(name)
    assert set(given) <= options(command)
    command.make_context(name, [a for a in arguments if a not in {"-f", "edits.txt"}])


def test_every_option_that_it_names_exists():
    known = set(options(program)).union(*(options(subcommand(name)) for name in COMMANDS))
    assert set(re.findall(r"`(--[a-z-]+)", README)) <= known


def test_every_command_is_shown():
    assert {shlex.split(line, comments=True)[1] for line in command_lines()} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name):
    command = subcommand(name)
    assert command.help
    assert command.short_help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_python_examples_run(tmp_path):
    kernel = np.arange(12, dtype=np.float32).reshape(4, 3)
    before = {"dense/kernel": kernel, "dense/kernel/Adam_m": np.zeros(2, np.float32)}
    ckptkit.save(tmp_path / "run/model-1000", before)
    # tests/compat/test_readme.py is about those that take TensorFlow.
    code = "\n".join(block for block in blocks("python") if "ckptkit.tf" not in block)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)
    edited = ckptkit.open(tmp_path / "out/model-1000")
    assert list(edited) == ["dense/kernel"]
    np.testing.assert_array_equal(edited["dense/kernel"].read(), kernel * [1, 1.5, 1])
    np.testing.assert_array_equal(ckptkit.open(tmp_path / "out/halved")["dense/kernel"], kernel / 2)
    np.testing.assert_array_equal(ckptkit.open(tmp_path / "out/new")["head/bias"], kernel[:, 1])


@pytest.mark.parametrize("line", [line for line in command_lines() if " run/model-1000" in line])
def test_examples_of_the_command_line_run(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    for number in (900, 1000, 2000):
        kernel = np.full((4, 3), number, np.float32)
        rest = {"dense/kernel/Adam_m": kernel, "embedding": np.ones((8, 2), np.float32)}
        ckptkit.save(f"run/model-{number}", {"dense/kernel": kernel, **rest})
    Path("edits.txt").write_text("dense/kernel *= 2")
    _, name, *arguments = shlex.split(line.replace("--device gpu", "--device numpy"), comments=True)
    if name == "undo":
        ckptkit.open("run/model-1000").edit("** *= 2").plan(how="patch", keep_undo=True).run()
    assert main([name, *arguments]) == (name == "diff")


def test_examples_of_keras_files_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = {
        "model.keras": "keras_sequential.keras",
        "template.keras": "keras_sequential.keras",
        "old.h5": "keras_legacy.h5",
        "packed.weights.h5": "keras_repacked.weights.h5",
        "old.weights.h5": "keras_nested.weights.h5",
        "template.weights.h5": "keras_nested.weights.h5",
    }
    for name, source in sources.items():
        shutil.copy(FILES / source, name)
    wider = (
        "resize layer:head/kernel -> 20 axis=1",
        "resize layer:head/bias -> 20",
        "drop optimizer/**",
    )
    Path("edits.txt").write_text("\n".join(wider))
    lines = [line for line in command_lines() if re.search(r"\.(keras|h5)\b", line)]
    assert len(lines) == 13
    for line in lines:
        _, *arguments = shlex.split(line, comments=True)
        assert main(arguments) == 0, line
    with ckptkit.open("wide.keras") as wide, ckptkit.open("new.keras") as new:
        assert wide["layers/dense_2/vars/0"].shape == (5, 20)
        old = ckptkit.open("old.h5")["model_weights/head/sequential/head/kernel"].read()
        np.testing.assert_array_equal(new["layers/dense_2/vars/0"].read(), old)


def test_the_three_line_example_has_three_lines():
    assert len([line for line in blocks("python")[0].splitlines() if line]) == 3


def test_statements_of_the_language_parse():
    from ckptkit.language import parse

    listed = blocks("text")[0].splitlines()
    assert len(listed) == 29
    for line in listed:
        parse(re.split(r" {3,}", line)[0])
    for statement in re.findall(r"`(\*\*/[^`]* [*+]= [^`]*)`", README):
        parse(statement)


def test_exit_codes_are_those_of_the_errors():
    codes = {int(code) for code in re.findall(r"^\| (\d+)", README, re.MULTILINE)}
    errors = [
        value for value in map(ckptkit.__getattr__, ckptkit.__all__) if hasattr(value, "exit_code")
    ]
    assert {error.exit_code for error in errors} <= codes
