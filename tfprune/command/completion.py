"""Subcommand that teaches a shell the words and flags of all others: completion."""

from __future__ import annotations

from absl import flags

from tfprune.command.command import COMMANDS, Command, UsageError, command, flags_of

SHELLS = ("bash", "zsh", "fish")

BASH = """_tfprune() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=
    if [ "$COMP_CWORD" = 1 ]; then
        words="{commands} --help --version"
    else
        case "${{COMP_WORDS[1]}} $before" in
{choices}
        esac
        case "$word" in -*) case "${{COMP_WORDS[1]}}" in
{flags}
        esac ;; esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _tfprune tfprune"""


@command(
    "tfprune completion bash|zsh|fish",
    "tfprune completion bash",
    takes_files=False,
    options=(),
)
def _completion(words: list[str], values: flags.FlagValues) -> None:
    """Prints what makes the Tab key complete subcommands and flags: eval "$(tfprune completion bash)"."""
    shell = words[0]
    if shell not in SHELLS:
        raise UsageError(f"there is no completion for '{shell}'. Write tfprune completion {'|'.join(SHELLS)}")
    print(_fish() if shell == "fish" else _bash(is_zsh=shell == "zsh"))


def _choices(chosen: Command) -> dict[str, list[str]]:
    """The flags that take one of some words, and these words."""
    defined = flags_of(chosen)
    return {name: flag.parser.enum_values for name, flag in defined.items() if isinstance(flag, flags.EnumFlag)}


def _bash(is_zsh: bool) -> str:
    head = "autoload -U +X bashcompinit && bashcompinit\n" if is_zsh else ""
    choices = [
        f'            "{each.name} --{name}") words="{" ".join(words)}" ;;'
        for each in COMMANDS.values()
        for name, words in _choices(each).items()
    ]
    names = [
        f'            {each.name}) words="{" ".join(f"--{name}" for name in [*flags_of(each), "help"])}" ;;'
        for each in COMMANDS.values()
    ]
    return head + BASH.format(commands=" ".join(COMMANDS), choices="\n".join(choices), flags="\n".join(names))


def _fish() -> str:
    lines = []
    for each in COMMANDS.values():
        lines.append(f"complete -c tfprune -n __fish_use_subcommand -a {each.name} -d '{_quoted(each.effect)}'")
        choices = _choices(each)
        for name, flag in flags_of(each).items():
            takes = f" -x -a '{' '.join(choices[name])}'" if name in choices else "" if flag.boolean else " -r"
            seen = f"-n '__fish_seen_subcommand_from {each.name}'"
            lines.append(f"complete -c tfprune {seen} -l {name}{takes} -d '{_quoted(flag.help)}'")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
