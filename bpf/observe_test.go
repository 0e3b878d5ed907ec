//go:build bpftest

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// observation is an observer without interfaces, for packets that the test makes itself.
type observation struct {
	*lab
	*Observer
}

func newObservation(t *testing.T, o ObserveOptions) *observation {
	l := newLab(t, Options{})
	l.configure(Source{Mode: ModeObserve})
	l.must(l.Commit())
	obs, err := OpenObserver(l.dir, nil, o)
	if err != nil {
		if v, ok := errors.AsType[*ebpf.VerifierError](err); ok {
			t.Fatalf("%+v", v)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := obs.Close(); err != nil {
			t.Error(err)
		}
	})
	return &observation{l, obs}
}

// see gives one packet to a passive program, which must let it go on unchanged.
func (o *observation) see(p *ebpf.Program, packet []byte, mark uint32) {
	o.Helper()
	var out skb
	r := ebpf.RunOptions{Data: packet, DataOut: make([]byte, len(packet)+64), Context: skb{Mark: mark}, ContextOut: &out}
	ret, err := p.Run(&r)
	o.must(err)
	if ret != next || out.Mark != mark || !bytes.Equal(r.DataOut[:len(packet)], packet) {
		o.Errorf("answer %d, mark %#x, same bytes %v; want %d, %#x, true", int32(ret), out.Mark, bytes.Equal(r.DataOut[:len(packet)], packet), -1, mark)
	}
}

// segments gives what is in the ring.
func (o *observation) segments() []Segment {
	o.Helper()
	var out []Segment
	for {
		s, err := o.Read(time.Now().Add(20 * time.Millisecond))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out
		}
		o.must(err)
		s.Data = slices.Clone(s.Data)
		out = append(out, s)
	}
}

func (f frame) swap() frame {
	f.src, f.dst, f.sport, f.dport = f.dst, f.src, 25, 40000
	return f
}

func TestObserverCopiesBothDirections(t *testing.T) {
	for _, p := range []frame{
		{src: "192.0.2.10", dst: "198.51.100.25"},
		{src: "2001:db8::10", dst: "2001:db8:1::25"},
		{src: "192.0.2.10", dst: "198.51.100.25", padding: []byte("padding of a short frame")},
		{src: "192.0.2.10", dst: "198.51.100.25", options: []byte{1, 1, 1, 1}},
	} {
		o := newObservation(t, ObserveOptions{})
		in, out := o.Observer.objects.ObserveIngress, o.Observer.objects.ObserveEgress
		o.see(in, p.build(), markJudged)
		o.see(out, with(p.swap(), func(f *frame) { f.flags = syn | ack }).build(), 0)
		o.see(out, with(p.swap(), func(f *frame) { f.flags, f.payload = ack, 30 }).build(), 0)
		o.see(in, with(p, func(f *frame) { f.flags, f.payload = ack, 3000 }).build(), markJudged)
		o.see(in, with(p, func(f *frame) { f.flags, f.payload = ack|fin, 7 }).build(), markJudged)
		got := o.segments()
		want := []Segment{
			{SYN: true, Seq: 1000}, {SYN: true, FromServer: true, Seq: 1000}, {FromServer: true, Seq: 1000, Data: make([]byte, 30)},
			{Seq: 1000, Data: make([]byte, 2048)}, {Seq: 3048, Data: make([]byte, 952)},
			{Seq: 1000, Data: make([]byte, 7)}, {FIN: true, Seq: 1007},
		}
		if len(got) != len(want) {
			t.Fatalf("%v: %d segments, want %d: %+v", p.src, len(got), len(want), got)
		}
		for i, w := range want {
			w.Client, w.Server = netip.AddrPortFrom(netip.MustParseAddr(p.src), 40000), netip.AddrPortFrom(netip.MustParseAddr(p.dst), 25)
			w.Began = got[0].Began
			g := got[i]
			if len(g.Data) != len(w.Data) {
				t.Errorf("%v: segment %d has %d bytes, want %d", p.src, i, len(g.Data), len(w.Data))
			}
			if g.Client != w.Client || g.Server != w.Server || g.Began != w.Began || g.Seq != w.Seq || g.FromServer != w.FromServer || g.SYN != w.SYN || g.FIN != w.FIN || g.RST {
				t.Errorf("%v: segment %d is %+v, want %+v", p.src, i, g, w)
			}
		}
	}
}

func TestObserverStopsAtItsLimit(t *testing.T) {
	o := newObservation(t, ObserveOptions{Limit: 3000})
	p := frame{src: "192.0.2.10", dst: "198.51.100.25"}
	in := o.Observer.objects.ObserveIngress
	o.see(in, p.build(), markJudged)
	for range 5 {
		o.see(in, with(p, func(f *frame) { f.flags, f.payload = ack, 1400 }).build(), markJudged)
	}
	for range 3 { // the end is told once
		o.see(in, with(p, func(f *frame) { f.flags, f.payload = ack|fin, 10 }).build(), markJudged)
	}
	total, ends := 0, 0
	for _, s := range o.segments() {
		total += len(s.Data)
		if s.FIN {
			ends++
		}
	}
	if total != 3000 || ends != 1 {
		t.Errorf("%d bytes and %d ends, want 3000 and 1", total, ends)
	}
}

