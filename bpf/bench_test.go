//go:build bpftest

package bpf

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// BenchmarkIngress measures mail_ingress alone, in nanoseconds per packet with warm caches, by the number of sources.
func BenchmarkIngress(b *testing.B) {
	packets := []struct {
		name string
		f    frame
	}{
		{"UDP", udp}, {"443", with(v4, func(f *frame) { f.dport = 443 })}, {"443of6", with(v6, func(f *frame) { f.dport = 443 })},
		{"SYN", v4}, {"SYNof6", v6}, {"SYNofPrefix", with(v4, func(f *frame) { f.src = "203.0.113.9" })},
		{"data", with(v4, func(f *frame) { f.flags = ack })}, {"answer", with(v4, func(f *frame) { f.sport, f.dport, f.flags = 25, 40000, ack })},
	}
	b.Run("nothing", func(b *testing.B) { // what the measurement itself costs
		empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		})
		if err != nil {
			b.Fatal(err)
		}
		defer empty.Close()
		measure(b, empty, udp.build())
	})
	for _, n := range []int{1_000, 100_000} {
		l := newLab(b, Options{MaxHosts: 1 << 18})
		l.reset()
		l.sources(many(n)...)
		for _, p := range packets {
			b.Run(fmt.Sprintf("%s/%d", p.name, n), func(b *testing.B) {
				measure(b, l.Program(MailIngress), p.f.build())
			})
		}
	}
}

func measure(b *testing.B, p *ebpf.Program, packet []byte) {
	_, perRun, err := p.Benchmark(packet, max(b.N, 1000), b.ResetTimer)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(perRun.Nanoseconds()), "ns/packet")
}

// many gives n single sources, the lab's among them, and a tenth as many prefixes.
func many(n int) []Source {
	list := []Source{
		{Prefix: prefix("192.0.2.10/32"), User: 1, Mode: ModePass},
		{Prefix: prefix("2001:db8:1::/64"), User: 1, Mode: ModePass},
		{Prefix: prefix("203.0.113.0/24"), User: 1, Mode: ModePass},
	}
	for i := range n {
		a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 9, byte(i >> 16), byte(i >> 8), byte(i)})
		bits := 64
		if i%10 == 0 {
			bits = 72
		}
		list = append(list, Source{Prefix: netip.PrefixFrom(a, bits), User: uint32(i), Mode: ModePass})
	}
	return list
}

// BenchmarkFill measures a first fill and a repetition that changes nothing, in seconds for a million hosts and prefixes.
func BenchmarkFill(b *testing.B) {
	list := many(1_000_000)
	for b.Loop() {
		d, err := Open(bpffs(b), Options{MaxHosts: 1 << 20, MaxNets: 1 << 20})
		if err != nil {
			b.Fatal(err)
		}
		for _, want := range []Change{{Put: len(list)}, {Kept: len(list)}} {
			got, err := d.ReplaceSources(list)
			if err != nil || got != want {
				b.Fatalf("%+v, %v; want %+v", got, err, want)
			}
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
