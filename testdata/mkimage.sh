#!/bin/sh
# Builds testdata/linux.qcow2: a 256 MiB disk with a GPT and one ext4 file system that holds real
# files (a part of Go's source tree), as zlib-compressed qcow2 of under 4 MiB.
#
# Needs a Go tree, sfdisk (package fdisk), mke2fs (e2fsprogs) and qemu-img (qemu-utils); no root.
# Ids and times are fixed; still the bytes differ a little from run to run (mke2fs -d copies ctimes).
set -eu
cd "$(dirname "$0")"
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

root=$work/root
src=$(go env GOROOT)/src
mkdir -p "$root/usr/src" "$root/etc"
for d in bufio bytes compress crypto/md5 crypto/sha256 encoding errors fmt hash io net/http os path sort strings sync time; do
	mkdir -p "$root/usr/src/$d"
	cp -R "$src/$d/." "$root/usr/src/$d/"
done
find "$root" \( -name testdata -o -name '*_test.go' \) -prune -exec rm -rf {} +
cp "$(go env GOROOT)/LICENSE" "$root/usr/src/LICENSE"
echo "/dev/disk/by-label/root / ext4 defaults 0 1" >"$root/etc/fstab"
echo imgferry-test >"$root/etc/hostname"
find "$root" -exec touch -h -d @1700000000 {} +
find "$root" -type d -exec chmod 755 {} +
find "$root" -type f -exec chmod 644 {} +
echo "files: $(find "$root" -type f | wc -l)"

E2FSPROGS_FAKE_TIME=1700000000 mke2fs -q -t ext4 -L root -U 2f0ffe4e-37c2-4a5c-8d1e-5b6b5d1f5f11 \
	-E hash_seed=2f0ffe4e-37c2-4a5c-8d1e-5b6b5d1f5f11,root_owner=0:0 -d "$root" "$work/fs" 254M
truncate -s 256M "$work/disk"
printf 'label: gpt\nlabel-id: 6a0b3c5e-7a0d-4d0c-9a3e-0c1d2e3f4a5b\nstart=2048, size=520192, type=linux, uuid=0d9c1f0e-8f6a-4b57-a2f3-2f5f0e7b9c11\n' |
	sfdisk -q "$work/disk"
dd if="$work/fs" of="$work/disk" bs=1M seek=1 conv=notrunc,sparse status=none
qemu-img convert -q -c -O qcow2 "$work/disk" "$work/linux.qcow2"
mv "$work/linux.qcow2" linux.qcow2
ls -l linux.qcow2
