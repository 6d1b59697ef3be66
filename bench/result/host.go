package result

import (
	"bufio"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is the machine that the figures belong to.
type Host struct {
	CPU      string   `json:"cpu"`
	MHz      float64  `json:"mhz"` // as /proc/cpuinfo has it: on most machines the clock of the cycle counter
	Cores    int      `json:"cores"`
	Flags    []string `json:"cpu_flags"` // those that matter to packet encryption
	Governor string   `json:"governor,omitempty"`
	Kernel   string   `json:"kernel"`
	MemoryKB uint64   `json:"memory_kib"`
	// Huge pages of the kernel's default size.
	HugePages     int `json:"huge_pages"`
	HugePagesFree int `json:"huge_pages_free"`
	HugePageKB    int `json:"huge_page_kib"`
}

// flagsOfInterest are the CPU flags that packet encryption looks for.
var flagsOfInterest = []string{"aes", "pclmulqdq", "avx", "avx2", "avx512f", "vaes", "vpclmulqdq", "sha_ni", "hypervisor"}

// GHz is the machine's clock in cycles a nanosecond.
func (h *Host) GHz() float64 { return h.MHz / 1e3 }

func host() Host {
	h := Host{Cores: runtime.NumCPU(), Flags: []string{}}
	fields("/proc/cpuinfo", func(key, value string) bool {
		switch key {
		case "model name":
			h.CPU = value
		case "cpu MHz":
			h.MHz, _ = strconv.ParseFloat(value, 64)
		case "flags":
			have := strings.Fields(value)
			for _, flag := range flagsOfInterest {
				if slices.Contains(have, flag) {
					h.Flags = append(h.Flags, flag)
				}
			}
		}
		return h.CPU == "" || len(h.Flags) == 0
	})
	fields("/proc/meminfo", func(key, value string) bool {
		n, _ := strconv.Atoi(strings.TrimSuffix(value, " kB"))
		switch key {
		case "HugePages_Total":
			h.HugePages = n
		case "HugePages_Free":
			h.HugePagesFree = n
		case "Hugepagesize":
			h.HugePageKB = n
		}
		return true
	})
	if text, err := os.ReadFile("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"); err == nil {
		h.Governor = strings.TrimSpace(string(text))
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		h.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		h.MemoryKB = info.Totalram * uint64(info.Unit) / 1024
	}
	return h
}

// fields calls f with each "key: value" line of a file until f returns false.
func fields(path string, f func(key, value string) bool) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		if key, value, ok := strings.Cut(s.Text(), ":"); ok && !f(strings.TrimSpace(key), strings.TrimSpace(value)) {
			return
		}
	}
}
