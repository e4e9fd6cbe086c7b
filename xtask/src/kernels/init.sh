#!/bin/busybox sh
# The whole user space of a guest: mounts, modules, tests, power off. xtask/src/kernels/console.rs reads what is said
# after "lb-guest:".
/bin/busybox mkdir -p /proc /sys /dev /tmp /run
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
export PATH=/bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
while read -r module; do
    insmod "/modules/$module" || echo "lb-guest: trouble cannot insert $module"
done </modules/order
echo "lb-guest: kernel $(uname -r)"
export LB_TEST_REQUIRE=1 LB_TEST_TUNNELS=1
/packet --exact "$(cat /first)" --nocapture --test-threads=1
echo "lb-guest: loads $?"
# One argument a line; none has a space.
/packet $(cat /arguments)
echo "lb-guest: tests $?"
poweroff -f
