#!/usr/bin/env bash
# Boots a Debian system in an emulator, deploys a model to it, and sees that the service lives through what happens to a
# board: its process killed, its power cut, a camera plugged in. Prints what happened.
#
#   tests/boot.sh MODEL.onnx PHOTO [FOLDER]     FOLDER keeps the disk and the console's output
#
# Needs root, and Debian's debootstrap, qemu-system-x86, e2fsprogs, openssh-client and curl; 10 to 20 minutes without KVM.
# The package is the one that `device/package/build amd64` made; `graft` is the one in target/release.
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
model=$(realpath "$1") photo=$(realpath "$2")
work=$(realpath -m "${3:-$(mktemp -d)}")
cd "$(dirname "$0")/.."
graft=${CARGO_TARGET_DIR:-target}/release/graft
cache=${XDG_CACHE_HOME:-$HOME/.cache}/graft/boot-bookworm.tar
ssh_port=2222 http_port=8088
emulator=

say() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
fail() { printf 'error: %s\nhint: read %s and %s\n' "$1" "$work/console" "$work/emulator" >&2; exit 1; }
stop() { [ -z "$emulator" ] || kill -9 "$emulator" 2>/dev/null || true; }
trap stop EXIT

for program in debootstrap qemu-system-x86_64 mkfs.ext4 ssh ssh-keygen curl; do
    command -v "$program" >/dev/null || { echo "error: no $program is here" >&2; exit 2; }
done
mkdir -p "$work"

if [ ! -e "$cache" ]; then
    say "a Debian system, once"
    root=$(mktemp -d)
    debootstrap --variant=minbase \
        --include=systemd-sysv,dbus,udev,kmod,iproute2,openssh-server,curl,linux-image-amd64 \
        bookworm "$root" >"$work/debootstrap" 2>&1
    mkdir -p "$(dirname "$cache")"
    tar -C "$root" --numeric-owner -cf "$cache.new" .
    mv "$cache.new" "$cache"
    rm -rf "$root"
fi

say "its disk"
root=$work/root
rm -rf "$root"
mkdir "$root"
tar -C "$root" --numeric-owner -xf "$cache"
ssh-keygen -q -t ed25519 -N '' -f "$work/key" <<<y >/dev/null 2>&1 || true
install -m 644 "$work/key.pub" "$root/etc/ssh/boot_keys"
echo 'AuthorizedKeysFile /etc/ssh/boot_keys' >"$root/etc/ssh/sshd_config.d/boot.conf"
echo board >"$root/etc/hostname"
echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
printf '[Match]\nName=e*\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/wired.network"
ln -sf /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
cp "$root"/boot/vmlinuz-* "$work/vmlinuz"
cp "$root"/boot/initrd.img-* "$work/initrd"
rm -f "$work/disk"
mkfs.ext4 -q -d "$root" "$work/disk" 3G
rm -rf "$root"

start() {
    qemu-system-x86_64 -m 1024 -smp 2 -display none -serial "file:$work/console" \
        -kernel "$work/vmlinuz" -initrd "$work/initrd" \
        -append "root=/dev/vda rw console=ttyS0 systemd.show_status=1" \
        -drive "file=$work/disk,format=raw,if=virtio,cache=writethrough" \
        -device virtio-rng-pci -device virtio-net-pci,netdev=net \
        -netdev "user,id=net,hostfwd=tcp:127.0.0.1:$ssh_port-:22,hostfwd=tcp:127.0.0.1:$http_port-:8080" \
        2>"$work/emulator" &
    emulator=$!
    disown
}

options=(-o Port=$ssh_port -o "IdentityFile=$work/key" -o IdentitiesOnly=yes -o StrictHostKeyChecking=no
    -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR)
board() { ssh "${options[@]}" -o ConnectTimeout=20 root@127.0.0.1 "$@"; }

# Tries a command for at most so many seconds.
wait_for() {
    local what=$1 end=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        kill -0 "$emulator" 2>/dev/null || fail "the emulator has ended"
        [ $SECONDS -lt $end ] || fail "$what: not within $2 s"
        sleep 1
    done
}

