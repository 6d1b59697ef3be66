package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// systemBPFFS is where Linux systems mount the bpffs.
const systemBPFFS = "/sys/fs/bpf"

// EnsureBPFFS makes dir, a directory for pins, and sees to it that it lies on a
// bpffs: one is mounted if there is none, at /sys/fs/bpf if dir lies below
// that, else at dir itself. Several processes may call it at once; one mounts. It needs
// CAP_SYS_ADMIN to mount. See [PrivateMounts] for when such a mount does not last.
func EnsureBPFFS(dir string) error {
	dir = filepath.Clean(dir)
	mountpoint := dir
	if dir == systemBPFFS || strings.HasPrefix(dir, systemBPFFS+"/") {
		mountpoint = systemBPFFS
	}
	on, err := onBPFFS(dir)
	if err != nil {
		return err
	}
	if !on {
		if mountpoint == dir {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("making the pin directory: %w", err)
			}
		}
		if err := mountBPFFS(mountpoint); err != nil {
			return fmt.Errorf("mounting a bpffs at %s: %w", mountpoint, err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the pin directory: %w", err)
	}
	return nil
}

// PrivateMounts says that this process has another mount namespace than the
// system's first process, as under `ip netns exec`. A bpffs mounted here, and
// with it every pin, ends with the last process of the namespace, so the
// interfaces would be left open. Without the right to look it answers false.
func PrivateMounts() bool {
	own, errOwn := os.Readlink("/proc/self/ns/mnt")
	first, errFirst := os.Readlink("/proc/1/ns/mnt")
	return errOwn == nil && errFirst == nil && own != first
}

// onBPFFS says whether dir, or the nearest directory above it that exists, lies on a bpffs.
func onBPFFS(dir string) (bool, error) {
	for {
		var fs unix.Statfs_t
		err := unix.Statfs(dir, &fs)
		if err == nil {
			return fs.Type == unix.BPF_FS_MAGIC, nil
		}
		if !errors.Is(err, unix.ENOENT) || dir == filepath.Dir(dir) {
			return false, fmt.Errorf("looking for a bpffs at %s: %w", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}

// mountBPFFS mounts a bpffs at an existing directory, once: the directory below
// the mount is the lock between those who try at the same time.
func mountBPFFS(mountpoint string) error {
	lock, err := os.Open(mountpoint)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	on, err := onBPFFS(mountpoint)
	if err != nil || on {
		return err
	}
	return unix.Mount("bpf", mountpoint, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700")
}
