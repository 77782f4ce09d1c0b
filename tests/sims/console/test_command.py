"""How commands end: mistakes in one line, exit codes, and all of them by the same door."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from console.command import at_least_one, options_of, parts_of, told

SIMS = Path(__file__).resolve().parents[3] / "sims"
COMMANDS = sorted(file.stem for file in SIMS.glob("*.py"))


def ends(problem: BaseException, **how: object) -> int:
    @told(**how)
    def main() -> int:
        raise problem

    return main()


@pytest.mark.parametrize(
    "problem", [ValueError("two\n  lines"), OSError("two lines"), subprocess.SubprocessError("two  lines")]
)
def test_a_mistake_is_one_line_and_an_exit_code(capsys, problem):
    assert ends(problem) == 1 and ends(problem, failed=2) == 2
    assert capsys.readouterr().err == 2 * "error: two lines\n"


def test_ctrl_c_is_one_line_and_130(capsys):
    assert ends(KeyboardInterrupt()) == 130 and ends(KeyboardInterrupt(), stopped="stopped; again") == 130
    assert capsys.readouterr().err == "stopped\nstopped; again\n"


def test_a_defect_is_not_hidden():
    with pytest.raises(TypeError):
        ends(TypeError("a defect"))


def test_what_main_returns_is_the_exit_code():
    @told()
    def main(code: int) -> int:
        return code

    assert [main(code) for code in (0, 1, 3)] == [0, 1, 3]


def test_there_are_commands_to_check():
    assert {"run", "search", "compare_comm", "compare_methods", "compare_runs", "devices", "write_apps"} < {*COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_a_bad_option_in_one_line_and_tells_what_it_is_for(command, capsys, monkeypatch):
    main = importlib.import_module(command).main
    monkeypatch.setattr(sys, "argv", [command, "--no-such-option"])
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    docstring = ast.get_docstring(ast.parse((SIMS / f"{command}.py").read_text(encoding="utf-8")))
    assert docstring.splitlines()[0] in capsys.readouterr().out


@pytest.mark.nightly
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_called_by_its_path_from_anywhere(command, tmp_path):
    line = [sys.executable, str(SIMS / f"{command}.py")]
    helped = subprocess.run([*line, "--help"], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert helped.returncode == 0 and helped.stdout.startswith("usage: ") and helped.stderr == ""
    refused = subprocess.run([*line, "--no-such-option"], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert refused.returncode == 2 and refused.stdout == "" and refused.stderr.startswith("error: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_by_the_same_door(command):
    tree = ast.parse((SIMS / f"{command}.py").read_text(encoding="utf-8"))
    (main,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    assert ["told" in ast.unparse(decorator) for decorator in main.decorator_list] == [True]
    last = tree.body[-1]
    assert isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'"
    assert ast.unparse(last).count("start(main)") == 1 and "sys.exit" not in ast.unparse(last)


def test_values_that_several_commands_check():
    parser = options_of("What it does.")
    parser.add_argument("--held-out", type=int)
    options = parser.parse_args(["--held-out", "0"])
    with pytest.raises(ValueError, match="--held-out must be at least 1, got 0"):
        at_least_one(options, "held-out")
    assert parts_of("train,cache", ("train", "cache", "speed")) == {"train", "cache"}
    with pytest.raises(ValueError, match="parts must be among train, cache, got speed"):
        parts_of("train,speed", ("train", "cache"))
