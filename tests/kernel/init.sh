#!/bin/sh
# The first process of User Mode Linux: the host's files, read-only, with a layer of memory above them; then the job, then off.
# The kernel's command line names the job's folder, which is the only one that is written to outside.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8
off() { exec python3 -c 'import ctypes; ctypes.CDLL(None).sync(); ctypes.CDLL(None).reboot(0x4321fedc)'; }
say() { echo "guest: $*" > /dev/console; }

mount -t proc proc /proc
for word in $(cat /proc/cmdline); do
  case $word in job=*) JOB=${word#job=} ;; modules=*) MODULES=${word#modules=} ;; esac
done

LOWER=/ LAYER=/mnt
insmod "$MODULES/$(uname -r)/kernel/fs/overlayfs/overlay.ko" || say "no overlay"
mount -t tmpfs -o size=80% tmpfs $LAYER && mkdir $LAYER/upper $LAYER/work $LAYER/root
mount -t overlay overlay -o lowerdir=$LOWER,upperdir=$LAYER/upper,workdir=$LAYER/work $LAYER/root || { say "no root"; off; }
R=$LAYER/root
mount -t proc proc $R/proc
mount -t sysfs sys $R/sys
mount -t devtmpfs dev $R/dev 2>/dev/null || mount --bind /dev $R/dev
mkdir -p $R/dev/pts $R/dev/shm $R/dev/net
mount -t devpts devpts $R/dev/pts
mount -t tmpfs shm $R/dev/shm
[ -e $R/dev/net/tun ] || mknod $R/dev/net/tun c 10 200
mount -t tmpfs run $R/run && mkdir -p $R/run/netns $R/run/lock
mkdir -p $R/$JOB $R/lib/modules
mount -t hostfs none $R/$JOB -o $JOB
mount --bind $LOWER/$MODULES $R/lib/modules
mkdir -p $R/.old
cd $R && pivot_root . .old && cd / || say "no pivot_root"
# Not chroot alone: the kernel's own modprobe would look for modules in the old root.
exec chroot . /bin/sh -c "
ip link set lo up
sh $JOB/job > $JOB/output 2>&1 < /dev/null; echo \$? > $JOB/code
exec python3 -c 'import ctypes; ctypes.CDLL(None).sync(); ctypes.CDLL(None).reboot(0x4321fedc)'"
