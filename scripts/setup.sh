# What this machine needs to build and run isokiln; sourced by quickstart.sh and test.sh.
# Uses what is there, installs what is missing with apt after asking once, and starts the container
# engine where nothing has.

engine_log=/var/log/isokiln-dockerd.log
# How to start the sourcing script again, which has gone to its own folder.
command_line=("$PWD/${0##*/}" "$@")

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

die() {
    printf '\033[31;1merror:\033[0m %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '   hint: %s\n' "$@" >&2
    exit 3
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root: $*" "run it as root, or install sudo"
    fi
}

# confirm YES QUESTION REFUSAL: goes on if the answer is yes, which it is without asking where YES says so.
confirm() {
    local answer
    [[ $1 != yes ]] || return 0
    [[ -t 0 ]] || die "nobody is there to ask: $2" "run this with --yes to agree"
    read -rp "$2 [Y/n] " answer
    [[ ${answer:-y} = [Yy]* ]] || die "$3"
}

# find_rust: puts cargo on the PATH.
find_rust() {
    if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    command -v cargo >/dev/null || die "no Rust toolchain is installed" "get one from https://rustup.rs, then run this again"
}

# install_missing YES COMMAND=PACKAGE…: installs the packages of the commands that are missing.
install_missing() {
    local yes=$1 pair packages=()
    shift
    for pair; do
        [[ $pair ]] || continue
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}" >/dev/null || packages+=(${pair#*=})
    done
    ((${#packages[@]})) || return 0
    command -v apt-get >/dev/null ||
        die "these are missing: ${packages[*]}" "install them with your package manager; isokiln's scripts know apt only"
    say "To be installed with apt: ${packages[*]}"
    confirm "$yes" "Install them?" "not installed: ${packages[*]}; install them yourself, then run this again"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq -o Dpkg::Use-Pty=0 --no-install-recommends "${packages[@]}" >&2 ||
        die "apt-get could not install ${packages[*]}" "see its messages above"
}

# The engine's socket, or empty where DOCKER_HOST names something that is not a socket of this machine.
engine_socket() {
    case ${DOCKER_HOST:-} in
        unix://*) echo "${DOCKER_HOST#unix://}" ;;
        '') echo /var/run/docker.sock ;;
    esac
}

# Whether somebody listens on a socket, be it for this user or not; perl is part of every Debian.
listens() {
    perl -MIO::Socket::UNIX -e 'exit !(IO::Socket::UNIX->new(Peer => $ARGV[0]) || $!{EACCES})' "$1" 2>/dev/null
}

# ask_engine PATH: what the engine's API answers, in JSON; nothing where the engine is not on this machine. Its own client
# need not be there.
ask_engine() {
    local socket
    socket=$(engine_socket)
    [[ $socket ]] || return 0
    perl -MIO::Socket::UNIX -e '
        my $engine = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "no engine answers at $ARGV[0]\n";
        print $engine "GET $ARGV[1] HTTP/1.0\r\nHost: engine\r\n\r\n";
        local $/;
        print <$engine>' "$socket" "$1"
}

# engine_package: what install_missing is asked for so that there is an engine; nothing where one answers.
engine_package() {
    local socket
    socket=$(engine_socket)
    if [[ $socket && -z ${DOCKER_HOST:-} ]] && ! listens "$socket"; then echo "dockerd=docker.io iptables"; fi
}

# start_engine YES: starts the container engine where none answers, waits until it does, and lets this user use it.
start_engine() {
    local yes=$1 socket group second
    socket=$(engine_socket)
    [[ $socket ]] || return 0
    if ! listens "$socket"; then
        [[ -z ${DOCKER_HOST:-} ]] || die "no engine answers at $DOCKER_HOST" "start it, or unset DOCKER_HOST to use this machine's own"
        say "Starting the container engine"
        if [[ -d /run/systemd/system ]]; then
            as_root systemctl start docker || die "systemd could not start docker" "see: journalctl -u docker"
        else
            # In a session of its own: it outlives this script, as a service would.
            as_root bash -c "PATH=\$PATH:/usr/sbin:/sbin setsid dockerd >>'$engine_log' 2>&1 </dev/null &"
        fi
        for ((second = 0; second < 60; second++)); do
            if listens "$socket"; then break; fi
            sleep 1
        done
        listens "$socket" || die "the container engine does not start" "see $engine_log, or journalctl -u docker where there is systemd"
    fi
    if [[ ! -w $socket ]]; then
        group=$(stat --format=%G "$socket")
        [[ $group != root && $group != UNKNOWN && -z ${ISOKILN_GROUP:-} ]] ||
            die "the container engine is there, but $(id -un) may not use it" "ask whoever runs it, or point DOCKER_HOST at another"
        confirm "$yes" "$(id -un) may not use the container engine. Join the group $group, which may?" "isokiln needs the engine"
        as_root usermod --append --groups "$group" "$(id -un)"
        # A membership counts from the next login; for now, this script starts again with it.
        ISOKILN_GROUP=$group exec sg "$group" -c "$(printf '%q ' "${command_line[@]}")"
    fi
}
