package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -no-global-types -type counter -type role -type address_flag -type prefix_flag -type port steer steer.c -- -mcpu=v3 -O2 -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu
