// Package observe reads the SMTP dialogues of flows that nobody touches, from the beginnings that the kernel copies, and
// tells who sent what to whom and what the server said. It decides nothing, and mail never waits for it.
package observe

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/tcpassembly"

	"sluice/bpf"
	"sluice/intercept/control"
)

// Options bound the memory: at most Flows times twice Limit, and Pages of 2 KB for what comes out of order.
type Options struct {
	Limit int           // bytes of each direction that the source copies
	Flows int           // open at once; default 16,384
	Pages int           // of all flows together; default 4,096, and 16 of one direction
	Idle  time.Duration // a flow that says nothing for so long is over; default 5 minutes
}

// Observer puts segments together and gives a record for each flow that ended. It is for one goroutine.
type Observer struct {
	o     Options
	give  func(*control.Observed)
	flows map[flowKey]*flow
	next  uint64
	now   time.Time
	asm   *tcpassembly.Assembler
	born  *flow // of the segment under way: a stream is made for it
	side  bool
	seen  uint64
	lost  uint64
}

type flowKey struct{ client, server netip.AddrPort }

// flow is one that is open.
type flow struct {
	id       uint64
	key      flowKey
	began    uint64 // as the source says
	dialogue *dialogue
	copied   [2]int    // bytes, by direction, the server's second; what came twice counts twice
	first    [2]uint32 // sequence numbers of the SYNs
	last     [2]uint32 // and behind the last byte
	ended    [2]bool
	reset    time.Time // when somebody sent an RST, which the other side may have refused
	heard    time.Time
}

// New makes an observer that gives its records to give.
func New(o Options, give func(*control.Observed)) *Observer {
	if o.Flows == 0 {
		o.Flows = 16384
	}
	if o.Pages == 0 {
		o.Pages = 4096
	}
	if o.Idle == 0 {
		o.Idle = 5 * time.Minute
	}
	obs := &Observer{o: o, give: give, flows: make(map[flowKey]*flow)}
	obs.asm = tcpassembly.NewAssembler(tcpassembly.NewStreamPool(obs))
	obs.asm.MaxBufferedPagesPerConnection = 16
	obs.asm.MaxBufferedPagesTotal = o.Pages
	return obs
}

// Seen tells how many flows began, Lost how many of them were one too many.
func (o *Observer) Seen() uint64 { return o.seen }

// Lost tells how many flows there was no room for.
func (o *Observer) Lost() uint64 { return o.lost }

// Open tells how many flows are open.
func (o *Observer) Open() int { return len(o.flows) }

// Add takes a segment. A flow begins with the SYN of its client; other segments of unknown flows are let go.
func (o *Observer) Add(s bpf.Segment, at time.Time) {
	o.now = at
	f := o.find(s, at)
	if f == nil {
		return
	}
	f.heard = at
	d := 0
	if s.FromServer {
		d = 1
	}
	if s.SYN {
		f.first[d], f.last[d] = s.Seq, s.Seq+1
	}
	f.copied[d] += len(s.Data)
	full := f.copied[d] >= o.o.Limit
	switch beyond := int32(s.Seq + uint32(len(s.Data)) - f.last[d]); {
	case s.RST:
		f.reset = at
	case s.FIN && beyond < 0: // the receiver takes no end in the midst of what it has
	case s.FIN && full: // it stands behind bytes that nobody copied
		f.ended[d] = true
	case len(s.Data) > 0 && beyond > 0 && (f.ended[d] || !f.reset.IsZero()):
		f.dialogue.gap(s.FromServer) // the end was a sham that only we believed
	default:
		if beyond > 0 && len(s.Data) > 0 {
			f.last[d] += uint32(beyond)
		}
		o.assemble(f, s.FromServer, &layers.TCP{Seq: s.Seq, SYN: s.SYN, FIN: s.FIN, BaseLayer: layers.BaseLayer{Payload: s.Data}})
	}
	if full && !f.dialogue.full[d] {
		f.dialogue.fill(s.FromServer, at)
	}
	if f.dialogue.out.Opaque || f.ended == [2]bool{true, true} {
		o.end(f)
	}
}

