package bpf

// -mcpu=v3 gives atomic operations that return the old value (Linux 5.12). The two -idirafter folders hold asm/types.h
// on Debian, which clang does not look for when its target is BPF.
//go:generate go tool bpf2go -target bpfel -cc clang -type mode -type fail -type reason -type user_reason -type source_flag -type config_flag -type lock_flag -type family -type number mail mail.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool bpf2go -target bpfel -cc clang observe observe.bpf.c -- -O2 -g -Wall -Wno-unused-function -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
