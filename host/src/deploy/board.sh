# Says what this board is, a name and a value a line.
PATH=$PATH:/usr/sbin:/sbin
echo "machine $(uname -m)"
echo "architecture $(dpkg --print-architecture 2>/dev/null)"
echo "glibc $(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/^glibc //')"
echo "board $(tr -d '\0' 2>/dev/null </proc/device-tree/model)"
echo "system $(. /etc/os-release 2>/dev/null && echo "$PRETTY_NAME")"
echo "memory_kibibytes $(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo)"
echo "free_kibibytes $(df -Pk /var/lib | awk 'NR == 2 { print $4 }')"
if [ "$(id -u)" = 0 ]; then
    echo "root itself"
elif sudo -n true 2>/dev/null; then
    echo "root sudo"
fi
if [ -d /run/systemd/system ]; then
    echo "systemd yes"
fi
