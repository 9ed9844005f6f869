#!/usr/bin/env bash
# get.sh DIR - puts the plugin's test host into DIR: Debian's sysdig, which loads Falco plugins and evaluates Falco's
# conditions. Nothing is installed: its packages are taken from the mirror that this machine's apt uses, checked by apt
# against Debian's keys, and unpacked beside each other. DIR/sysdig starts it, also after DIR was moved. A DIR that has a
# working host is left alone. Set TFDRIFT_DEBIAN_MIRROR where apt has no Debian mirror, TFDRIFT_DEBIAN_SUITES to try
# others than forky and sid.
set -euo pipefail

die() {
  echo "test host: $*" >&2
  exit 1
}

[ $# -eq 1 ] || die "usage: $0 DIR"
for tool in apt-get apt-cache dpkg-deb dpkg; do
  command -v "$tool" >/dev/null || die "no $tool here: the host comes as Debian packages; set TFDRIFT_HOST to a sysdig of your own instead"
done
target=$(realpath -m "$1")
suites=${TFDRIFT_DEBIAN_SUITES:-forky sid}
architecture=$(dpkg --print-architecture)

works() { [ -x "$1/sysdig" ] && "$1/sysdig" --version >/dev/null 2>&1; }
if works "$target"; then
  exit 0
fi

# Test processes may come here at the same time: the first unpacks, the others wait and find it.
mkdir -p "$(dirname "$target")"
exec 9>"$target.lock"
flock 9
if works "$target"; then
  exit 0
fi

mirror=${TFDRIFT_DEBIAN_MIRROR:-}
if [ -z "$mirror" ]; then
  # shellcheck disable=SC2016 # a name of apt's, not a command
  while read -r site; do
    case $site in */debian | */debian/) mirror=$site && break ;; esac
  done < <(apt-get indextargets --format '$(SITE)' | sort -u)
fi
[ -n "$mirror" ] || die "apt here knows no Debian mirror (a URL that ends in /debian): name one in TFDRIFT_DEBIAN_MIRROR"

keyring=
for file in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
  [ ! -e "$file" ] || keyring=$file
done
[ -n "$keyring" ] || die "Debian's keys are missing: install debian-archive-keyring"

work=$(mktemp -d "$(dirname "$target")/host.XXXXXX")
trap 'rm -rf "$work"' EXIT

# fetch SUITE downloads sysdig and all it depends on into $work/SUITE/debs, by an apt that knows of nothing else, so that
# libraries of this machine are not taken for granted.
fetch() {
  local suite=$1 place=$work/$1
  mkdir -p "$place/lists/partial" "$place/debs/partial" "$place/parts"
  : >"$place/status"
  echo "deb [arch=$architecture signed-by=$keyring] $mirror $suite main" >"$place/sources.list"
  cat >"$place/apt.conf" <<CONF
Dir::State "$place";
Dir::State::status "$place/status";
Dir::State::Lists "$place/lists";
Dir::Cache "$place";
Dir::Cache::Archives "$place/debs";
Dir::Etc::SourceList "$place/sources.list";
Dir::Etc::SourceParts "$place/parts";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "$place/parts";
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT::Get::List-Cleanup "false";
Acquire::Languages "none";
Acquire::Retries "3";
// A mirror may be a snapshot of some day.
Acquire::Check-Valid-Until "false";
Binary::apt-get::APT::Keep-Downloaded-Packages "true";
CONF
  APT_CONFIG=$place/apt.conf apt-get -q update &&
    APT_CONFIG=$place/apt.conf apt-get -q install --yes --download-only sysdig
}

version() { APT_CONFIG=$work/$1/apt.conf apt-cache policy sysdig 2>/dev/null | awk '/Candidate:/ {print $2}' || true; }

# unpack SUITE makes $work/host from what fetch brought.
unpack() {
  local deb
  rm -rf "$work/host"
  mkdir -p "$work/host/root"
  for deb in "$work/$1"/debs/*.deb; do
    dpkg-deb --extract "$deb" "$work/host/root"
  done
  cat >"$work/host/sysdig" <<'START'
#!/bin/sh
# Starts the unpacked sysdig with its own loader and libraries.
root=$(dirname "$(readlink -f "$0")")/root
for loader in "$root"/usr/lib/*-linux-gnu/ld-linux-*.so.* "$root"/lib/*-linux-gnu/ld-linux-*.so.*; do
  [ -e "$loader" ] && break
done
triple=$(basename "$(dirname "$loader")")
exec "$loader" --library-path "$root/usr/lib/$triple:$root/lib/$triple" "$root/usr/bin/sysdig" "$@"
START
  chmod +x "$work/host/sysdig"
  works "$work/host"
}

tried=
for suite in $suites; do
  log=$work/$suite.log
  if fetch "$suite" >"$log" 2>&1 && unpack "$suite" >>"$log" 2>&1; then
    rm -rf "$target"
    mv "$work/host" "$target"
    echo "test host: $("$target/sysdig" --version) from $suite in $target" >&2
    exit 0
  fi
  candidate=$(version "$suite")
  tried+="
  $suite, sysdig ${candidate:-not found} for $architecture: $(tail -n 3 "$log" | tr '\n' ' ')"
done
die "sysdig cannot be had from $mirror; tried:$tried"