// TestObserverGoesOnWhenTheOtherSideHasSpoken: the end of the copying is marked, and so is where it begins again.
func TestObserverGoesOnWhenTheOtherSideHasSpoken(t *testing.T) {
	for _, src := range [][2]string{{"192.0.2.10", "198.51.100.25"}, {"2001:db8::10", "2001:db8:1::25"}} {
		o := newObservation(t, ObserveOptions{Limit: 1000})
		p := frame{src: src[0], dst: src[1]}
		in, out := o.Observer.objects.ObserveIngress, o.Observer.objects.ObserveEgress
		say := func(n int) { o.see(in, with(p, func(f *frame) { f.flags, f.payload = ack, n }).build(), markJudged) }
		answer := func(n int, acked uint32) {
			o.see(out, with(p.swap(), func(f *frame) { f.flags, f.payload, f.ack = ack, n, acked }).build(), 0)
		}
		o.see(in, p.build(), markJudged)
		say(600)
		answer(0, 1600) // no words
		say(400)        // all that is copied, and no more was said
		answer(20, 2000)
		say(1400)
		say(1400) // not copied
		answer(0, 5000)
		answer(30, 6000)
		answer(1500, 6000)
		say(50)
		want := []Segment{
			{SYN: true, Seq: 1000}, {Seq: 1000, Data: make([]byte, 600)}, {Seq: 1000, Data: make([]byte, 400)}, {FromServer: true, Seq: 1000, Data: make([]byte, 20)},
			{Seq: 1000, Data: make([]byte, 1000)}, {Seq: 2000, Cut: true}, {Seq: 6000, Resumed: true}, {FromServer: true, Seq: 1000, Data: make([]byte, 30)},
			{FromServer: true, Seq: 1000, Data: make([]byte, 970)}, {FromServer: true, Seq: 1970, Cut: true}, {FromServer: true, Resumed: true}, {Seq: 1000, Data: make([]byte, 50)},
		}
		got := o.segments()
		if len(got) != len(want) {
			t.Fatalf("%v: %d segments, want %d: %+v", src, len(got), len(want), got)
		}
		for i, w := range want {
			g := got[i]
			if g.Seq != w.Seq || g.FromServer != w.FromServer || g.SYN != w.SYN || g.Cut != w.Cut || g.Resumed != w.Resumed || len(g.Data) != len(w.Data) || g.FIN || g.RST {
				t.Errorf("%v: segment %d is %+v, want %+v", src, i, g, w)
			}
		}
	}
}

func TestObserverSeesOnlyModeObserve(t *testing.T) {
	o := newObservation(t, ObserveOptions{})
	in, out := o.Observer.objects.ObserveIngress, o.Observer.objects.ObserveEgress
	p := frame{src: "192.0.2.10", dst: "198.51.100.25"}
	data := func(f *frame) { f.flags, f.payload = ack, 10 }

	o.see(in, p.build(), 0) // not forwarded by mail_ingress
	o.see(in, with(p, data).build(), markJudged)
	o.see(out, with(p.swap(), data).build(), 0)
	o.see(in, with(p, func(f *frame) { f.dport = 80 }).build(), markJudged)
	for _, m := range []Mode{ModePass, ModeShadow, ModeIntercept, ModeReject, ModeDrop} {
		o.configure(Source{Mode: m})
		o.see(in, p.build(), markJudged)
		o.see(in, with(p, data).build(), markJudged)
	}
	o.configure(Source{Mode: ModeObserve})
	o.exemptions(Exemption{Prefix: prefix("198.51.100.0/24"), Mode: ModePass})
	o.see(in, p.build(), markJudged)
	o.exemptions()
	if s := o.segments(); len(s) != 0 {
		t.Errorf("%d segments of flows that nobody observes: %+v", len(s), s)
	}
}

func TestObserverCountsWhatItLost(t *testing.T) {
	o := newObservation(t, ObserveOptions{Ring: 4096})
	in := o.Observer.objects.ObserveIngress
	for i := range 100 {
		o.see(in, frame{src: "192.0.2.10", dst: "198.51.100.25", sport: uint16(20000 + i)}.build(), markJudged)
	}
	c, err := o.Observer.Counts()
	o.must(err)
	if c.Flows != 100 || c.Lost == 0 || c.Segments+c.Lost != 100 {
		t.Errorf("counts are %+v, want 100 flows and as many segments and losses together", c)
	}
	if n := uint64(len(o.segments())); n != c.Segments {
		t.Errorf("%d segments came, %d were counted", n, c.Segments)
	}
}

func TestSegmentsOfAnyBytes(t *testing.T) {
	b := make([]byte, 80)
	binary.NativeEndian.PutUint16(b[52:], 25)
	for n := range len(b) {
		if _, err := ParseSegment(b[:n]); err == nil {
			t.Errorf("%d bytes were taken for a segment of 81", n)
		}
	}
}

// TestObserverSeesThatMapsWereMadeAnew: it has no rights to look into the folder of the pins by then.
func TestObserverSeesThatMapsWereMadeAnew(t *testing.T) {
	o := newObservation(t, ObserveOptions{})
	if o.Superseded() {
		t.Error("superseded at its start")
	}
	l := open(t, o.dir, Options{MaxHosts: 300_000})
	if o.Superseded() {
		t.Error("superseded before the older maps are let go")
	}
	l.must(l.Retire())
	if !o.Superseded() {
		t.Error("does not see that its maps are those of another version")
	}
}
