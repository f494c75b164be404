#!/usr/bin/env bash
# A machine to log in to, on 127.0.0.1 port 2222: usage: ssh_host.sh FOLDER COMMAND [ARGUMENT ...]
#
# Runs COMMAND beside an SSH server whose only user has FOLDER/home as home and FOLDER/key as key. Processes, network,
# mounts, /tmp/ray and the list of users are private to it, and all of it ends with COMMAND: `ray stop` ends every
# Ray process that it sees.
set -euo pipefail

folder=$1
shift
if [ -z "${INSIDE:-}" ]; then
  INSIDE=yes exec unshare --mount --pid --net --fork --mount-proc --kill-child "$0" "$folder" "$@"
fi

python3 - <<'UP'  # the loopback interface; `ip` may be absent
import fcntl, socket, struct
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING
UP

mkdir -p /tmp/ray "$folder/ray" "$folder/home/.ssh" /run/sshd
chmod 700 "$folder/home/.ssh"
mount --bind "$folder/ray" /tmp/ray
sed "s|^root:.*|root:x:0:0:root:$folder/home:/bin/bash|" /etc/passwd > "$folder/passwd"
mount --bind "$folder/passwd" /etc/passwd

ssh-keygen -q -t ed25519 -N "" -f "$folder/key"
ssh-keygen -q -t ed25519 -N "" -f "$folder/host_key"
cp "$folder/key.pub" "$folder/home/.ssh/authorized_keys"
printf 'Host 127.0.0.1\n  Port 2222\n' > "$folder/home/.ssh/config"
/usr/sbin/sshd -f /dev/null -E "$folder/sshd.log" -o Port=2222 -o ListenAddress=127.0.0.1 -o StrictModes=no \
  -o HostKey="$folder/host_key" -o PidFile="$folder/sshd.pid" -o UsePAM=no -o PermitRootLogin=prohibit-password

"$@"