label() {
    curl --silent --show-error --max-time 60 --header "Authorization: Bearer $token" --data-binary "@$photo" \
        "http://127.0.0.1:$http_port/v1/label?top=2"
}
ready() { curl --fail --silent --max-time 10 "http://127.0.0.1:$http_port/readyz"; }
metric() {
    curl --silent --max-time 10 --header "Authorization: Bearer $token" "http://127.0.0.1:$http_port/metrics" |
        sed -n "s/^$1 //p"
}

say "boot"
start
wait_for "ssh" 900 board true
board 'systemctl is-system-running --wait; systemctl --version | head -n 1; uname -sr'

say "by hand, as the README has it"
package=$(ls -t "${CARGO_TARGET_DIR:-target}"/debian/graft-device_*_amd64.deb | head -n 1)
board 'cat >graft-device.deb' <"$package"
board 'cat >model.onnx' <"$model"
board 'cat >photo.jpg' <"$photo"
before=$SECONDS
board 'dpkg -i graft-device.deb && cp model.onnx /var/lib/graft-device/ && systemctl start graft-device &&
    curl -sS --data-binary @photo.jpg http://127.0.0.1:8080/v1/label'
echo "labelled after $((SECONDS - before)) s"
board 'dpkg --purge graft-device; rm graft-device.deb model.onnx photo.jpg'

say "graft deploy"
deploy_options=()
for option in "${options[@]}"; do [ "$option" = -o ] || deploy_options+=(--ssh-option "$option"); done
"$graft" deploy root@127.0.0.1 "$model" --photo "$photo" "${deploy_options[@]}"

say "to be reached from outside"
board "sed -i 's/^listen = .*/listen = \"0.0.0.0:8080\"/' /etc/graft-device/serve.toml; sync; systemctl restart graft-device"
token=$(board cat /var/lib/graft-device/token)
wait_for "the service" 120 ready
label
board 'systemctl show graft-device -p ActiveState -p SubState -p StatusText -p User; systemd-analyze security graft-device | tail -n 1'

say "its process killed"
board 'kill -9 $(systemctl show graft-device -p MainPID --value)'
before=$SECONDS
wait_for "the service" 120 ready
echo "back after $((SECONDS - before)) s, restarts: $(board systemctl show graft-device -p NRestarts --value)"
label

say "the clock a year ahead, and back"
restarts() { board systemctl show graft-device -p NRestarts --value; }
before=$(restarts)
for jump in "+1 year" "-1 year"; do
    board "date -s '$jump'; sleep 5"
    label
done
echo "restarts since: $(($(restarts) - before))"

say "no more threads or processes"
board 'systemctl set-property --runtime graft-device TasksMax=1; systemctl kill -s HUP --kill-whom=main graft-device; sleep 3'
label
board 'systemctl set-property --runtime graft-device TasksMax=32; systemctl reload graft-device; sleep 3
    journalctl -u graft-device -o cat -n 4'
label
echo "restarts since: $(($(restarts) - before))"

say "a camera"
if board modprobe vivid n_devs=1 node_types=0x1 input_types=0; then
    board 'mkdir -p /etc/systemd/system/graft-device.service.d
        cp /usr/share/doc/graft-device/examples/camera.conf /etc/systemd/system/graft-device.service.d/
        echo "camera = \"/dev/video0\"" >>/etc/graft-device/serve.toml
        sync
        systemctl daemon-reload; systemctl restart graft-device'
    wait_for "the service" 120 ready
    sleep 20
    board 'journalctl -u graft-device -o cat | grep -a "the camera" | tail -n 1'
    echo "frames seen: $(metric graft_frames_total), dropped: $(metric graft_frames_dropped_total)"
else
    echo "this kernel has no camera of its own"
fi

say "power cut"
kill -9 "$emulator"
while kill -0 "$emulator" 2>/dev/null; do sleep 1; done
sleep 5
mv "$work/console" "$work/console.before"
start
before=$SECONDS
wait_for "the service" 900 ready
echo "back $((SECONDS - before)) s after the power"
label
board 'journalctl -b -u graft-device -o cat | grep -a serving | tail -n 1; dmesg | grep -a -m 2 "EXT4-fs.*vda"'

say "off"
board poweroff || true
while kill -0 "$emulator" 2>/dev/null; do sleep 1; done
emulator=
say "all of it"
