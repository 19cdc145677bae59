# SPDX-License-Identifier: Apache-2.0
# Completion for csp1d and csp1ctl. It needs only bash, not the functions of bash-completion, whose
# names change between versions. So it may also be sourced from a .bashrc.

# One line per command: its arguments in order, then its options (besides -h and --help). An argument,
# or the value after the "=" of an option, is a list of choices separated by "|", a kind of file
# ("toml", "capture", "file" or "folder"), or a word for the reader that is not completed. "?=" marks
# an optional value. "..." repeats the argument before it. Each COMMAND has a line of its own, with
# "-" between the words that lead to it.
_csp1_grammar='
csp1d --config=toml --check-config --simulate?=toml --version
csp1ctl COMMAND --config=toml --version
csp1ctl-discover --config=toml --output=file
csp1ctl-status --config=toml --json
csp1ctl-watch --config=toml --fuse=amperes
csp1ctl-calibrate COMMAND --config=toml
csp1ctl-calibrate-zero L1|L2|L3 ... --config=toml --yes
csp1ctl-calibrate-gain L1=|L2=|L3= ... --config=toml --yes
csp1ctl-telegram amperes amperes amperes --config=toml
csp1ctl-record seconds folder --config=toml
csp1ctl-replay capture --config=toml
'

# Print the line of a command, without its name.
_csp1_line() {
    local line
    while read -r line; do
        [[ $line == "$1 "* ]] && printf '%s\n' "${line#* }"
    done <<<"$_csp1_grammar"
}

# Print the commands that may follow these words (joined by "-").
_csp1_commands() {
    local name rest
    while read -r name rest; do
        name=${name#"$1-"}
        [[ $name == *-* || $name == csp1* ]] || printf '%s\n' "$name"
    done <<<"$_csp1_grammar"
}

# Print the kind of an option's value, after a "?" if it is optional. Fails if it has no value.
_csp1_value() {
    local option
    for option in $2; do
        case $option in
            "$1="*) printf '%s\n' "${option#*=}" && return ;;
            "$1?="*) printf '?%s\n' "${option#*=}" && return ;;
        esac
    done
    return 1
}

# Put the completions of a word of this kind into COMPREPLY.
_csp1_fill() {
    local kind=$1 current=$2 words=${3-}
    case $kind in
        toml)
            # Falls back to any file.
            compopt -o filenames -o default
            mapfile -t COMPREPLY < <(compgen -f -X '!*.toml' -- "$current"; compgen -d -- "$current")
            ;;
        capture)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -X '!*.json' -- "$current"; compgen -d -- "$current")
            COMPREPLY=("${COMPREPLY[@]%.json}")
            ;;
        file)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            ;;
        folder)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$current")
            ;;
        *'|'*)
            # A value follows the "=".
            [[ $kind == *= ]] && compopt -o nospace
            mapfile -t COMPREPLY < <(compgen -W "${kind//|/ }" -- "$current")
            ;;
        COMMAND)
            mapfile -t COMPREPLY < <(compgen -W "$(_csp1_commands "$words")" -- "$current")
            ;;
    esac
}

_csp1() {
    local words=${1##*/} current=${COMP_WORDS[COMP_CWORD]} kind='' place=0 grammar options word i
    local -a places
    COMPREPLY=()
    grammar=$(_csp1_line "$words")

    # Follow the words before the cursor through the grammar.
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $kind && $word == '=' ]]; then
            # To readline, --option=value is three words.
            kind=${kind#\?}
            continue
        fi
        if [[ $kind == '?'* && $word == -* ]]; then
            kind=''
        fi
        if [[ $kind ]]; then
            kind=''
        elif [[ $word == -* ]]; then
            kind=$(_csp1_value "$word" "$grammar")
        else
            read -ra places <<<"${grammar%%--*}"
            if [[ ${places[place]-} == COMMAND ]]; then
                words+=-$word
                grammar=$(_csp1_line "$words")
                place=0
            elif [[ ${places[place + 1]-} != ... ]]; then
                ((place++))
            fi
        fi
    done

    if [[ $kind && $current == '=' ]]; then
        _csp1_fill "${kind#\?}" ''
    elif [[ $kind && ! ($kind == '?'* && $current == -*) ]]; then
        _csp1_fill "${kind#\?}" "$current"
    elif [[ $current == -* ]]; then
        options='-h --help'
        for word in $grammar; do
            [[ $word == --* ]] && options+=" ${word%%[?=]*}"
        done
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
    else
        read -ra places <<<"${grammar%%--*}"
        _csp1_fill "${places[place]-}" "$current" "$words"
    fi
}

complete -F _csp1 csp1d csp1ctl
