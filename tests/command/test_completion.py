"""The Tab key in a real bash, after `eval "$(tfprune completion bash)"`."""

import shutil
import subprocess

import pytest

from tfprune.command import COMMANDS, cli


def completed(script, *words):
    """What bash offers for the last of these words."""
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f'\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _tfprune; printf "%s\\n" "${{COMPREPLY[@]}}"'
    run = subprocess.run(["bash", "-c", script + ask], check=True, capture_output=True, text=True)
    return run.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_subcommands_flags_and_choices(capsys):
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert completed(script, "tfprune", "co") == ["convert", "compress", "completion"]
    assert completed(script, "tfprune", "convert", "--quant") == ["--quantization"]
    assert completed(script, "tfprune", "convert", "--quantization", "int") == ["int8", "int16x8"]
    assert completed(script, "tfprune", "convert", "mod") == []  # bash goes on with files


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_every_subcommand(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, check=True, text=True)


def test_every_subcommand_that_prints_a_table_prints_json():
    without = {name for name, each in COMMANDS.items() if not any("json" in str(option) for option in each.options)}
    assert without == {"completion"}
