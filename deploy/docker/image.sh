#!/bin/bash
# image.sh PACKAGE: makes an image of a system that has the other packages: the program, a user, and
# what Kubernetes' MPI operator needs to start ranks in its containers. Fetches nothing.
#
# The operator mounts one key pair in all containers of a job, at /home/mpiuser/.ssh. It is a
# container's own, and the one it lets in. sshd runs as the user, so a port above 1023.
set -euo pipefail
package=$1
user=mpiuser
home=/home/$user
port=2222

# Fails by name where a package that it depends on is not there.
dpkg --install "$package"

# Ubuntu's images have a user of that number.
if other=$(getent passwd 1000); then
    userdel --remove "${other%%:*}"
fi
useradd --uid 1000 --create-home --shell /bin/bash $user

# No image may have a host key that others have too.
rm -f /etc/ssh/ssh_host_*
mkdir -p /run/sshd

cat >$home/.sshd_config <<END
Port $port
HostKey $home/.ssh/id_rsa
AuthorizedKeysFile $home/.ssh/authorized_keys
PidFile $home/sshd.pid
# Mounted keys belong to root.
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
END

cat >/etc/ssh/ssh_config.d/tessera.conf <<END
Host *
    Port $port
    # A host is right that has the key of the job.
    StrictHostKeyChecking yes
    UserKnownHostsFile /dev/null
    GlobalKnownHostsFile /dev/null
    KnownHostsCommand /usr/bin/sed "s/^/* /" $home/.ssh/id_rsa.pub
END

# Containers forbid reading another process's memory. A file, for ssh passes no environment on.
echo "btl_vader_single_copy_mechanism = none" >>/etc/openmpi/openmpi-mca-params.conf
