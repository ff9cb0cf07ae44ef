"""The program around its commands: errors, exit codes, help, completion, progress."""

import os
import signal
import subprocess
import sys

import pytest

import ckptkit
from ckptkit.cli.failure import report
from ckptkit.cli.progress import Bar
from ckptkit.cli.session import Session
from tests.unit.listed import TENSORS, process


@pytest.fixture
def model(tmp_path):
    ckptkit.save(tmp_path / "model", TENSORS)
    return str(tmp_path / "model")


class TestErrors:
    def test_no_such_file(self, run, as_json, tmp_path):
        code, out, err = run("ls", tmp_path / "none")
        assert (code, out) == (6, "")
        assert err == f"ckptkit: error: {tmp_path}/none: no checkpoint of this name\n"
        error = as_json("ls", tmp_path / "none", code=6)["error"]
        assert (error["kind"], error["path"]) == ("FileNotFoundError", f"{tmp_path}/none")

    def test_unknown_format(self, run, as_json, tmp_path):
        (tmp_path / "notes.txt").write_text("hello")
        assert run("verify", tmp_path / "notes.txt")[0] == 3
        error = as_json("ls", tmp_path / "notes.txt", code=3)["error"]
        assert error["kind"] == "UnknownFormatError"
        assert set(error) == {"kind", "message", "path", "tensor", "offset"}

    def test_usage_as_json(self, as_json):
        assert as_json("ls", "--nope", code=2)["error"]["kind"] == "NoSuchOption"

    def test_a_name_in_a_message_cannot_drive_a_terminal(self, run, model):
        _, _, err = run("show", model, "no\x1b[31m\nckptkit: error: fake")
        assert "\x1b" not in err
        assert len([line for line in err.splitlines() if line.startswith("ckptkit: error:")]) == 1

    @pytest.mark.parametrize("line", [("--traceback", "ls", "{}"), ("ls", "{}", "--traceback")])
    def test_traceback_before_or_after(self, run, tmp_path, line):
        _, _, err = run(*(part.format(tmp_path / "none") for part in line))
        assert err.startswith("Traceback")
        assert err.splitlines()[-1].startswith("ckptkit: error: ")

    def test_an_unexpected_error_is_a_bug(self, run, model, monkeypatch):
        monkeypatch.setattr("ckptkit.open", lambda *_: 1 / 0, raising=False)
        code, _, err = run("ls", model)
        assert code == 70
        assert err.startswith("ckptkit: error: this is a bug in ckptkit: ZeroDivisionError")

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ckptkit.CorruptError("m"), 3),
            (ckptkit.EditError("m"), 4),
            (ckptkit.ConflictError("m"), 5),
            (OSError(28, "No space left on device", "file"), 6),
            (OSError("odd"), 6),
            (MemoryError(), 6),
        ],
    )
    def test_exit_codes(self, capsys, error, code):
        assert report(error, Session()) == code
        assert capsys.readouterr().err.startswith("ckptkit: error: ")

    def test_full_standard_output(self, model):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "ckptkit", "ls", model],
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
            )
        assert done.returncode == 6
        assert done.stderr == b"ckptkit: error: No space left on device\n"

    @pytest.mark.parametrize("line", [("ls", "{}"), ("ls", "{}", "--json"), ("help", "language")])
    def test_a_closed_pipe_is_quiet(self, model, line):
        ours, theirs = os.pipe()
        os.close(ours)
        done = subprocess.run(
            [sys.executable, "-m", "ckptkit", *(part.format(model) for part in line)],
            stdout=theirs,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(theirs)
        assert (done.returncode, done.stderr) == (141, b"")


class TestAround:
    def test_version(self, run):
        assert run("--version")[1] == f"ckptkit, version {ckptkit.__version__}\n"

    @pytest.mark.parametrize("line", [(), ("--help",), ("help",)])
    def test_help_lists_every_command(self, run, line):
        code, out, _ = run(*line)
        assert code == 0
        assert out.count("\n  ") > 8

    def test_help_language(self, run):
        from ckptkit.language import REFERENCE

        assert run("help", "language") == (0, REFERENCE, "")

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_completion(self, run, shell):
        code, out, _ = run("completion", shell)
        assert code == 0
        assert "_CKPTKIT_COMPLETE" in out

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ("ver", ["verify"]),
            ("re", ["register", "recover"]),
            ("salvage --d", ["--donor", "--dry-run"]),
            ("edit --reg", ["--register"]),
            ("ls --reader t", ["tensorflow"]),
            ("help t", ["tensorflow"]),
        ],
    )
    def test_a_shell_asks_how_a_line_goes_on(self, words, found):
        asked = {
            "_CKPTKIT_COMPLETE": "bash_complete",
            "COMP_WORDS": f"ckptkit {words}",
            "COMP_CWORD": str(len(words.split())),
        }
        done = process(env={**os.environ, **asked})
        assert done.stdout.decode().splitlines() == [f"plain,{word}" for word in found]

    def test_an_unknown_command(self, run):
        code, _, err = run("list")
        assert code == 2
        assert "No such command 'list'" in err

    def test_signal_handlers_are_put_back(self, run, model):
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        run("ls", model)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


class TestBar:
    def test_short_work_shows_none(self, capsys):
        with Bar("writing", enabled=True) as bar:
            bar(1, 2)
        assert capsys.readouterr().err == ""

    def test_long_work_shows_bytes(self, monkeypatch, capsys):
        monkeypatch.setattr("ckptkit.cli.progress.PATIENCE", 0)
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "120")
        with Bar("writing", enabled=True) as bar:
            bar(1 << 20, 4 << 20)
            bar(4 << 20, 4 << 20)
        shown = capsys.readouterr().err
        assert "writing" in shown
        assert "4.2/4.2 MB" in shown or "4.0/4.0 MiB" in shown

    def test_no_terminal_no_bar(self, monkeypatch, capsys):
        monkeypatch.setattr("ckptkit.cli.progress.PATIENCE", 0)
        with Session().bar("writing") as bar:
            bar(1, 2)
        assert capsys.readouterr().err == ""
