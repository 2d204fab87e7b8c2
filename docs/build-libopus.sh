#!/bin/sh
# Build libopus with deep PLC (concealment by a network) from the source package of Debian unstable: its tarball holds
# the network's weights, which a checkout of the source does not.  Needs Debian or what comes from it (Raspberry Pi OS,
# Ubuntu with Debian's keys), gcc, make; not root.  The package lists are kept apart: nothing of the system's is touched.
#
#     sh docs/build-libopus.sh FOLDER [SUITE]      -> FOLDER/libopus.so.0
#
# apt checks the signatures of what it gets.  Where /usr/lib has a libopus.so.0 of 1.5 or newer that was built with
# deep PLC (Debian 13), nothing is to be built: meshcall finds it.  DEBIAN_MIRROR names another mirror than the system's.
set -eu
[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
out=$(mkdir -p "$1" && cd "$1" && pwd)
suite=${2:-sid}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || { echo "$keyring is missing: apt install debian-archive-keyring" >&2; exit 1; }
mirror=${DEBIAN_MIRROR:-$(sed -n '/^URIs:/{s/^URIs: *//p;q}' /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)}
[ -n "$mirror" ] || { echo "say where Debian is: DEBIAN_MIRROR=URL sh $0 $*" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial"
: > "$work/status"
printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
  "$mirror" "$suite" "$keyring" > "$work/debian.sources"
cd "$work"
settings="-o Dir::Etc::sourcelist=$work/debian.sources -o Dir::Etc::sourceparts=- -o Dir::State::lists=$work/lists
 -o Dir::Cache::archives=$work/archives -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Dir::State::status=$work/status"
[ "$(id -u)" -ne 0 ] || settings="$settings -o APT::Sandbox::User=root"
apt-get -qq $settings update
apt-get -qq $settings source --download-only opus
mkdir -p source/build
tar xf opus_*.orig.tar.* -C source --strip-components=1
cd source/build
../configure --quiet --enable-deep-plc --enable-dred --disable-doc --disable-extra-programs --disable-static CFLAGS=-O3 > /dev/null
make -s -j"$(nproc)" > make.log 2>&1 || { tail -20 make.log >&2; exit 1; }
cp -L .libs/libopus.so.0 "$out/libopus.so.0"
echo "MESHCALL_LIBOPUS=$out/libopus.so.0"