// find returns the flow of a segment, which may begin with it, or nil.
func (o *Observer) find(s bpf.Segment, at time.Time) *flow {
	key := flowKey{s.Client, s.Server}
	f := o.flows[key]
	if f != nil && f.began == s.Began {
		return f
	}
	if !s.SYN || s.FromServer || (f != nil && s.Began < f.began) {
		return nil // of a flow that is over, or began before us
	}
	if f != nil {
		o.replace(f)
	} else if o.seen++; len(o.flows) >= o.o.Flows {
		o.lost++
		return nil
	}
	o.next++
	f = &flow{id: o.next, key: key, began: s.Began, dialogue: newDialogue()}
	f.dialogue.out.Client, f.dialogue.out.Target, f.dialogue.out.Start = s.Client, s.Server, at
	o.flows[key] = f
	return f
}

// replace ends a flow whose ports begin another one. Where nobody had said anything the client repeats its SYN.
func (o *Observer) replace(f *flow) {
	if f.copied == [2]int{} {
		o.forget(f)
		return
	}
	o.seen++
	o.end(f)
}

func (o *Observer) assemble(f *flow, server bool, tcp *layers.TCP) {
	o.born, o.side = f, server
	o.asm.AssembleWithTimestamp(o.name(f, server), tcp, o.now)
}

// name identifies one direction of one flow for the reassembly, also where ports are used again.
func (o *Observer) name(f *flow, server bool) gopacket.Flow {
	var id [9]byte
	binary.BigEndian.PutUint64(id[:], f.id)
	if server {
		id[8] = 1
	}
	return gopacket.NewFlow(gopacket.EndpointType(0), id[:8], id[8:])
}

// New makes the stream of the direction that Add is at; the reassembly asks for it.
func (o *Observer) New(gopacket.Flow, gopacket.Flow) tcpassembly.Stream {
	return &stream{flow: o.born, server: o.side, observer: o}
}

// stream hands one direction to its dialogue.
type stream struct {
	observer *Observer
	flow     *flow
	server   bool
}

// Reassembled takes bytes in order.
func (s *stream) Reassembled(list []tcpassembly.Reassembly) {
	for _, r := range list {
		if r.Skip != 0 {
			s.flow.dialogue.gap(s.server)
		}
		if len(r.Bytes) > 0 {
			s.flow.dialogue.add(s.server, r.Bytes, s.observer.now)
		}
	}
}

// ReassemblyComplete is told when a direction has ended.
func (s *stream) ReassemblyComplete() {
	if s.server {
		s.flow.ended[1] = true
	} else {
		s.flow.ended[0] = true
	}
}

// end gives the record of a flow and forgets it.
func (o *Observer) end(f *flow) {
	o.forget(f)
	o.give(f.dialogue.close(o.now))
}

// forget lets go of a flow and its streams, which may wait for bytes that never come: an end at the very beginning is
// always in order.
func (o *Observer) forget(f *flow) {
	delete(o.flows, f.key)
	for d, server := range []bool{false, true} {
		o.assemble(f, server, &layers.TCP{Seq: f.first[d] + 1, RST: true})
	}
}

const (
	patience = 10 * time.Second // bytes that came too early wait for those before them
	quiet    = 2 * time.Second  // after an RST: then it was meant
)

// Tick ends flows that have said nothing for long, and gives up waiting for bytes that never came.
func (o *Observer) Tick(now time.Time) {
	o.now = now
	o.asm.FlushWithOptions(tcpassembly.FlushOptions{T: now.Add(-min(patience, o.o.Idle))})
	o.asm.FlushOlderThan(now.Add(-2 * o.o.Idle))
	for _, f := range o.flows {
		silence := now.Sub(f.heard)
		if silence >= o.o.Idle || (!f.reset.IsZero() && silence >= quiet) || f.ended == [2]bool{true, true} {
			o.end(f)
		}
	}
}

// Close ends every flow, as the observer's own end does.
func (o *Observer) Close(now time.Time) {
	o.now = now
	for _, f := range o.flows {
		o.end(f)
	}
}
