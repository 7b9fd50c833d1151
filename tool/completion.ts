/**
 * `dsmr completion`: what shells complete. Made from the same descriptions as the help.
 *
 * @module
 */

import {
  type Command,
  commonOptions,
  type Context,
  type Invocation,
  OK,
  UsageError,
} from "./command.ts";
import { json } from "./text.ts";

const shells = ["bash", "zsh", "fish"] as const;

/** For single quotes, in all three shells: these texts contain none. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "")}'`;
}

function optionsOf(command: Command): [string, { help: string; short?: string; value?: string }][] {
  return Object.entries({ ...command.options, ...commonOptions });
}

const flagsOf = (command: Command): string =>
  optionsOf(command).map(([name]) => `--${name}`).join(" ");

/**
 * Names of registries are anybody's text, and `compgen -W` would run what looks like a command in
 * them. So they are compared here, and quoted.
 */
function bash(commands: readonly Command[]): string {
  const cases = commands.map((command) => {
    const [operand] = command.operands;
    const words = operand === "SHELL" ? `; words=${quoted(shells.join(" "))}` : "";
    const names = operand === "REGISTRY" ? "; names=$(_dsmr_registries)" : "";
    return `    ${command.name}) flags=${quoted(flagsOf(command))}${words}${names} ;;`;
  });
  return [
    '# bash completion for dsmr. In ~/.bashrc: eval "$(dsmr completion bash)"',
    "_dsmr_registries() { dsmr ls --names 2>/dev/null; }",
    "_dsmr() {",
    "  local word=${COMP_WORDS[COMP_CWORD]} flags= words= names= name= quoted=",
    "  COMPREPLY=()",
    '  if [ "$COMP_CWORD" -eq 1 ]; then',
    `    COMPREPLY=($(compgen -W ${
      quoted(commands.map(({ name }) => name).join(" "))
    } -- "$word"))`,
    "    return",
    "  fi",
    '  case "${COMP_WORDS[1]}" in',
    ...cases,
    "    *) return ;;",
    "  esac",
    '  case "$word" in',
    '    -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;',
    "    *)",
    '      [ "$COMP_CWORD" -eq 2 ] || return',
    '      COMPREPLY=($(compgen -W "$words" -- "$word"))',
    "      while IFS= read -r name; do",
    '        printf -v quoted %q "$name"',
    '        [[ -n $name && ($name == "$word"* || $quoted == "$word"*) ]] && COMPREPLY+=("$quoted")',
    '      done <<<"$names" ;;',
    "  esac",
    "  return 0",
    "}",
    "complete -F _dsmr dsmr",
    "",
  ].join("\n");
}

/** Colons and brackets mean something in zsh's descriptions. */
const plainText = (text: string): string => text.replaceAll(/[:[\]'\\]/g, " ");

function zsh(commands: readonly Command[]): string {
  const cases = commands.map((command) => {
    const options = optionsOf(command).map(([name, { help, value }]) =>
      quoted(`--${name}[${plainText(help)}]` + (value === undefined ? "" : `:${value}:`))
    );
    const operand = command.operands[0] === "REGISTRY"
      ? ["'1:registry:_dsmr_registries'"]
      : command.operands[0] === "SHELL"
      ? [`'1:shell:(${shells.join(" ")})'`]
      : [];
    return `    ${command.name}) _arguments ${[...options, ...operand].join(" ")} ;;`;
  });
  return [
    "#compdef dsmr",
    '# zsh completion for dsmr. In ~/.zshrc, after compinit: eval "$(dsmr completion zsh)"',
    "_dsmr_registries() {",
    "  local -a names",
    '  names=(${(f)"$(dsmr ls --names 2>/dev/null)"})',
    "  compadd -a names",
    "}",
    "_dsmr() {",
    "  local -a commands",
    "  commands=(",
    ...commands.map(({ name, summary }) => `    ${quoted(`${name}:${plainText(summary)}`)}`),
    "  )",
    "  if (( CURRENT == 2 )); then",
    "    _describe command commands",
    "    return",
    "  fi",
    "  local command=$words[2]",
    "  shift words",
    "  (( CURRENT-- ))",
    "  case $command in",
    ...cases,
    "  esac",
    "}",
    "compdef _dsmr dsmr",
    "",
  ].join("\n");
}

function fish(commands: readonly Command[]): string {
  const lines = commands.flatMap((command) => {
    const { name, summary, operands } = command;
    const here = `-n '__fish_seen_subcommand_from ${name}'`;
    const options = optionsOf(command).map(([option, { help, short, value }]) =>
      `complete -c dsmr ${here} -l ${option}${short === undefined ? "" : ` -s ${short}`}` +
      `${value === undefined ? "" : " -r"} -d ${quoted(help)}`
    );
    const names = operands[0] === "REGISTRY"
      ? [`complete -c dsmr ${here} -a '(dsmr ls --names 2>/dev/null)'`]
      : operands[0] === "SHELL"
      ? [`complete -c dsmr ${here} -a ${quoted(shells.join(" "))}`]
      : [];
    return [
      `complete -c dsmr -n __fish_use_subcommand -a ${name} -d ${quoted(summary)}`,
      ...options,
      ...names,
    ];
  });
  return [
    "# fish completion for dsmr. Once: dsmr completion fish > ~/.config/fish/completions/dsmr.fish",
    "complete -c dsmr -f",
    ...lines,
    "",
  ].join("\n");
}

/** The command; it completes the others and itself. */
export function completionOf(others: readonly Command[]): Command {
  const self: Command = {
    name: "completion",
    summary: "print what a shell needs to complete command lines",
    operands: ["SHELL"],
    details: "Prints a script for bash, zsh or fish. Its first lines say where to put it.",
    examples: [
      ['eval "$(dsmr completion bash)"', "now, in bash"],
      ["dsmr completion fish > ~/.config/fish/completions/dsmr.fish", "for good, in fish"],
    ],
    options: {},
    async run(context: Context, { operands, values }: Invocation): Promise<number> {
      const [shell = ""] = operands;
      const all = [...others, self];
      const scripts: { readonly [name: string]: (() => string) | undefined } = {
        bash: () => bash(all),
        zsh: () => zsh(all),
        fish: () => fish(all),
      };
      const script = Object.hasOwn(scripts, shell) ? scripts[shell]?.() : undefined;
      if (script === undefined) {
        throw new UsageError(
          `The shell is ${JSON.stringify(shell)}; it must be bash, zsh or fish.`,
        );
      }
      await context.write(values["json"] === true ? json({ shell, script }) : script);
      return OK;
    },
  };
  return self;
}
