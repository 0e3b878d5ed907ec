package observe

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"sluice/bpf"
	"sluice/intercept/control"
)

func isMail(p uint16) bool { return p == 25 }

// packetsOf makes IP packets of segments, with the acknowledgements of a real dialogue.
func packetsOf(t *testing.T, v6 bool, segments []bpf.Segment) (out [][]byte, from []bool) {
	t.Helper()
	var next [2]uint32
	for _, s := range segments {
		src, dst := s.Client, s.Server
		if v6 {
			src, dst = netip.MustParseAddrPort("[2001:db8:1::10]:40000"), netip.MustParseAddrPort("[2001:db8:100::25]:25")
		}
		if s.FromServer {
			src, dst = dst, src
		}
		d := side(s.FromServer)
		tcp := &layers.TCP{SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), Seq: s.Seq, Ack: next[1-d], SYN: s.SYN, FIN: s.FIN,
			ACK: s.FromServer || !s.SYN, PSH: len(s.Data) > 0}
		var ip gopacket.SerializableLayer = &layers.IPv4{Version: 4, IHL: 5, TTL: 60, Protocol: layers.IPProtocolTCP, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
		if v6 {
			ip = &layers.IPv6{Version: 6, HopLimit: 60, NextHeader: layers.IPProtocolTCP, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
		}
		b := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, ip, tcp, gopacket.Payload(s.Data)); err != nil {
			t.Fatal(err)
		}
		next[d] = s.Seq + uint32(len(s.Data))
		if s.SYN || s.FIN {
			next[d]++
		}
		out, from = append(out, bytes.Clone(b.Bytes())), append(from, s.FromServer)
	}
	return out, from
}

// TestPackets: a source that passes on the first packets of what a side says, cut short, and does not say what it left out,
// is understood like one that does.
func TestPackets(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("x", 900)
	var body []string
	for range 10 {
		body = append(body, line)
	}
	script := append([]string{"S: 220 mx", "EHLO c.example", "S: 250 mx", "MAIL FROM:<1@b.example>", "S: 250 ok", "RCPT TO:<c@d.example>", "S: 250 ok", "DATA", "S: 354 go"}, body...)
	script = append(script, ".", "S: 250 queued", "MAIL FROM:<2@b.example>", "S: 250 ok", "RCPT TO:<e@f.example>", "S: 550 no", "RSET", "S: 250 ok", "QUIT", "S: 221 bye", "FIN")
	const want = "c.example | 1@b.example >c@d.example=250 250 whole | 2@b.example >e@f.example=550 550"
	for _, v6 := range []bool{false, true} {
		all, from := packetsOf(t, v6, talk(0, script...))
		headers := len(all[0])
		for _, budget := range []int{2, 4, 100} {
			for _, most := range []int{400, 700, 2000} {
				var got []*control.Observed
				obs, p := New(Options{}, whole(func(r *control.Observed) { got = append(got, r) })), NewPackets(isMail)
				var said [2]int
				for i, b := range all {
					d := side(from[i])
					if words := len(b) > headers; words {
						said[1-d] = 0
						if said[d]++; said[d] > budget {
							continue
						}
					}
					obs.AddPacket(p, b[:min(len(b), most)], noon)
				}
				obs.Close(noon)
				if len(got) != 1 || text(got[0]) != want {
					t.Errorf("IPv6 %v, %d packets of %d bytes: %d records\ngot  %s\nwant %s", v6, budget, most, len(got), text(got[0]), want)
				}
			}
		}
	}
}

// TestPacketsOfUsedPorts: the first number of a client tells its flow from an earlier one.
func TestPacketsOfUsedPorts(t *testing.T) {
	t.Parallel()
	first := talk(0, "S: 220 mx", "EHLO one.example", "S: 250 mx")
	second := talk(0, "S: 220 mx", "EHLO two.example", "S: 250 mx", "FIN")
	for i := range second {
		second[i].Seq += 1 << 20
	}
	all, _ := packetsOf(t, false, append(first, second...))
	var got []*control.Observed
	obs, p := New(Options{}, whole(func(r *control.Observed) { got = append(got, r) })), NewPackets(isMail)
	for _, b := range append([][]byte{all[0]}, all...) { // the first SYN comes twice
		obs.AddPacket(p, b, noon)
	}
	obs.Close(noon)
	if len(got) != 2 || got[0].Helo != "one.example" || got[1].Helo != "two.example" || obs.Seen() != 2 {
		t.Errorf("%d records of %d flows", len(got), obs.Seen())
	}
}

func TestPacketsOfAnyBytes(t *testing.T) {
	t.Parallel()
	all, _ := packetsOf(t, false, talk(0, "S: 220 mx", "EHLO c.example", "S: 250 mx", "MAIL FROM:<a@b.example>", "S: 250 ok", "FIN"))
	six, _ := packetsOf(t, true, talk(0, "S: 220 mx", "EHLO c.example", "S: 250 mx", "FIN"))
	all = append(all, six...)
	r := rand.New(rand.NewPCG(7, 7))
	obs, p := New(Options{Pages: 8, Memory: 4096, Flows: 50}, func(*control.Observed) {}), NewPackets(isMail)
	for range 20000 {
		b := bytes.Clone(all[r.IntN(len(all))])
		for range r.IntN(4) {
			b[r.IntN(len(b))] = byte(r.IntN(256))
		}
		obs.AddPacket(p, b[:r.IntN(len(b)+1)], noon)
	}
	obs.Close(noon)
	if obs.Open() != 0 || obs.Held() != 0 {
		t.Errorf("%d flows and %d bytes are left", obs.Open(), obs.Held())
	}
}

func TestFrames(t *testing.T) {
	t.Parallel()
	b := AppendFrame(nil, Packet, []byte("one"))
	b = AppendLost(AppendFrame(b, Piece, nil), 7)
	f := NewFrames(bytes.NewReader(b))
	for _, want := range []struct {
		kind Kind
		text string
	}{{Packet, "one"}, {Piece, ""}} {
		if kind, got, err := f.Next(); kind != want.kind || string(got) != want.text || err != nil {
			t.Errorf("a frame %d %q %v, want %d %q", kind, got, err, want.kind, want.text)
		}
	}
	if kind, got, err := f.Next(); kind != Lost || LostOf(got) != 7 || err != nil {
		t.Errorf("a frame %d %v %v, want the number 7", kind, got, err)
	}
	if _, _, err := f.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for n := 1; n < 5; n++ {
		if _, _, err := NewFrames(bytes.NewReader(b[:n])).Next(); err == nil {
			t.Errorf("%d bytes were taken for a frame", n)
		}
	}
	if _, _, err := NewFrames(bytes.NewReader([]byte{1, 255, 255, 255, 255})).Next(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a frame of 4 GiB: %v", err)
	}
}
