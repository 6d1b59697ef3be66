package xsk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/packet"
)

// UMEM is the memory that holds every frame of a [Domain]. It lies in a memfd,
// so that a later process can take it over, on huge pages where there are any.
// A readable page that is not registered with the kernel follows the last frame,
// so that assembly may read past the end of any packet.
type UMEM struct {
	fd     int
	all    []byte // frames, then the spare
	size   int    // bytes of frames
	frames int
	huge   bool
}

const hugePage = 2 << 20

// NewUMEM allocates and populates frames of [packet.FrameSize] bytes. The caller
// owns it and closes it after every domain on it.
func NewUMEM(frames int) (*UMEM, error) {
	if frames <= 0 || frames > 1<<24 {
		return nil, fmt.Errorf("a UMEM of %d frames: want 1 to %d", frames, 1<<24)
	}
	u := &UMEM{frames: frames, size: frames * packet.FrameSize}
	u.fd, u.all = allocate(u.size, unix.MFD_HUGETLB, hugePage)
	u.huge = u.all != nil
	if u.all == nil {
		u.fd, u.all = allocate(u.size, 0, os.Getpagesize())
	}
	if u.all == nil {
		return nil, fmt.Errorf("a UMEM of %d frames: not enough memory for %d bytes", frames, u.size)
	}
	// Frames hold plaintext: keep them out of core dumps. Both are hints that an
	// old kernel or a tmpfs without transparent huge pages may refuse.
	_ = unix.Madvise(u.all, unix.MADV_DONTDUMP)
	if !u.huge {
		_ = unix.Madvise(u.all, unix.MADV_HUGEPAGE)
	}
	for i := 0; i < len(u.all); i += os.Getpagesize() {
		u.all[i] = 0 // populate after the advice
	}
	return u, nil
}

// allocate returns a mapped memfd with room for size bytes and a spare page,
// rounded up to pages of page bytes, or nil.
func allocate(size, flags, page int) (int, []byte) {
	fd, err := unix.MemfdCreate("sallyport-umem", unix.MFD_CLOEXEC|flags)
	if err != nil {
		return -1, nil
	}
	total := (size + os.Getpagesize() + page - 1) / page * page
	if err := unix.Ftruncate(fd, int64(total)); err != nil {
		unix.Close(fd)
		return -1, nil
	}
	// Huge pages are reserved by mmap, so touching them later cannot fail.
	mem, err := unix.Mmap(fd, 0, total, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return -1, nil
	}
	return fd, mem
}

// Mem returns the frames. Its capacity reaches over the spare page behind them.
func (u *UMEM) Mem() []byte { return u.all[: u.size : u.size+os.Getpagesize()] }

// Frames returns how many frames there are; frame i starts at i*packet.FrameSize.
func (u *UMEM) Frames() int { return u.frames }

// Huge reports whether the memory lies on reserved huge pages.
func (u *UMEM) Huge() bool { return u.huge }

// FD returns the memfd, which stays the UMEM's.
func (u *UMEM) FD() int { return u.fd }

// Close unmaps the memory. Every socket on it must be closed before.
func (u *UMEM) Close() error {
	if u.all == nil {
		return nil
	}
	err := errors.Join(unix.Munmap(u.all), unix.Close(u.fd))
	u.all, u.fd = nil, -1
	return err
}
